"""When kernels are tried, and what comes of it: with a worker and a clock that are pretended."""

import os
import subprocess
import threading
from functools import partial
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python
from gpu_trials import FACTS, ITEM, KEY, PHASES, Worker, found, right
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from fastrnn.gpu import process, when
from fastrnn.gpu.when import OF_KEY, OF_PROCESS, Prover
from fastrnn.kernels import private
from fastrnn.kernels.gpu import verdicts
from fastrnn.kernels.gpu.kept import Table

opened = partial(Table.of, FACTS, True)


@pytest.fixture(autouse=True)
def unsaid():
    """What is said once a process is said in every test."""
    private.say.cache_clear()


@pytest.fixture
def table(tmp_path):
    return opened(root=tmp_path, shipped=tmp_path / "none")


def prover(worker, **options):
    return Prover(worker, worker.clock, **{"hindrance": lambda: None} | options)


def keys(count):
    return [KEY._replace(B=2**n) for n in range(count)]


def test_the_first_call_of_a_kind_has_it_tried(table, tmp_path, capsys):
    worker = found()
    ask = prover(worker)
    assert ask(table, KEY, ITEM) == right()
    assert ask(table, KEY, ITEM) == right()
    ((name, item, limit),) = worker.asked
    assert callable(resolve_name(name))
    assert item == ITEM | {"key": KEY._asdict(), "facts": FACTS}
    assert limit == OF_KEY
    assert (worker.index, worker.stopped) == (0, 1)
    assert opened(root=tmp_path, shipped=tmp_path / "none").known == {KEY: right()}
    said = capsys.readouterr().err
    assert said == (
        "fastrnn: trying our kernels on this GPU, once: lstm bfloat16 B=64 H=512 training "
        "(at most 20 s)\n"
    )


def test_what_there_is_a_verdict_on_is_not_tried(table, tmp_path):
    table.add(KEY, right())
    worker = Worker()
    assert prover(worker)(opened(root=tmp_path, shipped=tmp_path / "none"), KEY, ITEM) == right()
    assert not worker.asked


@pytest.mark.parametrize("tries", [False, True])
def test_where_nothing_may_be_tried(tries):
    """With FASTRNN_GPU=known, or while something is in the way; then it is tried later."""
    table, worker = Table(FACTS, tries=tries), found()
    hindered = prover(worker, hindrance=lambda: "a CUDA graph captures" if tries else None)
    assert hindered(table, KEY, ITEM) is None
    assert not worker.asked
    assert KEY not in table.known
    table.known[KEY] = right()
    assert hindered(table, KEY, ITEM) == right()


def test_the_budget_of_a_process(table, capsys):
    worker = found(seconds=17.0)
    ask = prover(worker)
    for key in keys(10):
        ask(table, key, ITEM)
    limits = [limit for _, _, limit in worker.asked]
    assert limits == [OF_KEY] * 6 + [OF_KEY - 2, 1]
    assert sum(limits[:-1]) + limits[-1] <= OF_PROCESS + OF_KEY
    assert capsys.readouterr().err.count("torch serves what comes from here on") == 1
    assert table.known[keys(10)[9]] is None  # and it stays so


def test_one_key_has_its_limit(table):
    """It is not the worker's own, which may be slow to start: that counts, too."""
    asked = []

    class Slow(Worker):
        def rows(self, name, item, limit, latest=None):
            asked.append((limit, latest))
            return super().rows(name, item, limit)

    prover(Slow(*PHASES))(table, KEY, ITEM)
    ((limit, latest),) = asked
    assert limit == OF_KEY
    assert latest <= when.time.monotonic() + OF_KEY


KILLED = {"failed": "killed after 20 s", "killed": True}
NONE = {"none": "too little memory is free on the GPU"}
ENDS = {
    "compiling takes too long": ((PHASES[0], KILLED), None, "killed after 20 s"),
    "no process is to be had": (
        ({"failed": "the process died", "killed": True},), None, "the process died",
    ),
    "no memory": ((*PHASES[:2], NONE), None, "too little memory"),
    "it fails before": ((PHASES[0], {"failed": "OSError: no"}), None, "OSError: no"),
    "it hangs": ((*PHASES[:2], KILLED), False, "killed after 20 s"),
    "it ends its process": (
        (*PHASES[:2], {"failed": "the process died", "killed": True}), False, "the process died",
    ),
    "it is wrong": (
        (*PHASES[:2], verdicts.written(KEY, verdicts.wrong("d x is off"))), False, "d x is off",
    ),
    "it dies when all is done": (
        (*PHASES, verdicts.written(KEY, right()), KILLED), True, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "is_right", "said"), ENDS.values(), ids=ENDS)
def test_ends_of_trials(table, tmp_path, capsys, rows, is_right, said):
    """Only what kernels did is held against them for good; and no mark is left behind."""
    verdict = prover(Worker(*rows))(table, KEY, ITEM)
    assert (verdict and verdict.right) == is_right
    later = opened(root=tmp_path, shipped=tmp_path / "none")
    assert later.known == ({} if verdict is None else {KEY: verdict})
    assert table.known == {KEY: verdict}
    assert not list(tmp_path.rglob("*.running"))
    errors = capsys.readouterr().err
    if said:
        assert f"torch serves {KEY.label}: " in errors
        assert said in errors


def test_a_mark_lies_there_while_kernels_run(table, tmp_path):
    seen = []

    def look():
        seen.append([path.suffix for path in tmp_path.rglob("*.*")])

    prover(Worker(PHASES[0], look, PHASES[1], look, PHASES[2], look))(table, KEY, ITEM)
    assert seen == [[], [".running"], [".running"]]


def test_ctrl_c_is_no_verdict(table, tmp_path):
    worker = Worker(*PHASES[:2], KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prover(worker)(table, KEY, ITEM)
    assert worker.stopped == 1
    assert KEY not in table.known
    assert not list(tmp_path.rglob("*.running"))


def test_while_another_process_tries_torch_serves(table, tmp_path):
    opened(root=tmp_path, shipped=tmp_path / "none").begin(KEY)
    worker = found()
    assert prover(worker)(table, KEY, ITEM) is None
    assert not worker.asked
    assert table.known == {KEY: None}


def test_threads_that_come_at_once(table):
    """One tries, the others wait for it."""
    worker, results = found(), []
    ask = prover(worker)
    threads = [
        threading.Thread(target=lambda: results.append(ask(table, KEY, ITEM))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [right()] * 4
    assert len(worker.asked) == 1


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


def test_traces_ask_nobody():
    assert when.prover(traced=True) is None
    assert isinstance(when.prover(traced=False), Prover)
    with when.asking(None):
        assert when.prover(traced=False) is None


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
