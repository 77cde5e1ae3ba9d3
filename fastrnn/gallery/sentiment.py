"""Does a critic like the film? A bidirectional LSTM or GRU reads a sentence in both directions, and
what stands out most in it decides.

Data: 10,605 sentences of film reviews, which come with the source of vaderSentiment:

  pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
  python -m fastrnn sentiment --data vaderSentiment-3.3.2.tar.gz

or, by --data DIR, the Stanford Sentiment Treebank: stsa.binary.train and stsa.binary.test.
"""

import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import fastrnn

from ..demo.options import number
from .data import Missing, member
from .pictures import save_histogram
from .training import Result, Run, in_turn, of_lengths, seeded, show_speed, shuffled

BATCH, EMBEDDED, HIDDEN = 64, 128, 64
ARCHIVE, SNIPPETS = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"
GET = "pip download --no-binary :all: --no-deps vaderSentiment==3.3.2"
VADER = [("VADER's rules, compound above 0, all 10,605", "64.6%")]
TREEBANK = [("LSTM with vectors learned elsewhere (Tai 2015)", "84.9%"), ("both ways", "87.5%")]


def snippets(file):
    """The text of the snippets in an archive, or in an archive of that."""
    name, content = member(file, SNIPPETS, ARCHIVE)
    return snippets(BytesIO(content)) if name == ARCHIVE else content.decode()


def read(path, random):
    """Two lists of (sentence, is it praise?), to learn from and held out; and others' figures."""
    if path.is_dir():
        parts = [(path / f"stsa.binary.{part}").read_text("utf-8") for part in ("train", "test")]
        lines = [[line for line in part.splitlines() if line[2:].strip()] for part in parts]
        return *([(line[2:], line[0] == "1") for line in part] for part in lines), TREEBANK
    with path.open("rb") as file:
        text = file.read().decode() if path.suffix == ".txt" else snippets(file)
    rows = [line.split("\t") for line in text.splitlines()]
    told = [(sentence, float(rating) > 0) for _, rating, sentence in rows]
    random.shuffle(told)
    return told[len(told) // 10 :], told[: len(told) // 10], VADER


def words_of(sentence):
    return re.findall(r"[a-z0-9]+(?=n't)|n't|'[a-z]+|[a-z0-9]+|[^\sa-z0-9]", sentence.lower())


class Critic(nn.Module):
    def __init__(self, layer, words):
        super().__init__()
        self.words = {word: number for number, word in enumerate(words, 1)}  # 0: any other
        self.embedding, self.dropout = nn.Embedding(len(words) + 1, EMBEDDED), nn.Dropout(0.5)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.recurrent = layer(EMBEDDED, HIDDEN, bidirectional=True)
        self.decide = nn.Linear(2 * HIDDEN, 1)

    def forward(self, sentences):
        """How likely each is praise, as a logit (B,)."""
        numbers = [torch.tensor([self.words.get(w, 0) for w in words_of(s)]) for s in sentences]
        lengths = torch.tensor([len(each) for each in numbers])
        x = self.dropout(self.embedding(pad_sequence(numbers)))
        read = of_lengths(self.recurrent, x, lengths)
        padding = torch.arange(len(x))[:, None] >= lengths
        most = read.masked_fill(padding[:, :, None], -torch.inf).amax(0)
        return self.decide(self.dropout(most))[:, 0]


def loss(model, batch):
    sentences, praise = zip(*batch, strict=True)
    given = torch.tensor(praise, dtype=torch.float)
    return nn.functional.binary_cross_entropy_with_logits(model(sentences), given)


def add_options(parser):
    parser.add_argument("--data", type=Path, help="an archive, the text in it, or a folder")
    parser.add_argument("--layer", choices=("LSTM", "GRU"), default="LSTM", help="default: LSTM")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 900, quick 300)")


def run(options, console):
    random, steps = Random(options.seed), options.steps or (300 if options.quick else 900)
    if options.data is None:
        raise Missing(f"its data comes by --data vaderSentiment-3.3.2.tar.gz, from {GET}")
    try:
        learned, held_out, others = read(options.data, random)
        if not (learned and held_out):
            raise ValueError("there are no sentences in it")
    except (OSError, ValueError) as error:
        raise Missing(f"--data {options.data}: {error}") from error
    counts = Counter(word for sentence, _ in learned for word in set(words_of(sentence)))
    words, runs = [word for word, count in counts.items() if count > 1], {}
    for name, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        model = seeded(options.seed, Critic, getattr(library, options.layer), words)
        runs[name] = Run(model, loss, lr=3e-3, steps=steps)
    in_turn(runs, shuffled(learned, BATCH, random), steps, console, beside=20)
    speed, model = show_speed(console, runs), runs["fastrnn"].model.eval()
    sentences, praise = zip(*held_out, strict=True)
    with torch.no_grad():
        chances, praise = model(sentences).sigmoid(), torch.tensor(praise)
    right, most = ((chances > 0.5) == praise).float().mean(), praise.float().mean()
    whose = f"bidirectional {options.layer}, {len(praise):,} sentences held out"
    figures = [(whose, f"{right:.1%}"), *others]
    figures += [("always the same answer", f"{max(most, 1 - most):.1%}")]
    for sentence, chance in zip(sentences[:5], chances[:5].tolist(), strict=True):
        console.print(f"{chance:5.0%} {sentence}", markup=False)
    if options.plot:
        said = {"praise": chances[praise].tolist(), "not": chances[~praise].tolist()}
        save_histogram(options.plot, "chance that it is praise, says the model", "sentences", said)
    return Result(*speed, "praise or not: right", figures)
