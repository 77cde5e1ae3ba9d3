"""All that follows from the shapes of a call alone: block sizes, the threads' grid, scratch memory.

Laid out once for each shape, and remembered: batch 1 is mostly the Python around the kernels.
"""

from functools import lru_cache

from ...keep import Keep
from ..compiled import machine, of_loops
from ..loops.fields import BACKWARD, FORWARD
from ..loops.large_products import GROUP
from ..loops.pieces import CHUNK
from ..registers.narrow import HEAD
from .memory import ZEROS
from .plan import Layout, team_grid

CACHE_BYTES = 512 * 1024  # of packed weights that stay in a core's own cache
BLOCK_BYTES = 256 * 1024  # of projected inputs at a time, so that they do too
FAR_ROWS = 256  # rows projected at a time where the weights do not
# Weights are multiplied as they lie where that is less work than to pack them, which was measured
# (AMD EPYC Zen 4, LSTM, GRU and RNN of 32 to 512 units, float32 and float64): forward, as long as
# they are read this often, and twice as often where they are as large as this; backward, for so
# many rows.
PASSES, FAR_BYTES, BACKWARD_ROWS = 4, 4 * 2**20, 64
READY = "w_ih_tiles"  # the first field that is given where panels come ready


@lru_cache(maxsize=256)
def forward_layout(cell, shape, keep, threads):
    dtype, T, B, D, I, H, S, projected, form = shape
    tile, weight = machine.tiles(cell.gates, dtype), machine.factors_of(dtype, form).weight
    size, item = machine.wide(dtype).itemsize, dtype.itemsize
    width = tile_width(cell, tile, H)
    block = max(1, min(T, _rows_at_a_time(I, width, size) // B))
    groups = _groups(D, threads)
    columns = 1 if cell.staged else tile.tiles(H)
    row_parts, unit_parts = team_grid(
        B, columns, threads // groups, S * width * weight * cell.recurrent, CACHE_BYTES
    )
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "keep": keep,
        **_team(row_parts * unit_parts, unit_parts, groups, D),
        **of_loops.forward_fields(cell, dtype, projected, form), **_tiled(cell, tile, H),
        "stages": len(cell.derivation.early),
        "products": of_loops.products_of(cell, dtype, S, H, back=False),
    }  # fmt: skip
    scratch = {
        "tile": (size, row_parts * unit_parts, tile.rows, width),
        "xgates": (size, row_parts, block * B, width),
    }
    if cell.staged:
        scratch["stage_gates"] = (size, row_parts, B, width)
    if form:
        line = HEAD + -(-max(I, S, H) // HEAD) * HEAD
        numbers |= {"room_line": line, "room_each": block * B * line}
        scratch["room"] = (1, row_parts * unit_parts, block * B, line)
        return Layout(FORWARD, _reverse(cell, D), row_parts, numbers, scratch, READY), row_parts
    if _lies_forward(cell, shape):
        numbers |= machine.lying(dtype)
    else:
        scratch |= _gate_tiles(cell, shape, tile, size, item)
    if projected:
        scratch["w_hr_panels"] = (item, machine.depth(H, dtype), tile.padded(S))
    return Layout(FORWARD, _reverse(cell, D), row_parts, numbers, scratch), row_parts


@lru_cache(maxsize=256)
def backward_layout(cell, shape, keep, need_x, every, threads):
    """(layout, row parts, groups). every: whether every state has a gradient."""
    dtype, T, B, D, I, H, S, projected, _ = shape
    M, tile = cell.gates * H, machine.tiles(cell.gates, dtype)
    size, item = machine.wide(dtype).itemsize, dtype.itemsize
    columns = tile.padded(S)
    whole = -(-S // tile.lanes) * tile.lanes  # columns of S in whole registers
    block = max(1, min(T, CHUNK // B))
    capacity, groups = block * B, _groups(D, threads)
    parts = threads // groups
    weights = cell.hgates * H * S * item
    columns_apart = 1 if cell.staged else tile.panels(S)
    row_parts, unit_parts = team_grid(B, columns_apart, parts, weights, CACHE_BYTES)
    numbers = {
        "B": B, "I": I, "H": H, "S": S, "block": block, "capacity": capacity,
        "lddh": whole, "loop_parts": row_parts * unit_parts,
        **_team(parts, unit_parts, groups, D),
        **of_loops.backward_fields(cell, dtype, projected, keep == Keep.STATES, every),
        **_tiled(cell, tile, H),
        "stages": len(cell.derivation.early_back),
        "products": of_loops.products_of(cell, dtype, S, H, back=True),
    }  # fmt: skip
    scratch = {
        "tile": (size, parts, tile.rows, max(tile.panel, tile.width)),
        "dgates": (item, 2, capacity, numbers["dgates_each"], H),
        "hidden": (item, 2, capacity, S),
        "extra": (size, 2, capacity, cell.states - 1, H),
        "w_hh_panels": (item, *_each_product(cell, lambda n: machine.depth(n * H, dtype)), columns),
        "dfactors": (size, cell.factors, B, whole),
        "back_means": (size, B, sum(len(means) for _, means in cell.derivation.early_back)),
        "strip": (size, parts, max(GROUP * tile.panel, numbers["band"])),
    }
    if need_x:
        scratch["w_ih_panels"] = (item, machine.depth(M, dtype), tile.padded(I))
    if projected:
        scratch["dp"] = (item, 2, capacity, S)
        scratch["w_hr_panels"] = (item, machine.depth(S, dtype), tile.padded(H))
    if keep == Keep.STATES:
        numbers["recompute"] = 1
        scratch |= {
            "recalled": (item, capacity, cell.kept, H),
            "xgates": (size, capacity, tile_width(cell, tile, H)),
            **_gate_tiles(cell, shape, tile, size, item),
        }
    for more, field in zip(_for_weights(cell, shape, tile, parts), (numbers, scratch), strict=True):
        field |= more
    return Layout(BACKWARD, _reverse(cell, D), row_parts, numbers, scratch), row_parts, groups


def sums_width(cell, shape):
    """The width of the sums over rows of a direction's gradients."""
    H, tile = shape.H, machine.tiles(cell.gates, shape.dtype)
    products = _each_product(cell, lambda n: tile.padded(n * H))
    found = cell.gates * H, shape.S, cell.own * H, *products
    return tile.padded(max(found))


def _for_weights(cell, shape, tile, parts):
    """The fields, and the scratch, that the gradients of the weights are made with."""
    dtype, T, B, _, I, H, S, projected, _ = shape
    size, item, M, N = machine.wide(dtype).itemsize, dtype.itemsize, cell.gates * H, T * B
    few = N <= CHUNK and size == item
    if few:  # all at once: N is at least the number of rows
        left = (M + 2 * tile.lanes) * (N + tile.lanes)
        packed = max(N * tile.padded(max(I, H)), CHUNK * tile.panel)
    else:
        left, packed = (max(I, H) + 2 * tile.lanes) * CHUNK, CHUNK * tile.panel
    numbers = {"few": few, "left_each": left, "packed_each": packed}
    scratch = {"left": (item, parts, left), "packed": (item, parts, packed)}
    if few and N <= BACKWARD_ROWS:
        numbers |= machine.lying(dtype)
    if not few:
        columns = _each_product(cell, lambda n: tile.padded(n * H))
        scratch |= {"strips_x": (size, tile.padded(M), I), "strips_h": (size, *columns, S)}
        if projected:
            scratch["strips_r"] = (size, tile.padded(S), H)
    return numbers, scratch


def _tiled(cell, tile, H):
    """The fields that say how the gates of H units lie in tiles."""
    padded, last = tile_width(cell, tile, H), tile.vectors
    if cell.staged:  # one tile has all units
        return {"padded": padded, "gates_last": last, "units": tile.padded(H), "width": padded}
    if cell.gates == 1:
        last = -(-(H - padded + tile.panel) // tile.lanes)
    return {"padded": padded, "gates_last": last}


def tile_width(cell, tile, H):
    """Columns of the gates of H units, with what fills their tiles."""
    return cell.gates * tile.padded(H) if cell.staged else tile.tiles(H) * tile.width


def _each_product(cell, columns):
    """(what the recurrent products take together,), of which one of n gates takes columns(n)."""
    return (sum(columns(p.count) for p in cell.derivation.products),)


def _lies_forward(cell, shape):
    """Whether forward multiplies with the weights as they lie."""
    if machine.wide(shape.dtype) != shape.dtype or cell.staged:
        return False
    passes = shape.T * -(-shape.B // machine.lying_rows(shape.dtype))
    columns = cell.gates * shape.I + cell.hgates * shape.S
    weights = columns * shape.H * shape.dtype.itemsize
    return passes <= PASSES * (2 if weights >= FAR_BYTES else 1)


def _gate_tiles(cell, shape, tile, size, item):
    """The scratch for weights in tiles of all gates."""
    width = tile_width(cell, tile, shape.H)
    recurrent = width if cell.recurrent else 0
    return {
        "w_ih_tiles": (item, machine.depth(shape.I, shape.dtype), width),
        "w_hh_tiles": (item, machine.depth(shape.S, shape.dtype), recurrent),
        "b_ih_tiles": (size, width),
        "b_hh_tiles": (size, recurrent),
    }


def _team(parts, unit_parts, groups, D):
    """The fields that say how threads divide the work."""
    return {
        "parts": parts,
        "unit_parts": unit_parts,
        "groups": groups,
        "directions": D,
        "zeros": ZEROS,
    }


def _reverse(cell, D):
    """For each direction whether it takes the steps from the last one on."""
    return [cell.reverse(d) for d in range(D)]


def _groups(D, threads):
    """How many directions run at once: they need not wait for each other."""
    return 2 if D % 2 == 0 and threads % 2 == 0 else 1


def _rows_at_a_time(I, width, itemsize):
    """How many rows of x to project before their steps are taken."""
    rows = BLOCK_BYTES // (width * itemsize)
    if I * width * itemsize > CACHE_BYTES:  # W_ih comes from afar: many rows share the way
        rows = max(rows, FAR_ROWS)
    return rows
