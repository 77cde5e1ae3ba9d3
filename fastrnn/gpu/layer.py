"""A layer of any cell: by our kernels, as it is served without them, and in float64.

Of torch's cells the layers are fastrnn's and torch.nn's, of others our engine and plain PyTorch.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn

from .. import backends
from ..autograd import run_layer
from ..kernels import schedule
from ..kernels.cells import CELLS
from ..kernels.keep import Keep
from ..kernels.weights import Weights
from . import oracle

MODULES = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
}
JUMPS = ("relu", "where", "maximum", "minimum", "abs")  # whose derivatives do, or may


class Numbers(NamedTuple):
    """Of a call: {"x": ..., "h0": ...}, of packed rows their batch_sizes, gradients of results."""

    leaves: dict
    sizes: torch.Tensor | None
    grads: list

    def double(self):
        leaves = {name: tensor.double() for name, tensor in self.leaves.items()}
        return self._replace(leaves=leaves, grads=[g.double() for g in self.grads])


class Own(nn.Module):
    """A layer of a cell that torch has not, on one engine."""

    recompute = False

    def __init__(self, engine, cell, I, H, D, **options):
        super().__init__()
        self.engine, self.cell, self.D = engine, cell, D
        G, hh = cell.gates * H, cell.recurrent
        shapes = Weights((G, I), hh and (G, H), (G,), hh and (G,), None, cell.own and (cell.own, H))
        self.fields = [name for name, shape in shapes._asdict().items() if shape]
        for d in range(D):
            for name in self.fields:
                shape = getattr(shapes, name)
                weight = torch.empty(shape, **options).uniform_(-1, 1) / (H**0.5)
                self.register_parameter(f"{name}_{d}", nn.Parameter(weight))

    def forward(self, input, hx, inputs=None):
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input.flatten(0, 1)
        steps = schedule.packed(input.batch_sizes) if packed else schedule.dense(*input.shape[:2])
        directions = [
            Weights(*[getattr(self, f"{name}_{d}", None) for name in Weights._fields])
            for d in range(self.D)
        ]
        keep = Keep.STATES if self.recompute else Keep.ALL
        y, finals = run_layer(self.engine, self.cell, x, steps, directions, hx, keep, inputs)
        y = PackedSequence(y, input.batch_sizes) if packed else y.view(*input.shape[:2], -1)
        return y, tuple(finals)


class Layer:
    """Layers with their weights: of torch's cells there may be several, and projected ones.

    arithmetic: float16, bfloat16, tf32 or float32.
    """

    def __init__(self, cell, arithmetic, H, D, training, device, layers=1, projection=0):
        self.cell, self.arithmetic, self.H, self.D = cell, arithmetic, H, D
        self.training, self.device = training, device
        self.layers, self.projection = layers, projection
        self.dtype = torch.float32 if arithmetic == "tf32" else getattr(torch, arithmetic)
        self.torchs = CELLS.get(cell.name) is cell
        self.jumps = any(word in str(cell.text) for word in JUMPS)
        torch.manual_seed(0)
        self.ours = self._made(fastrnn, "triton", self.dtype)
        self.theirs = self._made(nn, "reference", self.dtype)
        self.exact = self._made(nn, "reference", torch.float64)
        for other in (self.theirs, self.exact):
            other.load_state_dict(self.ours.state_dict())

    def _made(self, library, engine, dtype):
        options = {"device": self.device, "dtype": dtype}
        sizes = self.H, self.H  # as many inputs as units
        if not self.torchs:
            return Own(engine, self.cell, *sizes, self.D, **options)
        name, more = MODULES[self.cell.name]
        options |= {"num_layers": self.layers, "bidirectional": self.D == 2, **more}
        if self.projection:
            options["proj_size"] = self.projection
        made = getattr(library, name)(*sizes, **options)
        return made.train(self.training)

    def numbers(self, T, B, packed=False):
        """Drawn from one seed; packed: lengths falling from T to 1."""
        torch.manual_seed(1)

        def drawn(*shape):
            return torch.randn(shape, device=self.device).to(self.dtype)

        x, sizes, rows = drawn(T, B, self.H), None, (T, B)
        if packed:
            lengths = torch.linspace(T, 1, B).long()
            x, sizes, *_ = pack_padded_sequence(x, lengths)
            rows = x.shape[:1]
        widths, count = [self.projection or self.H] + [self.H] * 9, self.layers * self.D
        states = zip(self._states("0"), widths, strict=False)
        leaves = {"x": x} | {name: drawn(count, B, width) for name, width in states}
        grads = [drawn(*rows, self.D * widths[0]), *map(torch.randn_like, [*leaves.values()][1:])]
        if self.cell.inputs:
            N = x.shape[:-1].numel()
            leaves["inputs"] = drawn(self.cell.heads * N, self.cell.inputs, self.H)
        return Numbers(leaves, sizes, grads)

    def _states(self, end):
        first = [f"h{end}", f"c{end}"]
        return (first + [f"s{i}{end}" for i in range(2, self.cell.states)])[: self.cell.states]

    def results(self, module, numbers):
        """{name: tensor}: outputs, and in training every gradient."""
        numbers = numbers.double() if module is self.exact else numbers
        parameters = dict(module.named_parameters()) if self.training else None
        with oracle.arithmetic(self.arithmetic):
            return oracle.evaluate(self._call(module, numbers), *numbers[::2], parameters)

    def run(self, module, numbers):
        """A function to time: forward, and in training the gradients of x and of the weights."""
        call = self._call(module, numbers)
        leaves = [t.detach() for t in numbers.leaves.values()]
        wanted = [leaves[0].requires_grad_(self.training), *module.parameters()]

        def run():
            with torch.set_grad_enabled(self.training):
                found = call(*leaves)
            if self.training:
                given = list(found.values()), wanted, numbers.grads
                torch.autograd.grad(*given, allow_unused=True)

        return run

    def _call(self, module, numbers):
        """call(*leaves) -> {name: tensor} of a module."""

        def call(x, *others):
            states, more = others[: self.cell.states], others[self.cell.states :]
            given = x if numbers.sizes is None else PackedSequence(x, numbers.sizes)
            alone = self.torchs and len(states) == 1
            with backends.use("triton" if module is self.ours else "torch"):
                y, final = module(given, states[0] if alone else states, *more)
            y = y if numbers.sizes is None else y.data
            names = ["output", *self._states("_n")]
            return dict(zip(names, (y, *((final,) if alone else final)), strict=True))

        return call
