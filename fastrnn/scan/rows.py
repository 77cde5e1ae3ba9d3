"""What stands before the loop and after it: run by torch on all rows of a sequence at once."""

from operator import getitem

import torch
from torch.nn import functional as F

from .functions import OVER_UNITS, POINTWISE, mask, product_of
from .node import FIXED

UNITWISE = {F.dropout, F.selu, F.celu, F.mish, F.hardswish, F.relu6, F.tanhshrink}
CASTS = {"float", "double", "to", "contiguous", "clone"}
# Functions that act along one dimension: where among their arguments it stands.
ALONG = {"softmax": 1, "log_softmax": 1, "cat": 1, "chunk": 2, "split": 2}


class Stage:
    """Nodes to be computed for all steps, and those of them that are wanted.

    Where each of their functions keeps to its row, they are given the rows of all steps as one
    batch; else torch.vmap has each see the rows of its step alone.
    """

    def __init__(self, nodes, wanted, x):
        self.nodes, self.wanted = nodes, [n for n in wanted if n in nodes]
        read = [n for node in nodes for n in node.inputs() if n.kind != FIXED]
        self.given = list(dict.fromkeys([x, *[n for n in read if n not in nodes]]))
        self.flat = all(map(_keeps_to_its_row, nodes))

    def run(self, values, rows):
        """Add to ``rows``, {node: (T, B, ...)}, what is wanted; values: those of FIXED nodes."""
        if not self.nodes:
            return
        given = [rows[node] for node in self.given]
        if self.flat:
            found = self._computed(values, [t.flatten(0, 1) for t in given])
            found = [t.unflatten(0, given[0].shape[:2]) for t in found]
        else:
            run = torch.vmap(lambda *given: self._computed(values, given), randomness="different")
            found = run(*given)
        rows.update(zip(self.wanted, found, strict=True))

    def _computed(self, values, given):
        values = values | dict(zip(self.given, given, strict=True))
        for node in self.nodes:
            values[node] = node.compute(values)
        return tuple([values[node] for node in self.wanted])


def _keeps_to_its_row(node):
    """Whether a function, given any number of rows, computes each from that row alone."""
    rows = [n for n in node.inputs() if n.kind != FIXED]
    fixed = [n for n in node.inputs() if n.kind == FIXED]
    ranks = {len(n.shape) for n in rows}
    if node.func is mask or (node.func is getitem and node.args[0].name in ALONG):
        return True
    if len(ranks) != 1:
        return False
    (rank,) = ranks
    if node.name == "__getitem__":
        key = node.args[1]
        return isinstance(key, tuple) and key[0] == slice(None) and node.inputs() == rows
    if node.name in ALONG:
        at, args = ALONG[node.name], node.args
        dim = node.kwargs.get("dim", args[at] if len(args) > at else 0)
        return isinstance(dim, int) and dim % rank > 0 and not fixed
    if node.func in (F.linear, F.embedding):
        return rows == [node.args[0]] and (rank > 1 or node.func is F.embedding)
    if node.func is F.layer_norm:
        return len(node.args[1]) < rank and rows == [node.args[0]]
    if product_of(node):
        return rank == 2
    point = node.func in POINTWISE and node.name not in OVER_UNITS
    point = point or node.func in UNITWISE or node.name in CASTS
    return point and all(len(n.shape) < rank or n.shape[0] == 1 for n in fixed)
