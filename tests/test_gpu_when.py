"""When kernels are tried, and what comes of it: with a worker and a clock that are pretended."""

import threading
from functools import partial
from pkgutil import resolve_name

import pytest
from gpu_trials import FACTS, ITEM, KEY, PHASES, Worker, found, right

from fastrnn.gpu import when
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


KILLED = {"failed": "killed after 20 s", "killed": True, "late": True}
DIED = {"failed": "the process died", "killed": True}
NONE = {"none": "too little memory is free on the GPU"}
ENDS = {
    "compiling takes too long": ((PHASES[0], KILLED), None, "killed after 20 s"),
    "no process is to be had": ((DIED,), None, "the process died"),
    "it dies while it compiles": ((PHASES[0], DIED), None, "the process died"),
    "no memory": ((*PHASES[:2], NONE), None, "too little memory"),
    "it fails before": ((PHASES[0], {"failed": "OSError: no"}), None, "OSError: no"),
    "it hangs": ((*PHASES[:2], 6.0, KILLED), False, "killed after 20 s"),
    "it had no time": ((*PHASES[:2], 4.0, KILLED), None, "killed after 20 s"),
    "timing takes too long": ((*PHASES, 6.0, KILLED), None, "killed after 20 s"),
    "it ends its process": ((*PHASES[:2], DIED), False, "the process died"),
    "somebody ends it": ((*PHASES[:2], DIED | {"outside": True}), None, "the process died"),
    "or later": ((*PHASES, DIED), False, "the process died"),
    "it is wrong": (
        (*PHASES[:2], verdicts.written(KEY, verdicts.wrong("d x is off"))), False, "d x is off",
    ),
    "it dies when all is done": ((*PHASES, verdicts.written(KEY, right()), DIED), True, None),
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


def test_traces_ask_nobody():
    assert when.prover(traced=True) is None
    assert isinstance(when.prover(traced=False), Prover)
    with when.asking(None):
        assert when.prover(traced=False) is None
