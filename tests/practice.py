"""What people do with a recurrent layer in training, done with ours and with torch.nn's."""

import torch
from against_torch import TOLERANCE, build, difference
from torch import nn

import fastrnn

T, B, I, H = 6, 4, 5, 9


class Model(nn.Module):
    """Two layers, or a cell taken step by step, and a linear head on the last output."""

    def __init__(self, library, kind, cell=False, **options):
        super().__init__()
        options = options if cell else {"num_layers": 2} | options
        self.rnn = build(library, kind, I, H, cell=cell, **options)
        self.head = nn.Linear(H, 3)

    def forward(self, x):
        if isinstance(self.rnn, nn.RNNBase):
            return self.head(self.rnn(x)[0][-1])
        state = None
        for step in x:
            state = self.rnn(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def data(seed=5, dtype=torch.float64):
    """(input, goal) of a regression."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((T, B, I), (B, 3))]
    return [t.to(dtype) for t in made]


def loss_of(model, x, goal):
    return (model(x) - goal).square().mean()


def train(model, optimiser=None, steps=5, loss=loss_of, before_step=None):
    """The losses of some steps, and the weights after them."""
    optimiser = optimiser or torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    losses = []
    for seed in range(steps):
        optimiser.zero_grad()
        found = loss(model, *data(seed))
        found.backward()
        if before_step:
            before_step()
        optimiser.step()
        losses.append(found.detach())
    return torch.stack(losses), [w.detach() for w in model.parameters()]


def assert_alike(practice, kind, cell=False, **options):
    """``practice(model)``, a tree of tensors, is the same with our model as with torch.nn's.

    Both in float64, from the same weights and the same seed.
    """
    results = []
    for library in (fastrnn, nn):
        torch.manual_seed(4)
        model = Model(library, kind, cell, **options).double()
        torch.manual_seed(6)
        results.append(torch.utils._pytree.tree_flatten(practice(model)))
    (found, structure), (expected, expected_structure) = results
    assert structure == expected_structure
    assert len(found) > 0
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype
            error = difference(ours.detach(), theirs.detach().double())
            assert error <= TOLERANCE[torch.float64]
        else:
            assert ours == theirs
