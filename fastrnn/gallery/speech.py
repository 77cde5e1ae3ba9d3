"""What is said? A bidirectional LSTM listens to digits, one or several in a row, and votes at every
moment for one, or for none. Connectionist temporal classification (CTC) finds out which of the
digits is when, told only what was said in which order.

  python -m fastrnn speech                 which of nine men says a vowel? Of the package aeon
  python -m fastrnn speech --data FOLDER   digits, of the Free Spoken Digit Dataset

The folder, or the .tar.gz of it, has files digit_speaker_index.wav, 8000 Hz. Held out are first
recordings 0 to 4 of each digit, as is usual; then all of one speaker, each in turn. The mean
spectrum of each speaker is known, also of the one held out, but not what he says.
"""

from itertools import count, groupby, islice
from pathlib import Path
from random import Random

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from . import vowels
from .data import Missing
from .pictures import save_chances
from .scores import distance, nearest, share
from .sound import BANDS, TOGETHER, alone, by_speaker, played, recordings, rows_of, voices_of
from .training import Result
from .vowels import BOTH, learn

BATCH, NONE = 32, 10  # NONE: what is voted for where no digit is
WORDS = "{:.1%} right; in rows of 3 to 7 {:.1%} wrong; the nearest recording: {:.1%} right"


def loss(model, batch):
    sounds, digits = zip(*batch, strict=True)
    votes, lengths = model(sounds)
    told = torch.tensor([digit for row in digits for digit in row])
    many = torch.tensor([len(row) for row in digits])
    return nn.functional.ctc_loss(votes.log_softmax(2), told, lengths, many, blank=NONE)


def spelled(votes, lengths):
    """The digits of each: those likeliest at a moment, once as long as one lasts."""
    best = zip(votes.argmax(2).T.tolist(), lengths.tolist(), strict=True)
    return [[digit for digit, _ in groupby(row[:length]) if digit != NONE] for row, length in best]


def parts_of(found):
    """(what is held out, the recordings to learn from, those held out)."""
    yield "recordings 0 to 4", [e for e in found if e.index > 4], [e for e in found if e.index < 5]
    for speaker, those in by_speaker(found).items():
        yield speaker, [each for each in found if each.speaker != speaker], those


def judged(console, model, learned, held_out, voices, random):
    """The shares of digits right one by one, wrong in rows, and right by the nearest recording."""
    ones = played([[each] for each in held_out], voices, random)
    several = played(islice(rows_of(held_out, random, 3, 7), 200), voices, random)
    (sounds, right), (rows, wanted) = zip(*ones, strict=True), zip(*several, strict=True)
    told, heard = spelled(*model(sounds)), spelled(*model(rows))
    console.print(f"\nsaid  {wanted[0]}\nheard {heard[0]}")
    wrong = sum(map(distance, heard, wanted)) / sum(map(len, wanted))
    return share(told, right), wrong, nearest(alone(learned, voices), alone(held_out, voices))


def digits(options, console):
    found, random = recordings(options.data), Random(options.seed)
    parts, voices = list(parts_of(found)), voices_of(found)
    if not all(learned and held_out for _, learned, held_out in parts):
        raise Missing(f"--data {options.data}: recordings 4 and 5 of two speakers are needed")
    sizes, steps = (BANDS * TOGETHER, NONE + 1), 400 if options.quick else 1500
    first, shares = None, {}
    for whose, learned, held_out in parts[: 1 if options.quick else None]:
        console.print(f"\nheld out: {whose}")
        rows = rows_of(learned, random, 1, 4)
        batches = (played(islice(rows, BATCH), voices, random, learn=True) for _ in count())
        libraries = {"fastrnn": fastrnn} if first else BOTH
        trained = learn(options, console, libraries, sizes, loss, batches, steps)
        given = learned, held_out, voices
        shares[whose] = judged(console, trained[0], *given, Random(options.seed))
        console.print(WORDS.format(*shares[whose]))
        if first is None:
            first, eight = trained, fastrnn.quantize(trained[0], inplace=False).model
            of_eight = judged(console, eight, *given, Random(options.seed))
    model, speed = first
    if len(shares) > 1:
        shares["a speaker, mean"] = torch.tensor(list(shares.values())[1:]).mean(0).tolist()
    shares[f"{parts[0][0]}, weights of eight bits"] = of_eight
    if options.plot:
        ((sound, said),) = played(islice(rows_of(parts[0][2], random, 5, 5), 1), voices, random)
        chances, names = model([sound])[0][:, 0].softmax(1), [*range(10), "none"]
        save_chances(options.plot, f"said: {said}", names, chances, sound[:, :BANDS])
    figures = [(f"held out: {whose}", WORDS.format(*each)) for whose, each in shares.items()]
    return Result(*speed, "spoken digits", figures)


def add_options(parser):
    parser.add_argument("--data", type=Path, help="a folder, or a .tar.gz file, of spoken digits")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 600; digits 1500)")


def run(options, console):
    return (digits if options.data else vowels.run)(options, console)
