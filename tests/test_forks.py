"""Forked children: they use the engine after their parents did on two threads, and hang nowhere."""

import os

import pytest
from conftest import run_python

PARENT = """
import os, threading, torch, fastrnn
from fastrnn.kernels.cpu.host import threads as teams

layer = fastrnn.LSTM(40, 48)
weights = list(layer.parameters())
x = torch.randn(210, 20, 40)  # so long that torch's own operations are shared by threads too

def step():
    y, _ = layer(x)
    return y, *torch.autograd.grad(y.sum(), weights)

def same():
    return all(a.equal(b) for a, b in zip(step(), expected, strict=True))

def check():
    for threads in (torch.get_num_threads(), 3, 1, 2):
        torch.set_num_threads(threads)
        assert same()
        with torch.no_grad():
            assert layer(x)[0].equal(expected[0])

def in_child(job):
    child = os.fork()
    if not child:
        job()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

torch.set_num_threads(2)
expected = step()
"""
FORKS = {
    "data-loader": """
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        check()
        return torch.tensor(i)

loader = torch.utils.data.DataLoader(Rows(), num_workers=2, multiprocessing_context="fork")
assert sorted(int(i) for i in loader) == [0, 1, 2, 3]
""",
    "fork": "in_child(check)",
    "fork-of-a-fork": "in_child(lambda: (check(), in_child(check), check()))",
    "fork-in-a-thread": """
def work():
    check()
    in_child(check)
    check()

thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "fork-while-busy": """
taken, done = threading.Event(), threading.Event()

def hold():
    with teams.TEAM.members(2):
        taken.set()
        done.wait()

holder = threading.Thread(target=hold)
holder.start()
taken.wait()
in_child(check)
done.set()
holder.join()
""",
    "fork-inside-a-team": """
with teams.TEAM.members(2):
    in_child(check)
""",
    "fork-beside-work": """
busy = True

def work():
    while busy:
        assert same()

worker = threading.Thread(target=work)
worker.start()
for _ in range(5):
    in_child(check)
busy = False
worker.join()
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("limit", [None, "1"], ids=["openmp", "own-threads"])
@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
def test_fork(fork, limit):
    """A child trains after its parent did, on any number of threads; and then the parent again."""
    environment = {"OMP_THREAD_LIMIT": limit} if limit else {}
    run_python("\n".join([PARENT, fork, "check()"]), timeout=100, **environment)
