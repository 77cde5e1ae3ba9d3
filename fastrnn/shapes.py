"""The sizes of states; and what the operators return, as a trace knows it: empty tensors."""

from torch import nn

from . import backends
from .kernels import schedule
from .kernels.cells import cell_of
from .kernels.weights import split


def widths_of(module):
    """How wide each state of a layer is."""
    H = module.hidden_size
    if not isinstance(module, nn.RNNBase):
        return [H] * len(type(module).signature.states)
    return [module.proj_size or H, H] if module.mode == "LSTM" else [H]


def more(cell, every):
    """How many results there are behind the final states."""
    return cell.states - (not cell.apart) if every else 0


def of_layer(engine, cell, keep, x, batch_sizes, states, weights, inputs=None, every=False):
    (D, _, S), rule, N = states[0].shape, cell_of(cell), x.shape[0]
    kept = _kept(engine, rule, x, split(weights, D, rule), states) if keep else []
    results = [x.new_empty(N, D * S), *(s.new_empty(s.shape) for s in states)]
    others = states[len(states) - more(rule, every) :]
    results += [s.new_empty(N, D * s.shape[2]) for s in others]
    return [*results, *kept, *copied(batch_sizes)]


def _kept(engine, cell, x, directions, states):
    """Empty tensors as the engine keeps them for backward (Keep.ALL)."""
    steps = schedule.Traced(None, states[0].shape[1], x.shape[0])
    sizes = backends.load(engine).kept_sizes(cell, x, steps, directions, states)
    return [x.new_empty(size, dtype=dtype) for size, dtype in sizes]


def copied(batch_sizes):
    """Backward's own, if there are any: whose they are may use them again."""
    return [] if batch_sizes is None else [batch_sizes.clone()]


def of_gradients(
    engine, cell, keep, x, batch_sizes, states, weights, kept, grads, needed, inputs=None,
    every=False,
):  # fmt: skip
    beside = () if inputs is None else (inputs,)
    pairs = zip((x, *states, *weights, *beside), needed, strict=True)
    return [t.new_empty(t.shape) for t, need in pairs if need]
