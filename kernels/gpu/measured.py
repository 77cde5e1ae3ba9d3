"""What GPUs said: where ours was faster than torch's kernels, and with which tiles.

measured.json is made by ``python -m bench.gpu_report`` from what ``python -m bench.gpu`` found:

    {"gpu": ..., "processors": 132, "speed": [...], "tiles": [...]}  for each GPU that was measured
    speed: {gates, arithmetic, D, H, B, T, inference, training}  times faster than torch.nn
    tiles: {gates, arithmetic, D, H, B, forward, backward}       the fastest; null: not tried

A size that was not measured is taken to be like the nearest one, if that is no more than FAR away
and takes as many launches. A GPU is like no other: not of another name, nor a part of itself.
"""

import json
from functools import cache
from math import log2
from pathlib import Path

FILE = Path(__file__).with_name("measured.json")
FAR = 2  # powers of two, in H, in B and in T
LONG = 512  # steps, from which on one takes as long as the other
UNTIMED = "fits, not yet timed on such a GPU"


@cache
def gpus():
    """What the file says; nothing is measured where there is none."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []


def arithmetic(dtype, tf32):
    """What the rows call it: cuDNN is not equally fast for float16 and bfloat16."""
    return "tf32" if dtype == "float32" and tf32 else dtype


def nearest(rows, gates, arithmetics, D, like, **sizes):
    """The rows for the layers most like this one; [] if none is like it.

    like: a function that says so of a row; sizes: H, B and T, or some of them; None is like any.
    """

    def distance(row):
        return max(abs(log2(row[name] / size)) for name, size in sizes.items() if size)

    alike = [
        row
        for row in rows
        if row["gates"] == gates
        and row["D"] == D
        and row["arithmetic"] in arithmetics
        and like(row)
    ]
    least = min(map(distance, alike), default=FAR)
    return [row for row in alike if distance(row) == least] if least <= FAR else []


def _of(device, table):
    """The rows of a table about this GPU; [] if it was not measured."""
    for gpu in gpus():
        if (gpu["gpu"], gpu["processors"]) == (device.name, device.processors):
            return gpu[table]
    return []


def tile(direction, gates, kind, B, H, D, device, like):
    """The tile that was fastest ("forward" or "backward"), as a list; None where none was tried.

    kind: of sizes.PRECISIONS; like: see ``nearest``
    """
    names = {"half": ("float16", "bfloat16"), "tf32": ("tf32",), "fp32": ("float32",)}[kind]
    rows = [row for row in _of(device, "tiles") if row[direction]]
    found = nearest(rows, gates, names, D, like, H=H, B=B)
    return found[0][direction] if found else None


def verdict(gates, dtype, tf32, T, B, H, D, device, training, like):
    """(whether ours shall serve a layer that fits, or None if nobody knows; why)."""
    mode = "training" if training else "inference"
    rows = [row for row in _of(device, "speed") if row[mode]]
    name, long = arithmetic(dtype, tf32), T and min(T, LONG)
    found = nearest(rows, gates, (name,), D, like, H=H, B=B, T=long)
    if not found:
        return None, UNTIMED
    worst = min(found, key=lambda row: row[mode])
    size = "{}x{}x{} on {}".format(*map(worst.get, "TBH"), device.name)
    return worst[mode] >= 1, f"{worst[mode]:.2f}x as fast as torch.nn at {size}"
