"""How a matrix with ``gates`` groups of columns is cut into tiles that fit the registers."""

from dataclasses import dataclass

from .microkernel import max_rows


@dataclass(frozen=True)
class Tiling:
    """A panel is ``vectors`` registers wide; a tile of ``rows`` x ``panel`` is held in registers.

    ``units`` columns of every group side by side are one or more whole panels.
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
        """Columns of ``units`` units with all their gates."""
        return self.units * self.gates

    def tiles(self, columns):
        """How many blocks of ``units`` hold ``columns`` columns of a group."""
        return -(-columns // self.units)

    def panels(self, columns):
        """How many panels hold ``columns`` columns."""
        return -(-columns // self.panel)

    def padded(self, columns):
        """``columns`` in whole panels."""
        return self.panels(columns) * self.panel


def tiling(gates, lanes, registers):
    """The tiling for ``gates`` gates. With few registers, narrower panels leave room for rows."""
    vectors = 2 if registers < 32 else 3 if gates == 3 else 4
    units = lanes
    while units * gates % (lanes * vectors):
        units += lanes
    return Tiling(lanes, vectors, max_rows(registers, vectors), units, gates)
