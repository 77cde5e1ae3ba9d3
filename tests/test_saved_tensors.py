"""What the graph holds, for tools that draw it: tensors alone, and no None for an absent one."""

import pytest
import torch
from against_torch import EVERY_KIND, build, make_inputs, plain_call

import fastrnn


def nodes(outputs):
    """Every node of the graph."""
    found, waiting = set(), [y.grad_fn for y in outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [other for other, _ in node.next_functions]
    return found


def saved(outputs):
    """As torchviz collects them: ``saved_tensors`` of each node that has any."""
    return [t for node in nodes(outputs) for t in getattr(node, "saved_tensors", ())]


@EVERY_KIND
@pytest.mark.parametrize("way", ["layer", "cell", "operator"])
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
def test_tensors_only(kind, way, bias, states, monkeypatch):
    """And backward knows what was absent. A layer's operator, which traces record, is alike."""
    if way == "operator":
        monkeypatch.setattr(fastrnn.functional, "tracing", lambda tensor: True)
    ours = build(fastrnn, kind, 4, 5, cell=way == "cell", bias=bias)
    inputs = make_inputs(ours, 7, 3, states=states).values()
    outputs = torch.utils._pytree.tree_leaves(plain_call(ours, *inputs))
    kept = saved(outputs)
    assert kept
    assert all(isinstance(t, torch.Tensor) for t in kept)
    sum(y.square().sum() for y in outputs).backward()
    assert all(w.grad is not None for w in ours.parameters())
