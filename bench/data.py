"""The numbers of a case, and how a module with torch.nn's interface is called on them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


@dataclass(frozen=True)
class Data:
    """Drawn from one seed, none of it zero. Every peer of a case gets the same."""

    state_dict: dict  # of torch.nn's module
    x: torch.Tensor  # (T, B, I), (N, I) if packed, (B, I) for one step
    batch_sizes: torch.Tensor | None  # of a PackedSequence
    states: tuple  # the initial ones
    grads: tuple  # of each output

    @property
    def input(self):
        return self.x if self.batch_sizes is None else PackedSequence(self.x, self.batch_sizes)

    @property
    def hx(self):
        """The states as torch.nn takes them."""
        return self.states if len(self.states) > 1 else self.states[0]


@dataclass(frozen=True)
class Call:
    """What a peer builds: ``run()`` returns the tensors that ``names`` lists, in that order."""

    run: Callable
    weights: tuple = ()  # the peer's own copies, so that memory can be told from parameters
    note: str = ""  # what a reader of the number should know


def module(namespace, case):
    """The case's module of ``namespace`` (torch.nn, or what offers the same)."""
    cls = getattr(namespace, case.cell + ("Cell" if case.step else ""))
    dtype = getattr(torch, case.dtype)
    return cls(**case.arguments, device=case.device, dtype=dtype).train(case.training)


def make(case):
    """The Data of ``case``."""
    torch.manual_seed(0)
    weights = module(torch.nn, case).state_dict()
    S, D = case.projection or case.H, case.directions
    x = torch.randn(case.T, case.B, case.I)
    widths = (S, case.H)[: 2 if case.cell == "LSTM" else 1]
    shape = (case.B,) if case.step else (case.layers * D, case.B)
    states = [torch.randn(*shape, width) for width in widths]
    batch_sizes, rows = None, (case.T, case.B)
    if case.packed:
        x, batch_sizes, *_ = pack_padded_sequence(x, torch.tensor(case.lengths))
        rows = x.shape[:1]
    shown = (1, case.B) if case.streamed else rows  # of a stream the last frame's output
    outputs = [] if case.step else [torch.randn(*shown, D * S)]
    grads = [*outputs, *(torch.randn_like(state) for state in states)]

    def place(tensor):
        return tensor.to(case.device, getattr(torch, case.dtype))

    x = place(x[0] if case.step else x).requires_grad_(case.training)
    return Data(weights, x, batch_sizes, tuple(map(place, states)), tuple(map(place, grads)))


def names(case, data):
    """What a peer's ``run`` returns: the outputs, and in training the gradients."""
    outputs = ["h_n", "c_n"][: len(data.states)] if case.step else ["output", "h_n", "c_n"]
    outputs = outputs[: len(data.grads)]
    return outputs + ([f"gradient of {n}" for n in ("input", *data.state_dict)] * case.training)


def timed(case, data, forward, weights):
    """The ``run`` of a Call from ``forward``, which returns the outputs as a tuple.

    Training asks for the gradients of the input and of every weight, given those of all outputs;
    they are returned instead of added up in ``.grad``, as after ``zero_grad``.
    """
    if not case.training:
        return torch.no_grad()(forward)
    leaves = (data.x, *weights)

    def run():
        outputs = forward()
        return *outputs, *torch.autograd.grad(outputs, leaves, data.grads)

    return run


def loaded(namespace, case, data):
    """The module of ``namespace`` with the weights of ``data``."""
    layer = module(namespace, case)
    layer.load_state_dict(data.state_dict)
    return layer


def call_module(namespace, case, data, note=""):
    """The Call of ``namespace``'s module with the weights of ``data``."""
    return call_layer(loaded(namespace, case, data), case, data, note)


def call_layer(layer, case, data, note=""):
    """The Call of a module that is called as torch.nn's is."""
    frames = data.x.split(1) if case.streamed else ()

    def forward():
        if case.streamed:
            y, final = None, data.hx
            for frame in frames:
                y, final = layer(frame, final)
            return (y, *final) if isinstance(final, tuple) else (y, final)
        if case.step:
            new = layer(data.x, data.hx)
            return new if isinstance(new, tuple) else (new,)
        y, final = layer(data.input, data.hx)
        y = y.data if case.packed else y
        return (y, *final) if isinstance(final, tuple) else (y, final)

    def under_autocast():
        with torch.autocast(case.device, torch.bfloat16):
            return forward()

    weights = (*layer.parameters(), *layer.buffers())
    return Call(
        timed(case, data, under_autocast if case.autocast else forward, weights), weights, note
    )


def truth(case, data):
    """What torch.nn computes; in float32 where the case is autocast, which costs torch 3 digits."""
    return call_module(torch.nn, replace(case, autocast=False), data).run()


def truth_in_float64(case, data):
    """What torch.nn computes of the same numbers in float64."""
    wide = {name: weight.double() for name, weight in data.state_dict.items()}
    states = tuple(state.double() for state in data.states)
    numbers = replace(data, state_dict=wide, x=data.x.double(), states=states)
    return truth(replace(case, dtype="float64"), numbers)
