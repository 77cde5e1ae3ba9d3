"""Functions of steps as the CPU engine computes them, on registers; and how far off that is."""

import torch

from fastrnn.autograd import run_layer
from fastrnn.kernels.schedule import dense
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.weights import Weights

WIDE = {torch.bfloat16: torch.float32}  # in which the engine has states


def on_registers(functions, *inputs):
    """What each function is of the inputs, 1-d tensors: one cell, a state for each of them.

    Results of bfloat16 are in float32, as the registers have them.
    """

    def step(wx, uh, states, own, given):
        return (wx[0], *(function(*given) for function in functions))

    cell = Cell(
        "registers", step, gates=1, states=1 + len(functions), recurrent=False, inputs=len(inputs)
    )
    dtype, H = inputs[0].dtype, len(inputs[0])
    wide = WIDE.get(dtype, dtype)
    states = [torch.zeros(1, 1, H, dtype=wide) for _ in range(cell.states)]
    weights = Weights(torch.zeros(H, 1, dtype=wide), None, None, None, None)
    given = cell, torch.zeros(1, 1, 1, dtype=dtype), dense(1, 1), [weights], states
    with torch.no_grad():
        _, (_, *found) = run_layer("numba", *given, inputs=torch.stack(inputs)[None])
    return [each.view(H) for each in found]


def error(found, exact, dtype):
    """The worst distance from exact values in float64, in units in the last place of ``dtype``.

    Infinity where NaN or an infinity is wrong.
    """
    limits = torch.finfo(dtype)
    exact = torch.where(exact.abs() >= limits.max * (1 + limits.eps / 4), exact * torch.inf, exact)
    finite = exact.isfinite()
    others = found[~finite].double(), exact[~finite]
    if not (
        torch.equal(found.isfinite(), finite) and others[0].allclose(others[1], equal_nan=True)
    ):
        return torch.inf
    found, exact = found[finite].double(), exact[finite]
    if not len(exact):
        return 0.0
    unit = torch.exp2(exact.abs().clamp(min=limits.tiny).log2().floor()) * limits.eps
    return float(((found - exact) / unit).abs().max())
