"""python -m bench.pages: every table and picture of the pages, from committed files.

Each block stands between two lines, such as <!-- speed:start --> and <!-- speed:end -->.
"""

import argparse
import sys
from pathlib import Path

from . import (
    calls,
    cold,
    gallery,
    gpu_report,
    operations,
    quantized_table,
    ragged,
    results,
    short,
    tables,
    trust,
    zoo,
    zoo_table,
)
from .machine import ROOT
from .programs import table as programs

HERE = Path(__file__).parent
PLOTS = HERE / "plots"
FIRST = "times_faster.png"  # the picture of the first page


def blocks():
    """{page: {name of a block in it: its text}}."""
    rows, first_calls = results.committed("results.jsonl"), cold.load()
    short_calls = results.committed(calls.FILE.name, calls.what)
    entries = results.committed(gallery.FILE.name, gallery.what)
    quantized = results.committed(quantized_table.FILE.name)
    drawn = [path.name for path in sorted(PLOTS.glob("*.png")) if path.name != FIRST]
    drawn = [f"plots/{name}" for name in drawn if not name.startswith("gallery_")]
    return {
        "README.md": {
            "speed": short.block(rows, short_calls, first_calls),
            "quantized": quantized_table.short(quantized),
            "gallery": gallery.summary(entries),
        },
        "bench/RESULTS.md": {
            "bench": tables.block(rows, drawn),
            "calls": calls.block(short_calls),
            "ragged": ragged.block(results.committed(ragged.FILE.name, ragged.what)),
            "zoo": zoo.block(results.committed(zoo.FILE.name, zoo.what)),
            "quantized": quantized_table.block(quantized),
            "cold": cold.block(first_calls),
            "gpu": gpu_report.block(_gpu()),
            "programs": programs.block(programs.load()),
            "trust": trust.block(trust.load()),
        },
        "docs/gallery.md": {"gallery": gallery.block(entries)},
        "docs/cells.md": {"operations": operations.block()},
        "docs/zoo.md": {"zoo": zoo_table.block()},
    }


def _gpu():
    path = HERE / "gpu.jsonl"
    return gpu_report.load([path]) if path.exists() else []


def with_block(text, block, name):
    """``text`` with ``block`` between the two lines called ``name``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"there must be one line {start} and, below it, one line {end}")
    before, rest = text.split(start)
    return f"{before}{start}\n{block}\n{end}{rest.split(end)[1]}"


def written(text, named):
    """``text`` with each of the blocks {name: text} in its place."""
    for name, block in named.items():
        text = with_block(text, block, name)
    return text


def draw():
    """Draw all pictures from the committed results."""
    from . import plots

    yield from plots.draw(results.committed("scaling.jsonl"), PLOTS)
    yield plots.times_faster(results.committed("results.jsonl"), PLOTS / FIRST)


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m bench.pages",
        description="Write the tables of README.md, bench/RESULTS.md and docs/zoo.md, and draw the "
        "pictures, from the committed results.",
    )
    p.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page would")
    args = p.parse_args(argv)
    if not args.check:
        for path in draw():
            print(f"drew {path.relative_to(ROOT)}", file=sys.stderr)
    stale = []
    for page, named in blocks().items():
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        if (new := written(old, named)) != old:
            stale.append(page)
            if not args.check:
                path.write_text(new, encoding="utf-8")
    if args.check and stale:
        print(f"{', '.join(stale)}: not what is committed; run python -m bench.pages")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
