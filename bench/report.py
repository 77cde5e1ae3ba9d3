"""python -m bench.report FILE: a result file as Markdown tables, or as pictures."""

import argparse
import sys
from pathlib import Path

from . import tables
from .results import load


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.report",
        description="Print a result file of python -m bench as Markdown tables, or draw it. "
        "The pages of this repository are written by python -m bench.pages.",
    )
    p.add_argument("file", type=Path, help="JSON lines, as python -m bench writes them")
    p.add_argument("--plots", type=Path, metavar="DIR", help="draw pictures into DIR instead")
    return p


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    try:
        rows = load(args.file)
    except OSError as error:
        p.error(f"{error.filename}: {error.strerror}")
    if not rows:
        p.error(f"{args.file} has no rows")
    if args.plots:
        from .plots import draw

        for path in draw(rows, args.plots):
            print(f"drew {path}", file=sys.stderr)
    else:
        print(tables.details(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
