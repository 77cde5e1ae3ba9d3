"""The command line of python -m bench, and the cases that it asks for."""

import argparse
from dataclasses import replace
from itertools import product

from . import peers
from .cases import GATES, SUITES

SUITES_HELP = """suites:
  core     ten sizes T x B x H (default)
  full     these, and each also with I != H, two layers, bidirectional, packed, projected,
           float64 and autocast to bfloat16; and one step of the cells
  short    16 steps, short enough for torch.compile to unroll
  grid     B x H at T = 100: for the plots
  scaling  T up to 100,000, and growing H: for the plots too
  scan     H and B one by one: for cliffs just past a block size
  calls    short calls: T 1 to 16, four cells, stacks, directions (python -m bench.calls)
  step     of these T = 1, B = 1
  streaming  frames of 10 ms, one call each, the state carried (with --modes inference)
  quantized  of LSTM and GRU, and streams (python -m bench.quantized)
  quick    three sizes, for a first look
"""
EXAMPLES = """
examples:
  python -m bench --quick                                  a first look, a minute or two
  python -m bench --threads 1,2 --out mine.jsonl           the core sizes
  python -m bench --suite full --cells lstm --only packed  one variant of one cell
  python -m bench --suite scan --peers fastrnn --modes training

Every row is written to --out as soon as it is measured, and Ctrl-C loses none. Measuring a case
again adds a row, and the last one counts. A peer whose result is not torch.nn's gets no number, and
the exit status is then 1."""
DTYPES = ["float32", "float64", "bfloat16", "float16"]
MODES = ["training", "inference"]


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure fastrnn against every other implementation that is installed, in "
        "turn, each one's results checked against torch.nn first.",
        epilog=SUITES_HELP + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(p)
    add = p.add_argument
    add("--quick", action="store_true", help="a first look: --suite quick, 0.2 s a case")
    add(
        "--peers",
        type=some_of(peers.names()),
        default=peers.names(),
        metavar="NAME[,NAME]",
        help=f"of {', '.join(peers.names())}; default: all that are installed",
    )
    add("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    add("--seconds", type=float, metavar="S", help="for each case, at least; default: 1")
    add(
        "--out",
        default="bench.jsonl",
        metavar="FILE",
        help="JSON lines, appended to; default: bench.jsonl",
    )
    return p


def add_case_options(p):
    """The options that say which cases."""
    add = p.add_argument
    add("--suite", choices=SUITES, default="core", help="which cases; see below")
    add(
        "--only",
        default="",
        metavar="WORDS",
        help="only cases that have these words in their label: 'packed LSTM' or 100x1x128",
    )
    add(
        "--cells",
        type=some_of([c.lower() for c in GATES]),
        metavar="NAME[,NAME]",
        help="of lstm, gru, rnn; default: all. Or zoo alone: fastrnn.zoo, see --cells zoo --help",
    )
    add(
        "--modes",
        type=some_of(MODES),
        default=MODES,
        metavar="NAME[,NAME]",
        help="of training, inference; default: both",
    )
    add(
        "--dtypes",
        type=some_of(DTYPES),
        metavar="NAME[,NAME]",
        help=f"of {', '.join(DTYPES)}, instead of what the suite says",
    )
    add("--threads", type=counts, default=[1], metavar="N[,N]", help="default: 1")


def some_of(known):
    """An argument type: names out of ``known``, with commas between."""

    def parse(text):
        chosen = text.lower().split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; there are {', '.join(known)}")
        return chosen

    return parse


def counts(text):
    """An argument type: numbers of threads."""
    found = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be numbers of threads, such as 1,2")
    return found


def cases_of(suite, modes, threads=(1,), dtypes=None, device="cpu"):
    """The cases of a suite in each of the modes and with each number of threads."""
    found = {}
    for count, mode, case in product(threads, modes, suite):
        if case.streamed and mode == "training":
            continue  # a stream is listened to
        for dtype in dtypes or [case.dtype]:
            found[replace(case, threads=count, mode=mode, dtype=dtype, device=device)] = None
    return list(found)


def chosen_cases(args, device="cpu"):
    """The cases that the options ask for, in the order of measuring."""
    cases = cases_of(SUITES[args.suite], args.modes, args.threads, args.dtypes, device)
    cells = args.cells or [name.lower() for name in GATES]
    words = args.only.split()
    return [
        case
        for case in cases
        if case.cell.lower() in cells and all(word in case.label for word in words)
    ]
