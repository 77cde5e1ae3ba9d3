"""python -m bench.gpu: check, measure and tune the GPU engine on the machine at hand."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import machine, tree
from ..results import Sink

if "fastrnn" not in sys.modules:
    tree.use(machine.ROOT)  # nothing has to be installed

from . import summary
from .driver import Run
from .plan import sections

PROVENANCE = ("gpu", "processors", "torch", "triton", "cudnn", "commit")  # in every row
LAST = 10  # seconds that are kept for the end


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Check, measure and tune the GPU engine on the machine at hand, the most "
        "important first. Each finished row is appended to DIR/gpu.jsonl at once.",
        epilog="FASTRNN_COMMIT in the environment says which commit this is, where git cannot.",
    )
    p.add_argument("--minutes", type=float, default=9, help="for all of it; default: 9")
    p.add_argument("--out", type=Path, default=Path("gpu"), metavar="DIR", help="default: gpu")
    p.add_argument("--only", default="", metavar="WORD", help="only sections with this in the name")
    p.add_argument("--list", action="store_true", help="say what there is to do, and do nothing")
    return p


def main(argv=None):
    """The exit status: 0, 1 if something was wrong or failed, 2 without a GPU."""
    args = parser().parse_args(argv)
    chosen = [s for s in sections() if args.only in s.name or s.name == "environment"]
    if args.list:
        for s in chosen:
            share = f"{s.share:.0%} of the time" if s.share else "in what is left"
            print(f"{s.name}: {len(s.items)} items, {share}")
        return 0
    if not _found():
        print("there is no GPU that torch can use here", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    sink, rows, common = Sink(args.out / "gpu.jsonl"), [], {}

    def note(row):
        row = row | {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        if "torch" in row and "gpu" in row:
            common.update({name: row[name] for name in PROVENANCE})
        rows.append(common | row)
        sink.write(rows[-1])
        if line := summary.line(row):
            print(line, flush=True)

    run = Run(chosen, 60 * args.minutes - LAST, note, str(args.out / "log.txt"))
    try:
        run.all()
    except KeyboardInterrupt:
        print("interrupted")
    sink.close()
    print(summary.table(rows))
    return int(any(summary.bad(row) for row in rows))


def _found():
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
