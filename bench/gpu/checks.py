"""One layer checked, with NaN in all memory that nobody has written."""

from contextlib import contextmanager

import torch

import fastrnn
from fastrnn.kernels.gpu import attempt, launch, tiles
from fastrnn.kernels.refused import Failed

from . import oracle, plan


@contextmanager
def strict():
    """``torch.empty`` is full of NaN, whatever was measured before is ignored."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        with tiles.using():
            yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def by_ours():
    """Our engine serves. Raises Failed if a kernel did not run, though others have stepped in."""
    attempt.forget()
    with fastrnn.backends.use("triton"):
        yield
    confirm()


def confirm():
    """Raise Failed if a kernel did not run since ``attempt.forget``."""
    if failed := attempt.failures():
        raise Failed("triton", failed[-1])


def check(item):
    """What a row says of the item: which engine served, how far off it was, whether right."""
    case, arguments = oracle.case_of(item), (item["arithmetic"], item["relu"])
    with strict():
        try:
            with by_ours(), launch.patience(plan.PATIENCE):
                found = {"engine": "triton"} | oracle.judge(case, *arguments)
            return found
        except Failed:
            raise
        except fastrnn.backends.Refused as refusal:
            return {"engine": "torch", "why": str(refusal)} | oracle.judge(case, *arguments)
