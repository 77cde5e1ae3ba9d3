"""The rules of the house: who imports whom, what an import costs, how long a file is, where
mathematics stands.
"""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from against_torch import EVERY_KIND
from conftest import run_python

import fastrnn
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.symbolic.operations import OPERATIONS

PACKAGES = {
    "fastrnn": Path(fastrnn.__file__).parent,
    "fastrnn.kernels": Path(fastrnn.kernels.__path__[0]),
}
FOUNDATIONS = (
    "autocast",
    "form",
    "gate",
    "keep",
    "private",
    "refused",
    "schedule",
    "untraced",
    "weights",
)
CPU = "fastrnn.kernels.cpu"
# Imports run down this list only. What is not in it (the program) may import all of it.
STOREYS = [
    ["fastrnn.tools"],
    ["fastrnn.flow"],
    ["fastrnn.quantization"],
    ["fastrnn.quantized"],
    ["fastrnn.exchange"],
    ["fastrnn.conversion", "fastrnn.keras"],
    ["fastrnn.episodes"],
    ["fastrnn.modules", "fastrnn.recurrent"],
    ["fastrnn.accepting"],
    ["fastrnn.masked"],
    ["fastrnn.ragged"],
    ["fastrnn.states"],
    ["fastrnn.sequences", "fastrnn.pieces"],
    ["fastrnn.functional", "fastrnn.cell_step", "fastrnn.step", "fastrnn.places"],
    ["fastrnn.operators", "fastrnn.lowering", "fastrnn.known", "fastrnn.narrow"],
    ["fastrnn.shapes"],
    ["fastrnn.batching", "fastrnn.autograd", "fastrnn.onnx", "fastrnn.dynamo", "fastrnn.flops"],
    ["fastrnn.substitute"],
    ["fastrnn.backends", "fastrnn.profiling"],
    ["fastrnn.gpu.when", "fastrnn.heads"],
    ["fastrnn.gpu.process"],
    [f"fastrnn.{n}" for n in ("description", "tracing", "loading", "forwards", "parameters")],
    ["fastrnn.kernels.projection"],
    ["fastrnn.kernels.reference", CPU, "fastrnn.kernels.gpu"],
    *([f"{CPU}.{room}"] for room in ("host", "compiled", "loops", "registers", "compiler")),
    [f"fastrnn.kernels.{name}" for name in FOUNDATIONS],
    ["fastrnn.kernels.cells"],
    ["fastrnn.kernels.symbolic"],
]
STOREY = {name: number for number, names in enumerate(STOREYS) for name in names}
# Who alone may import what.
RESERVED = {
    "numba": CPU,
    "llvmlite": CPU,
    "triton": "fastrnn.kernels.gpu",
}

ROOT = Path(__file__).resolve().parent.parent
LINES = 250  # of a file, at most
LONG = {  # those that are over it still; a list that only gets shorter
    "tests/test_command.py",
    "tests/test_practice_modes.py",
    "tests/test_practice_weights.py",
}


def sources():
    """{dotted name: path} of every file of the house."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package == "fastrnn" and parts[0] == "kernels":
                continue
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


SOURCES = sources()
EVERY_FILE = pytest.mark.parametrize("name", SOURCES)


def imports(name):
    """The dotted names that a file imports, anywhere in it."""
    path = SOURCES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dotted = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(dotted, package)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in SOURCES else base


def room(name):
    """The entry of STOREYS that a module belongs to, if any."""
    return max((r for r in STOREY if (name + ".").startswith(r + ".")), key=len, default=None)


@EVERY_FILE
def test_imports_run_one_way(name):
    mine = room(name)
    for other in set(imports(name)):
        theirs = room(other)
        if mine and other.startswith("fastrnn") and mine != theirs:
            assert theirs, f"{name} imports {other}, which is no part of the library"
            assert STOREY[mine] < STOREY[theirs], f"{name} imports {other}"


@EVERY_FILE
def test_compilers_are_the_engines_business(name):
    for other in imports(name):
        owner = RESERVED.get(other.partition(".")[0])
        assert owner is None or (name + ".").startswith(owner + "."), f"{name} imports {other}"


def test_compiled_code_comes_from_nowhere_else():
    """All rooms of the CPU engine are in the fingerprint of its code, but those above them."""
    from fastrnn.kernels.cpu.compiled.machine import ROOMS

    rooms = {room(name) for name in SOURCES if name.startswith(CPU)}
    assert rooms - set(ROOMS) == {CPU, f"{CPU}.host"}


def test_the_rules_see_the_house():
    """The files are found and read: else the two tests above would pass over an empty list."""
    assert {"fastrnn.modules", f"{CPU}.engine"} <= SOURCES.keys()
    assert {"torch", "fastrnn.kernels.schedule"} <= set(imports("fastrnn.functional"))
    assert "numba" in set(imports(f"{CPU}.compiler.build"))


def test_files_are_short():
    folders = [ROOT / name for name in ("bench", "fastrnn", "kernels", "tests")]
    files = {path.resolve() for folder in folders for path in folder.rglob("*.py")}
    lines = {f.relative_to(ROOT).as_posix(): len(f.read_text().splitlines()) for f in files}
    assert {name for name, count in lines.items() if count > LINES} == LONG


IMPORT = """
import sys, time, torch

before = set(sys.modules)
start = time.process_time()
import fastrnn
print(time.process_time() - start, *{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_import_costs_what_torch_costs():
    """Beyond torch, importing fastrnn loads only itself and takes at most 0.1 s of a
    processor, at best.
    """
    times = []
    while len(times) < 5 and (not times or min(times) > 0.1):
        time, *loaded = run_python(IMPORT)[0].split()
        assert set(loaded) - set(sys.stdlib_module_names) <= {"fastrnn", "torch"}
        times.append(float(time))
    assert min(times) <= 0.1


def cell_file(kind):
    return Path(CELLS[kind].step.__code__.co_filename)


def functions_in(path):
    return [f for f in ast.walk(ast.parse(path.read_text())) if isinstance(f, ast.FunctionDef)]


@EVERY_KIND
def test_a_cell_stands_in_one_file(kind):
    """A forward step in a file of kernels/cells, with nothing beside it but others of its kind."""
    path = cell_file(kind)
    assert CELLS[kind].name == kind
    assert path.parent.samefile(PACKAGES["fastrnn.kernels"] / "cells")
    assert path.name != "__init__.py"
    steps = {cell.step.__name__ for name, cell in CELLS.items() if cell_file(name) == path}
    assert {function.name for function in functions_in(path)} == steps


@EVERY_KIND
def test_a_cell_is_pure_mathematics(kind):
    """No ``if``, no number, no operation but + - * and the table's: so any engine can run it."""
    allowed = (
        ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Return, ast.Name, ast.Load,
        ast.Store, ast.Tuple, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Call, ast.Subscript,
    )  # fmt: skip
    for function in functions_in(cell_file(kind)):
        places = [n.slice for n in ast.walk(function) if isinstance(n, ast.Subscript)]
        places = {id(each) for place in places for each in ast.walk(place)}
        for node in ast.walk(function):
            assert isinstance(node, allowed) or id(node) in places, ast.unparse(node)
            if isinstance(node, ast.Call):
                assert node.func.id in OPERATIONS.keys() | {"map"}


MATHEMATICS = tuple(f"fastrnn.{n}" for n in ("kernels.cells", "kernels.symbolic", "zoo", "gallery"))


@EVERY_FILE
def test_mathematics_stands_nowhere_else(name):
    """sigmoid and tanh are used in cells and in models, and defined by the table and the engines;
    else by nobody.
    """
    if name.startswith(MATHEMATICS) or name.endswith(".activations"):
        return
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        used = getattr(node, "id", None) or getattr(node, "attr", None)
        assert used not in ("sigmoid", "tanh"), f"line {node.lineno}"


def setup_says(*names):
    """{name: value} of arguments in setup.py."""
    tree = ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    given = [keyword for node in tree for keyword in getattr(node, "keywords", ())]
    return {each.arg: ast.literal_eval(each.value) for each in given if each.arg in names}


def test_every_package_is_installed():
    packages = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    assert set(setup_says("packages")["packages"]) == packages


def test_torch_says_which_triton():
    """torch 2.11 to 2.15 for NVIDIA each want one version of it, and those for AMD and Intel bring
    their own in the same folder: a wish of ours could only be in the way.
    """
    lists = setup_says("install_requires", "extras_require")
    assert not any("triton" in wanted for wanted in lists["install_requires"])
    assert "triton>=3.6; sys_platform == 'linux'" in lists["extras_require"]["test"]
