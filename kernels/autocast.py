"""Autocast, where it must not reach: what is computed in the dtypes that it has chosen already."""

from contextlib import nullcontext

import torch


def off(x):
    """A context in which torch's operations, of tensors like x, are not cast."""
    kind = x.device.type
    there = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if there else nullcontext()
