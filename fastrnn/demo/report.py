"""What the command reports of the check and of the training job."""

from math import isfinite
from statistics import median
from time import perf_counter

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fastrnn.backends import explain

from .curves import braille
from .style import heading, note, pairs, progress, table, verdict

PLOT_HEIGHT = 9  # lines
LINES = 10  # of progress, where nothing can be live
REFRESH = 0.1  # seconds


def show_check(console, found, dtype):
    """The table of check.Findings in ``dtype``. Returns whether all passed."""
    heading(console, "The same numbers as torch.nn?")
    name = str(dtype).removeprefix("torch.")
    errors = (f"torch.nn\n{name}", f"fastrnn\n{name}")
    results = table("Layer", "Compared", *errors, "", right=(2, 3))
    for f in found:
        errors = (f"{error:.1e}" for error in (f.theirs, f.ours))
        results.add_row(f.layer, f"{f.tensors} {f.what}", *errors, verdict(f.passed))
    console.print(results)
    note(
        console,
        "The worst error of these tensors, relative to the largest element of each; the truth is "
        "torch.nn in float64. Two bidirectional layers; the gradients of the input, the initial "
        "states and every weight and bias.",
    )
    return all(f.passed for f in found)


def introduce_training(console, comparison):
    options, corpus = comparison.options, comparison.corpus
    layer, recurrent = comparison.layer, comparison.ours.model.recurrent
    heading(
        console, f"A character language model, trained with torch.nn.{layer} and fastrnn.{layer}"
    )
    weights = sum(p.numel() for p in comparison.ours.model.parameters())
    facts = [
        ("Text", f"{corpus.size:,} characters, {len(corpus.characters)} different ones"),
        (
            "Model",
            f"embedding, {options.layers} x {layer} of {options.hidden} units, linear: "
            f"{weights:,} weights",
        ),
        ("Engine", "fastrnn's {}: {}".format(*explain(*recurrent.parameters()))),
        (
            "Training",
            f"{options.steps:,} steps of {options.batch} x {options.length} characters, the state "
            f"carried on; Adam at {options.lr:g}",
        ),
    ]
    console.print(pairs(facts))
    console.print()


def follow(console, comparison, steps):
    """Train, showing both losses as they fall."""
    if console.is_terminal:
        _follow_live(console, comparison, steps)
        return
    for done, _ in enumerate(comparison.train(steps), 1):
        if done % max(1, steps // LINES) == 0 or done == steps:
            theirs, ours = comparison.torch.losses[-1], comparison.ours.losses[-1]
            console.print(
                f"step {done:>{len(str(steps))}} of {steps}: "
                f"torch.nn {theirs:.4f}, fastrnn {ours:.4f} bits/character"
            )
    console.print()


def _follow_live(console, comparison, steps):
    with progress(console) as bars:
        tasks = [
            (run, bars.add_task(name, total=steps, told=""))
            for name, run in (("torch.nn", comparison.torch), ("fastrnn", comparison.ours))
        ]
        drawn = 0.0
        for done, _ in enumerate(comparison.train(steps), 1):
            if perf_counter() - drawn < REFRESH:
                continue
            for run, task in tasks:
                told = f"{run.losses[-1]:.3f} bits/char  {comparison.speed(run):9,.0f} char/s"
                bars.update(task, completed=done, told=told)
            bars.refresh()
            drawn = perf_counter()


def show_training(console, comparison, agreements):
    """Curves, speeds and agreement."""
    _show_curves(console, comparison)
    console.print()
    console.print(_results(comparison))
    console.print()
    asked = table("Do they agree? (bits per character)", "apart by", "limit", "", right=(1, 2))
    for a in agreements:
        told = ("", "") if a.limit is None else (f"{a.limit:.1e}", verdict(a.passed))
        asked.add_row(a.what, f"{a.difference:.1e}", *told, style="dim" if a.limit is None else "")
    console.print(asked)
    note(
        console,
        "Sums taken in another order differ in their last digit, and training multiplies any "
        "difference step by step, whatever made it: hence the wider limit on the whole run. The "
        "last line has no training in it: the same weights in both layers.",
    )


def show_sample(console, text):
    heading(console, "What the model trained with fastrnn writes")
    console.print(Padding(Text(_printable(text)), (0, 4)))


def _show_curves(console, comparison):
    """Both losses side by side, on the same axes."""
    runs = {"torch.nn": comparison.torch, "fastrnn": comparison.ours}
    finite = [loss for run in runs.values() for loss in run.losses if isfinite(loss)] or [0.0]
    low, high = min(finite), max(finite)
    width = max(10, (min(console.width, 100) - 20) // 2)
    grid = Table.grid(padding=(0, 1, 0, 0))
    labels = [f"{high:.2f}", *[""] * (PLOT_HEIGHT - 2), f"{low:.2f}"]
    axis = Text("\n".join(["", *labels, ""]), justify="right")
    cells = []
    for name, run in runs.items():
        cell = Text(f"{name}.{comparison.layer}\n", style="bold")
        curve = braille(run.losses, width, PLOT_HEIGHT, low, high)
        cell.append("\n".join(curve), style="not bold cyan")
        cell.append(f"\nstep 1{len(run.losses):>{width - 6},}", style="not bold dim")
        cells += [axis, cell]
    grid.add_row(*cells)
    console.print(Text("Loss while training, bits per character", style="dim"))
    console.print()
    console.print(grid)


def _results(comparison):
    theirs, ours = comparison.torch, comparison.ours
    results = table("", "torch.nn", "fastrnn", "", right=(1, 2, 3))
    slow, fast = comparison.speed(theirs), comparison.speed(ours)
    results.add_row(
        "Characters per second", f"{slow:,.0f}", f"{fast:,.0f}", Text(f"{fast / slow:.2f}x", "bold")
    )
    times = (f"{1e3 * median(run.seconds):.1f} ms" for run in (theirs, ours))
    results.add_row("Median step, forward to optimiser", *times, "")
    for place, when in enumerate(("before", "after")):
        bits = (f"{comparison.held_out[run][place]:.4f}" for run in (theirs, ours))
        results.add_row(f"Bits per character, text held out, {when}", *bits, "")
    return results


def _printable(text):
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def conclude(console, passed):
    """The last line."""
    console.print()
    if passed:
        console.print(Text("fastrnn agrees with torch.nn on this machine.", style="bold green"))
    else:
        console.print(Text("fastrnn does NOT agree with torch.nn: see FAIL.", style="bold red"))
