"""Whether the GPU engine serves a layer, and why: tiles.py asked about tensors."""

from . import launch, products, tiles


def able(device):
    """Whether kernels run on tensors of this device: a GPU, or under Triton's interpreter a CPU."""
    return device.type == "cuda" or launch.INTERPRETED


def fit(cell, directions, states, training):
    """(whether it fits, why) for a layer with these initial states, on a GPU or in its place."""
    hidden, *extras = states
    if any(extra.shape != hidden.shape for extra in extras):
        return False, "projection is torch's"
    if hidden.dim() != 3 or not hidden.numel():
        return False, "nothing to compute"
    _, B, H = hidden.shape
    dtype, device = str(hidden.dtype).removeprefix("torch."), launch.describe(hidden.device)
    found = tiles.choose(
        cell.gates, dtype, products.tf32(), B, H, directions, device, training=training
    )
    return found.forward is not None, found.reason
