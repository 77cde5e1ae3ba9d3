"""A model that exists already: the one just trained with torch.nn, switched to fastrnn in place."""

from time import perf_counter

from rich.padding import Padding
from rich.text import Text

import fastrnn

from .agreement import SAME_WEIGHTS_LIMIT
from .style import heading, table, verdict
from .training import evaluate


def show_existing(console, comparison):
    """Read the held-out text before and after ``accelerate``. Returns whether the two agree."""
    heading(console, "A model that exists already, in one line")
    model = comparison.torch.model
    before = _read(model, comparison)
    done = fastrnn.accelerate(model)
    after = _read(model, comparison)
    said = ["print(fastrnn.accelerate(model))  # the one just trained with torch.nn", "", str(done)]
    console.print(Padding(Text("\n".join(said)), (0, 4)))
    console.print()
    results = table("The text held out", "before", "after", "", right=(1, 2))
    apart = abs(before[0] - after[0])
    passed = bool(done.changed) and apart <= SAME_WEIGHTS_LIMIT[comparison.options.dtype]
    bits, seconds = zip(before, after, strict=True)
    results.add_row("Bits per character", *(f"{b:.4f}" for b in bits), verdict(passed))
    results.add_row("Seconds to read it", *(f"{s:.2f}" for s in seconds), "")
    console.print(results)
    return passed


def _read(model, comparison):
    """(bits per character, seconds) of the model on the text held out."""
    begun = perf_counter()
    bits = evaluate(model, comparison.corpus.held_out())
    return bits, perf_counter() - begun
