"""A cell as a text that holds instructions, and nothing that could be run as Python."""

import json
from functools import cache

from .cell import Cell
from .graph import needed
from .operations import OPERATIONS
from .symbol import Symbol, apply

PORTS = ("gates", "states", "recurrent", "own", "inputs")
KINDS = ("x", "h", "state", "own", "input")


def program_of(cell):
    """The text of a cell: of two cells with the same text one is as good as the other."""
    traced = cell.traced
    factors = {h: (f,) for h, f in zip(traced.hs, traced.factors, strict=True)}
    nodes = needed([traced.output, *traced.new], more=factors)
    place = {node: i for i, node in enumerate(nodes)}
    code = [_instruction(node, place, traced) for node in nodes]
    results = [place[node] for node in (traced.output, *traced.new)]
    ports = {name: getattr(cell, name) for name in PORTS}
    return json.dumps({"name": cell.name, **ports, "code": code, "results": results})


def _instruction(node, place, traced):
    if node in traced.hs:  # the gate, and the value that the recurrent product has
        gate = traced.hs.index(node)
        return ["h", gate, place[traced.factors[gate]]]
    if node.op == "input":
        return list(node.value)
    return ["number", node.value] if node.op == "number" else [node.op, *map(place.get, node.args)]


@cache
def cell_of(program):
    """The Cell of a text that ``program_of`` has made. Raises ValueError if it is none."""
    try:
        found = json.loads(program)
        ports = {name: found[name] for name in PORTS}
        code, results, name = found["code"], found["results"], str(found["name"])
        _check(ports, code, results)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is no cell's program ({error!r}): {program[:200]}") from error
    return Cell(name=name, step=_replay(code, results), **ports)


def _check(ports, code, results):
    """Raise ValueError unless each instruction is one, of values that stand before it."""
    counts = {"x": ports["gates"], "h": ports["gates"] * ports["recurrent"]}
    counts |= {"state": ports["states"], "own": ports["own"], "input": ports["inputs"]}
    for number, (op, *args) in enumerate(code):
        if op in KINDS:
            good = len(args) == 1 + (op == "h") and all(type(a) is int and a >= 0 for a in args)
            good = good and args[0] < counts[op] and max(args[1:], default=-1) < number
        elif op == "number":
            good = len(args) == 1 and type(args[0]) in (int, float)
        else:
            good = op in OPERATIONS and len(args) == OPERATIONS[op].arguments
            good = good and all(type(a) is int and 0 <= a < number for a in args)
        if not good:
            raise ValueError(f"instruction {number} of a cell's program is none: {op} {args}")
    if not all(type(r) is int and 0 <= r < len(code) for r in results):
        raise ValueError(f"a cell's program has no results {results}")


def _replay(code, results):
    """The step that does what the instructions say."""

    def step(wx, uh, states, own, inputs):
        given = dict(zip(KINDS, (wx, uh, states, own, inputs), strict=True))
        graph, values = wx[0].graph if wx else states[0].graph, []
        for op, *args in code:
            if op == "h":
                values.append(uh(values[args[1]], args[0]))
            elif op in KINDS:
                values.append(given[op][args[0]])
            elif op == "number":
                values.append(Symbol(graph, graph.number(args[0])))
            else:
                values.append(apply(op, *[values[a] for a in args]))
        output, *new = [values[r] for r in results]
        return output, tuple(new)

    return step
