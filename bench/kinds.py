"""Benchmarks whose results are one row a kind, put into a committed file as they come."""

from datetime import UTC, datetime

from rich.console import Console
from rich.progress import track

from . import machine, results, tables


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
