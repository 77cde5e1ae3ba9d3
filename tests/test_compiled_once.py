"""What is compiled for a first cell, and what for every further one: functions and machine code are
counted, since seconds differ from machine to machine.
"""

import ast
import json
from pathlib import Path

import pytest
from conftest import run_python

from fastrnn.kernels import cpu
from fastrnn.kernels.cpu.loops import blocks, pieces, recompute, tiles

SCRIPT = """
import json, torch, fastrnn
from fastrnn.kernels.cpu.compiler import build
from fastrnn.kernels.cpu.compiler import front

def compiling(emit, root, key, announced, original=build._compile):
    before = len(functions)
    made = original(emit, root, key, announced)
    found[-1].append([sorted(made.addresses), len(functions) - before, made.size])
    return made

def pipelines(self, original=front.FrontEnd.define_pipelines):
    functions.append(self)
    return original(self)

found, functions = [], []
build._compile, front.FrontEnd.define_pipelines = compiling, pipelines
for kind, options, dtype in (
    ("LSTM", {}, "float32"),
    ("GRU", {}, "float32"),
    ("RNN", {}, "float32"),
    ("LSTM", {}, "float64"),
    ("LSTM", {"recompute": True}, "float32"),
    ("LSTM", {"proj_size": 2}, "float32"),
    ("LSTM", {}, "float32"),
):
    found.append([])
    layer = getattr(fastrnn, kind)(3, 4, dtype=getattr(torch, dtype), **options)
    for T in 300, 1:  # many rows, few rows
        layer(torch.ones(T, 1, 3, dtype=layer.weight_ih_l0.dtype))[0].sum().backward()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """For each layer of SCRIPT's in turn: [names, functions, bytes] of what was compiled."""
    folder = tmp_path_factory.mktemp("empty")
    return json.loads(run_python(SCRIPT, FASTRNN_CACHE_DIR=str(folder))[0])


def names(compiled):
    return {name for functions, _, _ in compiled for name in functions}


def test_the_loops_are_compiled_once(found):
    loops = [functions for layer in found for functions, _, _ in layer if "every" in functions[0]]
    assert loops == [["every_direction"]] * 2
    assert names(found[0]) >= {"every_direction", "apply", "differentiate"}


def test_a_further_cell_is_two_small_functions(found):
    """GRU has panels of its own; RNN has LSTM's."""
    gru, rnn = found[1:3]
    kernels = {name for name in names(gru) if name.startswith("fastrnn_gemm")}
    assert names(gru) - kernels == names(rnn) == {"apply", "differentiate"}


def test_a_further_dtype_compiles_no_loop(found):
    double = names(found[3])
    assert "every_direction" not in double
    assert double >= {"apply", "differentiate", "pack", "stand_up", "fastrnn_lying_1"}


def test_what_only_some_layers_need(found):
    recomputing, projected, again = found[4:]
    assert names(recomputing) == {"recall", "pack_again", "compute_again"}
    assert names(projected) == {"put_projected", "take_projected"}
    assert not again
    assert not names(found[0]) & (names(recomputing) | names(projected))


def test_how_much_is_compiled(found):
    """Once it was 121 functions and 500 KB of machine code for each cell and dtype."""
    for layer, functions, size in (0, 110, 180_000), (1, 30, 60_000), (2, 30, 10_000):
        assert sum(count for _, count, _ in found[layer]) <= functions
        assert sum(bytes_ for _, _, bytes_ in found[layer]) <= size


LOOPS = ["forward", "backward", "large_products", "recompute", "blocks"]
CALLED = {"cell": (tiles.apply, tiles.differentiate), "recall": (tiles.recall,)}
CALLED |= {"product": (blocks.product,), "pack_again": (recompute.pack_again,)}
CALLED |= {"compute_again": (recompute.compute_again,)}
EMITTED = {"narrow": 6}  # C functions that no Python function stands behind


@pytest.mark.parametrize("module", LOOPS)
def test_calls_through_the_plan_have_the_right_number_of_arguments(module):
    """Nothing else would tell: such a function is an address."""
    source = (Path(cpu.__path__[0]) / "loops" / f"{module}.py").read_text()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "call"):
            continue
        function, *arguments = node.args
        if not isinstance(function, ast.Attribute):
            continue
        which = {"forward": 0, "backward": 1}.get(module, 0)
        if function.attr in EMITTED:
            assert len(arguments) == EMITTED[function.attr]
            continue
        candidates = CALLED.get(function.attr) or (getattr(pieces, function.attr),)
        called = candidates[min(which, len(candidates) - 1)]
        assert len(arguments) == called.__code__.co_argcount, function.attr
