"""Memory: what is kept for backward, the half of it with ``recompute``, and scratch memory."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from against_torch import (
    EVERY_KIND,
    FLOATS,
    build_pair,
    make_inputs,
    outputs_and_gradients,
    packing,
    plain_call,
)
from torch.autograd.graph import saved_tensors_hooks

from fastrnn.kernels.cpu.host import memory

LENGTHS = [90, 90, 71, 70, 33, 2, 1]  # over 256 rows: backward takes them in several blocks
OPTIONS = {
    "dense": ({}, None),
    "short": ({}, 20),
    "packed": ({"bidirectional": True, "num_layers": 2}, LENGTHS),
}


def kept_bytes(module, inputs):
    """Bytes that the graph of a call holds beside parameters and inputs, each storage once."""
    x, *states = (t.detach().requires_grad_() for t in inputs.values())
    theirs = {t.untyped_storage().data_ptr() for t in (x, *states, *module.parameters())}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            found[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = plain_call(module, x, *states)
    assert found
    size = sum(storage.nbytes() for storage in found.values())
    del result
    return size


@EVERY_KIND
@pytest.mark.parametrize("sizes", [(50, 1, 64), (40, 16, 96), (20, 33, 17)], ids="TBH{}".format)
def test_no_more_than_torch_keeps(kind, sizes):
    T, B, H = sizes
    ours, theirs = build_pair(kind, H, H)
    inputs = make_inputs(ours, T, B)
    line = 4 * 64  # each of the four arrays begins at a cache line
    assert kept_bytes(ours, inputs) <= kept_bytes(theirs, inputs) + line


@EVERY_KIND
@pytest.mark.parametrize("sizes", [(1, 64), (33, 17)], ids="BH{}".format)
def test_no_cell_keeps_more_than_torchs(kind, sizes):
    B, H = sizes
    ours, theirs = build_pair(kind, H, H, cell=True)
    inputs = make_inputs(ours, 1, B)
    assert kept_bytes(ours, inputs) <= kept_bytes(theirs, inputs)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("T", [30, 300])
def test_recompute_keeps_half(kind, T):
    ours, _ = build_pair(kind, 64, 64)
    inputs = make_inputs(ours, T, 8)
    everything = kept_bytes(ours, inputs)
    ours.recompute = True
    assert kept_bytes(ours, inputs) <= 0.5 * everything + 4 * 64


@EVERY_KIND
@FLOATS
@pytest.mark.parametrize(("options", "T"), OPTIONS.values(), ids=OPTIONS)
def test_recompute_changes_no_bit(kind, dtype, options, T, threads, calls):
    ours, _ = build_pair(kind, 9, 33, dtype=dtype, **options)
    lengths = T if isinstance(T, list) else None
    inputs = make_inputs(ours, 90 if T is None else len(LENGTHS) if lengths else T, 7)
    if lengths:
        inputs["x"] = torch.randn(max(lengths), len(lengths), 9, dtype=dtype)
    call = {"call": packing(lengths)} if lengths else {}
    kept = outputs_and_gradients(ours, inputs, **call)
    ours.recompute = True
    again = outputs_and_gradients(ours, inputs, **call)
    assert calls["reference"] == calls["torch"] == 0
    assert all(kept[name].equal(again[name]) for name in kept)


def test_recompute_with_projection():
    ours, _ = build_pair("lstm", 9, 33, proj_size=20)
    inputs = make_inputs(ours, 90, 7)
    kept = outputs_and_gradients(ours, inputs)
    ours.recompute = True
    again = outputs_and_gradients(ours, inputs)
    assert all(kept[name].equal(again[name]) for name in kept)


def test_recompute_is_an_argument_and_an_attribute():
    ours, theirs = build_pair("lstm", 3, 5)
    assert not ours.recompute
    assert repr(ours) == repr(theirs)
    chosen = type(ours)(3, 5, recompute=True)
    assert chosen.recompute
    assert repr(chosen) == "LSTM(3, 5, recompute=True)"
    assert copy.deepcopy(chosen).recompute
    assert pickle.loads(pickle.dumps(chosen)).recompute
    chosen.load_state_dict(theirs.state_dict())


def test_scratch_memory_is_used_again(monkeypatch):
    """By its thread alone, NaN in deterministic mode, and not held on to where it is large."""
    monkeypatch.setattr(memory, "_held", threading.local())
    like = torch.empty(0)
    first = memory.scratch(like, 4096)
    first.zero_()
    again = memory.scratch(like.double(), 1024)
    assert again.data_ptr() == first.data_ptr()
    assert first.isnan().all()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(memory.scratch, like, 4096).result().data_ptr() != first.data_ptr()
    monkeypatch.setattr(memory, "SCRATCH", 8192)
    large = memory.scratch(like, 8196)
    assert large.nbytes >= 8196
    assert memory.scratch(like, 4096).data_ptr() == first.data_ptr()
