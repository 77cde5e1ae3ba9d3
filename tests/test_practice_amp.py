"""Training practice: autocast in both half precisions, and the scaling of gradients."""

from contextlib import nullcontext

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND
from practice import Model, assert_alike, data, loss_of, train
from test_autocast import without_onednn
from torch import nn

import fastrnn

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def under_autocast(dtype):
    def loss(model, x, goal):
        with torch.autocast("cpu", dtype):
            return loss_of(model, x, goal)

    return loss


@EVERY_KIND
@CELL_OR_LAYER
@HALVES
def test_training_under_autocast(kind, cell, dtype):
    """As close to float64 as torch.nn comes under the same autocast, and it learns."""
    losses = []
    for library, number, loss in (
        (fastrnn, torch.float32, under_autocast(dtype)),
        (nn, torch.float32, under_autocast(dtype)),
        (nn, torch.float64, loss_of),
    ):
        torch.manual_seed(4)
        model = Model(library, kind, cell).to(number)
        optimiser = torch.optim.Adam(model.parameters(), 0.02)
        one_goal = lambda model, *_, loss=loss, number=number: loss(model, *data(dtype=number))  # noqa: E731
        # torch.nn's LSTM in float16 raises on most CPUs, unless without oneDNN
        with without_onednn() if library is nn else nullcontext():
            losses.append(train(model, optimiser, 40, one_goal)[0].double())
    ours, theirs, exact = losses
    assert exact[-1] < 0.5 * exact[0]
    # a sum of 40 roundings that go either way: the two differ by chance, up to half as much again
    room = 1.5 * (theirs - exact).abs().max()
    assert (ours - exact).abs().max() <= room


@EVERY_KIND
@CELL_OR_LAYER
def test_scaled_gradients(kind, cell):
    """GradScaler: scaled, unscaled for clipping, and a step skipped where something overflows."""

    def practice(model):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        scales = []
        for seed in range(6):
            optimiser.zero_grad()
            x, goal = data(seed)
            if seed == 3:
                goal[0, 0] = torch.inf
            scaler.scale(loss_of(model, x, goal)).backward()
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(optimiser)
            scaler.update()
            scales.append(scaler.get_scale())
        return scales, list(model.parameters())

    assert_alike(practice, kind, cell)


@EVERY_KIND
@HALVES
def test_scaled_under_autocast(kind, dtype):
    """The whole recipe of mixed precision: it learns, and no step is lost."""
    torch.manual_seed(4)
    model = Model(fastrnn, kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = under_autocast(dtype)(model, *data(dtype=torch.float32))
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
    assert scaler.get_scale() == 2.0**8
    assert losses[-1] < 0.5 * losses[0]
