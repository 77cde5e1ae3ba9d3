"""What comes next in a series of numbers? A GRU reads the past in pieces of many hours, as SegRNN
does (arXiv 2308.11200), and answers all pieces to come at once, each from its place.

  sunspots  a year ahead, 1921 to 1955; what came before is learned from (package statsmodels)
  traffic   cars an hour on a road in Minnesota, a day ahead; the last fifth held out (autots)
  ETTh1     of an electricity transformer, four days ahead, months 17 to 20 held out: --data FILE,
            which is ETTh1.csv or ETTh1.csv.gz of ETDataset
"""

from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from .data import Missing, of_package, table_of
from .pictures import save_lines
from .training import Result, Run, in_turn, seeded, show_speed, shuffled

BATCH, HIDDEN = 64, 128
MONTH = 30 * 24  # hours, as all who use ETTh1 count them


class Task(NamedTuple):
    file: tuple  # the package that has it, and the path there
    columns: slice
    learned: int  # how many rows are learned from; on rows held out it is judged
    held_out: range
    past: int  # how many rows are read for a forecast of how many ahead, in which pieces
    ahead: int
    piece: int
    season: int  # who does not learn says: as it was so long ago
    steps: int
    unit: str
    measure: object  # from the mean square of what is standardised, and the standard deviation
    others: tuple = ()


TASKS = {
    "sunspots": Task(
        ("statsmodels", "statsmodels/datasets/sunspots/sunspots.csv"), slice(1, 2),
        221, range(221, 256), 22, 1, 1, 1, 300,
        "mean square / 1535", lambda square, std: square * std**2 / 1535,
    ),
    "traffic": Task(
        ("autots", "autots/datasets/data/traffic_hourly.zip"), slice(5, 6),
        14016, range(14016, 17520), 336, 24, 24, 168, 2000,
        "cars an hour, RMSE", lambda square, std: square**0.5 * std,
    ),
    "ETTh1": Task(
        (), slice(1, None), 12 * MONTH, range(16 * MONTH, 20 * MONTH), 720, 96, 48, 24, 600,
        "standardised, MSE", lambda square, std: square, (("SegRNN, as published", "0.341"),),
    ),
}  # fmt: skip


class Forecaster(nn.Module):
    """Each channel for itself, by the same weights, from its last value."""

    def __init__(self, library, task, channels):
        super().__init__()
        self.ahead = task.ahead
        self.into, self.out = nn.Linear(task.piece, HIDDEN), nn.Linear(HIDDEN, task.piece)
        self.recurrent, self.dropout = library.GRU(HIDDEN, HIDDEN), nn.Dropout(0.3)
        self.channel = nn.Parameter(torch.randn(channels, 1, HIDDEN // 2))
        self.place = nn.Parameter(torch.randn(1, task.ahead // task.piece, HIDDEN // 2))

    def forward(self, x):
        """x (B, past, C): (B, ahead, C)."""
        (B, _, C), last, places = x.shape, x[:, -1:], self.place.shape[1]
        pieces = (x - last).transpose(1, 2).reshape(B * C, -1, self.into.in_features)
        _, state = self.recurrent(self.into(pieces.transpose(0, 1)).relu())
        asked = torch.cat([self.channel.expand(-1, places, -1), self.place.expand(C, -1, -1)], 2)
        asked = asked.repeat(B, 1, 1).reshape(1, B * C * places, -1)
        told, _ = self.recurrent(asked, state.repeat_interleave(places, 1))
        return self.out(self.dropout(told)).reshape(B, C, -1).transpose(1, 2) + last


def loss(model, windows):
    past, future = torch.stack(windows).tensor_split([-model.ahead], 1)
    return nn.functional.mse_loss(model(past), future)


def add_options(parser):
    parser.add_argument("--series", choices=TASKS, help="default: sunspots, with --data ETTh1")
    parser.add_argument("--data", metavar="FILE", type=Path, help="a file instead of a package's")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 300, 2000, 600)")


def run(options, console):
    name = options.series or ("ETTh1" if options.data else "sunspots")
    task, runs = TASKS[name], {}
    if not (options.data or task.file):
        raise Missing(f"{name} comes by --data FILE: {name}.csv of github.com/zhouhaoyi/ETDataset")
    steps = options.steps or (task.steps // 2 if options.quick else task.steps)
    file = options.data or of_package(*task.file)
    values = table_of(file, task.columns, task.held_out.stop)
    mean, std = values[: task.learned].mean(0), values[: task.learned].std(0)
    length = task.past + task.ahead
    windows = ((values - mean) / std).unfold(0, length, 1).transpose(1, 2)
    learned = windows[: task.learned - length + 1]
    held_out = windows[task.held_out.start - task.past : task.held_out.stop - length + 1]
    for whose, library in (("torch.nn", nn), ("fastrnn", fastrnn)):
        model = seeded(options.seed, Forecaster, library, task, len(std))
        runs[whose] = Run(model, loss, lr=2e-3, steps=steps)
    batches = shuffled(list(learned), BATCH, Random(options.seed))
    in_turn(runs, batches, steps, console, beside=20)
    speed, model = show_speed(console, runs), runs["fastrnn"].model.eval()
    past, future = held_out.tensor_split([task.past], 1)
    with torch.no_grad():
        told = torch.cat([model(part) for part in past.split(BATCH)])
    before = past[:, torch.arange(task.ahead) % task.season - task.season]
    figures = []
    for whose, said in (
        (f"GRU, after {steps:,} batches", told),
        (f"as {task.season} rows before", before),
    ):
        figure = task.measure((said - future).square().mean(), std[0]).item()
        figures.append((whose, f"{figure:.3f}"))
    if options.plot:
        lines = {"as it was": future, "as it was forecast": told}
        lines = {k: (v * std + mean)[:: task.ahead, :, -1].flatten() for k, v in lines.items()}
        save_lines(options.plot, "rows held out", name, {k: v[-400:] for k, v in lines.items()})
    return Result(*speed, f"{name}: {task.unit}", figures + list(task.others))
