"""python -m bench: measure fastrnn against every peer that is installed."""

import shlex
import sys
from collections import Counter
from functools import partial

import torch
from rich.console import Console
from rich.markdown import Markdown

from . import machine, peers, progress, tables, tree, zoo
from .groups import groups, rivals
from .options import chosen_cases, parser
from .results import Sink

QUICK_SECONDS, SECONDS = 0.2, 1.0
QUICK_ROUNDS, ROUNDS = 3, 7


def main(argv=None):
    """The exit status: 0, 1 if a result was wrong, 2 for bad options, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if "--cells=zoo" in argv or "--cells zoo" in " ".join(argv):
        return zoo.main(argv)
    p = parser()
    args = p.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("--device cuda: torch finds no such device here")
    if args.quick:
        args.suite = "quick"
    cases = chosen_cases(args, args.device)
    if not cases:
        p.error("these options leave no case")
    console = Console(highlight=False)
    if max(args.threads) > machine.cores():
        console.print(f"more threads than the {machine.cores()} cores this process may use")
    contestants = progress.present(peers.load(args.peers), console)
    try:
        sink = Sink(args.out)
    except OSError as error:
        p.error(f"--out {args.out}: {error.strerror}")
    fields = machine.describe(args.device) | {
        "command": shlex.join(["python", "-m", "bench", *argv])
    }
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    rounds = QUICK_ROUNDS if args.quick else ROUNDS
    rows = []
    try:
        for found in _measured(cases, contestants, seconds, rounds, console):
            for row in found:
                rows.append(row | fields)
                sink.write(rows[-1])
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    sink.close()
    _conclude(rows, console)
    console.print(f"{'interrupted: ' * interrupted}{len(rows)} rows in {args.out}")
    return 130 if interrupted else int(any("error" in row for row in rows))


def _measured(cases, contestants, seconds, rounds, console):
    """The rows of each case, as they come."""
    from .measure import measure  # brings Numba along: not for --help

    one = partial(measure, contestants=contestants, seconds=seconds, rounds=rounds)
    return progress.measured(cases, one, console)


def _conclude(rows, console):
    """The summary of all that was measured, and who was left out of what."""
    for rival in rivals(rows):
        if groups(rows, rival):
            console.print(Markdown(tables.summary(rows, rival)))
    skipped = Counter((row["peer"], row["skipped"]) for row in rows if "skipped" in row)
    for (peer, reason), count in skipped.items():
        console.print(f"{tables.name(peer)} left out of {count} cases: {reason}")
    if shared := progress.shared(rows):
        console.print(f"{shared} rows had less than a core to themselves: measure them again")


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
