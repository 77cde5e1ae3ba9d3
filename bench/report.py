"""python -m bench.report FILE: a result file as Markdown tables, the README's block, or plots."""

import argparse
import sys
from pathlib import Path

from . import tables
from .results import load

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
PLOTS = Path(__file__).parent / "plots"


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.report",
        description="Print a result file of python -m bench as Markdown tables. "
        "With --readme, --plots or --check do that instead.",
    )
    p.add_argument("file", type=Path, help="JSON lines, as python -m bench writes them")
    p.add_argument(
        "--readme",
        type=Path,
        metavar="README.md",
        help=f"put the tables between its lines {START} and {END}",
    )
    p.add_argument("--plots", type=Path, metavar="DIR", help="draw the pictures into DIR")
    p.add_argument(
        "--check",
        action="store_true",
        help="change nothing; exit 1 if --readme does not hold what FILE gives",
    )
    return p


def with_block(text, block, start=START, end=END):
    """``text`` with ``block`` between the markers."""
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"there must be one line {start} and, below it, one line {end}")
    before, rest = text.split(start)
    return f"{before}{start}\n{block}\n{end}{rest.split(end)[1]}"


def pictures(readme, folder=PLOTS):
    """The plots that lie in ``folder``, as paths from the README."""
    home = readme.resolve().parent
    if not folder.resolve().is_relative_to(home):
        return []
    return [str(path.resolve().relative_to(home)) for path in sorted(folder.glob("*.png"))]


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    if args.check and not args.readme:
        p.error("--check needs --readme")
    try:
        rows = load(args.file)
        text = args.readme and args.readme.read_text(encoding="utf-8")
    except OSError as error:
        p.error(f"{error.filename}: {error.strerror}")
    if not rows:
        p.error(f"{args.file} has no rows")
    if args.plots and not args.check:
        from .plots import draw

        for path in draw(rows, args.plots):
            print(f"wrote {path}", file=sys.stderr)
    if args.readme:
        block = tables.readme(rows, pictures(args.readme, args.plots or PLOTS))
        try:
            new = with_block(text, block)
        except ValueError as error:
            p.error(f"{args.readme}: {error}")
        if args.check:
            if new != text:
                print(
                    f"{args.readme} is not what {args.file} gives: run python -m bench.report "
                    f"{args.file} --readme {args.readme}",
                    file=sys.stderr,
                )
            return int(new != text)
        args.readme.write_text(new, encoding="utf-8")
    elif not args.plots:
        print(tables.details(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
