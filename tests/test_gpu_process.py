"""The process in which kernels are tried: which GPU it uses, how long, and how it ends."""

import os
import subprocess
import time
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from gpu_trials import FACTS, ITEM, KEY

from fastrnn.gpu import process, trial, when
from fastrnn.kernels.gpu.kept import Table

SCRIPT = """
# No `if __name__ == "__main__"` here: most scripts for training have none.
import sys
sys.path.insert(0, {tests!r})
sys.path.append(__import__("pathlib").Path("no text, which import passes over"))
print("runs")
from fastrnn.gpu.process import Worker
worker = Worker({{"TOLD": "this"}})
print(*worker.rows("gpu_items:environment", {{"name": "TOLD"}}, 60))
worker.stop()
"""


def test_a_process_is_no_second_run_of_the_script(tmp_path):
    """Also from another folder, in which a file has the name of a module that it needs."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__)))
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "torch.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [process.sys.executable, str(script)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path / "cwd",
    )  # fmt: skip
    assert done.stdout.splitlines() == ["runs", "{'name': 'TOLD', 'value': 'this'}"], done.stderr


def test_a_process_that_is_not_to_be_had(monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/no/such/python")
    (row,) = process.Worker().rows("gpu_items:process", {}, 10)
    assert row["killed"]
    (row,) = process.Worker(serve="no.such:thing").rows("gpu_items:process", {}, 10)
    assert row["killed"]


def test_a_process_that_somebody_ends():
    """Not by what it did: a system that runs out of memory does that."""
    worker = process.Worker()
    rows = worker.rows("gpu_items:sleeps", {}, 60)
    assert next(rows) == {"ready": True}
    worker.process.kill()
    (row,) = rows
    assert row["outside"]


@pytest.fixture
def parts(monkeypatch):
    """The uuids of the GPUs, or parts of some, that a process sees."""
    seen = ["a", "b", "c"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=seen[i])
    )
    return seen


def test_which_gpu_a_process_uses(parts, monkeypatch):
    """The very one, whatever it is called there: a part of one has no name but what the driver
    gives it, so the variable stays as it is.
    """
    assert [process.place(i, "b") for i in (0, 1, 2)] == [1, 1, 1]
    assert process.place(0, "d") is None
    for told in (None, "1", "MIG-b"):
        if told:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        environment = process.on_gpu(1).environment
        assert "CUDA_VISIBLE_DEVICES" not in environment
        assert environment[process.TRIED] == "b"
        assert environment["FASTRNN_GPU"] == "off"
    parts[:] = ["a", "a"]  # if a driver gives all parts the name of the whole
    assert [process.place(i, "a") for i in (0, 1)] == [0, 1]


def test_a_trial_finds_its_gpu(parts, monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(trial.choice, "facts", lambda device: FACTS)
    monkeypatch.setattr(trial, "tried", lambda item, device: iter([{"none": str(device)}]))
    item = ITEM | {"key": KEY._asdict(), "facts": FACTS}
    for wanted, expected in (("a", "cuda:0"), ("c", "cuda:2"), ("d", "does not see the GPU")):
        monkeypatch.setenv(process.TRIED, wanted)
        (row,) = trial.rows(item)
        assert expected in row["none"]
    assert used == [torch.device("cuda", 0), torch.device("cuda", 2)]
    monkeypatch.setenv(process.TRIED, "a")
    (row,) = trial.rows(item | {"facts": FACTS | {"driver": "13"}})
    assert "other software" in row["none"]


@pytest.mark.parametrize(
    ("limit", "phases", "latest", "end"),
    [
        (60, {"running": 0.5}, 60, (True, False)),  # from that phase on another limit counts
        (0.5, {"running": 60}, 5, (True, True)),
        (1.0, {}, 60, (True, False)),
    ],
)
def test_limits(limit, phases, latest, end):
    """Each phase has its own, once the process has started; and all have ``latest``."""
    worker = process.Worker()
    assert list(worker.rows("gpu_items:process", {}, 60))
    began = time.monotonic()
    *rows, last = worker.rows("gpu_items:phases", {}, limit, began + latest, phases)
    assert (last["late"], last["cut"]) == end
    assert time.monotonic() - began < 30
    assert {"phase": "running"} in rows
    assert worker.process is None


def test_a_process_that_is_slow_to_start():
    """As where torch is read from a disk for the first time: that is late, too."""
    (row,) = process.Worker().rows("gpu_items:process", {}, 60, time.monotonic() + 0.1)
    assert (row["late"], row["cut"]) == (True, True)
    assert "not ready in time" in row["failed"]


@pytest.mark.skipif(
    version("triton").startswith("3.6."),
    reason="the interpreter of Triton 3.6 does not work with NumPy 2.4",
)
def test_a_trial_from_end_to_end(tmp_path, monkeypatch):
    """A call of a new kind, a process of its own, Triton's interpreter, a file."""
    monkeypatch.setattr(when, "TRIAL", "gpu_items:trial")
    monkeypatch.setattr(when, "OF_CALL", when.Limits(100, 100))
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    table = Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none")
    prover = when.Prover(lambda index: process.Worker({"TRITON_INTERPRET": "1"}))
    keys = KEY, KEY._replace(B=32)
    try:
        verdict, second = (prover(table, key, ITEM) for key in keys)
        assert verdict.right, verdict
        assert second.right, second
        (worker,) = prover.workers.values()  # one for both
        assert worker.process.poll() is None
    finally:
        prover.stop()
    assert worker.process is None
    found = Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none").known
    assert found == dict(zip(keys, (verdict, second), strict=True))
    assert [path.suffix for path in table.folder.iterdir()] == [".json"] * 2
