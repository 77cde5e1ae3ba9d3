"""python -m bench.aot: compile every kernel for every kind of GPU; print and write the cost."""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from .. import machine, tree

FILE = Path(__file__).parent.parent / "aot.jsonl"
COLUMNS = ("registers", "spilled", "shared", "instruction", "held")


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.aot",
        description="Compile the GPU kernels, with every tile in use, for GPUs that need not be "
        "here; print registers and spilled bytes of a thread, shared bytes of a program, the "
        "matrix instruction, and whether the weights are loaded before the time loop.",
    )
    p.add_argument("--gpus", default="", metavar="NAME[,NAME]", help="such as sm90; default: all")
    p.add_argument(
        "--jobs", type=int, default=machine.cores(), help="processes; default: %(default)s"
    )
    p.add_argument("--out", type=Path, default=FILE, metavar="FILE", help="default: %(default)s")
    p.add_argument("--show", action="store_true", help="compile nothing, print what FILE says")
    return p


def load(path=FILE):
    """{Row: its figures} of a file."""
    from .rows import Row

    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)
        fields = [figures.pop(name) for name in Row._fields]
        found[Row(*fields[:-1], tuple(fields[-1]))] = figures
    return found


def write(path, found):
    lines = (json.dumps(row._asdict() | figures) for row, figures in found.items())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv=None):
    """The exit status: 0, or 1 if a row was not compiled."""
    args = parser().parse_args(argv)
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from .rows import GPUS, compile_row, rows

    console = Console()
    names = args.gpus.split(",") if args.gpus else list(GPUS)
    if args.show:
        found = load(args.out)
    else:
        wanted = [row for row in rows() if row.gpu in names]
        known = load(args.out) if args.out.exists() else {}
        found = {row: figures for row, figures in known.items() if row.gpu not in names}
        here = partial(tree.use, machine.ROOT)
        with ProcessPoolExecutor(args.jobs, get_context("spawn"), here) as pool:
            found |= track(pool.map(compile_row, wanted), total=len(wanted), console=console)
        write(args.out, found)
    table = Table("GPU", "cell", "arithmetic", "H", "kernel", "tile", *COLUMNS)
    for row, figures in found.items():
        *fields, tile = row
        said = [figures["error"]] if "error" in figures else [str(figures[c]) for c in COLUMNS]
        table.add_row(*map(str, fields), " ".join(map(str, tile)), *said)
    console.print(table)
    return int(any("error" in figures for figures in found.values()))


if __name__ == "__main__":
    tree.use(machine.ROOT)
    sys.exit(main())
