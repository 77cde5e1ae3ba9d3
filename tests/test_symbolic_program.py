"""Programs: a cell as a text of instructions. What comes back, and what is none."""

import json

import pytest
import torch
from derived import PORTS, by_derivation, given_to, same
from hypothesis import given
from random_steps import cells

from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.program import cell_of, program_of


@given(cells(**PORTS))
def test_there_and_back(cell):
    """The same text, and the same numbers to the bit."""
    program = program_of(cell)
    again = cell_of(program)
    assert program_of(again) == program
    assert cell_of(program) is again
    inputs, grads = given_to(cell, 5), [torch.randn(5).double() for _ in range(3)]
    for ours, theirs in zip(*(by_derivation(c, inputs, grads) for c in (again, cell)), strict=True):
        assert all(map(same, ours, theirs))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_torchs_cells(cell):
    again = cell_of(program_of(cell))
    for name in ("kept", "dgates", "dx", "dh", "after", "apart"):
        assert getattr(again, name) == getattr(cell, name)
    assert again.text.count("\n") == cell.text.count("\n")


def test_products_and_means():
    def step(wx, uh, states, own, inputs):
        (h,) = states
        r = (wx[0] + uh[0]).sigmoid()
        n = (wx[1] + uh(r * h, 1)).tanh()
        return (h + n - n.mean(-1, keepdim=True),)

    program = program_of(Cell("staged", step, gates=2, states=1))
    again = cell_of(program)
    assert program_of(again) == program
    assert again.staged


@pytest.mark.parametrize("number", [float("inf"), -float("inf"), float("nan"), -0.0, 1e-320, 0.1])
def test_numbers(number):
    """All of them come back, and can be computed with."""

    def step(wx, uh, states, own, inputs):
        return (states[0] * number,)

    again = cell_of(program_of(Cell("number", step, gates=1, states=1)))
    h = torch.tensor([1.0, -2.0]).double()
    _, (new,), _ = again.forward([h], [h], [h], [], [])
    assert same(new, h * number)


GOOD = {
    "name": "good", "gates": 1, "states": 1, "recurrent": True, "own": 0, "inputs": 0,
    "code": [["x", 0], ["state", 0], ["h", 0, 1], ["add", 0, 2], ["tanh", 3]], "results": [4, 4],
}  # fmt: skip


def test_a_good_one():
    assert cell_of(json.dumps(GOOD)).text == CELLS["rnn_tanh"].text


def code(*instructions):
    """The good program, with these instructions for its first ones."""
    return {"code": [*instructions, *GOOD["code"][len(instructions) :]]}


BAD = {
    "no text": {"code": "x0 + h0"},
    "no list": {"code": 7},
    "no instructions": {"code": [1, 2, 3]},
    "an empty one": code([]),
    "a source": code(["__import__('os').system('true')", 0]),
    "a source for an index": code(["x", "0); import os; (0"]),
    "a source for a number": code(["number", "__import__('os')"]),
    "an unknown operation": code(["x", 0], ["sin", 0]),
    "an operation that is a list": code(["x", 0], [["tanh"], 0]),
    "an unknown input": code(["y", 0]),
    "an input inside": code(["input", 0]),
    "a gate too many": code(["x", 1]),
    "a negative index": code(["x", -1]),
    "true for an index": code(["x", True]),
    "a float for an index": code(["x", 0.0]),
    "a huge index": code(["x", 10**30]),
    "itself": code(["x", 0], ["tanh", 1]),
    "what comes later": code(["x", 0], ["tanh", 2]),
    "too few arguments": code(["x", 0], ["add", 0]),
    "too many arguments": code(["x", 0], ["tanh", 0, 0]),
    "a product without a factor": code(["x", 0], ["state", 0], ["h", 0]),
    "a product of what comes later": code(["x", 0], ["state", 0], ["h", 0, 3]),
    "two products for a gate": {
        "code": [["x", 0], ["state", 0], ["h", 0, 1], ["h", 0, 0], ["add", 2, 3]]
    },
    "a whole number": code(["number", 1]),
    "no number": code(["number", None]),
    "a condition as a value": code(["x", 0], ["state", 0], ["lt", 0, 1], ["tanh", 2]),
    "a value as a condition": code(["x", 0], ["state", 0], ["x", 0], ["where", 0, 0, 1]),
    "a condition as a state": {"code": [["x", 0], ["state", 0], ["lt", 0, 1]], "results": [1, 2]},
    "a limit that is a value": code(["x", 0], ["state", 0], ["clip_gradient", 0, 1]),
    "a limit below zero": code(["x", 0], ["number", -1.0], ["clip_gradient", 0, 1]),
    "no results": {"results": []},
    "results that are missing": {"results": [4]},
    "results that are too many": {"results": [4, 4, 4]},
    "results beyond": {"results": [4, 5]},
    "results that are none": {"results": "44"},
    "a name that is none": {"name": 3},
    "a name with a line's end": {"name": "a\nprint()"},
    "gates that are none": {"gates": "4"},
    "gates without end": {"gates": 10**9},
    "gates below zero": {"gates": -1},
    "true gates": {"gates": True},
    "no states": {"states": 0, "results": [4]},
    "recurrent, or what": {"recurrent": 1},
    "what nobody knows": {"step": "lambda: 0"},
    "more that nobody knows": {"source": "print()"},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_ones(bad):
    with pytest.raises(ValueError, match="no cell's program"):
        cell_of(json.dumps(GOOD | bad))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing(name):
    with pytest.raises(ValueError, match="no cell's program"):
        cell_of(json.dumps({n: value for n, value in GOOD.items() if n != name}))


TEXTS = ["", "lstm", "null", "[]", "7", '"x"', "{", "[" * 10**6, '{"code": ' * 10**5, "\x00"]
TEXTS += [json.dumps(GOOD).replace("[4, 4]", "[" + "9" * 5000 + "]")]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_none(text):
    with pytest.raises(ValueError, match="no cell's program"):
        cell_of(text)


def test_a_long_chain():
    """However deep a graph is, nothing recurs."""
    chain = [*GOOD["code"], *(["tanh", i] for i in range(4, 1500))]
    cell = cell_of(json.dumps(GOOD | {"code": chain, "results": [1500, 1500]}))
    assert len(json.loads(program_of(cell))["code"]) == len(chain)
    assert cell.forward.__name__ == "forward"
