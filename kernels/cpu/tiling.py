"""How a layer is cut into tiles that fit the registers, and its weights packed to match."""

from dataclasses import dataclass

import torch

from .microkernel import max_rows


@dataclass(frozen=True)
class Tiling:
    """Blocks of a packed matrix with ``gates`` groups of columns.

    A panel is ``vectors`` registers wide. A tile is ``units`` columns of every group side by side,
    one or more whole panels, so that a tile of the product holds all the gates of its units.
    """

    lanes: int
    vectors: int
    rows: int
    units: int
    gates: int

    @property
    def panel(self):
        return self.lanes * self.vectors

    @property
    def width(self):
        return self.units * self.gates

    def tiles(self, columns):
        return -(-columns // self.units)

    def pack(self, matrix):
        """(K, gates * columns), of any strides -> (panels, K, panel), zeros where columns end."""
        depth = matrix.shape[0]
        columns = matrix.shape[1] // self.gates
        tiles = self.tiles(columns)
        padded = torch.nn.functional.pad(
            matrix.reshape(depth, self.gates, columns), (0, tiles * self.units - columns)
        )
        tiled = padded.view(depth, self.gates, tiles, self.units).permute(2, 0, 1, 3)
        panels = tiled.reshape(tiles, depth, self.width // self.panel, self.panel)
        return panels.transpose(1, 2).contiguous().view(-1, depth, self.panel)

    def pack_bias(self, bias, columns, like):
        """(gates * columns,) or None (zeros) -> one element for every packed column."""
        if bias is None:
            return like.new_zeros(self.tiles(columns) * self.width)
        return self.pack(bias[None]).view(-1)


def tiling(gates, lanes, registers):
    """The tiling for ``gates`` gates. With few registers, narrower panels leave room for rows."""
    vectors = 2 if registers < 32 else 3 if gates == 3 else 4
    units = lanes
    while units * gates % (lanes * vectors):
        units += lanes
    return Tiling(lanes, vectors, max_rows(registers, vectors), units, gates)
