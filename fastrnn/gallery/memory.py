"""How far back can a recurrent layer remember? Two problems, whose answer lies hundreds of steps
back:

  adding    of T numbers two are marked: their sum is asked for at the end
  copying   ten symbols, then T blanks, then the symbols are asked for

Beside them stand the losses of arXiv 1803.01271 (Bai, Kolter, Koltun 2018), table 1, for the
adding problem of 600 steps and copying over 1000.
"""

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from .pictures import save_lines
from .training import Result, Run, in_turn, seeded, show_speed

LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
PUBLISHED = {  # steps: losses
    "adding": (600, {"LSTM": 0.164, "GRU": 5.3e-5, "RNN": 0.177, "TCN": 5.8e-5}),
    "copying": (1000, {"LSTM": 0.0204, "GRU": 0.0197, "RNN": 0.0202, "TCN": 3.5e-5}),
}
SYMBOLS, REMEMBERED = 10, 10  # 8 to remember, a blank, and the sign to begin


class Model(nn.Module):
    """A recurrent layer, and what is read off its output."""

    def __init__(self, layer, inputs, hidden, outputs):
        super().__init__()
        self.recurrent = layer(inputs, hidden)
        self.read = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.read(self.recurrent(x)[0])


def adding(T, B, generator):
    """(x (T, B, 2): numbers from 0 to 1, and the marks; sums (B,)), without end."""
    while True:
        numbers, marks = torch.rand(T, B, generator=generator), torch.zeros(T, B)
        first = torch.randint(T // 2, (B,), generator=generator)
        second = torch.randint(T // 2, T, (B,), generator=generator)
        marks[first, range(B)] = marks[second, range(B)] = 1.0
        yield torch.stack([numbers, marks], 2), (numbers * marks).sum(0)


def adding_loss(model, batch):
    x, sums = batch
    return nn.functional.mse_loss(model(x)[-1, :, 0], sums)


def copying(T, B, generator):
    """(x (T + 20, B, 10) one-hot, symbols (T + 20, B)), without end: 9 is the sign, 8 a blank."""
    while True:
        given = torch.randint(8, (REMEMBERED, B), generator=generator)
        blank = torch.full((T + REMEMBERED, B), 8)
        x = torch.cat([given, blank])
        x[T + REMEMBERED - 1] = 9
        target = torch.cat([torch.full((T + REMEMBERED, B), 8), given])
        yield nn.functional.one_hot(x, SYMBOLS).float(), target


def copying_loss(model, batch):
    x, target = batch
    return nn.functional.cross_entropy(model(x).flatten(0, 1), target.flatten())


PROBLEMS = {
    "adding": (adding, adding_loss, 2, 1, "1/6 = 0.167, by the mean"),
    "copying": (copying, copying_loss, SYMBOLS, SYMBOLS, "10 log 8 / (T + 20), without memory"),
}


def add_options(parser):
    parser.add_argument("--problem", choices=PROBLEMS, default="adding", help="default: adding")
    parser.add_argument("--layer", choices=LAYERS, default="gru", help="default: gru")
    number(parser, "--length", 2, 1_000_000, None, "default: 600 or 1000, quick 100")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 4000, quick 600)")
    number(parser, "--hidden", 1, 2048, 128, "units (default: 128)")


def run(options, console):
    make, loss, inputs, outputs, naive = PROBLEMS[options.problem]
    length, published = PUBLISHED[options.problem]
    T = options.length or (100 if options.quick else length)
    steps, layer = options.steps or (600 if options.quick else 4000), LAYERS[options.layer]
    runs = {}
    for name, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        kind = getattr(library, layer)
        model = seeded(options.seed, Model, kind, inputs, options.hidden, outputs)
        runs[name] = Run(model, loss, lr=2e-3)
    generator = torch.Generator().manual_seed(options.seed)
    in_turn(runs, make(T, 32, generator), steps, console, beside=20)
    speed = show_speed(console, runs)
    with torch.no_grad():
        batch = next(make(T, 1000, generator))
        mine = loss(runs["fastrnn"].model, batch).item()
    if options.plot:
        curves = {name: each.losses for name, each in runs.items()}
        save_lines(options.plot, "optimiser step", "loss", curves)
    whose = f"fastrnn.{layer}, {options.hidden} units, after {steps:,} batches"
    figures = [(whose, f"{mine:.2g}")]
    figures += [(f"published for {length} steps: {n}", f"{v:.2g}") for n, v in published.items()]
    figures += [("who remembers nothing", naive)]
    return Result(*speed, f"loss of {options.problem} over {T} steps", figures)
