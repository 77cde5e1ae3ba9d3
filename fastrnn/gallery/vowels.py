"""Who says a vowel? A bidirectional LSTM listens to it, and votes at every moment."""

from random import Random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import fastrnn

from .data import of_package, series_of
from .pictures import save_chances
from .scores import nearest, share
from .training import Result, Run, in_turn, of_lengths, seeded, show_speed, shuffled

BATCH, HIDDEN, MEN = 30, 128, 9
FILES, GET = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts", "--no-deps aeon"
KUDO = [("hidden Markov model (Kudo 1999)", "96.2%"), ("passing-through regions (same)", "94.1%")]
BOTH = {"torch.nn": nn, "fastrnn": fastrnn}


class Listener(nn.Module):
    def __init__(self, library, features, classes):
        super().__init__()
        self.listen = library.LSTM(features, HIDDEN, bidirectional=True)
        self.dropout, self.vote = nn.Dropout(0.4), nn.Linear(2 * HIDDEN, classes)

    def forward(self, sounds):
        """The votes (T, B, classes) on sounds, each (t, features), and their lengths (B,)."""
        lengths = torch.tensor([len(sound) for sound in sounds])
        heard = of_lengths(self.listen, pad_sequence(sounds), lengths)
        return self.vote(self.dropout(heard)), lengths


def learn(options, console, libraries, sizes, loss, batches, steps):
    """The Listener that fastrnn has trained, and what show_speed returns."""
    runs, steps = {}, options.steps or steps
    for name, library in libraries.items():
        model = seeded(options.seed, Listener, library, *sizes)
        runs[name] = Run(model, loss, lr=4e-3, steps=steps)
    in_turn(runs, batches, steps, console, beside=20)
    return runs["fastrnn"].model.eval().requires_grad_(False), show_speed(console, runs)


def elected(votes, lengths):
    """The mean of the votes on each (B, classes)."""
    there = torch.arange(len(votes))[:, None] < lengths
    return (votes * there[:, :, None]).sum(0) / lengths[:, None]


def loss(model, batch):
    sounds, men = zip(*batch, strict=True)
    noisy = [sound + torch.randn_like(sound) for sound in sounds]  # 270 are soon known by heart
    return nn.functional.cross_entropy(elected(*model(noisy)), torch.tensor(men))


def read():
    """Two lists of (12 coefficients at each moment, who says it), to learn from and held out."""
    parts = [series_of(of_package("aeon", FILES.format(part), GET)) for part in ("TRAIN", "TEST")]
    rows = torch.cat([sound for sound, _ in parts[0]])
    mean, std = rows.mean(0), rows.std(0)
    return [[((sound - mean) / std, int(man) - 1) for sound, man in part] for part in parts]


def run(options, console):
    learned, held_out = read()
    batches = shuffled(learned[:], BATCH, Random(options.seed))
    steps, sizes = 200 if options.quick else 600, (learned[0][0].shape[1], MEN)
    model, speed = learn(options, console, BOTH, sizes, loss, batches, steps)
    sounds, men = zip(*held_out, strict=True)
    ways, figures = {f"bidirectional LSTM, {len(men)} vowels held out": model}, []
    ways["the same, weights of eight bits"] = fastrnn.quantize(model, inplace=False).model
    for whose, each in ways.items():
        right = share(elected(*each(sounds)).argmax(1).tolist(), men)
        figures.append((whose, f"{right:.1%}"))
    figures += [("as the nearest, in 8 pieces", f"{nearest(learned, held_out):.1%}"), *KUDO]
    if options.plot:
        chances = model(sounds[:1])[0][:, 0].softmax(1)
        names = [f"man {n}" for n in range(1, MEN + 1)]
        save_chances(options.plot, f"a vowel of man {men[0] + 1}", names, chances, sounds[0])
    return Result(*speed, "whose vowel: right", figures)
