"""An oracle for lengths and resets: torch.nn on each piece of each sequence alone."""

import torch
from against_torch import plain_call


def pieces(lengths, resets):
    """[(start, stop), ...] of each sequence."""
    found = []
    for b, length in enumerate(lengths):
        starts = [t for t in range(length) if t == 0 or resets[t, b]]
        found.append(list(zip(starts, [*starts[1:], length], strict=True)) if starts else [])
    return found


def by_pieces(lengths, resets, reset_to=()):
    """A call of a layer of torch.nn's, piece after piece, each alone; resets is (T, B)."""

    def call(module, x, *states):
        D, first = 1 + module.bidirectional, module.batch_first
        x = x.transpose(0, 1) if first else x
        backward = torch.arange(module.num_layers * D) % D == 1
        outputs, ends = [], []
        for b, mine in enumerate(pieces(lengths, resets)):
            initial = [s[:, b : b + 1] for s in states]
            others = [s[:, b : b + 1] for s in reset_to] or [torch.zeros_like(s) for s in initial]
            parts, final = [], list(initial)
            for start, stop in mine:
                given = []
                for one, other in zip(initial, others, strict=True):
                    forth = other if start or resets[0, b] else one
                    back = one if (start, stop) == mine[-1] else other
                    given.append(torch.where(backward.view(-1, 1, 1), back, forth))
                chunk = x[start:stop, b : b + 1]
                chunk = chunk.transpose(0, 1) if first else chunk
                y, new = plain_call(module, chunk, *given)
                parts.append(y.transpose(0, 1) if first else y)
                new = new if isinstance(new, tuple) else (new,)
                for i, state in enumerate(new):
                    keep = final[i] if start else state
                    final[i] = torch.where(backward.view(-1, 1, 1), keep, state)
            width = D * (module.proj_size or module.hidden_size)
            parts.append(x.new_zeros(len(x) - sum(map(len, parts)), 1, width))
            outputs.append(torch.cat(parts))
            ends.append(final)
        used = [x[:0], *[0 * p for p in module.parameters()]]  # so they are in the graph
        y = torch.cat(outputs, 1) + sum(t.sum() for t in used)
        final = [torch.cat(each, 1) for each in zip(*ends, strict=True)]
        return y.transpose(0, 1) if first else y, final[0] if len(final) == 1 else tuple(final)

    return call


def either(lengths=None, resets=None, reset_to=None):
    """A call of ours with these; of torch.nn's, by pieces. reset_to: a list of states."""

    def call(module, x, *states):
        if not type(module).__module__.startswith("fastrnn"):
            T, B = (x.shape[1], x.shape[0]) if module.batch_first else x.shape[:2]
            there = lengths if lengths is not None else [T] * B
            cuts = torch.zeros(T, B, dtype=torch.bool) if resets is None else resets
            to = [s.double() for s in reset_to or ()]
            return by_pieces(there, cuts, to)(module, x, *states)
        options = {}
        if lengths is not None:
            options["lengths"] = torch.tensor(lengths)
        if resets is not None:
            options["resets"] = resets.T if module.batch_first else resets
        if reset_to is not None:
            options["reset_to"] = reset_to[0] if len(reset_to) == 1 else tuple(reset_to)
        return module(x, states[0] if len(states) == 1 else states, **options)

    return call
