"""openunmix: its music separation network, trained as its own script trains it."""

import sys
from types import ModuleType

import torch

# openunmix reads files with torchaudio, which is not asked for here; on a machine without CUDA's
# libraries torchaudio cannot even be imported
sys.modules["torchaudio"] = ModuleType("torchaudio")

from openunmix.model import OpenUnmix  # noqa: E402

WHAT = "Open-Unmix, 3 bidirectional LSTM layers of 128"


def train(prepare):
    """A mixture of two noises: one flickers, one sounds along the frequencies it must keep."""
    torch.manual_seed(1)
    bins, frames = 257, 120
    model = OpenUnmix(nb_bins=bins, nb_channels=1, hidden_size=256)
    prepare(model)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-5), []
    keep = (torch.arange(bins) % 7 < 3).float()[:, None]
    for _ in range(20):
        source, other = torch.rand(8, 1, bins, frames) * keep, torch.rand(8, 1, 1, frames)
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(model(source + other), source)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
