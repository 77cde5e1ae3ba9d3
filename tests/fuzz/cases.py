"""What a configuration is, and how one is drawn."""

import random
from dataclasses import dataclass, field

import torch

NAMES = {  # of the class, its other arguments, and the number of gates
    "lstm": ("LSTM", {}, 4),
    "gru": ("GRU", {}, 3),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}, 1),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}, 1),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
LAYOUTS = ("plain", "offset", "strided", "transposed", "expanded", "overlapping")
# Round registers and panels, and odd.
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129)
EXTREMES = (0.0, 1e-30, 1e4, -1e4, 1e30, -1e30, torch.inf, -torch.inf, torch.nan)
WORK = 4_000_000  # multiply-adds of a forward pass, at most; ten of such take a tenth of a second
MISTAKES = ("wide x", "another dtype", "state too many", "wide state", "flat x")


@dataclass
class Case:
    """One configuration; ``seed`` is where its numbers are drawn from."""

    seed: str
    kind: str
    cell: bool
    dtype: torch.dtype
    I: int
    H: int
    T: int
    B: int | None  # None: not a batch
    options: dict  # of the module
    lengths: list | None  # of packed sequences, falling; B of them
    order: list | None  # of them before they were sorted, if they were
    states: bool  # whether initial ones are given
    grad: str  # "train", "no_grad" or "inference"
    used: float  # the share of outputs whose gradients are there
    frozen: float  # the share of tensors that ask for no gradient
    layouts: tuple  # to draw from
    extremes: list = field(default_factory=list)  # (a number for the tensor, the value, all of it)
    mistake: str | None = None

    def __str__(self):
        name, more, _ = NAMES[self.kind]
        options = ", ".join(f"{k}={v}" for k, v in (more | self.options).items() if v)
        said = [f"{name}{'Cell' * self.cell}({self.I}, {self.H}{', ' * bool(options)}{options})"]
        said += [str(self.dtype).removeprefix("torch."), f"T {self.T}, B {self.B}", self.grad]
        said += [f"lengths {self.lengths}, sorted from {self.order}"] * bool(self.lengths)
        said += ["no states given"] * (not self.states)
        said += [f"extremes {self.extremes}"] * bool(self.extremes)
        said += [f"frozen {self.frozen}"] * bool(self.frozen)
        said += [f"gradients of {self.used}"] * (self.used < 1)
        said += [f"layouts {', '.join(self.layouts)}"] * (len(self.layouts) > 1)
        said += [f"mistake: {self.mistake}"] * bool(self.mistake)
        return "; ".join(said)


def draw(seed, i):
    """The ``i``-th configuration of a seed."""
    r = random.Random(f"{seed}/{i}")
    often = r.random
    kind, cell, dtype = r.choice(list(NAMES)), often() < 0.25, r.choice(DTYPES)
    I, H, B = _size(r), _size(r), r.choice((1, 2, 3, r.randint(1, 40)))
    T = 1 if cell or often() < 0.25 else r.randint(2, 12)
    I, H, B, T = (0 if often() < 0.01 else n for n in (I, H, B, T))
    options = {"bias": often() < 0.8}
    if not cell:
        options |= {
            "num_layers": r.choice((1, 1, 1, 2, 3)),
            "bidirectional": often() < 0.4,
            "batch_first": often() < 0.4,
            "recompute": often() < 0.3,
        }
        if kind == "lstm" and often() < 0.4:
            options["proj_size"] = r.randint(1, max(1, H - 1))
    I, H, T, B = _held(kind, I, H, T, B, options)
    lengths = order = None
    if often() < 0.1:
        B = None
    elif not cell and T and B and often() < 0.3:
        lengths = sorted((r.randint(1, T) for _ in range(B)), reverse=True)
        if often() < 0.5:
            order = r.sample(range(B), B)
    extremes = []
    if often() < 0.25:
        for _ in range(r.randint(1, 2)):
            extremes.append((r.randrange(1000), r.choice(EXTREMES), often() < 0.2))
    return Case(
        f"{seed}/{i}", kind, cell, dtype, I, H, T, B, options, lengths, order,
        states=often() < 0.7,
        grad=r.choice(("train",) * 8 + ("no_grad", "inference")),
        used=r.choice((1, 1, 0.5)),
        frozen=r.choice((0, 0, 0.3, 0.8)),
        layouts=r.choice((("plain",), LAYOUTS)),
        extremes=extremes,
        mistake=r.choice(MISTAKES) if often() < 0.02 else None,
    )  # fmt: skip


def _size(r):
    return r.choice(SIZES) if r.random() < 0.5 else r.randint(1, 180)


def _held(kind, I, H, T, B, options):
    """The sizes, made smaller until the work is."""
    gates, D = NAMES[kind][2], 1 + options.get("bidirectional", False)
    layers = options.get("num_layers", 1)

    def work():
        wide = I + H + (layers - 1) * (D * H + H)
        return T * B * D * gates * H * wide

    while work() > WORK:
        if max(B, T) > 2 and B * T > 8:
            B, T = (B // 2, T) if B >= T else (B, T // 2)
        else:
            H = H // 2
            if "proj_size" in options:
                options["proj_size"] = min(options["proj_size"], max(1, H - 1))
    return I, H, T, B
