"""python -m tests.fuzz: random configurations, next to torch.nn in float64."""

import argparse
import sys
import time
import traceback
import warnings
from collections import defaultdict

import torch

from .cases import draw
from .check import check


def parser():
    p = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        epilog="Exit status: 0, 1 if a configuration failed, 2 for bad options, 130 after Ctrl-C.",
    )
    p.add_argument("--count", type=int, default=1000, help="configurations (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="where they are drawn from (default: 0)")
    p.add_argument("--minutes", type=float, help="stop after so many minutes")
    p.add_argument("--first", type=int, default=0, help="number of the first one (default: 0)")
    p.add_argument(
        "--only", metavar="SEED/NUMBER", help="the one configuration of that name, told in full"
    )
    return p


def settle():
    """NaN in all memory that nobody wrote, and one thread unless a check wants two."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True


class Summary:
    """What was run, what failed, and the worst errors."""

    def __init__(self):
        self.count, self.failed, self.worst = 0, 0, defaultdict(float)

    def add(self, case, faults, errors):
        self.count += 1
        self.failed += bool(faults)
        for what, units in errors.items():
            key = case.kind, str(case.dtype).removeprefix("torch."), what
            self.worst[key] = max(self.worst[key], units)

    def lines(self):
        yield f"{self.count} configurations, {self.failed} failed"
        yield "largest errors, in units of torch.nn's own:"
        for (kind, dtype, what), units in sorted(self.worst.items()):
            yield f"  {kind:9} {dtype:9} {what:9} {units:.2f}"


def tried(case):
    """``check``, in which an exception is a fault too."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return check(case)
    except Exception:
        return [traceback.format_exc()], {}


def fuzz(numbers, seed, minutes, say, progress):
    """The Summary of the configurations of these numbers."""
    summary, start = Summary(), time.monotonic()
    for i in numbers:
        if minutes and time.monotonic() - start > 60 * minutes:
            break
        case = draw(seed, i)
        faults, errors = tried(case)
        summary.add(case, faults, errors)
        for fault in faults:
            say(f"--only {seed}/{i}: {fault}")
        if faults:
            say(f"    {case}")
        progress(summary, time.monotonic() - start)
    return summary


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    settle()
    seed, numbers = args.seed, range(args.first, args.first + args.count)
    if args.only:
        try:
            seed, number = map(int, args.only.split("/"))
        except ValueError:
            p.error("--only: two numbers, as in 0/17")
        numbers = [number]
        print(draw(seed, number))
    shown = sys.stderr.isatty()

    def progress(summary, seconds):
        if shown:
            rate = summary.count / max(seconds, 1e-9)
            line = f"\r{summary.count} done, {summary.failed} failed, {rate:.1f} a second"
            print(line, end="", file=sys.stderr, flush=True)

    try:
        summary = fuzz(numbers, seed, args.minutes, lambda line: print(line, flush=True), progress)
    except KeyboardInterrupt:
        return 130
    print(*summary.lines(), sep="\n")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
