"""When kernels are tried, and what comes of it: with a worker and a clock that are pretended."""

import threading
from functools import partial
from pkgutil import resolve_name

import pytest
from gpu_trials import FACTS, ITEM, KEY, PHASES, Worker, found, right

from fastrnn.gpu import tune, when
from fastrnn.gpu.when import OF_PROCESS, Prover
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
    ((name, item, limit, _, phases),) = worker.asked
    assert callable(resolve_name(name))
    assert item == ITEM | {"key": KEY._asdict(), "facts": FACTS}
    assert (limit, phases) == (60, {"proving": 20})
    assert (worker.index, worker.stopped) == (0, 0)
    ask.stop()
    assert worker.stopped == 1
    assert opened(root=tmp_path, shipped=tmp_path / "none").known == {KEY: right()}
    said = capsys.readouterr().err
    assert said == (
        "fastrnn: trying our kernels on this GPU, once: lstm bfloat16 B=64 H=512 training "
        "(they run for 20 s at most)\n"
    )


def test_what_there_is_a_verdict_on_is_not_tried(table, tmp_path):
    table.add(KEY, right())
    worker = Worker()
    assert prover(worker)(opened(root=tmp_path, shipped=tmp_path / "none"), KEY, ITEM) == right()
    assert not worker.asked


@pytest.mark.parametrize("tries", [False, True])
def test_where_nothing_may_be_tried(tries):
    """With FASTRNN_GPU=known, or while something is in the way: there a verdict counts, if there
    is one.
    """
    table, worker = Table(FACTS, {KEY: right()}, tries=tries), found()
    hindered = prover(worker, hindrance=lambda: "a CUDA graph captures" if tries else None)
    assert hindered(table, KEY, ITEM) == right()
    assert hindered(table, KEY._replace(B=8), ITEM) is None
    assert not worker.asked


@pytest.mark.parametrize("tries", [False, True])
def test_what_was_hindered_stays_torchs(tries):
    """In this process, whatever could be tried later, or is found by tune: no engine changes while
    a model is trained.
    """
    table, worker, reasons = Table(FACTS, tries=tries), found(), ["backward is under way", None]
    ask = prover(worker, hindrance=lambda: reasons.pop(0))
    assert ask(table, KEY, ITEM) is None
    assert ask(table, KEY, ITEM) is None
    table.add(KEY, right())
    assert ask(table, KEY, ITEM) is None
    assert not worker.asked


def test_a_layer_that_is_called_during_a_trial(table):
    """As by a finalizer: the one process is at work, so torch serves that kind to the end."""
    other, seen = KEY._replace(B=8), []
    worker = Worker(*PHASES, lambda: seen.append(ask(table, other, ITEM)))
    ask = prover(worker)
    ask(table, KEY, ITEM)
    assert seen == [None]
    assert ask(table, other, ITEM) is None
    assert len(worker.asked) == 1


def test_the_budget_of_a_process(table, capsys):
    """All that calls wait for counts in it: the process, the compiler, the kernels."""
    worker = found(seconds=17.0)
    ask, began = prover(worker), when.time.monotonic()
    for key in keys(10):
        ask(table, key, ITEM)
    left = [latest - began for *_, latest, _ in worker.asked]
    assert left == pytest.approx([OF_PROCESS - 17 * n for n in range(8)], abs=5)
    assert capsys.readouterr().err.count("torch serves what comes from here on") == 1
    assert table.known[keys(10)[9]] is None  # and it stays so


def test_one_process_for_several_keys(table, monkeypatch):
    """It is ended when nothing has come for a while, and started anew if need be."""
    monkeypatch.setattr(when, "IDLE", 0.05)
    made, worker = [], found()
    ask = when.Prover(lambda index: made.append(index) or worker, worker.clock, lambda: None)
    for key in keys(3):
        ask(table, key, ITEM)
    ask.timer.join(60)
    assert worker.stopped == 1
    ask(table, keys(4)[3], ITEM)
    assert made == [0, 0]
    assert len(worker.asked) == 4
    ask.timer.join(60)
    assert worker.stopped == 2


def test_where_no_thread_is_to_be_had(table, monkeypatch):
    """As while the interpreter ends: then the process ends at once."""

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(when.Timer, "start", start)
    worker = found()
    assert prover(worker)(table, KEY, ITEM) == right()
    assert worker.stopped == 1


KILLED = {"failed": "killed after 20 s", "killed": True, "late": True, "cut": False}
CUT = KILLED | {"cut": True}
DIED = {"failed": "the process died", "killed": True}
NONE = {"none": "too little memory is free on the GPU"}
ENDS = {
    "no process in time": ((KILLED,), False, "it took too long: starting: killed"),
    "compiling takes too long": ((PHASES[0], KILLED), False, "it took too long: compiling: killed"),
    "no process is to be had": ((DIED,), None, "the process died"),
    "it dies while it compiles": ((PHASES[0], DIED), None, "the process died"),
    "no memory": ((*PHASES[:2], NONE), None, "too little memory"),
    "it fails before": ((PHASES[0], {"failed": "OSError: no"}), None, "OSError: no"),
    "it hangs": ((*PHASES[:2], KILLED), False, "it took too long: proving: killed after 20 s"),
    "timing takes too long": ((*PHASES, KILLED), False, "it took too long: timing: killed"),
    "all of a process's time": ((PHASES[0], CUT), False, "it took too long: compiling"),
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


@pytest.mark.parametrize("count", [0, 1, 2])
def test_what_had_less_than_all_the_time_is_tried_by_the_next_process(table, tmp_path, count):
    """What came before has taken it; that is known then."""
    ask = prover(Worker(*PHASES[:count], CUT))
    ask.left -= 1
    assert ask(table, KEY, ITEM) is None
    assert opened(root=tmp_path, shipped=tmp_path / "none").known == {}


def test_what_took_too_long_is_no_news(table, tmp_path):
    """The next process does not wait for it again; a new version of anything does, or who asks."""
    prover(Worker(PHASES[0], KILLED))(table, KEY, ITEM)
    worker = found()
    again = opened(root=tmp_path, shipped=tmp_path / "none")
    assert not prover(worker)(again, KEY, ITEM).right
    assert again.known[KEY].date == verdicts.today()
    assert not worker.asked
    newer = Table.of(FACTS | {"driver": "13"}, True, root=tmp_path, shipped=tmp_path / "none")
    assert prover(worker)(newer, KEY, ITEM).right
    (result,) = tune.tried({KEY: (again, ITEM)}, worker=worker)
    assert result.verdict == right()
    assert opened(root=tmp_path, shipped=tmp_path / "none").known == {KEY: right()}


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


def test_who_is_asked():
    assert isinstance(when.prover(), Prover)
    with when.asking(None):
        assert when.prover() is None
