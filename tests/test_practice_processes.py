"""Training practice: layers of ours in the workers of a DataLoader, and in threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, TOLERANCE, difference
from practice import H, Model, data, loss_of, train
from torch import nn
from torch.utils.data import DataLoader, Dataset

import fastrnn


def model_of(library, kind, seed=4, cell=False):
    torch.manual_seed(seed)
    return Model(library, kind, cell).double()


class Encoded(Dataset):
    """Rows that a layer makes in the worker: features for a model in the main process."""

    def __init__(self, library, kind):
        self.encoder = model_of(library, kind)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        with torch.no_grad():
            x, _ = data(index)
            return self.encoder.rnn(x)[0]


class ReadsAndTrains(nn.Module):
    """Takes what ``Encoded`` makes."""

    def __init__(self, library, kind):
        super().__init__()
        self.inner = model_of(library, kind)
        self.narrow = nn.Linear(H, 5).double()

    def forward(self, x):
        return self.inner(self.narrow(x[0]))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("threads", [1, 2], ids="threads={}".format)
def test_workers_of_a_data_loader(kind, start, threads):
    """The main process trains, on its threads, before the workers start and while they run."""
    torch.set_num_threads(threads)
    found = []
    for library in (fastrnn, nn):
        model = ReadsAndTrains(library, kind)
        train(model.inner)
        loader = DataLoader(
            Encoded(library, kind), num_workers=2, multiprocessing_context=start, timeout=120
        )
        optimiser, losses = torch.optim.SGD(model.parameters(), 0.1), []
        for x in loader:
            optimiser.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        found.append(torch.stack(losses))
    assert difference(*found) <= TOLERANCE[torch.float64]


@EVERY_KIND
@CELL_OR_LAYER
def test_a_model_in_each_thread(kind, cell):
    """Trained at once, each as it would be alone."""
    torch.set_num_threads(2)
    seeds = range(4)
    with ThreadPoolExecutor(4) as pool:
        models = [model_of(fastrnn, kind, seed, cell) for seed in seeds]
        found = list(pool.map(train, models))
    for seed, (losses, weights) in zip(seeds, found, strict=True):
        expected, expected_weights = train(model_of(nn, kind, seed, cell))
        assert difference(losses, expected) <= TOLERANCE[torch.float64]
        for a, b in zip(weights, expected_weights, strict=True):
            assert difference(a, b) <= TOLERANCE[torch.float64]


@EVERY_KIND
def test_one_model_in_all_threads(kind):
    """Its gradients accumulate from all of them."""
    model, reference = model_of(fastrnn, kind), model_of(nn, kind)
    with ThreadPoolExecutor(4) as pool:
        losses = list(pool.map(lambda seed: loss_of(model, *data(seed)), range(8)))
        sum(losses).backward()
        outputs = list(pool.map(lambda seed: model(data(seed)[0]).detach(), range(8)))
    sum(loss_of(reference, *data(seed)) for seed in range(8)).backward()
    for seed, output in enumerate(outputs):
        assert difference(output, reference(data(seed)[0]).detach()) <= TOLERANCE[torch.float64]
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert difference(a.grad, b.grad) <= TOLERANCE[torch.float64]
