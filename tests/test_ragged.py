"""Lengths, resets: the same as torch.nn in float64 on each piece of each sequence alone."""

import pytest
import torch
from against_torch import EVERY_KIND, FLOATS, KINDS, compare, make_inputs, twins
from by_pieces import either
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn

T, B = 9, 6
LENGTHS = {
    "any order": [3, 9, 1, 7, 9, 2],
    "zeros": [0, 4, 0, 9, 1, 0],
    "falling": [9, 8, 5, 5, 2, 1],
    "whole": [9] * B,
    "none": [0] * B,
}
RESETS = {
    "some": lambda: torch.rand(T, B) < 0.3,
    "all": lambda: torch.ones(T, B, dtype=torch.bool),
    "first": lambda: (torch.arange(T) == 0).unsqueeze(1).expand(T, B),
    "none": lambda: torch.zeros(T, B, dtype=torch.bool),
}
OPTIONS = {
    "one": {},
    "both ways, batch first": {"bidirectional": True, "batch_first": True},
    "stack": {"num_layers": 2, "bidirectional": True, "bias": False},
}


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_lengths(kind, options, lengths, dtype):
    ours, theirs = twins(kind, 5, 17, dtype=dtype, **options)
    compare(ours, theirs, make_inputs(ours, T, B), call=either(lengths))


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("resets", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("to", [False, True], ids=["zero", "reset_to"])
def test_resets(kind, options, resets, to, dtype):
    ours, theirs = twins(kind, 5, 17, dtype=dtype, **options)
    inputs = make_inputs(ours, T, B)
    reset_to = [torch.randn_like(s) for s in list(inputs.values())[1:]] if to else None
    compare(ours, theirs, inputs, call=either(None, resets(), reset_to))


@EVERY_KIND
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_both(kind, lengths):
    ours, theirs = twins(kind, 5, 17, dtype=torch.float64, num_layers=2, bidirectional=True)
    compare(ours, theirs, make_inputs(ours, T, B), call=either(lengths, RESETS["some"]()))


def test_projected():
    ours, theirs = twins("lstm", 5, 17, proj_size=7, dtype=torch.float64, bidirectional=True)
    call = either(LENGTHS["zeros"], RESETS["some"]())
    compare(ours, theirs, make_inputs(ours, T, B), call=call)


@given(
    kind=st.sampled_from(KINDS), sizes=st.tuples(st.integers(1, 12), st.integers(1, 9)),
    often=st.floats(0, 1), bidirectional=st.booleans(), threads=st.integers(1, 2), data=st.data(),
)  # fmt: skip
def test_drawn(kind, sizes, often, bidirectional, threads, data):
    torch.set_num_threads(threads)
    T, B = sizes
    lengths = data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    resets = torch.rand(T, B) < often
    ours, theirs = twins(kind, 4, 9, dtype=torch.float64, bidirectional=bidirectional)
    compare(ours, theirs, make_inputs(ours, T, B), call=either(lengths, resets))


def everything(result, wanted):
    """Outputs, final states and the gradients of a loss of all of them."""
    y, finals = result
    found = [y, *(finals if isinstance(finals, tuple) else (finals,))]
    return [*found, *torch.autograd.grad(sum(t.square().sum() for t in found), wanted)]


@EVERY_KIND
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_bits_of_packing_by_hand(kind, options, threads):
    ours, _ = twins(kind, 40, 48, **options)
    first = ours.batch_first
    x = torch.randn(*((B, T) if first else (T, B)), 40, requires_grad=True)
    lengths = torch.tensor(LENGTHS["any order"])
    wanted = [x, *ours.parameters()]
    rows = pack_padded_sequence(x, lengths, first, enforce_sorted=False)
    y, finals = ours(rows)
    y = pad_packed_sequence(y, first, total_length=T)[0]
    found = everything(ours(x, lengths=lengths), wanted)
    for mine, theirs in zip(found, everything((y, finals), wanted), strict=True):
        assert mine.equal(theirs)


@EVERY_KIND
def test_unbatched(kind):
    ours, _ = twins(kind, 5, 17, bidirectional=True)
    x, resets = torch.randn(T, 5), torch.rand(T) < 0.4
    y, finals = ours(x, lengths=torch.tensor(7), resets=resets)
    expected, states = ours(x.unsqueeze(1), lengths=[7], resets=resets.unsqueeze(1))
    assert y.equal(expected.squeeze(1))
    pairs = zip(finals, states, strict=True) if kind == "lstm" else [(finals, states)]
    assert all(a.equal(b.squeeze(1)) for a, b in pairs)


def test_whole_sequences_are_not_copied(monkeypatch):
    ours, _ = twins("gru", 5, 17)
    x = torch.randn(T, B, 5)
    monkeypatch.setattr(torch.Tensor, "index_select", None)
    assert ours(x, lengths=[T] * B)[0].equal(ours(x)[0])


def test_an_empty_batch_trains():
    """Nobody has to ask first whether any sequence has a step: gradients are zeros."""
    ours, _ = twins("lstm", 5, 17)
    y, (h_n, _) = ours(torch.randn(T, B, 5), lengths=[0] * B)
    (y.sum() + h_n.sum()).backward()
    assert not any(p.grad.any() for p in ours.parameters())


WRONG = {
    "floats": ({"lengths": torch.ones(B)}, TypeError, "lengths should be integers"),
    "count": ({"lengths": [1, 2]}, ValueError, r"should be \(6,\), one of each sequence"),
    "beyond": ({"lengths": [10, 1, 1, 1, 1, 1]}, ValueError, "from 0 to 9, the steps there are"),
    "negative": ({"lengths": [-1, 1, 1, 1, 1, 1]}, ValueError, "they are from -1 to 1"),
    "numbers": ({"resets": torch.zeros(T, B)}, TypeError, "resets should be booleans"),
    "turned": ({"resets": torch.zeros(B, T).bool()}, ValueError, r"should be \(9, 6\), one of"),
    "nothing": ({"reset_to": torch.zeros(1, B, 17)}, ValueError, "give these, too"),
    "states": (
        {"resets": torch.ones(T, B).bool(), "reset_to": torch.zeros(1, 2, 17)},
        RuntimeError, r"reset_to should be of shape \(1, 6, 17\); it is \(1, 2, 17\)",
    ),
    "hx": ({"hx": torch.zeros(1, 2, 17), "lengths": [1] * B}, RuntimeError, "hx should be"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        fastrnn.GRU(5, 17)(torch.randn(T, B, 5), **arguments)


def test_packed_rows_have_lengths_of_their_own():
    rows = nn.utils.rnn.pack_sequence([torch.randn(3, 5)])
    with pytest.raises(ValueError, match="PackedSequence has lengths of its own"):
        fastrnn.RNN(5, 17)(rows, lengths=[3])
