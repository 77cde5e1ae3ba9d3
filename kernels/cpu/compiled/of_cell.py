"""What is compiled for a cell and a dtype: its functions on registers, found by their addresses."""

from array import array
from functools import cache

import torch

from ..compiler.build import rebind, specialise
from ..compiler.front import inline
from ..loops import early, pieces, tiles
from ..registers.activations import make_activations
from ..registers.bfloat16 import divide_roughly
from ..registers.emit import pick
from ..registers.exponentials import make_exponentials
from ..registers.rows import make_put_means, make_put_places, make_rows
from .machine import ELEMENTS, SOURCES, elements_of, factors_of, held, name_of, names_of
from .machine import tiles as tiles_of


def names(cell, dtype):
    """Globals that say what the cell is."""
    operations = _operations(dtype)
    return {
        "cell_forward": inline(rebind(cell.forward, operations)),
        "cell_backward": inline(rebind(cell.backward, operations)),
        "GATES": cell.gates,
        "HGATES": cell.hgates,
        "EXTRA": cell.states - 1,
        "OWN": cell.own,
        "INPUTS": cell.inputs,
        "KEPT": cell.kept,
        "DGATES": dgates(cell),
        "PLANES": dgates(cell) + cell.own,
        "MEANS": len(cell.derivation.means),
        "BACK": sum(len(means) for _, means in cell.derivation.early_back),
        "FACTORS": cell.factors,
        "pick_x": pick(cell.dx),
        "pick_h": pick(cell.dh),
    }


def _operations(dtype):
    roughly = divide_roughly if dtype == torch.bfloat16 else None
    return make_activations(ELEMENTS[dtype], roughly) | make_exponentials(ELEMENTS[dtype])


def dgates(cell):
    """Gradients of gates that backward's loop has of each unit: x's, and h's if these differ."""
    return cell.gates * (1 if cell.dh in (cell.dx, ()) else 2)


def depends_on(cell):
    """The bytes that what is compiled for a cell depends on; None among them if not all is known.

    Of the cell that is the text of its functions, and in which order they have gradients.
    """
    derivation = cell.derivation
    facts = cell.dx, cell.dh, derivation.early, derivation.early_back
    return [SOURCES, repr(facts).encode(), cell.text.encode()]


@cache
def forward(cell, dtype):
    """The address of ``tiles.apply``; of a cell with several stages, that of a table of addresses,
    one for each stage.
    """
    last = _compiled((tiles.apply_to, tiles.apply), cell, dtype)
    if not cell.staged:
        return last
    functions = early.early_at, early.early
    return _table([
        *[
            _compiled(functions, cell, dtype, i, factors, means)
            for i, (factors, means) in enumerate(cell.derivation.early)
        ],
        last,
    ])  # fmt: skip


@cache
def backward(cell, dtype):
    """As ``forward``, of ``tiles.differentiate``."""
    last = _compiled((tiles.differentiate_at, tiles.differentiate), cell, dtype)
    if not cell.staged:
        return last
    first, found = dgates(cell) - cell.gates, []
    for i, (gates, means) in enumerate(cell.derivation.early_back):
        places = tuple([first + gate for gate in gates])
        found.append(_compiled((early.differentiate_early,), cell, dtype, i, places, means))
    return _table([*found, last])


@cache
def recall(cell, dtype):
    """The address of ``tiles.recall``."""
    return _compiled((tiles.recall_of, tiles.recall), cell, dtype)


WORDS = {
    "apply": ("forward", "forward"),
    "recall": ("once more", "forward"),
    "differentiate": ("backward", "backward"),
    "early": ("forward", "forward"),
    "differentiate_early": ("backward", "backward"),
}
SHARED = [pieces.put_hidden, pieces.put_output, tiles.place_of, tiles.end_of, tiles.given_to]
SHARED += [tiles.forward_values, tiles.backward_values]


def _compiled(functions, cell, dtype, stage=None, places=(), means=()):
    """The address of the last of these functions; places, means: of what an early stage gives."""
    tile, vec = tiles_of(cell.gates, dtype), factors_of(dtype).vec
    bound = names_of(dtype) | make_rows(vec) | names(cell, dtype)
    bound |= {"UNITS": 0, "WIDTH": 0} if cell.staged else {"UNITS": tile.units, "WIDTH": tile.width}
    name = functions[-1].__name__
    words, way = WORDS[name]
    label = f"{cell.name} {words} in {name_of(dtype)}"
    if stage is not None:
        label += f", stage {stage}"
        function = cell.functions[f"{way}_{stage}"]
        elements = elements_of(dtype)
        bound |= {
            "stage": inline(rebind(function, _operations(dtype))),
            "AVERAGED": len(means),
            "put_means": make_put_means(vec, means),
            "put_places": make_put_places(elements, places),
        }
    made = specialise([*SHARED, *functions], bound, label, depends_on(cell), tile, aloud=True)
    return made.addresses[name]


def _table(addresses):
    return held(array("q", addresses), None)
