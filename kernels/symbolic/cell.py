"""A cell: what a step is to the engines. It is written forward only; the rest is derived."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import NamedTuple

from . import text
from .derivation import Derivation
from .gates import Gates, Product
from .graph import Graph, Node, needed
from .symbol import Refused, Symbol
from .tensors import OPERATIONS

_lock = threading.RLock()
TWICE = "gate {} of the recurrent product is made twice in a step: each gate has one product"


class Traced(NamedTuple):
    """A step as a graph."""

    graph: Graph
    output: Node
    new: tuple[Node, ...]  # states
    hs: list[Node]  # the gates of the recurrent product
    factors: tuple[Node, ...]  # for each of them, what it is a product with


def _once(function):
    """A cached property that no two threads compute: compiled code is remembered by its results."""

    @wraps(function)
    def locked(self):
        with _lock:
            return vars(self).get(function.__name__) or function(self)

    return cached_property(locked)


@dataclass(frozen=True, eq=False)
class Cell:
    """One kind of recurrent cell: the pointwise mathematics of a step, and its derivative.

    step(wx, uh, states, own, inputs) -> states, or (output, states) where that is no state
        wx, uh: Gates of the pre-activations W_ih x + b_ih and W_hh h + b_hh, kept apart, in the
        order of the weights' rows, the second a Product; states: the hidden one first; own:
        parameters of one number a unit; inputs: what a step is given beside x. It is run on
        symbols, once.

    From it come two functions on values (tensors here, registers in the CPU engine, blocks in the
    GPU engine, each of which has operations of its own):

    forward(x, h, states, own, inputs) -> (output, states, kept)
        ``kept`` is what backward wants to see again.
    backward(dout, dstates, kept, before, after, own, inputs) -> (dgates, down, dinputs, dstates)
        dout, dstates: gradients of the output and of the new states; before, after: the previous
        and the new states, which an engine has anyway. ``dgates``: the gradients of the
        pre-activations, each once; the returned dstates are what reaches the previous states
        pointwise, without the gates.
    whole(x, product, states, own, inputs) -> (output, states)
        For who can multiply at any time: product(value, first, count) are gates of the recurrent
        product.

    Where a step has several stages (stages.py), both have a function for each of the early ones,
    forward_0, backward_0 ..., which give (what products are made of, what is to be averaged).
    ``inputs`` then ends in the means that are known, and ``backward`` is given one thing more, the
    gradients of products' factors.
    """

    name: str
    step: Callable
    gates: int  # rows of the weights, in units of H
    states: int  # how many, the hidden one included
    recurrent: bool = True  # whether there are W_hh, and ``uh``
    own: int = 0
    inputs: int = 0

    @property
    def hgates(self):
        """How many gates the recurrent product has."""
        return self.gates if self.recurrent else 0

    @_once
    def traced(self):
        """A Traced."""
        graph = Graph()

        def given(kind, count):
            return tuple([Symbol(graph, graph.input(kind, i)) for i in range(count)])

        states, own = given("state", self.states), given("own", self.own)
        first, h, others = states[0].node, given("h", self.hgates), {}

        def multiply(value, gate):
            node = _node(graph, value)
            if node is first:
                return h[gate]
            if others.setdefault(gate, node) is not node:
                raise Refused(TWICE.format(gate))
            return Symbol(graph, graph.input("other", gate))

        gates = Gates(given("x", self.gates)), Product(h, multiply)
        result = self.step(*gates, states, own, given("input", self.inputs))
        result = result if isinstance(result, tuple) else (result,)
        output, new = result if isinstance(result[-1], tuple) else (result[0], result)
        if len(new) != self.states:
            raise Refused(f"a step returns {len(new)} states where it has {self.states}")
        hs = [h[g].node if g not in others else graph.input("other", g) for g in range(len(h))]
        factors = tuple([others.get(g, first) for g in range(len(h))])
        found = Traced(
            graph, _node(graph, output), tuple([_node(graph, n) for n in new]), hs, factors
        )
        for gate, node in enumerate(h):
            if gate in others and node.node in needed([found.output, *found.new, *factors]):
                raise Refused(TWICE.format(gate))
        return found

    @_once
    def derivation(self):
        return Derivation.of(self)

    # What engines need to know of it.

    @property
    def apart(self):
        """Whether the output is no state."""
        return self.traced.output is not self.traced.new[0]

    @property
    def factors(self):
        """How many values the step computes that recurrent products are made of."""
        return len({p.factor for p in self.derivation.products} - {-1})

    @property
    def staged(self):
        """Whether it has several stages: all hidden units of one must be there before the next."""
        return bool(self.derivation.early or self.derivation.early_back)

    kept = property(lambda self: len(self.derivation.kept), doc="How many values are kept.")
    dgates = property(lambda self: len(self.derivation.dgates), doc="How many there are.")
    dx = property(lambda self: self.derivation.dx, doc="For each gate, its gradient in ``dgates``.")
    dh = property(lambda self: self.derivation.dh, doc="And that of h's part.")
    after = property(lambda self: self.derivation.after, doc="The new states backward reads.")
    text = property(lambda self: self.derivation.text, doc="``forward`` and ``backward``.")
    forward = property(lambda self: self.functions["forward"])
    backward = property(lambda self: self.functions["backward"])
    whole = property(lambda self: self.functions["whole"])

    @_once
    def functions(self):
        return text.functions(self.text, self.name, OPERATIONS)


def _node(graph, value):
    if isinstance(value, Symbol):
        return value.node
    if isinstance(value, (int, float)):
        return graph.number(value)
    raise Refused(f"a step returns values of its units, not a {type(value).__name__}")
