"""Calls that ask who serves them, on a GPU that is pretended."""

import pytest
import torch
from gpu_trials import FACTS
from torch import nn

from fastrnn import backends
from fastrnn.gpu import when
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu import choice
from fastrnn.kernels.gpu.kept import Table

BFLOAT16 = torch.bfloat16


@pytest.fixture
def gpu(monkeypatch):
    """A Table; tensors on CPU pass for those of an H200 as ``asked`` asks."""
    table = Table(FACTS, tries=True)
    monkeypatch.setattr(choice, "obstacle", lambda device_type: None)
    monkeypatch.setattr(choice, "table", lambda device: table)
    monkeypatch.delenv("FASTRNN_GPU", raising=False)
    choice.mode.cache_clear()
    yield table
    choice.mode.cache_clear()


def told(monkeypatch, mode):
    monkeypatch.setenv("FASTRNN_GPU", mode)
    choice.mode.cache_clear()


def asked(layer=None, T=100, B=64, packed=False, training=True, forced=False):
    """The Choice for a call of a layer of 512 units."""
    layer = layer or nn.LSTM(8, 512, dtype=BFLOAT16)
    hx = [torch.empty(1, B, 512, dtype=BFLOAT16)] * (2 if isinstance(layer, nn.LSTM) else 1)
    x = torch.empty(*((T * B,) if packed else (T, B)), 8, dtype=BFLOAT16)
    cell = CELLS["lstm" if isinstance(layer, nn.LSTM) else "gru"]
    with torch.set_grad_enabled(training):
        return backends._on_gpu([x, *hx, *layer.parameters()], False, (cell, T, 1), forced)


def trying(worker):
    """Within this context calls have kernels tried by a worker that is pretended."""
    return when.asking(when.Prover(worker, worker.clock, hindrance=lambda: None))
