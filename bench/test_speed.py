"""The core cases under pytest-benchmark, fastrnn alone, one thread.

pytest bench/ --benchmark-autosave here, then pytest bench/ --benchmark-compare on another commit.
"""

import pytest
import torch

from . import data, gate, peers
from .cases import SUITES
from .options import MODES, cases_of

CASES = cases_of(SUITES["core"], modes=MODES)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_speed(benchmark, case):
    numbers = data.make(case)
    call = peers.load([peers.OURS])[peers.OURS].build(case, numbers)
    expected = data.truth(case, numbers)
    assert not gate.wrong(data.names(case, numbers), call.run(), expected, case.tolerance)
    benchmark(call.run)
