"""fastrnn.zoo: every layer, its outputs and all of its gradients, against plain loops in float64."""

import copy
import pickle

import pytest
import torch
from against_torch import FLOATS, difference
from zoo_cases import (
    EVERY_CELL,
    NAMES,
    SINGLE,
    B,
    H,
    I,
    T,
    arguments,
    build,
    call,
    expected,
    gradients,
    recorded,
)

import fastrnn
from fastrnn import zoo

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-4, torch.bfloat16: 4e-2}


def errors(name, module, given, **form):
    """{what: error} of a call's outputs and gradients, against the plain loop in float64."""
    torch.manual_seed(3)
    with recorded(module) as drawn:
        found = call(module, given, **form)
    leaves = {n: t for n, t in given.items() if t.requires_grad}
    found += gradients(found, [*leaves.values(), *module.parameters()])
    exact = copy.deepcopy(module).double()
    truth = {n: t.detach().double().requires_grad_(n in leaves) for n, t in given.items()}
    for draw in drawn["inputs"]:
        draw.update({n: t.double() for n, t in draw.items()})
    right = expected(name, exact, truth, drawn)
    right += gradients(right, [*(truth[n] for n in leaves), *exact.parameters()])
    parts = ["output", *type(module).signature.states, *(f"d {n}" for n in leaves)]
    parts += [f"d {n}" for n, _ in module.named_parameters()]
    return {
        part: difference(f.detach(), r.detach()) for part, f, r in zip(parts, found, right, strict=True)
    }


def check(name, module, given, **form):
    limit = TOLERANCE[given["x"].dtype]
    wrong = {n: e for n, e in errors(name, module, given, **form).items() if not e <= limit}
    assert not wrong


@EVERY_CELL
@FLOATS
def test_outputs_and_gradients(name, dtype):
    """A stack of two layers, both directions."""
    module = build(name, dtype=dtype)
    check(name, module, arguments(name, module, dtype))
