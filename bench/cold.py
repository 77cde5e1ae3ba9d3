"""python -m bench.cold: how long the first call takes, in fresh processes.

With an empty cache it is compiled: one process takes one training step of each kind of layer after
the other, so that the first pays for what all share. With what has been compiled lying in the
cache, a process of its own for each kind says how long a program waits that is started anew.
The results go to bench/cold.jsonl, in the place of older ones of this machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from statistics import median

import torch

from . import machine, results, tables, tree

FILE = machine.ROOT / "bench" / "cold.jsonl"
KINDS = ["LSTM float32", "GRU float32", "RNN float32", "LSTM float64", "LSTM bfloat16"]
T, B, I, H = 20, 4, 32, 64
WARM = 3  # processes for each kind; the median counts


def clock():
    """(wall clock, processor seconds of this process and of those it has waited for)."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in used)


def steps(kinds):
    """A row for each of ``kinds``: a first training step. torch is imported already, we are not."""
    torch.set_num_threads(1)
    before = clock()
    import fastrnn

    after = clock()
    for kind in kinds:
        cell, dtype = kind.split()
        layer = getattr(fastrnn, cell)(I, H).to(getattr(torch, dtype))
        x = torch.randn(T, B, I, dtype=getattr(torch, dtype))
        moments = [clock()]
        y, _ = layer(x)
        moments.append(clock())
        y.sum().backward()
        moments.append(clock())
        row = {"kind": kind}
        parts = {"import": (before, after), "forward": moments[:2], "backward": moments[1:]}
        for name, (start, end) in parts.items():
            row[f"{name}_s"], row[f"{name}_cpu_s"] = end[0] - start[0], end[1] - start[1]
        yield row


def fresh(kinds, folder):
    """The rows of ``steps(kinds)`` in a process of its own, what is compiled kept in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cold", "--steps", ",".join(kinds)],
        cwd=machine.ROOT,
        env=os.environ | {"FASTRNN_CACHE_DIR": folder},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def measured():
    """All rows: first with an empty cache, then with what that left there."""
    with tempfile.TemporaryDirectory() as folder:
        for place, row in enumerate(fresh(KINDS, folder)):
            yield {"cache": "empty", "place": place} | row
        for kind in KINDS:
            runs = [fresh([kind], folder)[0] for _ in range(WARM)]
            times = {name: median(run[name] for run in runs) for name in runs[0] if name != "kind"}
            yield {"cache": "warm", "place": 0, "kind": kind} | times


def what(row):
    """What a row is about, the machine aside."""
    return row["cache"], row["kind"]


def load():
    return results.committed(FILE.name, what)


def sentence(rows):
    """What the first page says; "" where nothing is measured."""
    parts = []
    for cpu, mine in tables.by(rows, "cpu").items():
        spent = [r["forward_cpu_s"] + r["backward_cpu_s"] for r in mine if r["cache"] == "empty"]
        ready = [r["import_s"] + r["forward_s"] for r in mine if r["cache"] == "warm"]
        parts.append(
            f"The first training step of the first layer compiles for {spent[0]:.0f} s, of each "
            f"further kind of layer or dtype for {min(spent[1:]):.0f} to {max(spent[1:]):.0f} s "
            f"(of one core). The code is kept on disk: a later process has its first result "
            f"{max(ready):.1f} s after `import torch` ({cpu})."
        )
    return "\n".join(parts)


def block(rows):
    """What RESULTS.md says of it."""
    if not rows:
        return "Not measured yet: `python -m bench.cold`."
    parts = []
    for cpu, mine in tables.by(rows, "cpu").items():
        last = mine[-1]
        parts.append(
            f"Measured on {cpu}; torch {last['torch']}, numba {last['numba']}, commit "
            f"{last['commit']}, {last['date'][:10]}, by `python -m bench.cold`. Empty cache: "
            "processor seconds, the kinds one after the other in one process. Warm cache: seconds "
            "on the clock in a process of its own, after `import torch`."
        )
        by_kind = {}
        for row in mine:
            by_kind.setdefault(row["kind"], {})[row["cache"]] = row
        lines = [[kind, *_cells(found)] for kind, found in by_kind.items()]
        header = ["first step of", "empty: forward", "backward", "warm: import", "forward"]
        parts.append(tables.table([*header, "backward"], lines))
    return "\n\n".join(parts)


def _cells(found):
    empty, warm = found["empty"], found["warm"]
    cold = [empty[f"{name}_cpu_s"] for name in ("forward", "backward")]
    ready = [warm[f"{name}_s"] for name in ("import", "forward", "backward")]
    return map(tables.duration, cold + ready)


def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__)
    p.add_argument("--steps", metavar="KINDS", help="what each fresh process is started with")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/cold.jsonl")
    args = p.parse_args(argv)
    if args.steps:
        for row in steps(args.steps.split(",")):
            print(json.dumps(row))
        return 0
    fields = machine.describe("cpu")
    fields["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [row | fields for row in measured()]
    results.add(args.out, rows, what)
    print(block(rows))
    return 0


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
