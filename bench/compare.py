"""python -m bench.compare REV: is this checkout slower than that commit anywhere?

Both run at once, a process each, and take turns, so that what slows the machine slows both. How
memory happens to lie makes one process differ from the next by a few percent: so there are several
pairs of processes, and a case counts as slower only where it is so in every one of them, and is so
again when it is measured anew.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from . import data, gate, timing, tree
from .machine import ROOT
from .options import SUITES_HELP, add_case_options, chosen_cases

PAIRS = 3
ROUNDS = 5


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Compare the speed of this checkout with that of another commit, in turn; "
        "exit 1 where this one is slower beyond noise.",
        epilog=SUITES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("rev", help="the commit, such as HEAD~1 or main")
    add_case_options(p)
    p.add_argument("--margin", type=float, default=0.03, help="what still passes; default: 0.03")
    p.add_argument("--seconds", type=float, default=0.5, help="a case and pair; default: 0.5")
    return p


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    suspects = chosen_cases(args)
    if not suspects:
        p.error("these options leave no case")
    console = Console(highlight=False)
    try:
        with _worktree(args.rev) as other:
            for attempt in ("measuring", "measuring the slower ones again"):
                found = _ratios((other, ROOT), suspects, args.seconds, attempt, console)
                for case, ratios in found.items():
                    console.print(f"{case.label}: {_told(ratios)}")
                suspects = [case for case in found if slower(found[case], args.margin)]
                if not suspects:
                    console.print(f"no case is slower than at {args.rev}")
                    return 0
    except (subprocess.CalledProcessError, ArithmeticError) as error:
        console.print(f"cannot compare: {getattr(error, 'stderr', None) or error}")
        return 2
    except KeyboardInterrupt:
        return 130
    console.print(f"slower than at {args.rev}: {', '.join(case.label for case in suspects)}")
    return 1


def slower(ratios, margin):
    """Whether a case is slower in every pair of processes. ratios: time here / time there."""
    return min(ratios) > 1 + margin


def _told(ratios):
    low, high = min(ratios), max(ratios)
    return f"{np.median(ratios):.3f} of the time it took ({low:.3f} to {high:.3f})"


@contextmanager
def _worktree(rev):
    """A folder with ``rev`` checked out, while the context lasts."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        other = str(Path(folder, "tree"))
        subprocess.run(
            [*git, "add", "--detach", other, rev], check=True, capture_output=True, text=True
        )
        try:
            yield other
        finally:
            subprocess.run([*git, "remove", "--force", other], check=True, capture_output=True)


def _ratios(trees, cases, seconds, what, console):
    """{case: [for each pair of processes, the median over its rounds of time here / there]}."""
    found = {case: [] for case in cases}
    for pair in range(PAIRS):
        with _worker(trees[0]) as there, _worker(trees[1]) as here:
            title, quiet = f"{what}, {pair + 1} of {PAIRS}", not console.is_terminal
            for case in track(cases, title, console=console, transient=True, disable=quiet):
                found[case].append(_ratio(there, here, case, seconds))
    return found


def _ratio(there, here, case, seconds):
    calls = min(_asked(worker, "prepare", case) for worker in (there, here))
    ratios = []
    end = time.perf_counter() + seconds
    while len(ratios) < ROUNDS or time.perf_counter() < end:
        times = {}
        for worker in random.sample((there, here), 2):
            times[worker] = _asked(worker, "turn", calls)
        ratios.append(times[here] / times[there])
    return float(np.median(ratios))


def _asked(worker, *request):
    worker.send(request)
    answer = worker.recv()
    if isinstance(answer, str):
        raise ArithmeticError(answer)
    return answer


@contextmanager
def _worker(folder):
    """A process that has imported the fastrnn in ``folder``: the connection to it."""
    context = get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_serve, args=(folder, its), daemon=True)
    process.start()
    try:
        yield mine
    finally:
        process.terminate()
        process.join()


def _serve(folder, connection):
    """In the worker: ("prepare", case) answers calls per turn, ("turn", calls) seconds per call.

    What goes wrong is answered as a text.
    """
    tree.use(folder)
    if Path(folder) != ROOT:  # a passing tree leaves nothing in the user's cache
        os.environ["FASTRNN_CACHE_DIR"] = str(Path(folder).with_name("cache"))
    run = None
    while True:
        what, argument = connection.recv()
        if what == "prepare":
            run, answer = _prepared(argument)
        else:
            time.sleep(timing.PAUSE)  # the other process's threads go to sleep meanwhile
            answer = timing.turn(run, argument)[0]
        connection.send(answer)


def _prepared(case):
    from .peers import fastrnn as ours

    torch.set_num_threads(case.threads)
    numbers = data.make(case)
    call = ours.build(case, numbers)
    expected = data.truth(case, numbers)
    fault = gate.wrong(data.names(case, numbers), call.run(), expected, case.tolerance)
    if fault:
        return None, f"{case.label}: {fault}"
    return call.run, timing.calls_per_turn(call.run)


if __name__ == "__main__":
    sys.exit(main())
