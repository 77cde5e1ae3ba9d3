"""Where nothing may be tried, and in what process it is: without a GPU."""

import os
import subprocess
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python
from gpu_trials import FACTS, ITEM, KEY
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from fastrnn.gpu import process, when
from fastrnn.kernels.gpu.kept import Table


def test_nothing_is_in_the_way_of_a_plain_call():
    assert when.hindrance() is None
    with torch.no_grad():
        assert when.hindrance() is None


def in_backward(look):
    x = torch.ones(1, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: look())
    y.sum().backward()


def in_checkpointing(look):
    """Whose forward is run again in backward."""

    def run(x):
        if torch._C._current_graph_task_id() != -1:
            look()
        return x.exp()

    x = torch.ones(1, requires_grad=True)
    torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False).sum().backward()


def in_vmap(look):
    torch.vmap(lambda x: look() or x)(torch.zeros(2))


def in_grad(look):
    torch.func.grad(lambda x: look() or x.sum())(torch.zeros(2))


def in_forward_ad(look):
    with forward_ad.dual_level():
        look()


def in_jit_trace(look):
    torch.jit.trace(lambda x: look() or x + 1, torch.zeros(2), check_trace=False)


def in_a_mode(look):
    with TorchDispatchMode():
        look()


def in_capture(look):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("is_initialized", "is_current_stream_capturing"):
            patch.setattr(torch.cuda, name, lambda: True)
        look()


def under_torchrun(look):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        look()


SITUATIONS = [
    in_backward, in_checkpointing, in_vmap, in_grad, in_forward_ad, in_jit_trace, in_a_mode,
    in_capture, under_torchrun,
]  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_what_is_in_the_way(situation):
    seen = []
    situation(lambda: seen.append(when.hindrance()))
    assert seen
    assert all(seen)
    assert when.hindrance() is None


RANKS = """
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from fastrnn.gpu import when
for count in (1, 2):
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    print(when.hindrance())
    dist.destroy_process_group()
"""


def test_ranks():
    """A process group of one is a process like any other."""
    assert run_python(RANKS)[0].splitlines() == ["None", "there are other ranks"]


FORK = """
import os
from fastrnn.gpu import when
if (child := os.fork()) == 0:
    print(when.hindrance(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(when.hindrance())
"""


def test_a_forked_child():
    assert run_python(FORK)[0].splitlines() == ["this is a forked process", "None"]


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


@pytest.mark.parametrize(
    ("told", "index", "expected"),
    [
        (None, 0, "GPU-0"), (None, 1, "GPU-1"), ("1,0", 1, "GPU-1"),
        ("MIG-a,MIG-b", 1, "MIG-b"), ("MIG-a", 1, "GPU-1"),
    ],
)  # fmt: skip
def test_which_gpu_a_process_sees(monkeypatch, told, index, expected):
    """The very one, whatever order the variable of this process says."""
    if told is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=i))
    environment = process.on_gpu(index).environment
    assert environment["CUDA_VISIBLE_DEVICES"] == expected
    assert environment["FASTRNN_GPU"] == "off"


@pytest.mark.skipif(
    version("triton").startswith("3.6."),
    reason="the interpreter of Triton 3.6 does not work with NumPy 2.4",
)
def test_a_trial_from_end_to_end(tmp_path, monkeypatch):
    """A call of a new kind, a process of its own, Triton's interpreter, a file."""
    monkeypatch.setattr(when, "TRIAL", "gpu_items:trial")
    monkeypatch.setattr(when, "OF_KEY", 100)
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    table = Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none")
    prover = when.Prover(lambda index: process.Worker({"TRITON_INTERPRET": "1"}))
    verdict = prover(table, KEY, ITEM)
    assert verdict.right, verdict
    assert Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none").known == {KEY: verdict}
    assert [path.suffix for path in table.folder.iterdir()] == [".json"]
