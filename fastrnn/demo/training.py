"""A character language model, and the job of training it: the same for torch.nn and for fastrnn."""

from math import log
from time import perf_counter

import torch
from torch import nn
from torch.nn.functional import cross_entropy

LARGEST_GRADIENT = 1.0  # the norm to which a gradient is clipped
TEMPERATURE = 0.7  # of the text written: below 1, the likelier characters are preferred


class LanguageModel(nn.Module):
    """Reads characters, and says which comes next: embedding, recurrent layers, linear."""

    def __init__(self, layer, vocabulary, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.recurrent = layer(hidden, hidden, layers)
        self.decoder = nn.Linear(hidden, vocabulary)

    def forward(self, characters, state=None):
        y, state = self.recurrent(self.embedding(characters), state)
        return self.decoder(y), state


def build(layer, vocabulary, options):
    """A model of ``layer``s. The same seed gives the same weights, whosever layers they are."""
    torch.manual_seed(options.seed)
    return LanguageModel(layer, vocabulary, options.hidden, options.layers)


def bits_per_character(model, inputs, targets, state):
    """The mean bits the model needs for ``targets``, as a tensor, and the state it ends in."""
    logits, state = model(inputs, state)
    return cross_entropy(logits.flatten(0, 1), targets.flatten()) / log(2), state


class Run:
    """A model in training: truncated backpropagation through time, the state carried along."""

    def __init__(self, model, lr):
        self.model, self.state = model, None
        self.optimizer = torch.optim.Adam(model.parameters(), lr)
        self.losses, self.seconds = [], []  # of every step: bits per character, wall clock

    def step(self, inputs, targets, fresh):
        """One optimiser step on a window; ``fresh``: it does not continue the one before."""
        begun = perf_counter()
        state = None if fresh else self.state
        loss, state = bits_per_character(self.model, inputs, targets, state)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.state = _detached(state)
        self.losses.append(loss.item())
        self.seconds.append(perf_counter() - begun)


def _detached(state):
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


@torch.no_grad()
def evaluate(model, windows):
    """Mean bits per character over all of ``windows``."""
    total, count, state = 0.0, 0, None
    for inputs, targets, fresh in windows:
        bits, state = bits_per_character(model, inputs, targets, None if fresh else state)
        total, count = total + bits.item() * targets.numel(), count + targets.numel()
    return total / count


@torch.no_grad()
def write(model, prompt, count, generator):
    """``count`` character numbers drawn one by one from what the model expects after ``prompt``."""
    logits, state = model(prompt)
    written = []
    for _ in range(count):
        chances = (logits[-1] / TEMPERATURE).softmax(-1)
        character = torch.multinomial(chances, 1, generator=generator)
        written.append(int(character))
        logits, state = model(character, state)
    return written
