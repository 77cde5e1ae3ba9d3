"""A trial of compiled kernels, on an emulated sm_90: yes to what Triton makes, no to each fault."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from gpu_trials import KEY
from gpu_tried import Clock

from fastrnn.gpu import proof, race, trial
from fastrnn.kernels.gpu import attempt, guard, verdicts
from tests.ptx import faults
from tests.ptx.gpu import emulated

KEY = KEY._replace(H=40, B=4, forward=(16, 16, 16, 4, 1), backward=(16, 16, 4))
EITHER = "forward", "backward"
PLANTED = [fault._replace(kernel=kernel) for fault in faults.IN_TEXT for kernel in EITHER]
PLANTED += [faults.RING_OF_TWO, *(faults.ABSENT._replace(kernel=kernel) for kernel in EITHER)]
WIDE = KEY._replace(H=128, forward=(16, 16, 128, 4, 0), backward=(64, 16, 4))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few steps and looks; of failures nothing is known from before, or afterwards."""
    monkeypatch.setattr(race, "LENGTHS", (1, 2))
    monkeypatch.setattr(proof, "LOOKS", 50)
    for module, name in ((attempt, "_failed"), (guard, "_off"), (guard, "_words")):
        monkeypatch.setattr(module, name, {})


def verdict_on(key, fault=None, T=5):
    item = {"cell": key.cell, "key": key._asdict()}
    checks = [proof.Check(T, 3, key.packed, 2)]
    with emulated(90, fault):
        *_, row = trial.tried(item, torch.device("cpu"), checks, Clock())
    return verdicts.read(row)[1]


@pytest.mark.parametrize(
    "key",
    [KEY, KEY._replace(cell="gru", packed=True, D=2), WIDE._replace(training=False, backward=None)],
    ids=lambda key: key.label,
)
def test_yes(key):
    verdict = verdict_on(key)
    assert verdict.right, verdict.why
    assert verdict.serves(100)[0]


@pytest.mark.parametrize("fault", PLANTED, ids=str)
def test_no(fault):
    assert not verdict_on(KEY, fault).right


@pytest.mark.parametrize("fault", faults.OF_UNIT, ids=str)
def test_no_where_there_is_a_matrix_unit(fault):
    assert not verdict_on(WIDE, fault._replace(kernel="forward"), T=3).right
