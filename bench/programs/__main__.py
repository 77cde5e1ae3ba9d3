"""The runner: every program in a process of its own, torch.nn and ours in turn."""

import argparse
import importlib
import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from statistics import median
from time import perf_counter

import torch

import fastrnn
from bench import machine, results

from .phases import SECONDS
from .table import FILE, what

PROGRAMS = {  # module: the package it is about
    "forecasting": "neuralforecast",
    "tagging": "flair",
    "control": "sb3-contrib",
    "separation": "openunmix",
}
# Losses may part by rounding, which training multiplies: by this much of the first loss
LIMIT = 1e-2


def measure(name, rounds):
    """A row: both trained from one seed, ``rounds`` times in turn, after one run unmeasured."""
    program = importlib.import_module(f"bench.programs.{name}")
    changed = []
    sides = {
        "torch_nn": lambda model: None,
        "fastrnn": lambda model: changed.append(fastrnn.accelerate(model)),
    }
    losses, seconds, phases = {}, {side: [] for side in sides}, {side: [] for side in sides}
    for _ in range(1 + rounds):
        for side, prepare in sides.items():
            SECONDS.clear()
            begun = perf_counter()
            losses[side] = program.train(prepare)
            seconds[side].append(perf_counter() - begun)
            phases[side].append(dict(SECONDS))
    theirs, ours = losses.values()
    apart = max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) / abs(theirs[0])
    if not apart <= LIMIT:
        raise RuntimeError(f"{name}: the losses of ours are {apart:.0e} from torch.nn's")
    return {
        "program": name,
        "package": PROGRAMS[name],
        "version": version(PROGRAMS[name]),
        "what": program.WHAT,
        "changed": changed[-1].changed,
        "left": changed[-1].left,
        "steps": len(theirs),
        "losses": {side: [found[0], found[-1]] for side, found in losses.items()},
        "apart": apart,
        "seconds": {side: median(times[1:]) for side, times in seconds.items()},
        "phases": {
            phase: {side: median(run[phase] for run in runs[1:]) for side, runs in phases.items()}
            for phase in SECONDS
        },
        "threads": torch.get_num_threads(),
    } | machine.describe("cpu")


def main():
    p = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__)
    p.add_argument("--only", choices=PROGRAMS, help="measure this one here, and print its row")
    p.add_argument("--rounds", type=int, default=3, help="measured runs of each (default: 3)")
    args = p.parse_args()
    if args.only:
        warnings.simplefilter("ignore")  # theirs
        torch.set_num_threads(1)
        print(json.dumps(measure(args.only, args.rounds)))
        return 0
    for name in PROGRAMS:
        command = [sys.executable, "-m", "bench.programs", "--only", name]
        done = subprocess.run(
            [*command, "--rounds", str(args.rounds)], stdout=subprocess.PIPE, text=True, check=True
        )
        results.add(FILE, [json.loads(done.stdout.splitlines()[-1])], what)
    return 0


if __name__ == "__main__":
    sys.exit(main())
