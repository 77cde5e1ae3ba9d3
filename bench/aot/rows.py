"""What is compiled: every tile that the choice gives to common layers on common GPUs."""

from itertools import product
from typing import NamedTuple

from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu import sizes, tiles

from .compiler import Layer, compiled, resources, target

KIB = 1024
# A GPU of each kind: processors, shared memory of a program and of a multiprocessor.
GPUS = {
    "sm80": sizes.Device(80, 108, 163 * KIB, 164 * KIB),
    "sm86": sizes.Device(86, 84, 99 * KIB, 100 * KIB),
    "sm89": sizes.Device(89, 128, 99 * KIB, 100 * KIB),
    "sm90": sizes.Device(90, 132, 227 * KIB, 228 * KIB),
    "sm100": sizes.Device(100, 148, 227 * KIB, 228 * KIB),
    "sm120": sizes.Device(120, 170, 99 * KIB, 100 * KIB),
    "gfx942": sizes.Device(0x942, 304, 64 * KIB, 64 * KIB),
}
SHORT = ("sm86", "sm89", "sm120")  # much alike: the LSTM alone, where matrix units multiply
WIDTHS = (64, 128, 256, 512, 768, 1024, 1536)
BATCHES = (1, 64, 128)
ARITHMETICS = {
    "bfloat16": ("bfloat16", False),
    "float16": ("float16", False),
    "tf32": ("float32", True),
    "float32": ("float32", False),
}


class Row(NamedTuple):
    """One kernel on one kind of GPU."""

    gpu: str
    cell: str
    arithmetic: str
    H: int
    layout: str  # of the rows: "dense" or "packed"
    direction: str  # "forward" or "backward"
    tile: tuple

    @property
    def shared(self):
        """Bytes of shared memory, as the choice of tiles reckons."""
        kind = sizes.precision(*ARITHMETICS[self.arithmetic])
        reckon = sizes.KERNELS[self.direction].shared
        return reckon(self._tile, CELLS[self.cell].gates, kind, self.H)

    @property
    def _tile(self):
        return sizes.KERNELS[self.direction].tile(*self.tile)

    def compile(self):
        """What the compiler says, see ``resources``."""
        found = compiled(
            target(self.gpu),
            Layer(
                CELLS[self.cell],
                *ARITHMETICS[self.arithmetic],
                self.H,
                packed=self.layout == "packed",
            ),
            **{self.direction: self._tile},
        )
        return resources(found[self.direction])

    def in_ci(self):
        """Whether the tests compile it: those that matter most, and some of every kind."""
        if self.gpu == "sm90" and self.cell == "lstm":
            widths = {"bfloat16": (128, 512, 1024), "tf32": (256,), "float32": (256,)}
            widths = {"bfloat16": (512,)} if self.layout == "packed" else widths
            return self.H in widths.get(self.arithmetic, ())
        return self.cell == "gru" and self.arithmetic == "bfloat16" and self.H == 256


def rows():
    """Every Row, in an order that does not change."""
    found = {}
    for gpu, cell, arithmetic, H, B in product(GPUS, CELLS, ARITHMETICS, WIDTHS, BATCHES):
        if gpu in SHORT and (cell != "lstm" or arithmetic == "float32"):
            continue
        if cell == "rnn_relu" and (H != 512 or B != 64):  # the cell itself is all that differs
            continue
        if arithmetic == "float16" and (cell != "lstm" or gpu != "sm90"):  # as bfloat16
            continue
        if arithmetic == "tf32" and gpu.startswith("gfx"):  # see products.tf32
            continue
        if arithmetic == "float32" and H not in (64, 256, 512):  # without matrix units: slow
            continue
        if B > 64 and gpu != "sm90":
            continue
        layer = (CELLS[cell].gates, *ARITHMETICS[arithmetic], B, H, 1, GPUS[gpu])
        layouts = ("dense", "packed") if gpu == "sm90" else ("dense",)
        for layout, direction in product(layouts, ("forward", "backward")):
            tile = getattr(tiles, f"choose_{direction}")(*layer)
            if not isinstance(tile, str):
                found[Row(gpu, cell, arithmetic, H, layout, direction, tuple(tile))] = None
    return list(found)


def compile_row(row):
    """(row, its figures, or {"error": ...} where the compiler has none)."""
    try:
        return row, row.compile()
    except Exception as error:
        return row, {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
