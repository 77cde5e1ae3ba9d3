"""python -m bench.calls: short calls, at every size, against torch.nn's.

All sizes of one kind make one row of bench/calls.jsonl, in the place of an older one of the same
machine: written when the kind is finished, so that Ctrl-C loses one kind at most.
"""

import argparse
import gc
import sys
from datetime import UTC, datetime
from itertools import groupby

from rich.console import Console
from rich.progress import track

from . import kinds, machine, peers, results, tables, tree
from .cases import SUITES, Case
from .groups import geometric_mean
from .options import MODES, cases_of, counts

FILE = machine.ROOT / "bench" / "calls.jsonl"
FIELDS = ("cell", "nonlinearity", "layers", "directions", "mode", "threads")
ROUNDS = 5
NOISE = 0.97  # a ratio below it is "slower": two runs of the same code differ by this much


def kind(case):
    """What the cases of one row have in common."""
    return {field: getattr(case, field) for field in FIELDS}


def what(row):
    """What a row is about, the machine aside."""
    return tuple(row[field] for field in FIELDS)


def rows_of(cases, seconds):
    """A row for each kind: {size: seconds of torch.nn's call}, {size: times faster}, faults."""
    from .measure import measure  # brings Numba along: not for --help

    contestants = peers.load([peers.BASELINE, peers.OURS])
    gc.freeze()  # what is loaded by now: to look through it for every size takes half of all time
    try:
        for shared, mine in groupby(cases, kind):
            found = {"torch_s": {}, "ratio": {}, "errors": {}}
            for case in mine:
                _enter(found, case.size, *measure(case, contestants, seconds, ROUNDS))
            yield shared | found
    finally:
        gc.unfreeze()


def _enter(found, size, theirs, ours):
    if "ratio" in ours:
        found["torch_s"][size] = float(f"{theirs['time_s']:.4g}")
        found["ratio"][size] = float(f"{ours['ratio']:.4g}")
    else:
        found["errors"][size] = ours.get("error") or ours.get("skipped")


def block(rows):
    """What the pages say of short calls."""
    words = f"Slower: at how many sizes under {NOISE}x."
    return kinds.by_machine(rows, "Not measured yet: `python -m bench.calls`.", words, _table)


def _table(rows):
    lines = [[_name(row), *_figures(row)] for row in rows]
    header = ["times faster", "one step, B = 1", "all sizes", "worst", "slower"]
    return tables.table(header, lines)


def _name(row):
    case = Case(T=1, B=1, I=1, H=1, **{field: row[field] for field in FIELDS})
    return f"{case.kind} {case.mode}, {tables.threads(case.threads)}"


def single(row):
    """The times faster of one step of one sequence, of every H."""
    return [ratio for size, ratio in row["ratio"].items() if size.startswith("1x1x")]


def _figures(row):
    worst = min(row["ratio"], key=row["ratio"].get)
    slower = sum(ratio < NOISE for ratio in row["ratio"].values())
    means = (geometric_mean(values) for values in (single(row), list(row["ratio"].values())))
    return [
        *(f"{mean:.2f}x" for mean in means),
        f"{row['ratio'][worst]:.2f}x at {worst}",
        f"{slower} of {len(row['ratio'])}",
    ]


def main(argv=None):
    """The exit status: 0, 1 where something was wrong, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    p = argparse.ArgumentParser(prog="python -m bench.calls", description=__doc__)
    p.add_argument("--threads", type=counts, default=[1], metavar="N[,N]", help="default: 1")
    p.add_argument("--suite", choices=["calls", "step"], default="calls", help="default: calls")
    p.add_argument("--seconds", type=float, default=0.02, help="of each size; default: 0.02")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/calls.jsonl")
    args = p.parse_args(argv)
    cases = cases_of(SUITES[args.suite], MODES, args.threads)
    fields = machine.describe("cpu") | {"command": " ".join(["python -m bench.calls", *argv])}
    console, faults = Console(highlight=False), 0
    total = len({tuple(kind(case).values()) for case in cases})
    found = rows_of(cases, args.seconds)
    quiet = not console.is_terminal
    try:
        for row in track(found, total=total, console=console, transient=True, disable=quiet):
            date = datetime.now(UTC).isoformat(timespec="seconds")
            results.add(args.out, [row | fields | {"date": date}], what)
            faults += len(row["errors"])
            shown = "  ".join(_figures(row)) if row["ratio"] else ""
            console.print(f"{_name(row)}: {shown}", *row["errors"].items(), soft_wrap=True)
    except KeyboardInterrupt:
        return 130
    return int(faults > 0)


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
