"""python -m bench.aot: compile every kernel for every kind of GPU; print and write the cost."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from .. import machine, tree
from . import table

COLUMNS = ("registers", "spilled", "shared", "instruction", "held", "trips")


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.aot",
        description="Compile the GPU kernels, with every tile in use, for GPUs that need not be "
        "here; print registers and spilled bytes of a thread, shared bytes of a program, the "
        "matrix instruction, whether the weights are loaded before the time loop, and how often a "
        "step waits for memory once all programs have arrived. Where any "
        "of that is worse than FILE says, say so and leave FILE as it is.",
    )
    p.add_argument("--gpus", default="", metavar="NAME[,NAME]", help="such as sm90; default: all")
    p.add_argument(
        "--jobs", type=int, default=machine.cores(), help="processes; default: %(default)s"
    )
    p.add_argument(
        "--out", type=Path, default=table.FILE, metavar="FILE", help="default: %(default)s"
    )
    p.add_argument("--accept", action="store_true", help="write FILE, worse or not")
    p.add_argument("--show", action="store_true", help="compile nothing, print what FILE says")
    return p


def main(argv=None):
    """The exit status: 0, or 1 if a row was not compiled, or was worse and is not accepted."""
    args = parser().parse_args(argv)
    from rich.console import Console

    from .rows import GPUS

    console = Console()
    known = args.show or args.out.exists()
    made_from, before = table.load(args.out) if known else ({}, {})
    if args.show:
        show(console, before)
        return failures(before)
    names, made = args.gpus.split(",") if args.gpus else list(GPUS), table.made_from()
    found = {row: figures for row, figures in before.items() if row.gpu not in names}
    found |= compile_for(names, args.jobs, console)
    show(console, found)
    worse = {row: table.worse(before[row], now) for row, now in found.items() if row in before}
    for row, changes in worse.items():
        for name, change in changes.items():
            said = " ".join(map(str, ("worse:", *row, name, change)))
            console.print(said, markup=False, soft_wrap=True)
    if any(worse.values()) and not args.accept:
        console.print(f"{args.out} is left as it was; --accept writes it")
        return 1
    table.write(args.out, made_from | dict.fromkeys(names, made), found)
    return failures(found)


def compile_for(names, jobs, console):
    """{Row: its figures} of the GPUs of these names."""
    from rich.progress import track

    from .rows import compile_row, rows

    wanted = [row for row in rows() if row.gpu in names]
    here = partial(tree.use, machine.ROOT)
    with ProcessPoolExecutor(jobs, get_context("spawn"), here) as pool:
        return dict(track(pool.map(compile_row, wanted), total=len(wanted), console=console))


def show(console, found):
    from rich.table import Table

    shown = Table("GPU", "cell", "arithmetic", "H", "rows", "kernel", "tile", *COLUMNS)
    for row, figures in found.items():
        *fields, tile = row
        said = [figures["error"]] if "error" in figures else [str(figures[c]) for c in COLUMNS]
        shown.add_row(*map(str, fields), " ".join(map(str, tile)), *said)
    console.print(shown)


def failures(found):
    return int(any("error" in figures for figures in found.values()))


if __name__ == "__main__":
    tree.use(machine.ROOT)
    sys.exit(main())
