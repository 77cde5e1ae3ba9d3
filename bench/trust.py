"""python -m bench.trust: the fuzz command and the soak, run at length, and what they found.

The results go to bench/trust.jsonl, in the place of older ones of this machine.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from . import machine, results

FILE = Path(__file__).with_name("trust.jsonl")


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
    """What the pages say of it."""
    lines = ["| command | result | on |", "| --- | --- | --- |"]
    for row in rows:
        where = f"{row['cpu']}, torch {row['torch']}, commit {row['commit']}"
        minutes = f"{row['seconds'] / 60:.0f} minutes"
        lines.append(f"| `{row['command']}` | {row['said']} ({minutes}) | {where} |")
    return "\n".join(lines)


def load():
    return results.committed(FILE.name, what)


def what(row):
    """What a row is about, the machine aside."""
    return row["command"]


def main():
    p = argparse.ArgumentParser(prog="python -m bench.trust", description=__doc__)
    p.add_argument("--count", type=int, default=10_000, help="configurations (default: 10000)")
    p.add_argument("--minutes", type=float, default=5, help="of the soak (default: 5)")
    args = p.parse_args()
    rows = [
        run("tests.fuzz", "--count", str(args.count)),
        run("tests.soak", "--minutes", f"{args.minutes:g}"),
    ]
    results.add(FILE, rows, what)
    print(block(rows))
    return max(row["status"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
