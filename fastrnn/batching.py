"""Operators under torch.vmap."""

import torch
from torch.utils._pytree import tree_map


def each_alone(operator):
    """The vmap rule: one call for each member of the batch."""

    def rule(info, in_dims, *arguments):
        def member(i):
            return lambda t, dim: t if dim is None else t.select(dim, i)

        results = [
            operator(*(tree_map(member(i), a, d) for a, d in zip(arguments, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        stacked = [torch.stack(members) for members in zip(*results, strict=True)]
        return stacked, [0] * len(stacked)

    operator.register_vmap(rule)
