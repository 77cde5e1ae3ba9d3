"""A layer of a user's own cell takes and gives what torch.nn.LSTM does."""

import copy
import pickle

import pytest
import torch
from custom_cells import (
    CELLS,
    LSTM,
    Peephole,
    ResetFirst,
    Skip,
    assert_same,
    loop,
    make,
    plain_call,
    trained,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

EVERY_CELL = pytest.mark.parametrize("cls", CELLS.values(), ids=CELLS)
STACK = {"num_layers": 2, "bidirectional": True}
OPTIONS = {
    "one": {}, "stack": STACK, "no bias": {**STACK, "bias": False},
    "recompute": {**STACK, "recompute": True},
}  # fmt: skip


@EVERY_CELL
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_a_loop_over_the_step_gives(cls, options, calls):
    module, *given = make(cls, 5, 9, **options)
    assert_same(trained(plain_call, module, *given), trained(loop, module, *given))
    assert calls == {"forward": module.num_layers, "backward": module.num_layers}
    with torch.no_grad():
        x, hx, inputs = given
        assert_same(module(x, hx, **inputs), loop(module, x, hx, **inputs))
        assert_same(module(x, **inputs), loop(module, x, **inputs))


def pair(*sizes, **options):
    """torch's LSTM, and the same written as a step."""
    theirs = nn.LSTM(*sizes, dtype=torch.float64, **options)
    ours = LSTM(*sizes, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_torchs(bias):
    ours, theirs = pair(5, 9, bias=bias, **STACK)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    assert_same(ours(x), theirs(x))
    torch.manual_seed(3)
    first = LSTM(5, 9, bias=bias, **STACK)
    torch.manual_seed(3)
    second = nn.LSTM(5, 9, bias=bias, **STACK)
    assert_same(list(first.parameters()), list(second.parameters()), 0)


def test_names_of_parameters_of_its_own():
    module = Skip(5, 9, 2, bidirectional=True)
    assert list(module.state_dict())[:5] == [
        "weight_ih_l0", "bias_ih_l0", "v_l0", "scale_l0", "weight_ih_l0_reverse",
    ]  # fmt: skip
    assert module.v_l1_reverse.shape == (9,)
    assert module.scale_l0.shape == ()
    assert str(module) == "Skip(5, 9, num_layers=2, bidirectional=True)"


def test_dropout_is_torchs():
    ours, theirs = pair(5, 9, 3, dropout=0.4)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    torch.manual_seed(2)
    found = ours(x)
    torch.manual_seed(2)
    assert_same(found, theirs(x))
    assert_same(ours.eval()(x), theirs.eval()(x))
    with pytest.warns(UserWarning, match="dropout is between layers"):
        LSTM(5, 9, dropout=0.4)


@pytest.mark.parametrize("lengths", [[6, 4, 1], [2, 6, 5]], ids=["sorted", "unsorted"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_as_torch_has_it(lengths, batch_first):
    ours, theirs = pair(5, 9, batch_first=batch_first, **STACK)
    hx = tuple(torch.randn(2, 4, 3, 9, dtype=torch.float64))
    shape = (3, 6, 5) if batch_first else (6, 3, 5)

    def call(module, x, hx):
        packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
        y, finals = module(packed, hx)
        return pad_packed_sequence(y, batch_first)[0], finals

    x = torch.randn(shape, dtype=torch.float64)
    mine, others = (trained(call, module, x, hx, {}) for module in (ours, theirs))
    assert_same(mine, others)


def test_batch_first_and_unbatched():
    module, x, hx, inputs = make(Skip, 5, 9, **STACK)
    expected = loop(module, x, hx, **inputs)
    module.batch_first = True
    y, h = module(x.transpose(0, 1), hx, **{n: t.transpose(0, 1) for n, t in inputs.items()})
    assert_same((y.transpose(0, 1), h), expected)
    for module.batch_first in (True, False):
        for b in range(3):
            y, h = module(x[:, b], hx[:, b], **{n: t[:, b] for n, t in inputs.items()})
            assert_same((y, h), [t[:, b] for t in expected])


def test_copies():
    module, x, hx, _inputs = make(ResetFirst, 5, 9, **STACK)
    expected = module(x, hx)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same(copied(x, hx), expected, 0)
        with torch.no_grad():
            copied.weight_hh_l0.zero_()
        assert (copied(x, hx)[0] - expected[0]).abs().max() > 1e-3
    assert_same(module(x, hx), expected, 0)


def test_other_dtypes_and_devices():
    module, x, hx, _inputs = make(Peephole, 5, 9, **STACK)
    expected = module(x, hx)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 3e-3)):
        other, (h, c) = copy.deepcopy(module).to(dtype), hx
        found = other(x.to(dtype), (h.to(dtype), c.to(dtype)))
        assert {t.dtype for t in (found[0], *found[1])} == {dtype}
        assert_same(found, expected, tolerance)
        assert_same(other.double()(x, hx), expected, tolerance)  # of rounded weights
    y, (h, c) = Peephole(5, 9, device="meta")(x.float().to("meta"))
    assert y.device.type == "meta"
    assert y.shape == (6, 3, 9)
    assert c.shape == (1, 3, 9)
    meta = copy.deepcopy(module).to("meta").to_empty(device="cpu")
    meta.load_state_dict(module.state_dict())
    assert_same(meta(x, hx), expected, 0)


def test_it_learns():
    """A running sum, whose sign the last step is to tell."""
    module, head = Peephole(1, 8, dtype=torch.float32), nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.05)
    x = torch.randn(12, 64, 1)
    target, losses = (x.sum(0) > 0).float(), []
    for _ in range(40):
        loss = nn.functional.binary_cross_entropy_with_logits(head(module(x)[0][-1]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]


def test_nothing_to_compute():
    module, *_ = make(Peephole, 5, 9)
    y, (h, c) = module(torch.zeros(6, 0, 5, dtype=torch.float64))
    assert y.shape == (6, 0, 9)
    assert h.shape == c.shape == (1, 0, 9)
