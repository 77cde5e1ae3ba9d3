"""What follows from a traced step: its derivative, what is kept for it, and both as text."""

from dataclasses import dataclass

from . import derive, stages
from .graph import Graph, needed
from .stages import Levels
from .text import Function


@dataclass(frozen=True)
class Derivation:
    kept: list  # nodes of forward
    means: list  # and those of them that are means over units: a number a row is kept
    dgates: list  # nodes; x's are a run of them, and so are h's
    dx: tuple[int, ...]  # for each gate, which of ``dgates`` is the gradient of x's part
    dh: tuple[int, ...]  # and of h's part
    after: tuple[int, ...]  # which of the new states backward reads
    products: tuple  # the recurrent products, stages.Product
    back: tuple  # and those of the gradients of their factors, the first state's last
    early: tuple  # for each early stage, which factors it gives, and which means
    early_back: tuple  # and backward: of which gates it gives h's gradient, and which means
    text: str
    whole: str  # all of forward at once, for who can multiply and average when that is asked for

    @classmethod
    def of(cls, cell):
        return cls(**_Deriving(cell).found())


class _Deriving:
    """The graph of a cell while its derivative is added to it."""

    def __init__(self, cell):
        self.cell, traced = cell, cell.traced
        self.graph = Graph(traced.graph)  # its own: other threads may be deriving too
        self.output, self.new = traced.output, list(traced.new)
        counts = {"x": cell.gates, "state": cell.states, "own": cell.own, "input": cell.inputs}
        self.given = {k: [self.graph.input(k, i) for i in range(n)] for k, n in counts.items()}
        self.given["h"] = list(traced.hs)
        first, self.factors = self.given["state"][0], traced.factors
        waits = {h: (f,) for h, f in zip(traced.hs, self.factors, strict=True) if f is not first}
        self.levels = Levels(waits)
        self.products, self.computed = stages.groups(
            self.factors, first, lambda gate: self.levels.of(traced.hs[gate])
        )
        self.results = [self.output, *self.new, *self.computed]
        self.means = [n for n in needed(self.results) if n.op == "mean"]

    def found(self):
        cell, graph, given = self.cell, self.graph, self.given
        forward = needed(self.results)
        dout, dnew = graph.input("dout", 0), [graph.input("dstate", i) for i in range(cell.states)]
        dfactors = [graph.input("dfactor", i) for i in range(len(self.computed))]
        wanted = [n for kind in KINDS for n in given[kind]]
        grads = iter(derive.gradients(graph, self.results, [dout, *dnew, *dfactors], wanted))
        grads = {kind: [next(grads) for _ in given[kind]] for kind in KINDS}
        dgates, dx, dh = _runs(grads["x"], grads["h"])
        results = dgates, grads["own"], grads["input"], grads["state"]
        backward = [n for nodes in results for n in nodes]
        before = [*given["state"], *given["own"], *given["input"], *self.means]
        kept = derive.kept(backward, forward, [*before, *self.new])
        there = {*before, *kept}
        after = self._after(backward, there)

        waits = {
            d: tuple(g for g, f in zip(grads["h"], self.factors, strict=True) if f is factor)
            for d, factor in zip(dfactors, self.computed, strict=True)
        }
        levels = Levels(waits, forward)
        sums = [n for n in needed(backward, forward) if n.op == "mean"]
        first, last = self.levels.last([self.output, *self.new]), levels.last(backward)
        back = [
            stages.Product(p.factor, p.first, p.count, levels.of(dfactors[p.factor]) - 1)
            if p.factor >= 0 else stages.Product(-1, p.first, p.count, last)
            for p in self.products
        ]  # fmt: skip

        def take(function, known):
            function.bind(dout, "dout")
            function.take("dstates", dnew, "d")
            function.take("kept", [*kept, *_known(dfactors, known)], "k")
            self._take(function, "before", _known([*self.means, *sums], known))
            function.take("after", after, "a")

        arguments = ("dout", "dstates", "kept", "before", "after", "own", "inputs")
        pairs = list(zip(grads["h"], self.factors, strict=True))
        waited = [(i, g) for i, (g, f) in enumerate(pairs) if f is not given["state"][0]]
        texts = [
            self._forward(kept, first),
            stages.functions(
                "backward", arguments, take, levels, last,
                [node for _, node in waited], sums, results,
            ),
        ]  # fmt: skip
        return {
            "kept": kept, "means": self.means, "dgates": dgates, "dx": dx, "dh": dh,
            "after": tuple(i for i, n in enumerate(after) if n is not None),
            "products": self.products, "back": tuple(back),
            "early": _early(self.levels, first, list(enumerate(self.computed)), self.means),
            "early_back": _early(levels, last, waited, sums), "text": "\n\n".join(texts),
            "whole": self._whole(),
        }  # fmt: skip

    def _after(self, wanted, there):
        """The new states that backward reads, None for others; of those that are the same the first
        is.
        """
        read = {a for n in needed(wanted, {*there, *self.new}) for a in n.args} | set(wanted)
        read = {n for n in read - there if not n.is_number()}
        return [n if n in read and self.new.index(n) == i else None for i, n in enumerate(self.new)]

    def _take(self, function, states, means):
        """What both forward and backward are given; means: after the inputs, None for unknown."""
        function.take(states, self.given["state"], "s")
        function.take("own", self.given["own"], "p")
        function.take("inputs", [*self.given["input"], *means], "i")

    def _forward(self, kept, last):
        def take(function, known):
            self._take(function, "states", _known(self.means, known))
            function.take("x", self.given["x"], "x")
            function.take("h", _known(self.given["h"], known), "h")

        arguments, results = ("x", "h", "states", "own", "inputs"), (self.output, self.new, kept)
        return stages.functions(
            "forward", arguments, take, self.levels, last, self.computed, self.means, results
        )

    def _whole(self):
        """All of it at once, for who can multiply and average whenever that is asked for."""
        function = Function("whole", ("x", "product", "states", "own", "inputs"))
        self._take(function, "states", [])
        function.take("x", self.given["x"], "x")
        factors = [self.given["state"][0], *self.computed]
        for product in sorted(self.products, key=lambda p: p.stage):
            factor = factors[product.factor + 1]
            function.make([factor])
            mine = slice(product.first, product.first + product.count)
            asked = f"{function.value(factor)}, {product.first}, {product.count}"
            function.take(f"product({asked})", self.given["h"][mine], f"h{product.first}_")
        return function.give(self.output, self.new)


KINDS = ("x", "h", "state", "own", "input")


def _known(nodes, known):
    return [node if known(node) else None for node in nodes]


def _early(levels, last, waited, means):
    """For each early stage the numbers of what products are made of, and of the means, it gives.

    waited: (number, node) pairs.
    """
    return tuple([
        (
            tuple([i for i, n in waited if levels.of(n) == stage]),
            tuple([i for i, n in enumerate(means) if levels.of(n) == stage + 1]),
        )
        for stage in range(last)
    ])  # fmt: skip


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
