"""The runner: every program in a process of its own, torch.nn and ours in turn."""

import argparse
import importlib
import json
import subprocess
import sys
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

import fastrnn
from bench import machine
from bench.report import with_block

PROGRAMS = {  # module: the package it is about
    "forecasting": "neuralforecast",
    "tagging": "flair",
    "control": "sb3-contrib",
    "separation": "openunmix",
}
RESULTS = Path(__file__).parent.parent / "programs.jsonl"
MARKERS = "<!-- programs:start -->", "<!-- programs:end -->"
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
    losses, seconds = {}, {side: [] for side in sides}
    for _ in range(1 + rounds):
        for side, prepare in sides.items():
            begun = perf_counter()
            losses[side] = program.train(prepare)
            seconds[side].append(perf_counter() - begun)
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
        "threads": torch.get_num_threads(),
    } | machine.describe("cpu")


def table(rows):
    """The README's block."""
    first = rows[0]
    lines = [
        f"Measured on {first['cpu']}, {first['threads']} thread; torch {first['torch']}, commit "
        f"{first['commit']}, by `python -m bench.programs`: each trained from one seed with "
        "torch.nn's layers and, after `accelerate`, with ours, in turn. Apart: the largest "
        "difference of their losses, relative to the first loss. Times are of the whole training.",
        "",
        "| program | modules changed | losses, first and last | apart | times faster |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first, last = row["losses"]["fastrnn"]
        faster = row["seconds"]["torch_nn"] / row["seconds"]["fastrnn"]
        kinds = Counter(row["changed"].values())
        changed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(
            f"| {row['package']} {row['version']}: {row['what']} | {changed} | {first:.4f} to "
            f"{last:.4f} | {row['apart']:.0e} | {faster:.2f}x |"
        )
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__)
    p.add_argument("--only", choices=PROGRAMS, help="measure this one here, and print its row")
    p.add_argument("--rounds", type=int, default=3, help="measured runs of each (default: 3)")
    p.add_argument("--readme", type=Path, help="put the table there; measure nothing")
    args = p.parse_args()
    if args.readme:
        rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        text = args.readme.read_text(encoding="utf-8")
        args.readme.write_text(with_block(text, table(rows), *MARKERS), encoding="utf-8")
    elif args.only:
        warnings.simplefilter("ignore")  # theirs
        torch.set_num_threads(1)
        print(json.dumps(measure(args.only, args.rounds)))
    else:
        with RESULTS.open("w") as file:
            for name in PROGRAMS:
                command = [sys.executable, "-m", "bench.programs", "--only", name]
                done = subprocess.run(
                    [*command, "--rounds", str(args.rounds)],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                file.write(done.stdout.splitlines()[-1] + "\n")
                file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
