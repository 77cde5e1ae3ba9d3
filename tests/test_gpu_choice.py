"""Who serves on a GPU, by what was proven there: with a GPU that is pretended."""

import json

import pytest
import torch
from gpu_asked import BFLOAT16, asked, gpu, told, trying
from gpu_trials import FACTS, KEY, found, right
from torch import nn

import fastrnn
from fastrnn import backends
from fastrnn.gpu import when
from fastrnn.kernels.cells import CELLS, key_of
from fastrnn.kernels.gpu import choice, launch, verdicts
from fastrnn.step import cell_of_module

__all__ = ["gpu"]


def test_what_is_not_proven_is_torchs(gpu):
    with when.asking(None):
        assert asked() == ("torch", f"bfloat16 on GPU: {choice.UNPROVEN}")


def test_what_is_proven_is_ours(gpu):
    gpu.known[KEY] = right(1.5, 1.5)
    expected = "bfloat16 on GPU: 1.50x as fast as otherwise, proven 2026-01-02"
    assert asked() == ("triton", expected)
    assert asked(B=33) == ("triton", expected)
    with when.asking(None):  # nothing else is
        for other in (
            asked(B=65), asked(B=32), asked(packed=True), asked(training=False),
            asked(nn.GRU(8, 512, dtype=BFLOAT16)),
        ):  # fmt: skip
            assert other.name == "torch"


def test_a_verdict_serves_the_lengths_that_it_knows(gpu):
    gpu.known[KEY] = right(few=0.8, many=2.0)
    assert asked(T=300).name == "triton"
    assert asked(T=32).name == "torch"


def test_estimates_stay_a_veto(gpu):
    gpu.known[KEY] = right()
    assert "less to prepare" in asked(T=31).reason


def test_the_first_call_tries(gpu):
    worker = found(right(3.0, 3.0))
    with trying(worker):
        assert asked().name == "triton"
        assert asked(T=50).name == "triton"
    assert len(worker.asked) == 1
    assert worker.asked[0][1]["cell"] == "lstm"


def test_what_was_decided_stays(gpu):
    """A process in which torch serves has it serve to the end, whatever comes to be known."""
    worker = found(verdicts.wrong("d x is off"))
    with trying(worker):
        assert "no: d x is off" in asked().reason
    gpu.add(KEY, right())
    assert asked().name == "torch"


def test_training_wants_both_directions(gpu):
    """A proof of what runs forward alone says nothing of backward."""
    alone = KEY._replace(training=False, backward=None)
    gpu.known[alone] = right()
    with when.asking(None):
        assert asked(training=False).name == "triton"
        assert asked(training=True).name == "torch"


def test_explaining_tries_nothing(gpu, monkeypatch):
    seen = []
    monkeypatch.setattr(backends, "choose", lambda *_: seen.append(when.prover()))
    backends.explain(torch.zeros(2))
    backends.explain(fastrnn.LSTM(2, 3), torch.zeros(4, 2, 2))
    assert seen == [None, None]
    assert when.prover() is not None


def test_off(gpu, monkeypatch):
    told(monkeypatch, "off")
    gpu.known[KEY] = right()
    assert asked() == ("torch", "bfloat16 on GPU: FASTRNN_GPU is off")
    assert asked(forced=True).name == "triton"


def test_force(gpu, monkeypatch):
    told(monkeypatch, "force")
    assert asked().name == "triton"
    assert asked(T=2).name == "triton"
    monkeypatch.setattr(launch, "barred", lambda device, forced: "given up")
    assert asked().name == "torch"


@pytest.mark.parametrize("mode", choice.MODES)
def test_modes(gpu, monkeypatch, mode):
    told(monkeypatch, mode)
    assert choice.mode() == mode
    monkeypatch.setenv("FASTRNN_GPU", "off")  # which is read once
    assert choice.mode() == mode


def test_no_mode_is_the_default(gpu, monkeypatch):
    assert choice.mode() == "auto"
    told(monkeypatch, "")
    assert choice.mode() == "auto"


@pytest.mark.parametrize("mode", ["on", "AUTO", "1", " off"])
def test_any_other_mode_is_an_error(gpu, monkeypatch, mode):
    told(monkeypatch, mode)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"FASTRNN_GPU is '{mode}': it may be auto, known, "):
            asked()


def test_what_is_read(monkeypatch, tmp_path):
    """Only in auto are kernels tried, and not with a table that somebody else has made."""
    monkeypatch.setattr(choice, "facts", lambda device: FACTS)
    monkeypatch.setattr(choice.private, "default_root", lambda: tmp_path)
    pinned = tmp_path / "table.json"
    pinned.write_text(verdicts.table([(FACTS, {KEY: right()})]))

    def read(mode, **environment):
        told(monkeypatch, mode)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        choice._of_gpus.cache_clear()
        return choice.table.__wrapped__(torch.device("cuda", 0))

    assert read("auto").tries
    assert choice.table.__wrapped__(torch.device("cuda", 1)) is choice._of_gpus(json.dumps(FACTS))
    assert not read("known").tries
    assert read("auto").folder == tmp_path / "gpu" / verdicts.digest(FACTS)
    fixed = read("auto", FASTRNN_GPU_VERDICTS=str(pinned))
    assert fixed.known == {KEY: right()}
    assert not fixed.tries
    choice._of_gpus.cache_clear()
    choice.mode.cache_clear()


def test_facts(monkeypatch):
    """Of this GPU and its software; not of what a process may say of itself."""
    names = {
        "get_device_name": "NVIDIA H200", "get_device_capability": (9, 0),
    }  # fmt: skip
    for name, value in names.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    facts = choice.facts(torch.device("cpu"))
    assert facts.keys() == FACTS.keys()
    assert all(value for name, value in facts.items() if name not in ("cuda", "cudnn"))
    monkeypatch.setenv("FASTRNN_GPU_MARGIN", "40")
    assert choice.facts(torch.device("cpu")) == facts


@pytest.mark.parametrize("name", ["gpu.forward", "symbolic.cell", "cells.lstm", "projection"])
def test_what_tells_versions_of_kernels_apart(monkeypatch, name):
    before, of_module = choice._kernels(), choice.sources.of_module

    def changed(other):
        return b"other" if other == f"{choice.HOUSE}.{name}" else of_module(other)

    assert before == choice._kernels()
    monkeypatch.setattr(choice.sources, "of_module", changed)
    assert choice._kernels() not in (None, before)


def keyed(
    cell="lstm", B=64, H=512, D=1, training=True, dtype=BFLOAT16, packed=False, stack=(1, 0)
):  # fmt: skip
    return choice.key_of(dtype, torch.device("cpu"), training, cell, B, H, D, packed, stack)


def test_keys():
    assert keyed() == KEY
    assert keyed(B=40) == KEY
    assert keyed(B=30).B == 32
    assert keyed(H=509).H == 509  # for which a kernel is compiled, with its mask
    assert keyed(training=False).backward is None
    assert "beyond" in keyed(H=5000)
    kinds = [keyed(cell) for cell in CELLS] + [keyed(dtype=d) for d in backends.TRITON_DTYPES]
    kinds += [keyed(D=2), keyed(packed=True), keyed(H=200), keyed(H=199), keyed(H=197)]
    kinds += [keyed(stack=(2, 0)), keyed(stack=(3, 0)), keyed(stack=(1, 64))]
    assert len(set(kinds)) == len(kinds) - 1  # of which one is KEY itself, twice


def test_keys_of_own_cells():
    """By their program: another class with the same step is the same."""

    class One(fastrnn.Recurrent):
        gates, states = 1, "h"

        def step(self, wx, uh, h):
            return torch.tanh(wx[0] + uh[0])

    class Two(One):
        def step(self, wx, uh, h):
            return torch.sigmoid(wx[0] + uh[0])

    def key(cls):
        module = cls(2, 64)
        return keyed(key_of(cell_of_module(module, True, module._edition)), H=64)

    assert key(One) == key(One)
    assert key(One) != key(Two)
    assert key(One).cell.startswith("One ")
    assert key(One).label.startswith("One bfloat16")
    assert keyed(key_of(cell_of_module(One(2, 64), True, 0)), H=64, stack=(2, 0)) == key(One)
