"""Benchmarks whose results are one row a kind, put into a committed file as they come."""

from datetime import UTC, datetime
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.progress import track

from . import machine, results, tables
from .timing import quantiles, race

ROUNDS = 5


def run(kinds, row_of, what, shown, out, command):
    """Measure every kind: the exit status, 0, 1 where something was wrong, 130 after Ctrl-C.

    row_of(*kind) is its row, whose "errors" are {size: a fault}; what(row): what it is about;
    shown: the fields to print; out: the file.
    """
    fields = machine.describe("cpu") | {"command": command}
    console, faults = Console(highlight=False), 0
    try:
        for kind in track(kinds, console=console, transient=True, disable=not console.is_terminal):
            row = row_of(*kind)
            date = datetime.now(UTC).isoformat(timespec="seconds")
            results.add(out, [row | fields | {"date": date}], what)
            faults += len(row["errors"])
            found = [row[name] for name in shown]
            console.print(*kind, *found, row["errors"] or "", soft_wrap=True)
    except KeyboardInterrupt:
        return 130
    return int(faults > 0)


def row(about, timed, ratios, sizes, contestants, seconds):
    """A row: ``about`` it, {name: {size: times faster}}, {size: seconds}, {size: a fault}.

    timed: (field, whose seconds it has); ratios: {name: (whose time, divided by whose)};
    contestants(*size): ({name: call}, None or what is wrong with their results).
    """
    (field, whose), threads = timed, about["threads"]
    found = about | {field: {}, "errors": {}, **{name: {} for name in ratios}}
    torch.set_num_threads(threads)
    for size in sizes:
        label = "x".join(map(str, size))
        calls, fault = contestants(*size)
        if fault:
            found["errors"][label] = fault
            continue
        times = race(calls, seconds, ROUNDS, SimpleNamespace(device="cpu", threads=threads))
        found[field][label] = float(f"{quantiles(times[whose].seconds)[0]:.4g}")
        for name, (slow, fast) in ratios.items():
            ratio = quantiles(times[slow].seconds / times[fast].seconds)[0]
            found[name][label] = float(f"{ratio:.4g}")
    return found


def by_machine(rows, otherwise, words, table):
    """For each CPU of the rows: what was measured how, in ``words``, and table(its rows).

    otherwise: what to say if there are none.
    """
    parts = []
    for cpu, mine in tables.by(rows, "cpu").items():
        commits = ", ".join(dict.fromkeys(row["commit"] for row in mine))
        parts.append(
            f"Measured on {cpu}; torch {mine[0]['torch']}, commit {commits}, by "
            f"`{mine[0]['command']}`. {words}"
        )
        parts.append(table(mine))
    return "\n\n".join(parts) or otherwise
