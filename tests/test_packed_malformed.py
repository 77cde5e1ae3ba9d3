"""PackedSequences that were made by hand and are none: torch's error, or its numbers; whatever
batch_sizes say, no row that is not there is read.
"""

import pytest
import torch
from against_torch import EVERY_KIND, build_pair
from torch.nn.utils.rnn import PackedSequence

ROWS, I, H = 6, 4, 5
SIZES = {
    "right": [3, 2, 1],
    "increasing": [1, 2, 3],
    "zero-last": [3, 3, 0],
    "zero-first": [0, 3, 3],
    "zeros": [0, 0],
    "negative": [3, -1, 4],
    "negative-last": [7, -1],
    "all-negative": [-3, -2, -1],
    "huge": [2**40, 1],
    "huge-last": [6, 2**62],
    "sum-overflows": [2**63 - 1, 2**63 - 1, 8],
    "too-few-rows": [3, 3, 3],
    "too-many-rows": [3, 2],
    "empty": [],
}
BATCH_SIZES = {name: torch.tensor(sizes, dtype=torch.int64) for name, sizes in SIZES.items()}
RIGHT = BATCH_SIZES["right"]
BATCH_SIZES |= {
    "int32": RIGHT.int(),
    "uint8": RIGHT.to(torch.uint8),
    "float": RIGHT.float(),
    "bool": torch.tensor([True, True]),
    "scalar": torch.tensor(6),
    "two-dimensional": RIGHT[None],
    "sparse": RIGHT.to_sparse(),
    "meta": RIGHT.to("meta"),
}


def outcome(module, data, batch_sizes, hx):
    """The output and the gradients, or the error."""
    leaf = data.clone().requires_grad_()
    try:
        y, _ = module(PackedSequence(leaf, batch_sizes), hx)
        y.data.sum().backward()
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        return type(error), str(error)
    return [y.data.detach(), leaf.grad, *(p.grad for p in module.parameters())]


@EVERY_KIND
@pytest.mark.parametrize("batch_sizes", BATCH_SIZES.values(), ids=BATCH_SIZES)
@pytest.mark.parametrize("given", [False, True], ids=["no-hx", "hx"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_as_torch_does(kind, batch_sizes, given, bidirectional):
    data, hx = torch.randn(ROWS, I), None
    if given:
        state = torch.randn(1 + bidirectional, 3, H)
        hx = (state, state) if kind == "lstm" else state
    modules = build_pair(kind, I, H, bidirectional=bidirectional)
    ours, theirs = (outcome(module, data, batch_sizes, hx) for module in modules)
    if isinstance(theirs, tuple):
        assert ours == theirs
    else:
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@EVERY_KIND
def test_strides_of_batch_sizes(kind):
    """The numbers that they say, where torch reads what lies in memory."""
    ours, theirs = build_pair(kind, I, H)
    data = torch.randn(ROWS, I)
    strided = torch.tensor([3, 9, 2, 9, 1, 9])[::2]
    expanded = torch.tensor([2]).expand(3)
    for sizes in (strided, expanded):
        found = outcome(ours, data, sizes, None)
        expected = outcome(theirs, data, sizes.contiguous(), None)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
