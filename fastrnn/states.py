"""return_states: every state after every step, differentiable."""

from contextlib import contextmanager
from threading import get_ident

from torch import nn

from . import backends
from .functional import autocast_dtypes, stack, stack_on_gpu
from .kernels.cells import CELLS
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.weights import split
from .sequences import Call
from .step import Plain, cell_of_module


class TorchsCall(Call):
    """The arguments of a call of an LSTM, GRU or RNN."""

    def _names(self):
        return ("h", "c") if self.module.mode == "LSTM" else ("h",)

    def _directions(self):
        module = self.module
        return split(module._flat_weights, module.num_layers * (1 + module.bidirectional))

    def _planes(self, inputs):
        if inputs:
            raise TypeError(f"{self._name} takes no {', '.join(inputs)}")
        return []

    def dtypes(self, cell):
        """As Call's."""
        engine = "triton" if self.x.is_cuda else "numba"
        given = self.steps, self.packed, self.x, self.states, self.directions[0]
        dtype, dtypes = autocast_dtypes(engine, cell.name, *given)
        return dtype, dtypes or (self.x.dtype,) * (1 + len(self.states))


recorders = []  # of calls, each with the thread that it is for


@contextmanager
def recording(recorder):
    """Within this context ``recorder(module, input, hx, inputs, every)`` stands in for the forward
    of every recurrent layer that this thread calls.
    """
    mine = get_ident(), recorder
    recorders.append(mine)
    try:
        yield
    finally:
        recorders.remove(mine)


def recorder():
    """That of this thread, or None."""
    return next((r for thread, r in reversed(recorders) if thread == get_ident()), None)


def recorded(forward, every):
    """``forward``, or what stands in for it."""
    mine = recorder()
    if mine is None:
        return forward
    return lambda module, input, hx=None, **inputs: mine(module, input, hx, inputs, every)


def only_whole(module):
    """Raise TypeError where steps are recorded: those of pieces are not those of the batch."""
    if recorders and recorder():
        name = type(module).__name__
        raise TypeError(f"{name}: steps are recorded of sequences without lengths and resets")


def of(module, input, hx, inputs):
    """(its Call, its cell, the probability of dropout between its layers, what to keep)."""
    if isinstance(module, nn.RNNBase):
        call, cell = TorchsCall(module, input, hx, inputs), CELLS[module.mode.lower()]
    else:
        call = Call(module, input, hx, inputs)
        cell = cell_of_module(module, module.training, module._edition)
    p = module.dropout if module.training and module.num_layers > 1 else 0.0
    again = module.__dict__.get("recompute") is True  # a user's class may have one of its own
    return call, cell, p, Keep.STATES if again else Keep.ALL


def forward(module, input, hx=None, **inputs):
    """(output, final states, the states after each step), the last of them as the output is."""
    call, cell, p, keep = of(module, input, hx, inputs)
    engine = "reference"
    if not isinstance(cell, Plain):
        engine = call.served(cell).name
    if engine != "numba" or not call.x.numel():
        if backends.asked() == "triton":
            raise Refused("triton", "it gives out no states but the last: leave return_states out")
        engine = "reference"
    return run(engine, cell, call, call.directions, call.planes, p, keep, True)


def run(engine, cell, call, directions, planes, p, keep, every):
    """The results of a Call, with these weights and inputs of its steps, by an engine."""
    dtype, dtypes = (None, None) if engine == "reference" else call.dtypes(cell)
    go, D = stack_on_gpu if engine == "triton" else stack, 1 + call.module.bidirectional
    given = call.steps, directions, call.states, D, p, dtype, keep, planes, every
    y, finals, *afters = go(engine, cell, call.rows(engine), *given)
    return call.results(y, finals, dtypes, *afters)
