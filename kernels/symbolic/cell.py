"""A cell: what a step is to the engines. It is written forward only; the rest is derived."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from . import text
from .derivation import Derivation
from .gates import Gates, Product
from .graph import WANTED, Graph, Node, needed
from .operations import V
from .refusals import badly_made, broken, refuse
from .symbol import Symbol, operand
from .tensors import OPERATIONS


class Traced(NamedTuple):
    """A step as a graph."""

    graph: Graph
    output: Node
    new: tuple[Node, ...]  # states
    hs: list[Node]  # the gates of the recurrent product
    factors: tuple[Node, ...]  # for each of them, what it is a product with


TWICE = "gate {} of the recurrent product is made twice in a step: each gate has one product"
COUNTS = {"gates": 0, "states": 1, "own": 0, "inputs": 0, "heads": 1}  # at least so many
MOST = 1000  # of each


class once:
    """A property that is computed once: from then on it is found as any attribute is.

    Of threads that come at once all take what the first has put there: compiled code is remembered
    by what it is made of. (A lock would stay locked in the child of a fork.)
    """

    def __init__(self, function, doc=None):
        self.function, self.__doc__ = function, doc or function.__doc__

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, cell, owner=None):
        if cell is None:
            return self
        return vars(cell).setdefault(self.name, self.function(cell))


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
    ``inputs`` then ends in the means that are known, and ``kept`` in the gradients of products'
    factors.

    Raises ValueError for numbers that no cell has. What comes of the step raises Refused for one
    that no kernel can run.
    """

    name: str
    step: Callable
    gates: int  # rows of the weights, in units of H
    states: int  # how many, the hidden one included
    recurrent: bool = True  # whether there are W_hh, and ``uh``
    own: int = 0
    inputs: int = 0
    heads: int = 1  # directions in a run that take the steps in one order, a head each
    program: str = ""  # the text that it was made of, if it was

    program = None  # its text (program.py), once that is known

    def __post_init__(self):
        if type(self.name) is not str or not self.name.isprintable():
            raise ValueError(f"a cell's name is not {self.name!r}")
        if type(self.recurrent) is not bool:
            raise ValueError(f"a cell is recurrent or not, and not {self.recurrent!r}")
        for count, least in COUNTS.items():
            given = getattr(self, count)
            if type(given) is not int or not least <= given <= MOST:
                raise ValueError(f"a cell has at least {least} {count}, and not {given!r}")

    @once
    def hgates(self):
        """How many gates the recurrent product has."""
        return self.gates if self.recurrent else 0

    @once
    def traced(self):
        """A Traced."""
        graph = Graph()

        def given(kind, count):
            return tuple([Symbol(graph, graph.input(kind, i)) for i in range(count)])

        states = given("state", self.states)
        x, h = given("x", self.gates), given("h", self.hgates)
        own, inputs = given("own", self.own), given("input", self.inputs)
        first, gates, others = states[0].node, [gate.node for gate in h], {}

        def multiply(value, gate):
            node = operand(graph, value)
            if not node.serves(V):
                refuse(f"a product with a condition: it is with {WANTED[V]}")
            if node is first:
                return Symbol(graph, gates[gate])
            if others.setdefault(gate, node) is not node:
                refuse(TWICE.format(gate))
            return Symbol(graph, graph.input("other", gate))

        try:
            result = self.step(Gates(x), Product(h, multiply), states, own, inputs)
        except (TypeError, AttributeError) as error:  # what symbols cannot do
            raise broken(error) from error
        output, new = self.parts(result)
        output, new = self._node(graph, output), tuple([self._node(graph, n) for n in new])
        factors = tuple([others.get(gate, first) for gate in range(len(h))])
        there = needed([output, *new, *factors])
        for gate in others:
            if gates[gate] in there:
                raise badly_made(TWICE.format(gate), self.step)
        hs = [graph.input("other", g) if g in others else gates[g] for g in range(len(h))]
        return Traced(graph, output, new, hs, factors)

    def reverse(self, d):
        """Whether the ``d``-th direction of a layer takes the steps from the last one on."""
        return d >= self.heads

    def parts(self, result):
        """(output, new states) of what the step returns."""
        new = result if isinstance(result, tuple) else (result,)
        apart = len(new) == 2 and isinstance(new[1], tuple)
        output, new = new if apart else (new[0] if new else None, new)
        if len(new) != self.states:
            raise badly_made(f"{self.name} returns {len(new)} states, not {self.states}", self.step)
        return output, new

    def _node(self, graph, value):
        node = graph.number(value) if isinstance(value, (int, float)) else None
        if isinstance(value, Symbol) and value.graph is graph and value.node.serves(V):
            node = value.node
        if node is None:
            what = "a condition" if isinstance(value, Symbol) else f"a {type(value).__name__}"
            raise badly_made(f"{self.name} returns {what}, no value of its units", self.step)
        return node

    @once
    def derivation(self):
        """The Derivation."""
        return Derivation.of(self)

    # What engines need to know of it.

    @once
    def apart(self):
        """Whether the output is no state."""
        return self.traced.output is not self.traced.new[0]

    @once
    def factors(self):
        """How many values the step computes that recurrent products are made of."""
        return len({p.factor for p in self.derivation.products} - {-1})

    @once
    def staged(self):
        """Whether it has several stages: all hidden units of one must be there before the next."""
        return bool(self.derivation.early or self.derivation.early_back)

    kept = once(lambda self: len(self.derivation.kept), doc="How many values are kept.")
    dgates = once(lambda self: len(self.derivation.dgates), doc="How many there are.")
    dx = once(lambda self: self.derivation.dx, doc="For each gate, its gradient in ``dgates``.")
    dh = once(lambda self: self.derivation.dh, doc="And that of h's part.")
    after = once(lambda self: self.derivation.after, doc="The new states backward reads.")
    text = once(lambda self: self.derivation.text, doc="``forward`` and ``backward``.")
    forward = once(lambda self: self.functions["forward"], doc="On tensors.")
    backward = once(lambda self: self.functions["backward"], doc="On tensors.")
    whole = once(lambda self: self.functions["whole"], doc="On tensors.")

    @once
    def functions(self):
        """{name: function} of the text, on tensors."""
        # a compiler asks for a module's name; torch.compile would look for the operations there
        named = text.functions(self.text, self.name, OPERATIONS | {"__name__": __name__})
        whole = text.functions(self.derivation.whole, self.name, OPERATIONS)
        return named | {"whole": whole["whole"]}
