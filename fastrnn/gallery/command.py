"""``python -m fastrnn list`` and ``python -m fastrnn NAME``."""

import sys
from argparse import RawDescriptionHelpFormatter
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from ..demo.options import Parser, number, try_plot
from ..demo.style import FAILED, INTERRUPTED, PASSED, UNABLE, heading, table
from . import ENTRIES
from .data import Missing

STATUS = """\
exit status: 0 if all went well; 1 if fastrnn and torch.nn did not agree, or what was to be learned
was not; 2 for a bad option, a file or a package that is missing.
"""


def show_list(console):
    """The table of the gallery."""
    found = table("python -m fastrnn ...", "", right=())
    for name, line in ENTRIES.items():
        found.add_row(name, line)
    console.print(found)
    return PASSED


def main(name, arguments):
    """Run an entry. Returns the exit status; a bad option leaves by SystemExit(2)."""
    (entry, options), console = options_of(name, arguments), Console(highlight=False)
    torch.set_num_threads(options.threads)
    heading(console, f"{name}: {ENTRIES[name]}")
    try:
        result = entry.run(options, console)
    except Missing as missing:
        print(f"python -m fastrnn {name}: {missing}", file=sys.stderr)
        return UNABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    show(console, result)
    return PASSED if result.agreed else FAILED


def show(console, result):
    """The figures of a Result, beside each other."""
    found = table(result.what, "", right=(1,))
    for whose, figure in result.figures:
        found.add_row(whose, figure)
    console.print()
    console.print(found)
    if not result.agreed:
        console.print("\nThe losses of the first steps are NOT the same.", style="bold red")


def options_of(name, arguments):
    """The module of an entry, and the options that ``arguments`` give it."""
    entry = import_module(f".{name}", __package__)
    return entry, _options(name, entry, arguments)


def _options(name, entry, arguments):
    parser = Parser(
        prog=f"python -m fastrnn {name}",
        description=entry.__doc__,
        epilog=STATUS,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    entry.add_options(parser)
    parser.add_argument("--quick", action="store_true", help="a minute at most; learns less")
    number(parser, "--seed", 0, 2**63 - 1, 0, "of the first weights and of all that is drawn")
    number(parser, "--threads", 1, 1024, 2, "CPU threads")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the result to a PNG file")
    options = parser.parse_args(arguments)
    if options.plot:
        try_plot(parser, options.plot)
    return options
