"""What follows from a traced step: its derivative, what is kept for it, and both as text."""

from dataclasses import dataclass

from . import derive
from .graph import needed
from .text import Function


@dataclass(frozen=True)
class Derivation:
    kept: list  # nodes of forward
    dgates: list  # nodes; x's are a run of them, and so are h's
    dx: tuple[int, ...]  # for each gate, which of ``dgates`` is the gradient of x's part
    dh: tuple[int, ...]  # and of h's part
    after: tuple[int, ...]  # which of the new states backward reads
    text: str

    @classmethod
    def of(cls, cell):
        graph, output, new = cell.traced
        counts = {"x": cell.gates, "h": cell.hgates, "state": cell.states}
        counts |= {"own": cell.own, "input": cell.inputs}
        given = {kind: [graph.input(kind, i) for i in range(n)] for kind, n in counts.items()}
        forward = list(graph.nodes)
        dout, dnew = graph.input("dout", 0), [graph.input("dstate", i) for i in range(cell.states)]
        wanted = [node for nodes in given.values() for node in nodes]
        found = iter(derive.gradients(graph, [output, *new], [dout, *dnew], wanted))
        grads = {kind: [next(found) for _ in nodes] for kind, nodes in given.items()}
        dgates, dx, dh = _runs(grads["x"], grads["h"])
        results = dgates, grads["own"], grads["input"], grads["state"]
        backward = [node for nodes in results for node in nodes]
        before = [*given["state"], *given["own"], *given["input"]]
        kept = derive.kept(backward, forward, [*before, *new])
        there = {*before, *kept}
        read = {a for n in needed(backward, {*there, *new}) for a in n.args} | set(backward)
        after = tuple([i for i, n in enumerate(new) if n in read - there and n.op != "number"])

        first = Function("forward", ("x", "h", "states", "own", "inputs"), graph)
        _take_given(first, given, states="states")
        first.take("x", given["x"], "x")
        first.take("h", given["h"], "h")
        second = Function(
            "backward", ("dout", "dstates", "kept", "before", "after", "own", "inputs"), graph
        )
        second.bind(dout, "dout")
        second.take("dstates", dnew, "d")
        second.take("kept", kept, "k")
        _take_given(second, given, states="before")
        if after:
            second.take("after", [n if i in after else None for i, n in enumerate(new)], "a")
        text = f"{first.give(output, new, kept)}\n\n{second.give(*results)}"
        return cls(kept, dgates, dx, dh, after, text)


def _take_given(function, given, states):
    function.take(states, given["state"], "s")
    function.take("own", given["own"], "p")
    function.take("inputs", given["input"], "i")


def _runs(xs, hs):
    """(gradients, each once; for each of xs, and of hs, its place among these).

    Those of x alone stand first, then those of both, then those of h alone: so x's are one run, and
    h's another. Two gates with one and the same gradient have a place each.
    """
    left, both = list(range(len(hs))), {}
    for i, d in enumerate(xs):
        j = next((j for j in left if hs[j] is d), None)
        if j is not None:
            left.remove(j)
            both[i] = j
    order = [i for i in range(len(xs)) if i not in both] + list(both)
    places = {j: order.index(i) for i, j in both.items()}
    places |= {j: len(xs) + n for n, j in enumerate(left)}
    dgates = [xs[i] for i in order] + [hs[j] for j in left]
    dx = tuple([order.index(i) for i in range(len(xs))])
    return dgates, dx, tuple([places[j] for j in range(len(hs))])
