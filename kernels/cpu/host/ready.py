"""Weights in panels, ready for the loops: those of eight or sixteen bits are packed once."""

import torch

from ...form import OFFSET
from ...weights import Weights
from ..compiled import machine
from .layouts import tile_width

BYTES = torch.uint8


def pack(cell, weights, S):
    """The Weights of one direction as panels: bytes of its matrices, and biases in tiles.

    weights: a Weights whose matrices are of form.Matrix; S: columns of the hidden state.
    """
    ih, hh, b_ih, b_hh, hr, own = weights
    H = ih.shape[0] // cell.gates
    source = _gate_columns(cell, H)
    found = [None if w is None else _panels(cell, w, source) for w in (ih, hh)]
    for bias, there in ((b_ih, True), (b_hh, cell.recurrent)):
        zeros = torch.zeros(cell.gates * H)
        found.append(_at(zeros if bias is None else bias.float(), source) if there else None)
    found.append(None if hr is None else _panels(cell, hr, _in_panels(cell, S)))
    return Weights(*found, own)


def sizes(cell, shape):
    """A Weights of what ``pack`` gives, as (shape, dtype) each."""
    tile, factors = _tile(cell), machine.factors_of(torch.float32, shape.form)
    width = tile_width(cell, tile, shape.H)

    def panels(depth, columns):
        deep = -(-depth // factors.depth) * factors.depth
        return ((deep * factors.weight + factors.behind) * columns,), BYTES

    bias, own = ((width,), torch.float32), ((cell.own, shape.H), torch.float32)
    ih, hh, hr = panels(shape.I, width), panels(shape.S, width), tile.padded(shape.S)
    return Weights(ih, hh, bias, bias, panels(shape.H, hr), own)


def _tile(cell):
    return machine.tiles(cell.gates, torch.float32)


def _gate_columns(cell, H):
    """Which row of a weight each column of the tiles is, -1 for none."""
    tile, padded = _tile(cell), tile_width(cell, _tile(cell), H)
    units, width = (tile.padded(H), padded) if cell.staged else (tile.units, tile.width)
    column = torch.arange(padded)
    place, inside = column // width, column % width
    unit = place * units + inside % units
    return torch.where(unit < H, inside // units * H + unit, -1)


def _in_panels(cell, count):
    """The same for panels of ``count`` columns without gates."""
    column = torch.arange(_tile(cell).padded(count))
    return torch.where(column < count, column, -1)


def _at(tensor, source):
    """The rows of a tensor that ``source`` says, zeros for -1."""
    return torch.cat([tensor, tensor.new_zeros(1, *tensor.shape[1:])])[source]


def _panels(cell, matrix, source):
    """The bytes of a form.Matrix in panels: a line for each step of K, and what is behind them."""
    tile, factors = _tile(cell), machine.factors_of(torch.float32, matrix.form)
    values = _at(matrix.values, source)
    values = torch.constant_pad_nd(values, (0, -values.shape[1] % factors.depth))
    lines = values.view(-1, tile.panel, values.shape[1] // factors.depth, factors.depth)
    found = [_bytes(lines.transpose(1, 2))]
    if matrix.scales is not None:
        behind = [_at(matrix.scales.float(), source).view(torch.int32)]
        if matrix.form.in_bytes:
            behind.insert(0, OFFSET * values.sum(1, dtype=torch.int32))
        found.append(_bytes(torch.stack([b.view(-1, tile.vectors, tile.lanes) for b in behind], 2)))
    return torch.cat(found, 1).flatten()


def _bytes(tensor):
    """(first dimension, bytes of the rest)."""
    return tensor.contiguous().view(BYTES).flatten(1)
