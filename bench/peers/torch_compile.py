"""torch.compile of a written-out cell loop, as one would write it without a library.

The loop is unrolled by the compiler, whose time grows with it: minutes for a hundred steps. So only
short sequences are compiled whole; for longer ones one step is compiled, and looped over in Python.
"""

import signal
from contextlib import contextmanager

import torch
from torch.nn.functional import linear

from fastrnn.kernels.cells import CELLS

from ..data import Call, timed
from . import CannotServe

WHOLE = 16  # steps up to which the loop itself is compiled
PATIENCE = 300  # seconds that compiling may take


def available():
    return None


def version():
    return torch.__version__


def build(case, data):
    if case.variant not in ("", "I!=H", "float64"):
        raise CannotServe("the loop is written out for one layer, one direction, dense")
    torch._dynamo.reset()
    weights = tuple(w.clone().requires_grad_(case.training) for w in data.state_dict.values())
    loop, note = _loop(case)

    def forward():
        if case.step:
            _, *states = loop(data.x[None], data.states, *weights)
            return tuple(states)
        return loop(data.x, [state[0] for state in data.states], *weights, stack=True)

    run = timed(case, data, forward, weights)
    try:
        with _patience():
            run()
    except TimeoutError:
        raise CannotServe(f"compiling took more than {PATIENCE} s") from None
    except torch._dynamo.exc.TorchDynamoException as error:
        raise CannotServe(f"does not compile: {str(error).splitlines()[0]}") from error
    return Call(run, weights, note)


def _loop(case):
    """(the loop, what of it is compiled)."""
    cell = CELLS["rnn_tanh" if case.cell == "RNN" else case.cell.lower()]

    def step(xgates, states, hh, b_hh):
        hgates = linear(states[0], hh, b_hh)
        gates = xgates.chunk(cell.gates, 1), hgates.chunk(cell.gates, 1)
        return cell.forward(*gates, states, (), ())[1]

    def loop(x, states, ih, hh, b_ih, b_hh, stack=False):
        outputs = []
        for xgates in linear(x, ih, b_ih).unbind(0):
            states = one(xgates, states, hh, b_hh)
            outputs.append(states[0])
        if not stack:
            return outputs, *states
        return torch.stack(outputs), *(state[None] for state in states)

    if case.T <= WHOLE:
        one = step
        return torch.compile(loop, fullgraph=True, dynamic=False), "the whole loop compiled"
    one = torch.compile(step, fullgraph=True, dynamic=False)
    return loop, "one step compiled, looped over in Python"


@contextmanager
def _patience():
    def give_up(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
