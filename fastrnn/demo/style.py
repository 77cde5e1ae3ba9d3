"""How things are shown: headings, tables, notes, and a spinner for what takes time."""

import io
from contextlib import contextmanager, redirect_stderr

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

TEXT_WIDTH = 80
PASSED, FAILED, UNABLE, INTERRUPTED = 0, 1, 2, 130  # exit statuses


def heading(console, title):
    console.print()
    console.rule(Text(title, style="bold"), align="left", style="dim")
    console.print()


def table(*columns, right=()):
    """An empty table; the columns numbered in ``right`` are numbers."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place in right else "left")
    return made


def pairs(facts):
    """(what, its value) as two columns."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for what, value in facts:
        grid.add_row(Text(what, style="bold"), Text(value))
    return grid


def note(console, text):
    """What a reader should know about the table above."""
    console.print()
    console.print(text, style="dim", width=min(console.width, TEXT_WIDTH))


def verdict(passed):
    return Text("pass", style="green") if passed else Text("FAIL", style="bold red")


def progress(console):
    """A bar for each of several runs, and what is ``told`` of it. Where nothing can be live:
    nothing.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"), TimeRemainingColumn(),
    )  # fmt: skip
    # drawn between steps only: a thread that draws would take time from the steps
    return Progress(
        *columns, console=console, auto_refresh=False, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


@contextmanager
def working(console, label):
    """A spinner that also tells what is being compiled. Where nothing can be live: nothing."""
    if not console.is_terminal:
        yield
        return
    with console.status(label) as status, redirect_stderr(_Relay(console, status, label)):
        yield


class _Relay(io.TextIOBase):
    """A stderr that puts the engine's words beside the spinner, and prints all others."""

    def __init__(self, console, status, label):
        self.console, self.status, self.label = console, status, label

    def write(self, text):
        if text.startswith("fastrnn: "):
            words = text.removeprefix("fastrnn: ").strip()
            self.status.update(f"{self.label}: {words}")
        elif text.strip():
            self.console.print(Text(text.rstrip()))
        return len(text)
