"""One layer checked, with NaN in all memory that nobody has written."""

import warnings
from contextlib import contextmanager

import torch

import fastrnn
from fastrnn.kernels.gpu import launch, tiles
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
    """Our engine serves, and nobody steps in for a kernel that fails."""
    with warnings.catch_warnings(), fastrnn.backends.use("triton"):
        warnings.filterwarnings("error", "fastrnn: ", RuntimeWarning)
        yield


def check(item):
    """What a row says of the item: which engine served, how far off it was, whether right."""
    case, arguments = oracle.case_of(item), (item["arithmetic"], item["relu"])
    with strict():
        try:
            with by_ours(), launch.patience(plan.PATIENCE):
                return {"engine": "triton"} | oracle.judge(case, *arguments)
        except Failed:
            raise
        except fastrnn.backends.Refused as refusal:
            return {"engine": "torch", "why": str(refusal)} | oracle.judge(case, *arguments)
