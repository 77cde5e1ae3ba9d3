"""Heads: recurrent weights that fall into blocks, each of which sees its own block of units alone.

To a head, the units of the others do not exist. So to an engine a layer of heads is one of more
directions, each as narrow as a head is: it multiplies what there is, and no zeros.
"""

from dataclasses import replace
from functools import cache, partial

import torch

from .kernels.cells import cell_of, key_of
from .kernels.form import Matrix, remembered, tensors_of
from .kernels.symbolic.cell import Cell
from .kernels.weights import Weights
from .tracing import constant

NARROW = 16  # units, the most that a register has: narrower heads are multiplied as one


def are_apart(engine, cell, H):
    """Whether an engine takes the heads of H units one by one: if no step needs all units."""
    wide = engine in ("numba", "triton") and H // cell.heads >= NARROW
    return wide and not _has_means(key_of(cell))


def asked(tensors, training, traced, cell, T, D, *given):
    """(training, key, T, B, H, D, packed, (layers, proj_size or 0)): what the GPU engine is asked
    about a layer, as it sees that. T and B: None in a trace, which may leave them open.

    given: whether it is packed, and whether it is trained, of what the engine is given already.
    """
    h, c = tensors[1], tensors[cell.states]
    H, S, layers = int(c.shape[2]), int(h.shape[-1]), int(c.shape[0]) // D
    stack = layers, S if S != H else 0
    if not given and cell.heads > 1 and are_apart("triton", cell, H):
        H, D = H // cell.heads, D * cell.heads
    packed, training = given or (tensors[0].dim() == 2, training)
    T, B = (None, None) if traced else (T, c.shape[1])
    return training, key_of(cell), T, B, H, D, packed, stack


@constant
def _has_means(key):
    """Whether a step of the cell of that key takes a mean over units."""
    return bool(cell_of(key).derivation.means)


def apart(cell, directions, states, planes):
    """(directions, states, planes) with a direction for each head of each.

    Weights: (gates * H / heads, ...) each; states: (layers * D * heads, B, H / heads); planes:
    (heads * N, number, H / heads).
    """
    heads = cell.heads
    found = [each for weights in directions for each in _of_heads(weights, cell.gates, heads)]
    states = [s.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1) for s in states]
    planes = [p.unflatten(2, (heads, -1)).permute(2, 0, 1, 3).flatten(0, 1) for p in planes or ()]
    return found, states, planes


def _of_heads(weights, gates, heads):
    """A Weights for each head of one direction."""
    shared = weights[:4]
    make = partial(_each_blocks, shared, gates, heads)
    narrow = isinstance(weights.ih, Matrix)  # whose blocks stay the same ones: they are packed once
    each = remembered(("heads", heads), weights.ih, tensors_of(shared), make) if narrow else make()
    own = [None] * heads if weights.own is None else weights.own.chunk(heads, 1)
    return [Weights(*fields, None, mine) for *fields, mine in zip(*each, own, strict=True)]


def _each_blocks(tensors, gates, heads):
    """For each weight its rows of each head."""
    return [[None] * heads if t is None else _blocks(t, gates, heads) for t in tensors]


def _blocks(tensor, gates, heads):
    if not isinstance(tensor, Matrix):
        return tensor.unflatten(0, (gates, heads, -1)).transpose(0, 1).flatten(1, 2).unbind()
    rows = torch.arange(tensor.shape[0]).unflatten(0, (gates, heads, -1))
    return [tensor[mine] for mine in rows.transpose(0, 1).flatten(1, 2)]


def together(states, heads):
    """(layers * D, B, H) states from those of ``apart``."""
    return tuple([s.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2) for s in states])


def undivided(cell, directions):
    """The cell without heads, and the same weights for it, with zeros beside the blocks."""
    whole = [w._replace(hh=_dense(w.hh, cell.gates, cell.heads)) for w in directions]
    alone = _undivided(key_of(cell)) if isinstance(cell, Cell) else cell.undivided()
    return alone, whole


@constant
@cache
def _undivided(key):
    return cell_of(key_of(replace(cell_of(key), heads=1, program=None)))


def _dense(weight, gates, heads):
    """(gates * H, H) with the blocks of ``weight``, (gates * H, H // heads), on its diagonals."""
    if isinstance(weight, Matrix):
        make = partial(_dense, weight.values, gates, heads)
        values = remembered("dense", weight, [weight.values], make)
        return Matrix(weight.form, values, weight.scales, weight.dtype)
    width = weight.shape[1]
    blocks = weight.reshape(gates, heads, width, width).permute(0, 2, 3, 1)
    return torch.diag_embed(blocks, dim1=1, dim2=3).reshape(gates * heads * width, heads * width)
