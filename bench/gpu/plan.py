"""What is done, in which order: sections of items, each item a dictionary of plain values."""

from dataclasses import asdict, dataclass
from itertools import product

from ..cases import Case

ARITHMETICS = {  # and the dtype of the tensors
    "bfloat16": "bfloat16",
    "float16": "float16",
    "tf32": "float32",
    "float32": "float32",
}


HERE = "bench.gpu.worker"
# Looks at a counter, in checks: some 20 ms. No program that runs at the same time is so late.
PATIENCE = 20_000


@dataclass(frozen=True)
class Section:
    """A part of the run. ``run``: module:function, which does one item and yields its rows."""

    name: str
    run: str
    items: list
    share: float  # of the whole time; what is left undone goes on at the end, in this order
    limit: float  # seconds for an item


def item(cell, arithmetic, T, B, H, I=None, *, relu=False, mode="training", **more):
    """An item about a layer."""
    case = Case(
        cell, T, B, I or H, H, mode=mode, device="cuda", dtype=ARITHMETICS[arithmetic], **more
    )
    return {"case": asdict(case), "arithmetic": arithmetic, "relu": relu}


def layers():
    """The cells, each as ``item`` takes it."""
    return [("LSTM", {}), ("GRU", {}), ("RNN", {}), ("RNN", {"relu": True})]


def first_checks():
    """Every cell and arithmetic, one program and several, at odd sizes."""
    for arithmetic, (cell, more) in product(ARITHMETICS, layers()):
        yield item(cell, arithmetic, 33, 5, 40, I=24, **more)
        yield item(cell, arithmetic, 40, 33, 200, I=100, **more)


def more_checks():
    """Directions, packed rows, stacks, the widths of the tile table, a step, a long sequence."""
    for cell, more in layers():
        yield item(cell, "bfloat16", 30, 19, 256, directions=2, **more)
        yield item(cell, "bfloat16", 50, 21, 130, packed=True, **more)
        yield item(cell, "float32", 30, 17, 96, directions=2, packed=True, layers=2, **more)
        yield item(cell, "bfloat16", 20, 64, 1024, **more)
        yield item(cell, "float16", 20, 64, 768, **more)
        yield item(cell, "tf32", 20, 16, 512, **more)
        yield item(cell, "float32", 20, 16, 512, **more)
        yield item(cell, "bfloat16", 1, 3, 300, **more)
        yield item(cell, "float32", 3, 1, 1, I=1, **more)
        yield item(cell, "float32", 2000, 2, 64, **more)
    yield item("LSTM", "float32", 20, 7, 96, projection=40)
    yield item("LSTM", "float16", 30, 19, 200, projection=64, directions=2, packed=True)
    yield item("LSTM", "bfloat16", 20, 300, 1024, directions=2)  # in several launches
    yield item("GRU", "float32", 12, 100, 512, packed=True)
    yield item("LSTM", "bfloat16", 20, 16, 1536, mode="inference")
    yield item("LSTM", "tf32", 20, 16, 768)


BEHAVIOURS = (
    "deterministic", "graph", "streams", "oversize", "very_long", "beyond_2_31", "recompute",
    "inference_keeps_nothing", "tf32_as_told", "default_flags", "second_derivative", "autocast",
    "compiled", "reduced_overhead", "reduced_overhead_packed", "exported", "another_device",
)  # fmt: skip


def headlines():
    """The sizes that are promised, one of each class first."""
    yield item("LSTM", "bfloat16", 512, 64, 512)
    yield item("LSTM", "float16", 1024, 16, 768)  # as FlashRNN publishes it
    yield item("LSTM", "tf32", 512, 64, 512)
    yield item("GRU", "bfloat16", 512, 64, 512)
    yield item("LSTM", "bfloat16", 512, 64, 128)
    yield item("LSTM", "bfloat16", 512, 64, 512, packed=True)
    yield item("LSTM", "bfloat16", 512, 32, 512, directions=2)
    yield item("LSTM", "bfloat16", 512, 32, 1024)
    yield item("LSTM", "bfloat16", 1024, 16, 768)
    yield item("LSTM", "bfloat16", 512, 16, 256)
    yield item("LSTM", "bfloat16", 512, 1, 512)
    yield item("RNN", "bfloat16", 512, 64, 512)
    yield item("GRU", "bfloat16", 512, 64, 128)
    yield item("LSTM", "float16", 512, 64, 512)
    yield item("LSTM", "float16", 512, 32, 1024)
    yield item("LSTM", "float16", 512, 64, 192)
    yield item("LSTM", "tf32", 512, 16, 768)
    yield item("LSTM", "float32", 512, 32, 256)
    yield item("GRU", "tf32", 512, 32, 256)
    yield item("LSTM", "bfloat16", 512, 64, 1024)
    yield item("LSTM", "bfloat16", 512, 128, 128, packed=True)
    yield item("LSTM", "bfloat16", 512, 64, 1024, projection=256)


def verdicts():
    """What the engine ships verdicts on: the headlines, in both modes."""
    for one, mode in product(headlines(), ("inference", "training")):
        if not one["case"]["projection"]:  # which is computed apart: a layer like any other
            yield one | {"case": one["case"] | {"mode": mode}, "mode": mode}


def short():
    """Few steps, where what a call takes by itself decides who is faster."""
    cells, arithmetics = ("LSTM", "GRU"), ("bfloat16", "tf32")
    for T, arithmetic, cell in product((8, 32, 1, 128), arithmetics, cells):
        for B, H in ((64, 512), (16, 256)):
            yield item(cell, arithmetic, T, B, H)


def grid():
    """Coarse first: so that a table of half of it is a table of everywhere."""
    coarse = list(product((128, 512, 1024), (64, 8)))
    fine = list(product((64, 128, 256, 512, 768, 1024), (64, 1, 16, 32, 128, 256)))
    done = list(headlines())
    for sizes in (coarse, [s for s in fine if s not in coarse]):
        for (H, B), arithmetic, cell in product(
            sizes, ("bfloat16", "tf32", "float16", "float32"), ("LSTM", "GRU", "RNN")
        ):
            if H > 768 and ARITHMETICS[arithmetic] == "float32":
                continue
            one = item(cell, arithmetic, 512, B, H)
            if one not in done:
                yield one


def tunings():
    """Layers whose tiles are tried, all that fit."""
    for cell, arithmetic, B, H in (
        ("LSTM", "bfloat16", 64, 512),
        ("LSTM", "bfloat16", 16, 768),
        ("LSTM", "bfloat16", 32, 1024),
        ("LSTM", "bfloat16", 64, 256),
        ("LSTM", "bfloat16", 64, 128),
        ("GRU", "bfloat16", 64, 512),
        ("LSTM", "tf32", 32, 512),
        ("LSTM", "tf32", 32, 256),
        ("RNN", "bfloat16", 64, 512),
        ("LSTM", "bfloat16", 16, 512),
        ("LSTM", "bfloat16", 128, 512),
        ("GRU", "bfloat16", 64, 128),
        ("GRU", "bfloat16", 32, 1024),
        ("LSTM", "float32", 32, 256),
    ):
        for direction in ("forward", "backward"):
            yield item(cell, arithmetic, 256, B, H) | {"direction": direction}


def sections():
    """All of them, the most important first."""
    behaviours = [{"what": what} for what in BEHAVIOURS]
    return [
        Section("environment", f"{HERE}:environment", [{}], 0.08, 60),
        Section("first checks", f"{HERE}:check", list(first_checks()), 0.2, 60),
        Section("headlines", f"{HERE}:measure", list(headlines()), 0.2, 60),
        Section("verdicts", f"{HERE}:prove", list(verdicts()), 0.15, 60),
        Section("behaviour", f"{HERE}:behave", behaviours, 0.1, 90),
        Section("more checks", f"{HERE}:check", list(more_checks()), 0.1, 60),
        Section("tuning", f"{HERE}:tune", list(tunings()), 0.1, 60),
        Section("short", f"{HERE}:measure", list(short()), 0.06, 60),
        Section("grid", f"{HERE}:measure", list(grid()), 0.0, 60),
    ]
