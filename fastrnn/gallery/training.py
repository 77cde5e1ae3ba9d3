"""Training in turn: one job with several models, from the same seed, on the same batches."""

from collections import defaultdict
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn

from ..demo.style import progress, table

REFRESH, LINES = 0.1, 8  # seconds; lines where nothing can be live
FIRST, LIMIT = 10, 1e-3  # the steps before training multiplies rounding, and how far losses part


class Result(NamedTuple):
    """What an entry has found."""

    agreed: bool  # rounding apart, whether both ways had the same losses at first
    faster: float | None  # how many times, a step of the last way than of the first
    what: str  # the figures are of
    figures: list  # (whose, a figure in words), the model's own first


class Run:
    """A model in training by Adam. loss(model, batch) is a scalar.

    steps: those in which the learning rate falls to 0; without it, the rate stays.
    warm: those in which it first rises to ``lr``.
    """

    def __init__(self, model, loss, lr=1e-3, clip=1.0, steps=None, warm=1):
        self.model, self.loss, self.clip = model, loss, clip
        self.optimizer = torch.optim.Adam(model.parameters(), lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda done: min((done + 1) / warm, 1 - done / steps if steps else 1.0),
        )
        self.losses, self.seconds = [], []

    def step(self, batch):
        begun = perf_counter()
        loss = self.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())
        self.seconds.append(perf_counter() - begun)

    @property
    def recent(self):
        """The mean of the last losses."""
        last = self.losses[-50:]
        return sum(last) / max(1, len(last))


class Alone(nn.Module):
    """In the place of a recurrent layer: each step by itself."""

    def __init__(self, inputs, hidden, bidirectional=False):
        super().__init__()
        self.linear = nn.Linear(inputs, hidden * (1 + bidirectional))

    def forward(self, x):
        return self.linear(x).relu(), None


def seeded(seed, make, *arguments):
    """``make(*arguments)``, whose first weights follow from the seed alone."""
    torch.manual_seed(seed)
    return make(*arguments)


def shuffled(items, size, random):
    """Batches of a list's items, in another order each time, without end."""
    size = min(size, len(items))
    while True:
        random.shuffle(items)
        yield from (items[i : i + size] for i in range(0, len(items) - size + 1, size))


def of_one_length(pairs, size, random):
    """The same of pairs whose first halves are, in a batch, of one length."""
    waiting = defaultdict(list)
    while True:
        random.shuffle(pairs)
        for pair in pairs:
            alike = waiting[len(pair[0])]
            alike.append(pair)
            if len(alike) == size:
                yield waiting.pop(len(pair[0]))


def at_one_length(function, items):
    """What ``function`` makes of lists of items of one length, for items of any, in order."""
    alike, found = defaultdict(list), [None] * len(items)
    for place, item in enumerate(items):
        alike[len(item)].append(place)
    for places in alike.values():
        for place, made in zip(places, function([items[n] for n in places]), strict=True):
            found[place] = made
    return found


def of_lengths(layer, x, lengths):
    """What a layer of either library makes of padded sequences (T, B, I): (T, B, O)."""
    if isinstance(layer, (fastrnn.LSTM, fastrnn.GRU)):
        return layer(x, lengths=lengths)[0]
    packed, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(packed)[0]


def in_turn(runs, batches, steps, console, beside=None):
    """Train {name: Run} on the same batches, a step each in turn, and show how it goes.

    beside: after so many steps the last run goes on alone.
    """
    *others, last = runs
    seed = torch.initial_seed()
    with progress(console) as bars:
        tasks = {name: bars.add_task(name, total=steps, told="") for name in runs}
        for other in others if beside else ():
            bars.update(tasks[other], total=min(beside, steps))
        drawn = 0.0
        for done, batch in zip(range(1, steps + 1), batches, strict=False):
            going = [last] if beside and done > beside else list(runs)
            for name in going:
                torch.manual_seed(seed + done)  # what a dropout draws is the same for each
                runs[name].step(batch)
            if console.is_terminal and perf_counter() - drawn > REFRESH:
                for name in going:
                    bars.update(tasks[name], completed=done, told=_told(runs[name]))
                bars.refresh()
                drawn = perf_counter()
            elif not console.is_terminal and (done % -(-steps // LINES) == 0 or done == steps):
                console.print(f"step {done} of {steps}: {last}, {_told(runs[last])}")


def with_and_without(kind, make, loss, batches, steps, seed, console):
    """Train make(layer) with the layers of a kind that torch.nn and fastrnn have, and with none.

    Returns (agreed, faster) as in Result, the model with fastrnn's layer, and that with none.
    """
    layers = {"torch.nn": getattr(nn, kind), "fastrnn": getattr(fastrnn, kind), "alone": Alone}
    runs = {
        name: Run(seeded(seed, make, layer), loss, 3e-3, 1.0, steps)
        for name, layer in layers.items()
    }
    alone = runs.pop("alone")
    in_turn(runs, batches, steps, console, beside=20)
    in_turn({"alone": alone}, batches, steps, console)
    return show_speed(console, runs), runs["fastrnn"].model.eval(), alone.model.eval()


def _told(run):
    return f"loss {run.recent:.4f}  {1e3 * median(run.seconds[-200:]):.1f} ms a step"


def apart(one, other):
    """How far the losses of the first steps are apart, relative to the first of them."""
    pairs = list(zip(one.losses[:FIRST], other.losses[:FIRST], strict=True))
    return max(abs(a - b) for a, b in pairs) / max(abs(one.losses[0]), 1e-12)


def show_speed(console, runs):
    """A table of {name: Run}, the first of which the others are compared with. Returns (agreed,
    faster) as in Result.
    """
    base, agreed = next(iter(runs.values())), True
    found = table("", "steps", "loss at the end", "a step", "times faster", "", right=(1, 2, 3, 4))
    for name, run in runs.items():
        seconds = run.seconds[: len(base.seconds)]  # of the same batches
        times = median(base.seconds) / median(seconds)
        far = apart(base, run)
        agreed = agreed and far <= LIMIT
        words = "" if run is base else f"losses of the first {FIRST} steps {far:.0e} apart"
        figures = str(len(run.losses)), f"{run.recent:.4f}", f"{1e3 * median(seconds):.1f} ms"
        found.add_row(name, *figures, f"{times:.2f}x", words)
    console.print()
    console.print(found)
    return agreed, times
