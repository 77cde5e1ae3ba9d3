"""Whether the GPU engine serves a layer here, and why: what fits (tiles.py), and what was proven.

FASTRNN_GPU says who decides, read once:

    auto   (default) torch serves until the kernels for a call have been tried on this very GPU, in
           a process of their own, and were right and faster; an eager call of a new kind tries
    known  likewise, but nothing is tried: ``python -m fastrnn gpu`` and ``fastrnn.tune`` do that
    off    torch serves
    force  ours serve wherever they fit
"""

import ctypes
import json
import os
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
import triton
from triton.runtime import driver

from .. import private
from ..cells import CELLS, cell_of
from ..cpu.compiler import sources
from . import kept, launch, measured, products, tiles, verdicts

MODES = "auto", "known", "off", "force"
UNPROVEN = "not proven on this GPU yet: python -m fastrnn gpu"
REMEMBERED = 4096  # answers to calls
HOUSE = __name__.removesuffix(".gpu.choice")


@cache
def mode():
    """What FASTRNN_GPU says. Raises ValueError if that is nothing known."""
    told = os.environ.get("FASTRNN_GPU") or "auto"
    if told not in MODES:
        raise ValueError(f"FASTRNN_GPU is {told!r}: it may be {', '.join(MODES)}")
    return told


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


def fit(dtype, device, training, forced, cell, T, B, H, D, packed, stack=(1, 0), prove=None):
    """(whether ours shall serve, why) for layers of D directions, on a GPU or in its place.

    cell: its key; T, B: None where they are not known; stack: how many layers, and their proj_size
    or 0; forced: wherever it fits. prove(table, key, item) gives the Verdict, for which it may try
    kernels; None: those that are there count. If it is ``final``, so is the answer: it is
    remembered, with all that it depends on.
    """
    if B == 0:
        return False, "nothing to compute"
    forced = forced or mode() == "force"
    if why := launch.barred(device, True) if forced else not_of_itself(device):
        return False, why
    given = dtype, training, cell, T, B, H, D, packed, stack
    if forced:
        return _fits(device, True, *given)[:2]
    known, final = table(device), getattr(prove, "final", False)
    tf32 = dtype == torch.float32 and products.tf32()
    place = *given, tf32, launch.margin(), tiles.told()
    if final and place in known.decided:
        return known.decided[place]
    found = _proven(known, device, prove, *given)
    if final:
        if len(known.decided) >= REMEMBERED:  # of lengths that vary without end
            known.decided.clear()
        known.decided[place] = found
    return found


def _fits(device, forced, dtype, training, cell, T, B, H, D, packed, stack):
    """(whether a layer fits, and is not thought to be slower; why)."""
    found = cell_of(cell)
    sizes = _name(dtype), products.tf32(), T, B, H, D, launch.describe(device)
    fits = tiles.choose(found.hgates, *sizes, training, forced, CELLS.get(found.name) is found)
    return fits.forward is not None, fits.reason


def _proven(known, device, prove, dtype, training, cell, T, B, H, D, packed, stack):
    """As ``fit``, by the verdicts of a Table."""
    fits, why = _fits(device, False, dtype, training, cell, T, B, H, D, packed, stack)
    if not fits:
        return False, why
    key = key_of(dtype, device, training, cell, B or 1, H, D, packed, stack)
    if B is None:
        found = known.traced.get(key) or _in_a_trace(known, key)
        if getattr(prove, "final", False):
            known.traced.setdefault(key, found)
        return found
    item = {"cell": cell, "device": device.index or 0}
    verdict = prove(known, key, item) if prove else known.known.get(key)
    return verdict.serves(T) if verdict else (False, UNPROVEN)


def not_of_itself(device):
    """Why ours serves only where it was asked for by name, if so."""
    return "FASTRNN_GPU is off" if mode() == "off" else launch.barred(device, False)


def _in_a_trace(known, key):
    """As ``fit``, for any T and B: what all verdicts on such calls come to, as on single layers,
    which a graph has.
    """
    open = {"B": 0, "forward": (), "backward": ()}
    every = [(k._replace(**open), v) for k, v in known.known.items() if v]
    found = []
    for wanted in (key._replace(**open), key._replace(**open, layers=1, projection=0)):
        mine = [verdict.serves(None) for each, verdict in every if each == wanted]
        found += mine or [(False, UNPROVEN)]
    return min(found, key=lambda each: each[0])


def key_of(dtype, device, training, cell, B, H, D, packed, stack=(1, 0)):
    """The verdicts.Key of a call, or why no tile fits. cell: its key; stack: as of ``fit``.

    Of a cell that torch has not, what serves otherwise takes layer after layer, as ours does: one
    stands for all.
    """
    found, tf32 = cell_of(cell), products.tf32()
    sizes = tiles.sequences(found, B), H, D, launch.describe(device)
    given = found.hgates, _name(dtype), tf32, *sizes
    chosen = [tiles.choose_forward(*given)]
    chosen += [tiles.choose_backward(*given)] if training else []
    for tile in chosen:
        if isinstance(tile, str):
            return tile
    forward, backward = [*map(tuple, chosen), None][:2]
    rest = D, packed, training, forward, backward, verdicts.batch_class(B)
    rest += stack if cell in CELLS else (1, 0)
    return verdicts.Key(_named(cell), measured.arithmetic(_name(dtype), tf32), H, *rest)


@cache
def _named(cell):
    """What a verdicts.Key calls the cell of a key."""
    return cell if cell in CELLS else f"{cell_of(cell).name} {verdicts.digest(cell)}"


def _name(dtype):
    return str(dtype).removeprefix("torch.")


@cache
def table(device):
    """The kept.Table of a GPU: its files are read now, and not again."""
    return _of_gpus(json.dumps(facts(device)))


@cache
def _of_gpus(facts):
    """GPUs that are alike share one, so that a model on several of them is served by one engine."""
    pinned, root = os.environ.get("FASTRNN_GPU_VERDICTS"), private.default_root()
    return kept.Table.of(json.loads(facts), mode() == "auto", pinned, root)


def facts(device):
    """What a verdict depends on besides its key, as plain values."""
    found = launch.describe(device)
    return {
        "gpu": torch.cuda.get_device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)),
        **{name: getattr(found, name) for name in ("arch", "processors", "shared", "shared_total")},
        "driver": _driver(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "kernels": _kernels(),
    }


def _driver():
    """The driver's version: which CUDA it has, and what the system says of it."""
    version, told = ctypes.c_int(), ""
    with suppress(OSError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    with suppress(OSError):  # in WSL there is no such file
        told = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    return f"{version.value} {told}".strip()


def _kernels():
    """A digest of all that makes the kernels and their launches, and of what stands round those of
    a projected layer; None where that is unknown.
    """
    found = [sources.of_packages([f"{HOUSE}.{room}" for room in ("gpu", "symbolic", "cells")])]
    found.append(sources.of_module(f"{HOUSE}.projection"))
    return None if None in found else sha256(b"".join(found)).hexdigest()[:16]
