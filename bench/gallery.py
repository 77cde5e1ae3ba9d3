"""python -m bench.gallery: what the models of the gallery learn, and how long that takes.

Each entry runs as ``python -m fastrnn NAME`` does. Its row takes the place of an older one of the
same machine in bench/gallery.jsonl, and its picture, if the pages show one, that of an older one.
"""

import argparse
import shlex
import sys
from datetime import UTC, datetime
from time import perf_counter

import torch
from rich.console import Console

from . import kinds, machine, results, tables, tree

FILE = machine.ROOT / "bench" / "gallery.jsonl"
PICTURES = {"gradients", "pronounce"}  # of these entries the first page shows a picture


def what(row):
    """What a row is about, the machine aside."""
    return row["entry"], row["options"]


def picture(name):
    """Where that of an entry is."""
    return machine.ROOT / "bench" / "plots" / f"gallery_{name}.png"


def row_of(name, options, console, plot=None):
    """A row: what an entry has found with these options, in words. plot: where to draw."""
    from fastrnn.gallery import command  # only now: a user says first which fastrnn that is

    drawing = ["--plot", str(plot)] if plot else []
    entry, given = command.options_of(name, [*shlex.split(options), *drawing])
    torch.set_num_threads(given.threads)
    begun = perf_counter()
    result = entry.run(given, console)
    command.show(console, result)
    seconds = perf_counter() - begun
    about = {"entry": name, "options": options, "seed": given.seed, "threads": given.threads}
    return about | {"seconds": round(seconds, 1), **result._asdict()}


def block(rows):
    """What the pages say of them."""
    words = "Times faster: a step with fastrnn than with torch.nn, or than by hand."
    return kinds.by_machine(rows, "Not run yet: `python -m bench.gallery`.", words, _table)


def summary(rows):
    """The same in short, with pictures, for the first page."""
    words = "The figure of each model, and what stands beside it."
    found = [kinds.by_machine(rows, "Not run yet: `python -m bench.gallery`.", words, _in_short)]
    for name in sorted(PICTURES & {row["entry"] for row in rows}):
        found.append(f"![python -m fastrnn {name}]({picture(name).relative_to(machine.ROOT)})")
    return "\n\n".join(found)


def _in_short(rows):
    lines = []
    for row in sorted(rows, key=what):
        (whose, own), *others = row["figures"]
        beside = "; ".join(": ".join(figure) for figure in others[-2:])
        entry = f"`{row['entry']}`, {row['what']}"
        lines.append([entry, f"{whose}: **{own}**", beside, f"{row['seconds'] / 60:.1f} min"])
    return tables.table(["`python -m fastrnn ...`", "the model", "beside it", "time"], lines)


def _table(rows):
    lines = []
    for row in sorted(rows, key=what):
        figures = "; ".join(": ".join(figure) for figure in row["figures"])
        faster = "" if row["faster"] is None else f"{row['faster']:.1f}x"
        command = f"`python -m fastrnn {row['entry']} {row['options']}".strip() + "`"
        minutes = f"{row['seconds'] / 60:.1f} min"
        lines.append([command, row["what"], figures, faster, minutes])
    return tables.table(["", "figures of", "", "times faster", "time"], lines)


def main(argv=None):
    """The exit status: 0, 1 where two ways did not agree, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    p = argparse.ArgumentParser(prog="python -m bench.gallery", description=__doc__)
    p.add_argument("entry", help="its name, as python -m fastrnn list has it")
    p.add_argument("--options", default="", metavar="'...'", help="what it is given")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/gallery.jsonl")
    args = p.parse_args(argv)
    fields = machine.describe("cpu") | {"command": "python -m bench.gallery ..."}
    plot = picture(args.entry) if args.entry in PICTURES and args.out == FILE else None
    try:
        row = row_of(args.entry, args.options, Console(highlight=False), plot)
    except KeyboardInterrupt:
        return 130
    date = datetime.now(UTC).isoformat(timespec="seconds")
    results.add(args.out, [row | fields | {"date": date}], what)
    return int(not row["agreed"])


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
