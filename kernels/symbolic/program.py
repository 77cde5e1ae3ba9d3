"""A cell as a text that holds instructions, and nothing that could be run as Python."""

import json
from dataclasses import replace
from functools import cache

import torch

from .cell import Cell
from .graph import needed
from .operations import COMMUTE, OPERATIONS
from .symbol import Symbol

PORTS = ("gates", "states", "recurrent", "own", "inputs")
KINDS = ("x", "h", "state", "own", "input")


def program_of(cell):
    """The text of a cell: of two cells with the same text one is as good as the other."""
    if cell.program is None:
        vars(cell).update(program=_written(cell))
    return cell.program


def _written(cell):
    traced = cell.traced
    factors = {h: (f,) for h, f in zip(traced.hs, traced.factors, strict=True)}
    nodes = needed([traced.output, *traced.new], more=factors)
    place = {node: i for i, node in enumerate(nodes)}
    code = [_instruction(node, place, traced) for node in nodes]
    results = [place[node] for node in (traced.output, *traced.new)]
    ports = {name: getattr(cell, name) for name in PORTS}
    ports |= {"heads": cell.heads} if cell.heads > 1 else {}
    return json.dumps({"name": cell.name, **ports, "code": code, "results": results})


def _instruction(node, place, traced):
    if node in traced.hs:  # the gate, and the value that the recurrent product has
        gate = traced.hs.index(node)
        return ["h", gate, place[traced.factors[gate]]]
    if node.op == "input":
        return list(node.value)
    if node.op == "number":
        return ["number", node.value]
    places = [place[a] for a in node.args]
    return [node.op, *(sorted(places) if node.op in COMMUTE else places)]


@cache
def cell_of(program):
    """The Cell of a text that ``program_of`` has made. Raises ValueError if it is none."""
    try:
        found = json.loads(program)
        code, results = found.pop("code"), found.pop("results")
        ports = {name: found.pop(name) for name in ("name", *PORTS)}
        cell = Cell(step=_replay(code, results), program=program, **ports, **found)
        _check(cell, code, results)
        _ = cell.traced  # raises for a condition as a value, and the other way round
        vars(cell).update(program=program)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is no cell's program ({error}): {str(program)[:200]}") from error
    return cell


def _check(cell, code, results):
    """Raise ValueError unless each instruction is one, of values that stand before it."""
    counts = {"x": cell.gates, "h": cell.hgates, "state": cell.states}
    counts |= {"own": cell.own, "input": cell.inputs}
    for number, (op, *args) in enumerate(code):
        if op in KINDS:
            good = len(args) == 1 + (op == "h") and _below(counts[op], args[:1])
            good = good and _below(number, args[1:])
        elif op == "number":
            good = len(args) == 1 and type(args[0]) is float
        else:
            good = op in OPERATIONS and _below(number, args)
        if not good:
            raise ValueError(f"instruction {number} is none: {op} {args}")
    if len(results) != 1 + cell.states or not _below(len(code), results):
        raise ValueError(f"results are {results}")


def _below(end, indices):
    return all(type(i) is int and 0 <= i < end for i in indices)


@cache
def nudged(program, both):
    """The cell of a text, to each of whose new states an input of the step is added.

    What the step itself makes of a new state is made of that sum: so the gradient of such an input
    is that of the state, all of it. They are the last inputs, one for each state; if ``both``, so
    many more for the backward direction, which is where the last of the cell's own numbers, a new
    one, is zero.
    """
    cell, found = cell_of(program), json.loads(program)
    replay, places = _replay(found["code"], found["results"]), found["results"][1:]

    def step(wx, uh, states, own, inputs):
        given, nudges = inputs[: cell.inputs], inputs[cell.inputs :]
        if both:
            *own, forward = own
            pairs = zip(nudges[: cell.states], nudges[cell.states :], strict=True)
            nudges = [torch.where(forward > 0.5, one, other) for one, other in pairs]
        return replay(wx, uh, states, own, given, list(zip(places, nudges, strict=True)))

    more = {"own": cell.own + both, "inputs": cell.inputs + cell.states * (1 + both)}
    own = replace(cell, name=f"{cell.name} nudged", step=step, program=None, **more)
    return cell_of(program_of(own))


def _replay(code, results):
    """The step that does what the instructions say; nudges: (place of a result, what is added)."""

    def step(wx, uh, states, own, inputs, nudges=()):
        graph, values, nudges = states[0].graph, [], list(nudges)
        given = dict(zip(KINDS, (wx, uh, states, own, inputs), strict=True))
        for op, *args in code:
            if op == "h":
                values.append(uh(values[args[1]], args[0]))
            elif op in KINDS:
                values.append(given[op][args[0]])
            elif op == "number":
                values.append(Symbol(graph, graph.number(args[0])))
            else:
                values.append(Symbol(graph, graph.op(op, *[values[a].node for a in args])))
                for place, nudge in nudges:
                    if place == len(values) - 1:
                        values[-1] = values[-1] + nudge
        output, *new = [values[r] for r in results]
        for i, (place, nudge) in enumerate(nudges):
            if code[place][0] in (*KINDS, "number"):  # what it is made of is no result
                new[i] = new[i] + nudge
        return output, tuple(new)

    return step
