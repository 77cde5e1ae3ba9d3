"""``fastrnn.tune``: with a GPU and a worker that are pretended."""

import io

import torch
from gpu_trials import ITEM, KEY, Tries, right, table
from rich.console import Console

import fastrnn
from fastrnn import backends
from fastrnn.gpu import tune
from fastrnn.kernels.cells import CELLS

__all__ = ["table"]


class OnGpu(torch.nn.Module):
    """An LSTM of 512 units, which asks as on a GPU, and is computed on the CPU."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = fastrnn.LSTM(8, 512, dtype=torch.bfloat16), []

    def forward(self, x):
        hx = [torch.zeros(1, x.shape[1], 512, dtype=x.dtype)] * 2
        given = [x, *hx, *self.layer.parameters()]
        self.calls.append(backends._on_gpu(given, False, (CELLS["lstm"], len(x), 1), False))
        return x


X = torch.zeros(100, 64, 8, dtype=torch.bfloat16)


def test_tune(table, monkeypatch):
    """It is called with gradients and without, and decides nothing by that."""
    model, worker = OnGpu(), Tries()
    monkeypatch.setattr(tune.process, "on_gpu", worker)
    console = Console(file=io.StringIO(), width=200)
    results = fastrnn.tune(model, X, console=console)
    assert [choice.name for choice in model.calls] == ["torch"] * 2
    assert [result.key.training for result in results] == [True, False]
    assert worker.asked == [KEY, KEY._replace(training=False, backward=None)]
    assert "ours" in console.file.getvalue()
    model(X)
    assert model.calls[-1].name == "triton"


def test_tune_says_where_there_is_nothing(capsys):
    assert fastrnn.tune(fastrnn.LSTM(3, 4), torch.zeros(5, 2, 3)) == []
    assert "no layer of this call" in capsys.readouterr().err


def test_what_was_decided_before_stays(table, monkeypatch):
    """Torch served in this process: from the next on ours does."""
    table.add(KEY, None)
    found = list(tune.tried({KEY: (table, ITEM)}, worker=Tries()))
    assert found == [(KEY, right(), "")]
    assert table.known[KEY] is None
