"""What holds for every test: seeds, one thread, NaN in all uninitialised memory; and the spies."""

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
import torch
from guards import Guards

from fastrnn import cell_step, functional
from fastrnn.kernels import reference
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.cpu import engine
from fastrnn.kernels.cpu.host import cell_calls, memory
from fastrnn.kernels.cpu.host import threads as teams

# The same examples in every run; HYPOTHESIS_PROFILE=explore draws new ones, and more of them.
hypothesis.settings.register_profile(
    "gate", derandomize=True, deadline=None, max_examples=40, database=None
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


@pytest.fixture(autouse=True)
def laboratory():
    """Each test starts from the same seed, on one thread, and finds NaN where nobody wrote; what
    other tests have compiled does not count towards the number of graphs that Dynamo makes.

    Deterministic mode is what makes torch fill ``torch.empty`` and ``Tensor.new_empty``.
    """
    if dynamo := sys.modules.get("torch._dynamo"):  # loading it takes seconds
        dynamo.reset()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=[1, 2], ids="threads={}".format)
def threads(request):
    torch.set_num_threads(request.param)
    return request.param


@contextmanager
def spying():
    """Counts what each engine serves, layers or steps: "forward" and "backward" are the fused ones.

    A stack of layers that is one call of the engine counts as its layers.
    """
    calls = Counter()

    def counted(name, function):
        def wrapper(*args, **kwargs):
            calls[name] += getattr(args[0], "layers", 1)
            return function(*args, **kwargs)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "forward", counted("forward", engine.forward))
        patch.setattr(engine, "backward", counted("backward", engine.backward))
        patch.setattr(cell_calls, "forward", counted("forward", cell_calls.forward))
        patch.setattr(cell_calls, "gradients", counted("backward", cell_calls.gradients))
        patch.setattr(reference, "layer", counted("reference", reference.layer))
        names = [name + suffix for name in CELLS for suffix in ("", "_cell")]
        torchs = {name: counted("torch", getattr(torch._VF, name)) for name in names}
        for module in (functional, cell_step):
            patch.setattr(module, "_VF", SimpleNamespace(**torchs))
        yield calls


@pytest.fixture
def calls():
    with spying() as calls:
        yield calls


@pytest.fixture
def team_sizes(monkeypatch):
    """The number of threads of every compiled call, in order."""
    sizes, run = [], teams.Team.run

    def noted(team, *args):
        sizes.append(team.size)
        return run(team, *args)

    monkeypatch.setattr(teams.Team, "run", noted)
    return sizes


def run_python(script, *, timeout=200, **environment):
    """``script`` in a fresh process beside the tests' own modules: what it said, or how it failed.

    If it hangs, it is killed with all its children.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env=os.environ | environment,
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        pytest.fail(f"hangs: {output}\n{errors}")
    assert process.returncode == 0, f"exit status {process.returncode}: {output}\n{errors}"
    return output, errors


@pytest.fixture
def guards(monkeypatch):
    """Guards around all that the engine takes from ``new_empty`` and ``new_zeros``."""
    guards = Guards()
    monkeypatch.setattr(memory, "SCRATCH", 0)  # none is used again
    for name in ("new_empty", "new_zeros"):
        make = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *args, make=make: guards.tensor(make(*args)))
    return guards
