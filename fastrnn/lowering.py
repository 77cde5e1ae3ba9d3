"""Exported programs written out in torch's own operations, which run where fastrnn is not.

    program = torch.export.export(model, (x,))
    program = program.run_decompositions(fastrnn.lowering.decompositions())

To export under ``fastrnn.backends.use("torch")`` is the other way: it leaves torch's own operator
(aten.lstm and its kin) for each stack of layers, which makes a smaller and faster program.
"""

import torch

from .kernels import schedule
from .kernels.cells import cell_of
from .kernels.weights import split
from .substitute import layer_by_reference


def decompositions():
    """{operator: function}, as ExportedProgram.run_decompositions takes it: a layer step by step.

    For core ATen, {**torch.export.default_decompositions(), **decompositions()}. Where the program
    leaves T open, or is of packed rows, run_decompositions raises ValueError: the number of
    operations depends on these.
    """
    operators = torch.ops.fastrnn
    return dict.fromkeys((operators.layer.default, operators.layer_packed.default), _step_by_step)


def _step_by_step(engine, cell, keep, x, batch_sizes, states, weights, inputs=None, every=False):
    """As operators._layer, for any B and one T."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # takes long to load

    (N, _), (D, B, _) = x.shape, states[0].shape
    if batch_sizes is not None or not is_concrete_int(N // B):
        raise ValueError("only a layer of fixed T, dense, can be written out step by step")
    steps = schedule.Traced(int(N // B), B, N)
    rule = cell_of(cell)
    directions = split(weights, D, rule)
    y, *finals = layer_by_reference(rule, x, steps, directions, states, inputs, every)
    return [y, *finals]
