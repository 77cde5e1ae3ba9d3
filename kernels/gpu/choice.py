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
    last = states[-1]  # of H units, with a projection, too
    if last.dim() != 3 or not last.numel():
        return False, "nothing to compute"
    _, B, H = last.shape
    dtype, device = str(last.dtype).removeprefix("torch."), launch.describe(last.device)
    found = tiles.choose(
        cell.gates, dtype, products.tf32(), B, H, directions, device, training=training
    )
    return found.forward is not None, found.reason
