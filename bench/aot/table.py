"""The file of the costs: a first line that says what it was made from, then a line for each Row."""

import ast
import json
from hashlib import sha256
from importlib.metadata import version
from operator import gt, lt, ne

from .. import machine

FILE = machine.ROOT / "bench" / "aot.jsonl"
KERNELS = machine.ROOT / "kernels"
SOURCES = [  # of the compiled code, beside the texts of the cells
    *(KERNELS / "gpu" / f"{n}.py" for n in ("activations", "blocks", "forward", "backward")),
    KERNELS / "gpu" / "kernels.py",
]
# When a figure is worse than it was. More registers alone are not, as long as none are spilled.
WORSE = {"spilled": gt, "shared": gt, "instruction": ne, "held": lt, "trips": gt}


def load(path=FILE):
    """({GPU: what its rows were made from}, {Row: its figures}) of a file."""
    from .rows import Row

    first, *lines = path.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        figures = json.loads(line)
        fields = [figures.pop(name) for name in Row._fields]
        found[Row(*fields[:-1], tuple(fields[-1]))] = figures
    return json.loads(first)["made_from"], found


def write(path, made_from, found):
    rows = (row._asdict() | figures for row, figures in found.items())
    lines = map(json.dumps, ({"made_from": made_from}, *rows))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def worse(before, now):
    """What is worse in a row than it was: {its name: what it was and what it is}."""
    if "error" in before:
        return {}
    if "error" in now:
        return {"compiles": f"no longer: {now['error']}"}
    known = [name for name in WORSE if before.get(name) is not None]
    names = [name for name in known if WORSE[name](now[name], before[name])]
    return {name: f"was {before[name]}, is {now[name]}" for name in names}


def made_from():
    """What rows that are compiled now are made from."""
    from fastrnn.kernels.cells import CELLS

    sources = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    texts = {cell.name: cell.text for cell in CELLS.values()}
    return {"sources": digest(sources | texts), "triton": version("triton")}


class _CodeAlone(ast.NodeTransformer):
    """Leaves out docstrings; comments and formatting are not in a tree."""

    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node


def digest(sources):
    """Of the code in {name: text}; not of a tree's dump, which another Python writes otherwise."""
    found = sha256()
    for name, source in sources.items():
        tree = _CodeAlone().visit(ast.parse(source))
        found.update(f"{name}\n{ast.unparse(tree)}\n".encode())
    return found.hexdigest()[:16]
