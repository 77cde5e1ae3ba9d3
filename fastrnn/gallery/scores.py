"""How far what a model says is from what is right."""

import torch
from torch import nn


def distance(one, other):
    """How many items must be put in, left out or changed to make one list of the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def share(told, right):
    """How many of the answers are right, from 0 to 1."""
    return sum(a == b for a, b in zip(told, right, strict=True)) / len(right)


def nearest(learned, held_out, pieces=8):
    """The share that is right where each is taken for the nearest of the learned. Both are lists of
    (series (T, C), answer); the means of so many pieces of a series are compared.
    """
    means = [
        torch.stack([nn.functional.adaptive_avg_pool1d(x.T, pieces).flatten() for x, _ in part])
        for part in (held_out, learned)
    ]
    told = [learned[n][1] for n in torch.cdist(*means).argmin(1).tolist()]
    return share(told, [answer for _, answer in held_out])
