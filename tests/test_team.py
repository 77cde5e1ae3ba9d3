"""A team of threads: fewer come than were asked for, or none; signals; the end of the process."""

import os
import re

import pytest
from conftest import run_python

CALLS = """
import atexit, ctypes, os, random, resource, signal, sys, threading, time, torch, fastrnn
from fastrnn.kernels.cpu.host import threads as teams

openmp = ctypes.CDLL(None)
layer = fastrnn.GRU(40, 48)
weights = list(layer.parameters())
x = torch.randn(21, 20, 40)

def step():
    y, _ = layer(x)
    return y, *torch.autograd.grad(y.sum(), weights)

def check():
    torch.set_num_threads(2)
    assert all(a.equal(b) for a, b in zip(step(), expected, strict=True))

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def member(_):
    check()
    came.append(threading.get_ident())

came = []
torch.set_num_threads(1)
expected = step()
check()
"""
# What makes OpenMP give fewer threads than it is asked for.
FEWER = {
    "dynamic": "openmp.omp_set_dynamic(1); check(); openmp.omp_set_dynamic(0)",
    "dynamic-in-a-thread": """
def work():
    openmp.omp_set_dynamic(1)
    check()

thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "in-a-region": """
openmp.GOMP_parallel(member, None, 2, 0)
assert len(set(came)) == 2
""",
    "in-a-region-of-one": "openmp.GOMP_parallel(member, None, 1, 0); assert len(came) == 1",
    "in-nested-regions": """
openmp.omp_set_max_active_levels(3)
openmp.GOMP_parallel(member, None, 2, 0)
assert len(set(came)) == 2
""",
    "no-levels": "openmp.omp_set_max_active_levels(0); check()",
}


@pytest.mark.parametrize("reason", FEWER.values(), ids=FEWER)
def test_fewer_threads_than_asked_for(reason):
    run_python("\n".join([CALLS, reason, "check()"]), timeout=60)


@pytest.mark.parametrize("name", ["OMP_DYNAMIC", "OMP_THREAD_LIMIT"])
def test_fewer_threads_by_the_environment(name):
    run_python(CALLS, timeout=60, **{name: "1"})


EVERY_TEAM = pytest.mark.parametrize(
    "environment", [{}, {"OMP_THREAD_LIMIT": "1"}], ids=["openmp", "own-threads"]
)
NO_MEMORY = """
torch.set_num_threads(64)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
try:
    layer(x)
except RuntimeError as error:
    print(error)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_no_more_threads():
    """Memory for the stack of a thread is not there: an error, no hang, and then all is well."""
    said, _ = run_python(CALLS + NO_MEMORY + "check()", timeout=60, OMP_THREAD_LIMIT="1")
    assert re.fullmatch(r"fastrnn: the system gave \d+ of 64 threads\n", said)


SIGNALS = """
class Interrupt(Exception):
    pass

def handler(*_):
    raise Interrupt

def interrupt():
    \"""Break calls off at all times, and compare those that were not.\"""
    signal.signal(signal.SIGALRM, handler)
    whole, broken, end = 0, 0, time.monotonic() + 4
    while time.monotonic() < end or not whole or not broken:
        torch.set_grad_enabled(True)  # torch's own contexts may be broken off too
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2 * usual))
            found = step()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            broken += 1
        else:
            whole += 1
            assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    signal.setitimer(signal.ITIMER_REAL, 0)
    with teams.TEAM.members(2) as team:
        assert team.size == 2
    check()

start = time.perf_counter()
check()
usual = time.perf_counter() - start
"""
FORK = """
child = os.fork()
if not child:
    interrupt()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@EVERY_TEAM
@pytest.mark.parametrize("where", ["interrupt()", FORK], ids=["parent", "child"])
def test_a_signal_handler_that_raises(where, environment):
    """Whenever it raises: later results are right, and the team is not lost."""
    run_python("\n".join([CALLS, SIGNALS, where]), timeout=60, **environment)


LOADING = """
from llvmlite.binding import ffi
from fastrnn.kernels.cpu.compiled import of_loops

def load():
    with torch.no_grad():
        assert layer(x)[0].equal(expected[0])

def locked():
    if not fired:
        fired.append(True)
        os.kill(os.getpid(), signal.SIGALRM)

fired = []
of_loops.forward.cache_clear()
signal.signal(signal.SIGALRM, handler)
ffi.register_lock_callback(locked, lambda: None)
try:
    load()
except Interrupt:
    print("broken off")
thread = threading.Thread(target=load)
thread.start()
thread.join()
"""


def test_a_signal_handler_that_raises_while_code_is_loaded():
    """While the compiler holds its lock: another thread can load the same afterwards."""
    said, _ = run_python("\n".join([CALLS, SIGNALS, LOADING]), timeout=60)
    assert said == "broken off\n"


ENDS = {
    "end": "",
    "sys.exit": "sys.exit(0)",
    "os._exit": "os._exit(0)",
    "atexit": "atexit.register(check)",
}
DAEMON = """
def work():
    torch.set_num_threads(2)
    with torch.no_grad():
        layer(long)  # takes a second: one of torch's own operations would abort the process

long = torch.ones(60_000, 16, 40)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""


@EVERY_TEAM
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_process_ends_while_a_daemon_thread_is_in_a_call(end, environment):
    run_python("\n".join([CALLS, DAEMON, end]), timeout=60, **environment)


LATE = """
import atexit, threading, time
import torch, fastrnn
from numba.core.compiler_lock import global_compiler_lock

def use(name):
    print(name, bool(fastrnn.RNNCell(4, 5)(torch.ones(3, 4)).isfinite().all()), flush=True)

def later():
    time.sleep(0.5)  # the main thread has ended by then
    use("thread")

{use}
"""
USES = {
    "thread": "threading.Thread(target=later).start()",
    "atexit": 'atexit.register(use, "atexit")',
    "lock": 'with global_compiler_lock: use("lock")',
}


@pytest.mark.parametrize(("name", "use"), USES.items(), ids=USES)
def test_a_first_call_where_threads_cannot_help(name, use):
    """At the end of the interpreter, and by who holds the lock that compiling takes."""
    assert run_python(LATE.format(use=use), timeout=60)[0].split() == [name, "True"]
