"""Cases measured one after another: who takes part, and what is shown meanwhile."""

from datetime import UTC, datetime

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from . import peers, tables


def present(contestants, console):
    """{name: peer} of those that can be had here; says of the others why not."""
    found = {}
    for name, peer in contestants.items():
        if reason := peer.available():
            console.print(f"{tables.name(name)} is left out: {reason}")
        else:
            found[name] = peer
    return found


def measured(cases, measure, console):
    """The rows of each case, measure(case), as they come; shows each, and how far it is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=case.label)
            found = measure(case)
            console.print(_line(case, found), soft_wrap=True)
            progress.advance(task)
            date = datetime.now(UTC).isoformat(timespec="seconds")
            yield [row | {"date": date} for row in found]


def _line(case, rows):
    """A measured case in one line."""
    parts = [f"{case.label}:"]
    for row in rows:
        name = tables.name(row["peer"])
        if "error" in row:
            parts.append(f"[red]{name} FAILED: {row['error']}[/red]")
        elif "time_s" in row:
            parts.append(f"{name} {tables.duration(row['time_s'])}")
            if row["peer"] != peers.BASELINE and "ratio" in row:
                parts[-1] += f" [bold]{row['ratio']:.2f}x[/bold]"
    return "  ".join(parts)


def shared(rows):
    """How many rows had to share a core with another process."""
    return sum(row["threads"] == 1 and row.get("cores", 1) < 0.9 for row in rows)
