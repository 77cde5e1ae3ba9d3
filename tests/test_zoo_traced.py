"""fastrnn.zoo under torch.compile and torch.export: one operator, the same bits."""

import pytest
import torch
from compiling import compiled
from zoo_cases import arguments, build, call, gradients

# One with parameters of its own, one without a product, one in stages; inputs, and a forward.
TRACED = ["PeepholeLSTM", "SRU", "LayerNormGRU", "ZoneoutLSTM", "GRUD"]


@pytest.mark.parametrize("name", TRACED)
def test_compiled_and_exported(name):
    module = build(name, 1, dtype=torch.float32).eval()
    given = arguments(name, module)
    leaves = [t for t in given.values() if t.requires_grad]
    right = call(module, given)
    fast, _ = compiled(module)
    found = call_as(fast, module, given)
    assert all(map(torch.equal, found, right))
    assert all(map(torch.equal, gradients(found, leaves), gradients(right, leaves)))
    exported = torch.export.export(module, *taken(module, given)).module()
    with torch.no_grad():
        assert all(map(torch.equal, call_as(exported, module, given), right))


def taken(module, given):
    """The arguments of a call, and those by name."""
    states = type(module).signature.states
    hx = tuple(given[n] for n in states)
    rest = {n: t for n, t in given.items() if n not in ("x", *states)}
    return (given["x"], hx[0] if len(hx) == 1 else hx), rest


def call_as(function, module, given):
    args, rest = taken(module, given)
    y, finals = function(*args, **rest)
    return y, *((finals,) if isinstance(finals, torch.Tensor) else finals)
