"""Threads: callers at once, changing counts; right results and no hang."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, compare, make_inputs, twins

from fastrnn.kernels.cpu.host import threads as teams

# Large enough that two threads share one call: cut at rows, and cut at hidden units.
SIZES = {"rows": (20, 48), "units": (5, 100)}
EVERY_CUT = pytest.mark.parametrize(("B", "H"), SIZES.values(), ids=SIZES)


def job(kind, B, H):
    """A layer and its input, ready to be compared."""
    ours, theirs = twins(kind, 40, H)
    return ours, theirs, make_inputs(ours, 21, B)


@EVERY_KIND
@EVERY_CUT
@pytest.mark.parametrize("openmp", [True, False], ids=["openmp", "own-threads"])
def test_two_threads_share_a_call(kind, B, H, openmp, monkeypatch, team_sizes):
    """On torch's OpenMP threads, and on threads of its own where there is no OpenMP."""
    if not openmp:
        monkeypatch.setattr(teams, "_openmp", lambda: None)
    elif teams._openmp() is None:
        pytest.skip("this process has no GNU OpenMP")
    torch.set_num_threads(2)
    compare(*job(kind, B, H))
    assert max(team_sizes) == 2


@EVERY_KIND
def test_small_work_stays_on_one_thread(kind, team_sizes):
    torch.set_num_threads(2)
    ours, theirs = twins(kind, 3, 4)
    compare(ours, theirs, make_inputs(ours, 2, 2))
    assert set(team_sizes) == {1}


@EVERY_KIND
@EVERY_CUT
def test_count_changed_between_calls(kind, B, H, team_sizes):
    """Each call heeds torch.set_num_threads, and forward and backward may differ in it."""
    ours, theirs, inputs = job(kind, B, H)
    for count in (1, 2, 4, 1, 3, 2):
        torch.set_num_threads(count)
        team_sizes.clear()
        compare(ours, theirs, inputs)
        assert max(team_sizes) == count

    def counting(outputs):  # backward on another number of threads than forward
        torch.set_num_threads(3 - torch.get_num_threads())
        return sum(t.square().sum() for t in outputs.values())

    torch.set_num_threads(1)
    compare(ours, theirs, inputs, loss=counting)


@EVERY_CUT
@pytest.mark.parametrize("openmp", [True, False], ids=["openmp", "own-threads"])
def test_callers_at_once(B, H, openmp, monkeypatch):
    """Python threads that train at the same time, each on two threads of its own where it may."""
    if not openmp:
        monkeypatch.setattr(teams, "_openmp", lambda: None)
    torch.set_num_threads(2)
    jobs = [job(kind, B, H) for kind in KINDS]
    start = threading.Barrier(len(jobs))

    def work(ours, theirs, inputs):
        start.wait()
        for _ in range(5):
            compare(ours, theirs, inputs)

    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(work, *one) for one in jobs]:
            done.result()


@EVERY_KIND
def test_one_module_in_two_threads(kind):
    """The same module, two callers: they share no buffer."""
    torch.set_num_threads(2)
    ours, theirs, _ = job(kind, 20, 48)
    inputs = [make_inputs(ours, 21, 20) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(compare, ours, theirs, inputs[i % 2]) for i in range(10)]
        for call in calls:
            call.result()


def test_backward_of_two_layers_on_autograd_threads():
    """Backward from several Python threads, forward from one."""
    torch.set_num_threads(2)
    ours, _, inputs = job("lstm", 20, 48)
    losses = [ours(inputs["x"])[0].square().sum() for _ in range(4)]
    weights = list(ours.parameters())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda loss: torch.autograd.grad(loss, weights), losses))
    for other in found[1:]:
        assert all(a.equal(b) for a, b in zip(found[0], other, strict=True))


def test_a_caller_that_finds_the_team_busy_works_alone(team_sizes):
    torch.set_num_threads(2)
    with teams.TEAM.members(2) as team:
        assert team.size == 2
        compare(*job("gru", 20, 48))
    assert set(team_sizes) == {1}


def test_an_error_gives_the_team_back(team_sizes):
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError), teams.TEAM.members(2):
        raise ZeroDivisionError
    compare(*job("gru", 20, 48))
    assert max(team_sizes) == 2
