"""Loss curves, drawn in the terminal in Braille dots and with matplotlib as a picture."""

import math

import torch

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Braille: [row of 4][column of 2]
BLANK = 0x2800


def braille(values, width, height, low, high):
    """``values`` as a curve between low (bottom) and high (top): ``height`` lines of text."""
    rows = [[BLANK] * width for _ in range(height)]
    before = None
    for x in range(2 * width):
        value = _sample(values, x, 2 * width)
        if not math.isfinite(value):
            before = None
            continue
        place = (high - value) / ((high - low) or 1.0)
        y = round(min(max(place, 0.0), 1.0) * (4 * height - 1))
        before = y if before is None else before
        for dot in range(min(y, before), max(y, before) + 1):  # no gaps where it is steep
            rows[dot // 4][x // 2] |= DOTS[dot % 4][x % 2]
        before = y
    return ["".join(map(chr, row)) for row in rows]


def _sample(values, x, columns):
    """The mean of the values that fall on column x."""
    first = x * len(values) // columns
    last = max(first + 1, (x + 1) * len(values) // columns)
    return sum(values[first:last]) / (last - first)


def save(path, comparison):
    """Draw both losses, and their difference, to a PNG file."""
    from matplotlib.figure import Figure

    layer = comparison.layer
    theirs, ours = comparison.torch.losses, comparison.ours.losses
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss, difference = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps = range(1, len(ours) + 1)
    loss.plot(steps, theirs, label=f"torch.nn.{layer}", linewidth=3, color="0.7")
    loss.plot(steps, ours, label=f"fastrnn.{layer}", linewidth=1, color="C0")
    loss.set_ylabel("bits per character")
    loss.legend()
    rounding = torch.finfo(comparison.options.dtype).eps  # also what stands for no difference
    apart = [max(abs(a - b), rounding) for a, b in zip(theirs, ours, strict=True)]
    difference.semilogy(steps, apart, ".", color="C1", markersize=3)
    difference.set_ylabel("difference")
    difference.set_xlabel("step")
    figure.savefig(path, format="png", dpi=150)
