"""Why recurrent networks are hard to train, and what helps, on the adding problem: of T numbers two
are marked, and at the end their sum is asked for.

First the norm of dL/dh at every step of an untrained RNN, LSTM and GRU: where it falls towards the
first steps, what happened there cannot be learned; where it grows, training breaks off. Then each
treatment is trained from the same seed on the same batches, and says whether it learned.
"""

import torch
from torch import nn

import fastrnn

from ..demo.options import number
from ..demo.style import table
from .memory import Model, adding, adding_loss
from .training import Result, Run, in_turn, seeded

LEARNED = 0.05  # the squared error: who answers the mean has 0.167
HIDDEN, BATCH = 64, 64


class ClippedRNN(fastrnn.Recurrent):
    """An RNN whose gradient is bounded at every step of its way back."""

    def step(self, wx, uh, h):
        h = torch.tanh(wx[0] + uh[0])
        return h, (fastrnn.clip_gradient(h, 0.001),)


def orthogonal(layer):
    """Recurrent weights that keep the norm of a state."""
    nn.init.orthogonal_(layer.weight_hh_l0)


@torch.no_grad()
def remembering(layer):
    """The forget gate of an LSTM begins open: its bias is 1."""
    layer.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 1.0


TREATMENTS = {  # layer, its weights at first, the norm to which a gradient is clipped
    "RNN": (fastrnn.RNN, None, None),
    "RNN, clipped by norm": (fastrnn.RNN, None, 1.0),
    "RNN, orthogonal": (fastrnn.RNN, orthogonal, None),
    "RNN, orthogonal, clipped by norm": (fastrnn.RNN, orthogonal, 1.0),
    "RNN, orthogonal, clipped in BPTT": (ClippedRNN, orthogonal, None),
    "LSTM": (fastrnn.LSTM, None, 1.0),
    "LSTM, forget bias 1": (fastrnn.LSTM, remembering, 1.0),
    "GRU": (fastrnn.GRU, None, 1.0),
}


def model(layer, weights):
    made = Model(layer, 2, HIDDEN, 1)
    if weights:
        weights(made.recurrent)
    return made


def show_flows(console, models, batch, T):
    """The norm of dL/dh of each model, for the loss of a batch, at a few steps."""
    steps = [0, T // 4, T // 2, 3 * T // 4, T - 1]
    found = table("norm of dL/dh at step", *map(str, steps), "a step back", right=range(1, 7))
    flows = {}
    for name, model in models.items():
        x, sums = batch
        flow = fastrnn.gradient_flow(
            model, x, loss=lambda y, sums=sums: nn.functional.mse_loss(y[-1, :, 0], sums)
        )
        flows[name] = flow.norms["recurrent"]["h"][0, 0]
        figures = [f"{flows[name][t].item():.1e}" for t in steps]
        found.add_row(name, *figures, f"x {fastrnn.flow.growth(flows[name]):.2f}")
    console.print(found)
    console.print()
    return flows


def save(path, flows, runs):
    """The norms before training, and the losses, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, norms in flows.items():
        left.plot(norms.tolist(), label=name)
    left.set(yscale="log", xlabel="step", ylabel="norm of dL/dh, before training")
    for name, run in runs.items():
        smooth = torch.tensor(run.losses).unfold(0, min(50, len(run.losses)), 1).mean(1)
        right.plot(smooth.tolist(), label=name)
    right.axhline(1 / 6, color="0.7", linestyle=":")
    right.set(xlabel="optimiser step", ylabel="squared error", ylim=(0, 0.25))
    right.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def add_options(parser):
    number(parser, "--length", 2, 1_000_000, None, "default: 100, quick 20")
    number(parser, "--steps", 1, 1_000_000, None, "optimiser steps (default: 2000, quick 600)")


def run(options, console):
    T = options.length or (20 if options.quick else 100)
    steps = options.steps or (600 if options.quick else 2000)
    batches = adding(T, BATCH, torch.Generator().manual_seed(options.seed))
    models = {n: seeded(options.seed, model, *each[:2]) for n, each in TREATMENTS.items()}
    flows = show_flows(console, models, next(batches), T)
    runs = {
        name: Run(models[name], adding_loss, lr=2e-3, clip=clip)
        for name, (_, _, clip) in TREATMENTS.items()
    }
    in_turn(runs, batches, steps, console)
    if options.plot:
        save(options.plot, flows, runs)
    figures = [
        (name, f"{each.recent:.4f}: {'learned' if each.recent < LEARNED else 'not learned'}")
        for name, each in sorted(runs.items(), key=lambda named: named[1].recent)
    ]
    figures.append(("who answers the mean", "0.1667"))
    return Result(True, None, f"squared error of adding over {T} steps", figures)
