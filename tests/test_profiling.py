"""A profiler's table has a row for each layer and step, which says which cell, and its sizes."""

import threading

import pytest
import torch
from against_torch import EVERY_KIND, build, make_inputs, name_outputs, packing, plain_call
from torch.autograd import profiler

import fastrnn
from fastrnn import backends, profiling

pytestmark = pytest.mark.filterwarnings("ignore")  # the profiler's own


def rows(run):
    """{name: how often} of our rows in the table of what ``run`` does."""
    with torch.profiler.profile() as recorded:
        run()
    return ours_in(recorded)


def ours_in(recorded):
    found = {row.key: row.count for row in recorded.key_averages()}
    return {name: count for name, count in found.items() if name.startswith("fastrnn::")}


def training(module, call=plain_call):
    inputs = make_inputs(module, 7, 3).values()

    def run():
        sum(y.sum() for y in name_outputs(module, call(module, *inputs)).values()).backward()

    return run


@EVERY_KIND
@pytest.mark.parametrize("call", [plain_call, packing([7, 5, 2])], ids=["dense", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_layer(kind, call, bidirectional):
    ours = build(fastrnn, kind, 4, 5, num_layers=2, bidirectional=bidirectional)
    sizes = "7x3x5" + " bidirectional" * bidirectional + " packed" * (call is not plain_call)
    forward, backward = f"fastrnn::{kind} {sizes}", f"fastrnn::{kind} backward {sizes}"
    assert rows(training(ours, call)) == {forward: 2, backward: 2}
    with torch.no_grad():
        inputs = make_inputs(ours, 7, 3)
        assert rows(lambda: call(ours, *inputs.values())) == {forward: 2}


@EVERY_KIND
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
def test_cell(kind, bias):
    ours = build(fastrnn, kind, 4, 5, cell=True, bias=bias)
    forward, backward = f"fastrnn::{kind}_cell 3x5", f"fastrnn::{kind}_cell backward 3x5"
    assert rows(training(ours)) == {forward: 1, backward: 1}
    with torch.no_grad():
        inputs = make_inputs(ours, 7, 3)
        assert rows(lambda: plain_call(ours, *inputs.values())) == {forward: 1}


def test_sizes_of_a_projection():
    """H is that of the cell state."""
    ours = fastrnn.LSTM(4, 5, proj_size=2)
    assert rows(training(ours)) == {"fastrnn::lstm 7x3x5": 1, "fastrnn::lstm backward 7x3x5": 1}


def test_reference():
    """Forward alone: its backward is torch's."""
    with backends.use("reference"):
        assert rows(training(fastrnn.GRU(4, 5))) == {"fastrnn::gru 7x3x5": 1}


def test_operators():
    """Compiled, a layer has its row in its operator's; what backward computes anew has one, too."""
    ours = fastrnn.GRU(4, 5, recompute=True)
    fast = torch.compile(ours, backend="aot_eager", fullgraph=True)
    run = training(ours, lambda _, *given: plain_call(fast, *given))
    run()
    assert rows(run) == {
        "fastrnn::layer": 1,
        "fastrnn::gru 7x3x5": 1,
        "fastrnn::layer_gradients": 1,
        "fastrnn::gru again 7x3x5": 1,
        "fastrnn::gru backward 7x3x5": 1,
    }


def test_another_thread():
    """Where torch records other threads, ours are there."""
    run = training(fastrnn.GRU(4, 5))
    config = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(experimental_config=config) as recorded:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert ours_in(recorded) == {"fastrnn::gru 7x3x5": 1, "fastrnn::gru backward 7x3x5": 1}


def test_the_older_profiler():
    """That of emit_nvtx and emit_itt."""
    with profiler.profile(use_kineto=False) as recorded:
        training(fastrnn.GRU(4, 5))()
    assert ours_in(recorded) == {"fastrnn::gru 7x3x5": 1, "fastrnn::gru backward 7x3x5": 1}


def test_nobody_records(monkeypatch):
    """Then no range is made, at which a profiler would be asked."""
    assert profiling.flag is profiler  # torch has the flag

    def refuse(name):
        raise AssertionError(f"a range {name!r}, for nobody")

    monkeypatch.setattr(profiling, "record_function", refuse)
    for cell in (False, True):
        training(build(fastrnn, "gru", 4, 5, cell=cell))()
    with pytest.raises(AssertionError, match="for nobody"):
        rows(training(fastrnn.GRU(4, 5)))
