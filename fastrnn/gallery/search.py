"""What is likeliest of all that a model could say: a search that keeps the best beginnings."""

import torch


@torch.no_grad()
def likeliest(step, count, start, end, most, width=5):
    """What is said at each of ``count`` places: lists of numbers, without ``end``, of at most
    ``most``. Of what the search comes across it is that with the greatest mean log-probability; it
    ends when no beginning is better, though one might become so.

    step(last, rows): the log-probabilities of what comes next (N, numbers), where the last number
    (N,) of each beginning is known, and which row of the step before it goes on from (N,).
    """
    first = torch.arange(count)[:, None] * width
    scores = torch.tensor([0.0] + [-torch.inf] * (width - 1)).repeat(count, 1)
    said, rows = torch.full((count * width, 1), start), torch.arange(count * width)
    best, found = torch.full((count,), -torch.inf), [[] for _ in range(count)]
    for length in range(1, most + 1):
        total = step(said[:, -1], rows).view(count, width, -1) + scores[:, :, None]
        ended, which = (total[:, :, end] / length).max(1)
        for n in (ended > best).nonzero()[:, 0].tolist():
            found[n] = said[first[n, 0] + which[n], 1:].tolist()
        best = best.maximum(ended)
        total[:, :, end] = -torch.inf
        scores, chosen = total.flatten(1).topk(width)
        if (best >= scores[:, 0] / length).all():
            break
        rows = (first + chosen // total.shape[2]).flatten()
        said = torch.cat([said[rows], (chosen % total.shape[2]).view(-1, 1)], 1)
    return found
