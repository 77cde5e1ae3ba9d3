"""The command itself: options in, sections out, an exit status at the end."""

import sys

import torch
from rich.console import Console

from ..gallery import ENTRIES
from ..gallery import command as gallery
from ..gpu import command as gpu
from . import curves, machine, report
from .agreement import Comparison
from .check import findings
from .existing import show_existing
from .options import parse
from .style import FAILED, INTERRUPTED, PASSED, UNABLE, working


def main(arguments=None):
    """Run the command. Returns the exit status; a bad option leaves by SystemExit(2)."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # where the terminal has no UTF-8
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["list"]:
        return gallery.show_list(Console(highlight=False))
    if arguments and arguments[0] in ENTRIES:
        return gallery.main(arguments[0], arguments[1:])
    if arguments[:1] == ["gpu"]:
        return gpu.main(arguments[1:])
    try:
        return _run(parse(arguments), Console(highlight=False))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        print("python -m fastrnn: too little memory for so large a model", file=sys.stderr)
        return UNABLE


def _run(options, console):
    torch.set_num_threads(options.threads)
    machine.show(console)
    verdicts = []
    if options.only != "training":
        with working(console, "checking against torch.nn"):
            found = list(findings(options.dtype))
        verdicts.append(report.show_check(console, found, options.dtype))
    if options.only != "check":
        verdicts.append(_train(options, console))
    report.conclude(console, all(verdicts))
    return PASSED if all(verdicts) else FAILED


def _train(options, console):
    """The training job. Returns whether torch.nn and fastrnn agreed."""
    comparison = Comparison(options)
    report.introduce_training(console, comparison)
    with working(console, "reading the held-out text"):
        comparison.evaluate()
    report.follow(console, comparison, options.steps)
    with working(console, "reading the held-out text, and checking against float64"):
        comparison.evaluate()
        agreements = list(comparison.agreements())
    report.show_training(console, comparison, agreements)
    agreed = all(a.passed for a in agreements) and show_existing(console, comparison)
    if agreed:
        report.show_sample(console, comparison.sample())
    if options.plot:
        curves.save(options.plot, comparison)
        console.print(f"\nThe curves are in {options.plot}", markup=False)
    return agreed
