"""python -m bench.trust: the fuzz command and the soak, run at length, and what they found.

The results are in bench/trust.jsonl; --readme README.md puts them there, and runs nothing.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from . import machine
from .report import with_block

RESULTS = Path(__file__).with_name("trust.jsonl")
MARKERS = "<!-- trust:start -->", "<!-- trust:end -->"


def run(*command):
    """A row: the command, how it ended, and the lines of its last part."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=machine.ROOT, stdout=subprocess.PIPE, text=True
    )
    lines = done.stdout.splitlines()
    return {
        "command": " ".join(("python -m", *command)),
        "status": done.returncode,
        "seconds": round(time.monotonic() - start),
        "said": lines[-1] if command[0] == "tests.soak" else _summary(lines),
    } | machine.describe("cpu")


def _summary(lines):
    """The fuzz command's line of what it ran, and what failed."""
    return next((line for line in lines if line.endswith(" failed")), "")


def block(rows):
    """The README's block."""
    lines = ["| command | result | on |", "| --- | --- | --- |"]
    for row in rows:
        where = f"{row['cpu']}, torch {row['torch']}, commit {row['commit']}"
        minutes = f"{row['seconds'] / 60:.0f} minutes"
        lines.append(f"| `{row['command']}` | {row['said']} ({minutes}) | {where} |")
    return "\n".join(lines)


def load(path=RESULTS):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main():
    p = argparse.ArgumentParser(prog="python -m bench.trust", description=__doc__)
    p.add_argument("--count", type=int, default=10_000, help="configurations (default: 10000)")
    p.add_argument("--minutes", type=float, default=5, help="of the soak (default: 5)")
    p.add_argument("--readme", type=Path, help="put the results there; run nothing")
    args = p.parse_args()
    if args.readme:
        text = args.readme.read_text(encoding="utf-8")
        args.readme.write_text(with_block(text, block(load()), *MARKERS), encoding="utf-8")
        return 0
    rows = [
        run("tests.fuzz", "--count", str(args.count)),
        run("tests.soak", "--minutes", f"{args.minutes:g}"),
    ]
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(block(rows))
    return max(row["status"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
