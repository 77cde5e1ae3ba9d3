"""Whether the GPU engine serves a layer, and why: tiles.py asked about tensors."""

from functools import cache

from triton.runtime import driver

from . import launch, products, tiles


@cache
def obstacle(device_type):
    """Why no kernel runs on such a device, if so; under the interpreter a CPU will do."""
    if launch.INTERPRETED:
        return None
    if device_type != "cuda":
        return "no GPU, and no interpreter of Triton"
    try:
        driver.active.get_current_target()
    except Exception as error:  # of many kinds: it wants a C compiler, for one
        return f"Triton cannot start: {error}"
    return None


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
