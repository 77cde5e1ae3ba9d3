"""What is measured, as data: a case, and suites of cases."""

from dataclasses import dataclass, fields, replace
from itertools import product

import torch

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# The widest is that of torch.nn itself: it adds up bfloat16 gradients of GRU's and RNN's recurrent
# weights step by step, and is 8e-2 off after 2000 steps.
TOLERANCE = {"float64": 1e-10, "float32": 2e-4, "float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Case:
    """One thing to time. T steps of B sequences, I inputs, H hidden units."""

    cell: str  # LSTM, GRU or RNN
    T: int
    B: int
    I: int
    H: int
    mode: str = "training"  # forward and backward; or "inference"
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    autocast: bool = False  # to bfloat16
    layers: int = 1
    directions: int = 1
    projection: int = 0  # proj_size
    packed: bool = False  # a PackedSequence, lengths uniform in 1..T
    step: bool = False  # the Cell: one step
    nonlinearity: str = "tanh"  # of RNN; or "relu"
    streamed: bool = False  # T calls of one step, the state carried from each to the next

    @classmethod
    def of_row(cls, row):
        """The case that a row of a result file is about; a field that it lacks is as by default.

        TypeError if it lacks one that has no default.
        """
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})

    @property
    def training(self):
        return self.mode == "training"

    @property
    def size(self):
        return f"{self.B}x{self.H}" if self.step else f"{self.T}x{self.B}x{self.H}"

    @property
    def variant(self):
        """What sets this case apart from a plain layer; "" for a plain one."""
        parts = {
            "I!=H": self.I != self.H,
            f"{self.layers} layers": self.layers > 1,
            "bidirectional": self.directions > 1,
            "projected": self.projection,
            "packed": self.packed,
            "streamed": self.streamed,
            "relu": self.nonlinearity == "relu",
            self.dtype: self.dtype != "float32",
            "autocast": self.autocast,
        }
        return " ".join(name for name, on in parts.items() if on)

    @property
    def kind(self):
        """The group of cases that this one is reported with, such as "packed LSTM"."""
        return f"{self.variant} {self.cell}{'Cell' if self.step else ''}".strip()

    @property
    def label(self):
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.kind} {self.mode} {self.size}, {threads}"

    @property
    def lengths(self):
        """Each sequence's length, falling; the longest has all T steps."""
        if not self.packed:
            return [self.T] * self.B
        drawn = torch.randint(1, self.T + 1, (self.B - 1,), generator=torch.manual_seed(0))
        return [self.T, *sorted(drawn.tolist(), reverse=True)]

    @property
    def tolerance(self):
        """How far from torch.nn a result may be, against the largest element it has."""
        return TOLERANCE["bfloat16" if self.autocast else self.dtype]

    @property
    def arguments(self):
        """Of the constructor in torch.nn."""
        sizes = {"input_size": self.I, "hidden_size": self.H}
        if self.nonlinearity != "tanh":
            sizes["nonlinearity"] = self.nonlinearity
        if self.step:
            return sizes
        more = {"num_layers": self.layers, "bidirectional": self.directions == 2}
        return {**sizes, **more, **({"proj_size": self.projection} if self.projection else {})}

    def matrices(self):
        """(elements of the input weights, of the recurrent ones) of each layer and direction."""
        S = self.projection or self.H
        for layer in range(self.layers):
            width = self.I if layer == 0 else S * self.directions
            for _ in range(self.directions):
                rows = GATES[self.cell] * self.H
                yield rows * width, rows * S + self.projection * self.H

    @property
    def flops(self):
        """Of the matrix products; the pointwise part is left out. Backward has twice forward's."""
        weights = sum(ih + hh for ih, hh in self.matrices())
        return 2 * sum(self.lengths) * weights * (3 if self.training else 1)

    @property
    def itemsize(self):
        return getattr(torch, self.dtype).itemsize

    @property
    def recurrent_bytes(self):
        """All recurrent weights: what every step has to read, from whichever cache holds them."""
        return sum(hh for _, hh in self.matrices()) * self.itemsize

    @property
    def traffic(self):
        """Bytes that must move at the least: inputs, outputs and weights once, gradients too."""
        weights = sum(ih + hh for ih, hh in self.matrices())
        rows = sum(self.lengths) * (self.I + (self.projection or self.H) * self.directions)
        return (weights + rows) * self.itemsize * (2 if self.training else 1)


def _grid(sizes):
    """A plain case of each cell at each (T, B, H)."""
    return [Case(cell, T, B, H, H) for cell in GATES for T, B, H in sizes]


_SIZES = [(500, 32, 64), (100, 1, 128), (100, 1, 512), (100, 4, 256), (100, 16, 128)]
_SIZES += [(100, 32, 256), (100, 64, 512), (50, 64, 1024), (100, 256, 256), (2000, 1, 64)]


def _starred(cases):
    """The variants of plain cases."""
    for case in cases:
        yield replace(case, I=case.H // 2)
        yield replace(case, layers=2)
        yield replace(case, directions=2)
        yield replace(case, packed=True)
        yield replace(case, dtype="float64")
        yield replace(case, autocast=True)
        if case.cell == "LSTM":
            yield replace(case, projection=case.H // 2)


def _steps():
    """The three cells, one step."""
    sizes = [(1, B, H) for B in (1, 64) for H in (128, 512)]
    return [replace(case, step=True) for case in _grid(sizes)]


def _calls(Ts, Bs, Hs):
    """Calls so short that what surrounds the arithmetic counts: four cells, stacks, directions.

    All sizes of a kind stand together.
    """
    cells = [(cell, "tanh") for cell in GATES] + [("RNN", "relu")]
    return [
        Case(cell, T, B, H, H, nonlinearity=name, layers=layers, directions=directions)
        for cell, name in cells
        for layers, directions in product((1, 2), (1, 2))
        for T, B, H in product(Ts, Bs, Hs)
    ]


def _streams():
    """One second of sound in frames of 10 ms, as speech enhancement takes them."""
    cells = ("LSTM", "GRU")
    return [Case(cell, 100, 1, H, H, streamed=True) for cell in cells for H in (64, 128, 256)]


def _inference():
    """What layers with weights of eight bits are for: the core sizes and more, and streams."""
    more = [(100, 1, 256), (100, 1, 1024), (100, 16, 256), (100, 16, 512), (50, 16, 1024)]
    return [case for case in _grid([*_SIZES, *more]) if case.cell != "RNN"] + _streams()


_CORE = _grid(_SIZES)
_WIDTHS = (32, 64, 128, 256, 512)
SUITES = {
    "quick": _grid([(100, 1, 128), (100, 16, 128), (100, 32, 256)]),
    "core": _CORE,
    "full": [*_CORE, *_starred(_CORE), *_steps()],
    "short": _grid([(16, 1, 128), (16, 32, 256)]),
    "calls": _calls((1, 2, 4, 8, 16), (1, 4, 32), _WIDTHS),
    "step": _calls((1,), (1,), _WIDTHS),
    "streaming": _streams(),
    "quantized": _inference(),
    "grid": _grid([(100, B, H) for B in (1, 4, 16, 64, 256) for H in (64, 128, 256, 512)]),
    "scaling": [
        *_grid([(T, 1, 64) for T in (1000, 3000, 10_000, 30_000, 100_000)]),
        *_grid([(100, 32, H) for H in (32, 64, 96, 128, 192, 256, 384, 512, 768)]),
    ],
    "scan": [
        *_grid([(50, 32, H) for H in range(16, 273)]),
        *_grid([(50, B, 128) for B in range(1, 41)]),
    ],
}
