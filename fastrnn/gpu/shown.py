"""What came of trials, as a table on the screen, with the progress until then."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..demo.style import note, table
from .tune import Result, tried


def follow(wanted, console=None, **options):
    """The Results of tune.tried, shown as they come, and then as a table."""
    console, results = console or Console(highlight=False), []
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("trying kernels", total=len(wanted))

        def told(key, phase):
            progress.update(task, description=f"{phase} {key.label}")

        for result in tried(wanted, note=told, **options):
            results.append(result)
            progress.advance(task)
            if not console.is_terminal:
                console.print(Text(f"{result.key.label}: {said(result)}"), soft_wrap=True)
    show(results, console)
    return results


def said(result):
    """A Result in a line."""
    verdict = result.verdict
    return f"no verdict: {result.why}" if verdict is None else verdict.serves(None)[1]


def show(results, console):
    """The table."""
    columns = "Call", "Serves", "Faster\nfew steps", "Faster\nmany steps", "On", "Why"
    shown = table(*columns, right=(2, 3))
    for key, verdict, why in sorted(results, key=lambda result: result.key.label):
        if verdict is None:
            shown.add_row(key.label, "torch", "", "", "", why)
        else:
            shown.add_row(key.label, *_cells(verdict))
    console.print()
    console.print(shown)
    note(
        console,
        "Faster: how many times as fast as what serves otherwise, at 32 and at 256 steps. Ours "
        "serves where it was right and at least 1.05 times as fast in 4 rounds of 5. Calls of one "
        "kind have as many sequences, up to a power of two.",
    )


def _cells(verdict):
    if not verdict.right:
        why = verdict.why if verdict.unseen else f"wrong: {verdict.why}"
        return Text("torch", style="bold red"), "", "", verdict.date, why
    speeds = [f"{verdict.ratio(each.T):.2f}x" for each in verdict.speed]
    serves = [verdict.serves(each.T)[0] for each in verdict.speed]
    who = "ours" if all(serves) else "torch, few steps" if serves[1] else "torch"
    if serves == [True, False]:
        who = "torch, many steps"
    style = "green" if all(serves) else ""
    return Text(who, style=style), *speeds, verdict.date, ""


__all__ = ["Result", "follow", "said", "show"]
