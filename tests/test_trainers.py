"""Trainers that people use: Lightning's, and Hugging Face's Accelerate, around layers of ours."""

import pytest
import torch
from against_torch import EVERY_KIND, TOLERANCE, difference
from practice import Model, data, loss_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastrnn

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about logging, workers and themselves
STEPS = 6


def model_of(library, kind):
    torch.manual_seed(4)
    return Model(library, kind).double()


def accelerated(kind):
    model = model_of(nn, kind)
    assert fastrnn.accelerate(model).changed
    return model


def batches():
    """A loader of (input, goal), the batch first, as loaders have it."""
    x, goal = zip(*(data(seed) for seed in range(STEPS)), strict=True)
    rows = torch.cat([t.transpose(0, 1) for t in x])
    return DataLoader(TensorDataset(rows, torch.cat(goal)), batch_size=4)


def loss_on(model, batch):
    x, goal = batch
    return loss_of(model, x.transpose(0, 1), goal)


def by_hand(model, folder):
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for batch in batches():
        optimiser.zero_grad()
        loss = loss_on(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def by_lightning(model, folder):
    """With gradient clipping, a checkpoint and its reloading."""
    import lightning

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.losses = model, []

        def training_step(self, batch, _):
            loss = loss_on(self.model, batch)
            self.losses.append(loss.detach())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.02)

    task = Task()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, gradient_clip_val=1.0, logger=False,
        enable_progress_bar=False, enable_model_summary=True, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(task, batches())
    saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    for name, value in task.state_dict().items():
        assert saved["state_dict"][name].equal(value)
    return torch.stack(task.losses)


def by_accelerate(model, folder):
    """With gradient clipping, and its state saved and loaded."""
    from accelerate import Accelerator

    runner = Accelerator(cpu=True)
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.02), []
    prepared, optimiser, loader = runner.prepare(model, optimiser, batches())
    for batch in loader:
        optimiser.zero_grad()
        loss = loss_on(prepared, batch)
        runner.backward(loss)
        runner.clip_grad_norm_(prepared.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.detach())
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    runner.save_state(folder)
    for weight in model.parameters():
        weight.data.zero_()
    runner.load_state(folder)
    for name, value in model.state_dict().items():
        assert value.equal(expected[name])
    return torch.stack(losses)


@EVERY_KIND
@pytest.mark.parametrize("trained", [by_lightning, by_accelerate])
@pytest.mark.parametrize("made", ["ours", "accelerated"])
def test_trainers(kind, trained, made, tmp_path, calls):
    expected = by_hand(model_of(nn, kind), None)
    assert not calls
    model = accelerated(kind) if made == "accelerated" else model_of(fastrnn, kind)
    found = trained(model, str(tmp_path))
    assert calls == {"forward": 2 * STEPS, "backward": 2 * STEPS}
    for name, weight in model.state_dict().items():
        assert weight.isfinite().all(), name
    assert difference(found, expected) <= TOLERANCE[torch.float64]
