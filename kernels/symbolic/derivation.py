"""What follows from a traced step: its derivative, what is kept for it, and both as text."""

from dataclasses import dataclass

from . import derive
from .graph import Graph, needed
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
        traced, output, new = cell.traced
        graph = Graph(traced)  # to which other threads add nothing
        counts = {"x": cell.gates, "h": cell.hgates, "state": cell.states}
        counts |= {"own": cell.own, "input": cell.inputs}
        given = {kind: [graph.input(kind, i) for i in range(n)] for kind, n in counts.items()}
        douts = graph.input("dout", 0), *[graph.input("dstate", i) for i in range(cell.states)]

        wanted = [node for nodes in given.values() for node in nodes]
        found = iter(derive.gradients(graph, [output, *new], douts, wanted))
        grads = {kind: [next(found) for _ in nodes] for kind, nodes in given.items()}
        dgates, dx, dh = _runs(grads["x"], grads["h"])
        results = dgates, grads["own"], grads["input"], grads["state"]

        wanted = [node for nodes in results for node in nodes]
        free = {*given["state"], *given["own"], *given["input"]}  # and the new states
        kept = derive.kept(wanted, needed([output, *new]), {*free, *new})
        after = _after(new, wanted, {*free, *kept})
        forward = _forward(given, output, new, kept)
        backward = _backward(given, douts, kept, new, after, results)
        return cls(kept, dgates, dx, dh, after, f"{forward}\n\n{backward}")


def _after(new, wanted, there):
    """Which of the new states backward reads; of those that are the same, the first."""
    read = {a for node in needed(wanted, {*there, *new}) for a in node.args} | set(wanted)
    unknown = [n for n in new if n in read - there and not n.is_number()]
    return tuple([i for i, n in enumerate(new) if n in unknown and new.index(n) == i])


def _forward(given, output, new, kept):
    function = Function("forward", ("x", "h", "states", "own", "inputs"))
    function.take("states", given["state"], "s")
    function.take("own", given["own"], "p")
    function.take("inputs", given["input"], "i")
    function.take("x", given["x"], "x")
    function.take("h", given["h"], "h")
    return function.give(output, new, kept)


def _backward(given, douts, kept, new, after, results):
    names = "dout", "dstates", "kept", "before", "after", "own", "inputs"
    function = Function("backward", names)
    function.bind(douts[0], "dout")
    function.take("dstates", douts[1:], "d")
    function.take("kept", kept, "k")
    function.take("before", given["state"], "s")
    function.take("own", given["own"], "p")
    function.take("inputs", given["input"], "i")
    if after:
        function.take("after", [n if i in after else None for i, n in enumerate(new)], "a")
    return function.give(*results)


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
