"""English to German, sequence to sequence with attention: a bidirectional GRU reads the English; a
GRU that knows the German so far asks which of it matters now, and another, told of that, says what
comes next. A beam search finds the likeliest sentence. Both languages are written in 5,000 pieces
of words, which sentencepiece learns.

Data: captions of photographs, Multi30k's files train.en and .de, test_2016_flickr.en and .de, or
the same as .gz files, in a folder: --data DIR
"""

from itertools import chain
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import fastrnn

from ..demo.options import number
from .data import Missing, library_of
from .pictures import save_attention, show_attention
from .search import likeliest
from .sentences import learn_pieces, pairs_of
from .training import Result, Run, at_one_length, in_turn, of_one_length, seeded, show_speed

PARTS = "train", "test_2016_flickr"  # of files with the names .en and .de
BATCH, WIDTH, PIECES, BEAM = 64, 192, 5000, 5
START, END, PAD = 1, 2, -1  # numbers of no piece; the first two are sentencepiece's


class Translator(nn.Module):
    """What it reads, and what it says, are numbers of pieces. Both languages share the vectors."""

    def __init__(self, library, pieces):
        super().__init__()
        self.piece, self.dropout = nn.Embedding(pieces, WIDTH), nn.Dropout1d(0.2)
        nn.init.normal_(self.piece.weight, std=WIDTH**-0.5)
        self.reader = library.GRU(WIDTH, WIDTH, 2, dropout=0.2, bidirectional=True)
        self.key, self.gist = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.asker = library.GRU(WIDTH, WIDTH)
        self.speaker = library.GRU(3 * WIDTH, WIDTH)
        self.say, self.score = nn.Linear(4 * WIDTH, WIDTH), nn.Linear(WIDTH, pieces)
        self.score.weight = self.piece.weight

    def drop(self, x):
        """x (T, B, C) with some channels of a sentence left out, the same at all its steps."""
        return self.dropout(x.permute(1, 2, 0)).permute(2, 0, 1)

    def vectors(self, numbers):
        return self.drop(self.piece(numbers) * WIDTH**0.5)

    def read(self, sentences):
        """What is known of sentences of one length: keys, values (B, T, ...); the first states."""
        values = self.drop(self.reader(self.vectors(torch.tensor(sentences).T))[0])
        gist = self.gist(values.mean(0)).tanh()[None]
        values = values.transpose(0, 1)
        return (self.key(values), values), (gist, torch.zeros_like(gist))

    def forward(self, known, spoken, states):
        """What comes after each of the pieces spoken (T, B): vectors (T, B, C), of which `score`
        makes scores, the attention (B, T, what was read), and the states."""
        keys, values = known
        asked, asking = self.asker(self.vectors(spoken), states[0])
        attention = (asked.transpose(0, 1) @ keys.transpose(1, 2)).softmax(2)
        told = torch.cat([self.drop(asked), (attention @ values).transpose(0, 1)], 2)
        said, speaking = self.speaker(told, states[1])
        said = self.say(torch.cat([said, told], 2)).tanh()
        return self.drop(said), attention, (asking, speaking)

    @torch.no_grad()
    def translate(self, sentences):
        """What is likeliest for each of sentences of one length."""
        known, states = self.read(sentences)
        beams = torch.arange(len(sentences)).repeat_interleave(BEAM)
        known, states = [x[beams] for x in known], [x[:, beams] for x in states]

        def step(last, rows):
            nonlocal states
            said, _, states = self(known, last[None], [x[:, rows] for x in states])
            return self.score(said[0]).log_softmax(1)

        return likeliest(step, len(sentences), START, END, 2 * len(sentences[0]) + 10, BEAM)


def loss(model, batch):
    sentences, told = zip(*batch, strict=True)
    numbers = pad_sequence([torch.tensor([START, *row, END]) for row in told], padding_value=PAD)
    known, states = model.read(sentences)
    said, _, _ = model(known, numbers[:-1].clamp(0), states)
    there = numbers[1:] != PAD
    right, scores = numbers[1:][there], model.score(said[there])
    return nn.functional.cross_entropy(scores, right, label_smoothing=0.1)


def add_options(parser):
    parser.add_argument("--data", metavar="DIR", type=Path, help="Multi30k's files")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 8000, quick 100)")


def run(options, console):
    if options.data is None:
        raise Missing("its data comes by --data DIR, a folder with Multi30k's train.en and so on")
    steps, score = options.steps or (100 if options.quick else 8000), library_of("sacrebleu")
    learned, (english, right) = (pairs_of(options.data, part) for part in PARTS)
    pieces = learn_pieces(chain(*learned), PIECES)
    read = [pieces.encode(each, add_eos=True) for each in (learned[0], english)]
    pairs = list(zip(read[0], pieces.encode(learned[1]), strict=True))
    runs, random = {}, Random(options.seed)
    for name, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        model = seeded(options.seed, Translator, library, pieces.get_piece_size())
        runs[name] = Run(model, loss, lr=3e-3, steps=steps, warm=400)
    in_turn(runs, of_one_length(pairs, BATCH, random), steps, console, beside=20)
    speed, model = show_speed(console, runs), runs["fastrnn"].model.eval()
    read, said = read[1], at_one_length(model.translate, read[1])
    german = pieces.decode(said)
    for each in list(zip(english, german, right, strict=True))[:4]:
        console.print("\n{}\n  it says: {}\n  a human: {}".format(*each), markup=False)
    pictures = []
    for n in sorted(range(len(read)), key=lambda n: abs(len(read[n]) - 10))[:2]:
        known, states = model.read([read[n]])
        _, (attention,), _ = model(known, torch.tensor([[START, *said[n]]]).T, states)
        pictures.append((*map(pieces.id_to_piece, (read[n], [*said[n], END])), attention))
        show_attention(console, *pictures[-1])
    if options.plot:
        save_attention(options.plot, pictures)
    figures = [("attention, a beam of 5", german), ("the English as it is", english)]
    bleu = [(whose, f"{score.corpus_bleu(each, [right]).score:.1f}") for whose, each in figures]
    return Result(*speed, f"BLEU, English to German, {len(right):,} sentences", bleu)
