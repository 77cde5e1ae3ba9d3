"""PyTorch's tutorial has a SimpleRNN that is called for each letter, one after another. Here it
learns to write English: once stepped by hand, as in the tutorial, and once by fastrnn.scan, which
makes one kernel of all steps. The module is the same, and so are the numbers.

Data: the help texts that come with Python.
"""

from math import log

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from ..demo.text import Corpus, built_in
from .pictures import save_lines
from .training import Result, Run, in_turn, seeded, show_speed

BATCH, LENGTH, HIDDEN = 8, 128, 128


class SimpleRNN(nn.Module):
    """As in the tutorial: one step."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.i2h = nn.Linear(inputs + hidden, hidden)
        self.i2o = nn.Linear(inputs + hidden, outputs)

    def forward(self, x, hidden):
        both = torch.cat((x, hidden), 1)
        return torch.log_softmax(self.i2o(both), 1), torch.tanh(self.i2h(both))


def by_hand(model, xs, hidden):
    outputs = []
    for x in xs:
        output, hidden = model(x, hidden)
        outputs.append(output)
    return torch.stack(outputs), hidden


def loss_of(call, characters):
    """The bits that a model needs for a character, where ``call`` steps it."""

    def loss(model, batch):
        inputs, targets, _ = batch
        one_hot = nn.functional.one_hot(inputs, characters).float()
        outputs, _ = call(model, one_hot, torch.zeros(inputs.shape[1], HIDDEN))
        return nn.functional.nll_loss(outputs.flatten(0, 1), targets.flatten()) / log(2)

    return loss


@torch.no_grad()
def written(model, corpus, generator, count=200):
    """Characters drawn one by one, each from what the model expects."""
    number, hidden, found = torch.tensor([0]), torch.zeros(1, HIDDEN), []
    for _ in range(count):
        x = nn.functional.one_hot(number, len(corpus.characters)).float()
        output, hidden = model(x, hidden)
        number = torch.multinomial((output[0] / 0.7).softmax(0), 1, generator=generator)
        found.append(int(number))
    return corpus.decode(found)


def add_options(parser):
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 4000, quick 200)")


def run(options, console):
    corpus, steps = Corpus(built_in(), BATCH, LENGTH), options.steps or (4000, 200)[options.quick]
    characters, runs = len(corpus.characters), {}
    for name, call in (("step by step", by_hand), ("fastrnn.scan", fastrnn.scan)):
        model = seeded(options.seed, SimpleRNN, characters, HIDDEN, characters)
        runs[name] = Run(model, loss_of(call, characters), lr=2e-3)
    in_turn(runs, corpus.train(), steps, console, beside=100)
    speed, mine = show_speed(console, runs), runs["fastrnn.scan"]
    with torch.no_grad():
        held_out = [mine.loss(mine.model, window).item() for window in corpus.held_out()]
    figures = [("SimpleRNN, text held out", f"{sum(held_out) / len(held_out):.3f}")]
    figures += [("all characters equally likely", f"{log(characters) / log(2):.3f}")]
    if options.plot:
        curves = {name: each.losses for name, each in runs.items()}
        save_lines(options.plot, "optimiser step", "bits for a letter", curves)
    generator = torch.Generator().manual_seed(options.seed)
    console.print("\nIt writes:\n", written(mine.model, corpus, generator), markup=False)
    return Result(*speed, "bits per character", figures)
