"""Whether the GPU engine serves a layer here, and why: tiles.py asked about this GPU."""

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


def fit(dtype, device, training, forced, gates, torchs, T, B, H, D):
    """(whether ours shall serve, why) for a layer of D directions, on a GPU or in its place.

    gates: of its cell's recurrent product, 0 if there is none; torchs: whether torch has that cell;
    T, B: None where they are not known; forced: wherever it fits.
    """
    if B == 0:
        return False, "nothing to compute"
    if reason := launch.barred(device, forced):
        return False, reason
    dtype = str(dtype).removeprefix("torch.")
    sizes = products.tf32(), T, B, H, D, launch.describe(device)
    found = tiles.choose(gates, dtype, *sizes, training, forced, torchs)
    return found.forward is not None, found.reason
