"""One layer checked, with NaN in all memory that nobody has written."""

from contextlib import contextmanager

import torch

import fastrnn
from fastrnn.kernels.gpu import launch, tiles

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


def check(item):
    """What a row says of the item: which engine served, how far off it was, whether right."""
    case, arguments = oracle.case_of(item), (item["arithmetic"], item["relu"])
    with strict():
        try:
            with fastrnn.backends.use("triton"), launch.patience(plan.PATIENCE):
                return {"engine": "triton"} | oracle.judge(case, *arguments)
        except fastrnn.backends.Refused as refusal:
            return {"engine": "torch", "why": str(refusal)} | oracle.judge(case, *arguments)
