"""The recurrent part of a step, as a cell: what the new states need, one number of a unit each.

Whatever the states make is followed back, column by column: a run of H columns of a sum is the sum
of such runs; of a product with the states it is a gate, H rows of the weights; of x's part it is a
gate of the input, or is given to each step.
"""

from operator import getitem

import torch
from torch.nn import functional as F

from ..kernels.cells import CELLS
from ..kernels.symbolic.cell import Cell
from ..kernels.symbolic.gates import Gates
from ..kernels.symbolic.graph import Graph
from ..kernels.symbolic.refusals import Refused
from ..kernels.symbolic.symbol import Symbol, apply
from . import functions
from .functions import OVER_UNITS, POINTWISE, columns_of, linear, mask, parts_of, product_of
from .node import FIXED, X, refused, replaced
from .registry import registered

GATES = 8  # so many the engines take


class Loop:
    """The new states (and an output that is none) of a step, found on symbols.

    first: which state the recurrent product is with; ports: for each kind of what a cell is given,
    {what it is: its number}. The first run finds these, and ``cell`` runs it again.
    """

    def __init__(self, tape, new, output, name):
        self.states, self.new, self.output, self.name = tape.states, new, output, name
        self.B, self.H = self.states[0].shape
        self.x, self.cats, self.products, self.parts = tape.x, tape.cats, {}, {}
        self.ports = {kind: {} for kind in ("x", "h", "own", "input")}
        self.graph, self.given, self.order = Graph(), None, None
        self._run()
        self._arrange()

    def _run(self):
        self.made = {}
        new = [self.lower(node) for node in self.new]
        output = None if self.output is None else self.lower(self.output)
        new = tuple(new[i] for i in self.order or range(len(new)))
        return (new[0] if output is None else output), new

    def _arrange(self):
        """Number what was found, so that rows of one weight that follow each other stay so."""
        self.gates = self._sorted(self.ports["h"])
        if len(self.gates) > GATES:
            place = self.gates[-1][0].place
            raise refused(f"{len(self.gates)} recurrent gates: there may be {GATES}", place)
        factors = [self._root(self.product(node).value) for node, _ in self.gates]
        first = next((self.states.index(f) for f in factors if f in self.states), 0)
        self.order = sorted(range(len(self.states)), key=lambda i: i != first)
        products = [k for k in self.ports["x"] if self.product(k[0]) and self._of_products(k[0])]
        self.source = self.product(products[0][0]).value if products else None
        same = [k for k in products if self.product(k[0]).value is self.source]
        self.xs = self._sorted(same[: len(self.gates) or GATES])
        planes = *self.ports["x"], *self.ports["input"]
        self.planes = [k for k in planes if k not in self.xs]
        self.own = list(self.ports["own"])

    def _sorted(self, keys):
        return sorted(keys, key=lambda k: (self.product(k[0]).weight.number, k[0].number, k[1]))

    def cell(self):
        """The Cell, as the registry has it. Raises Refused if it needs what no engine has."""
        count = len(self.gates) or max(1, len(self.xs))
        ports = {
            "gates": count, "states": len(self.states), "recurrent": bool(self.gates),
            "own": len(self.own), "inputs": len(self.planes),
        }  # fmt: skip
        return registered(Cell(self.name, self._step, **ports))

    def _step(self, wx, uh, states, own, inputs):
        """The step that a Cell has."""
        self.given = {key: uh for key in self.gates}
        self.given |= dict(zip(self.xs, wx, strict=False))
        self.given |= dict(zip(self.planes, inputs, strict=True))
        self.given |= dict(zip(self.own, own, strict=True))
        self.given |= {self.states[i]: s for i, s in zip(self.order, states, strict=True)}
        return self._run()

    def _give(self, kind, key):
        if self.given is not None:
            return self.given[key]
        number = self.ports[kind].setdefault(key, len(self.ports[kind]))
        return Symbol(self.graph, self.graph.input(kind, number))

    def lower(self, node, start=0):
        """The symbol of H columns of a node, or of its only one."""
        if not hasattr(node, "kind"):  # a number
            return node
        if (node, start) not in self.made:
            self.made[node, start] = self._lower(node, start)
        return self.made[node, start]

    def _lower(self, node, start):
        if node in self.states:
            if self.given is not None:
                return self.given[node]
            return Symbol(self.graph, self.graph.input("state", self.states.index(node)))
        if node.kind == FIXED:
            return self._fixed(node, start)
        if node.kind == X and not self._of_products(node):
            return self._flag(node, self._give("x", (self._plane(node), start)))
        found = columns_of(node)
        if found:
            self._whole(node, found[0])
            return self.lower(found[0], start + found[1])
        if len(parts_of(node)) > 1:
            return self._part(node, start)
        product = self.product(node)
        if product:
            return self._multiplied(product, node, start)
        made = node.args[0] if node.func is getitem else node
        if made.name in functions.CELLS:
            return self._cell(made, node.args[1] if node.func is getitem else 0)
        return self._pointwise(node, start)

    def _fixed(self, node, start):
        if len(node.shape) == 2 and node.shape[0] > 1:
            return self._flag(node, self._give("input", (self._plane(node), start)))
        if node.shape[-1:] in ((), (1,)) and self.H > 1:
            start = 0
        return self._flag(node, self._give("own", (node, start)))

    def _flag(self, node, symbol):
        """Of what is true or false engines are given a number."""
        return ~apply("eq", symbol, 0.0) if node.dtype == torch.bool else symbol

    def _plane(self, node):
        rows, width = node.shape if len(node.shape) == 2 else (0, 0)
        if rows != self.B or (width < self.H and width != 1):
            shape = f"{self.B}, {self.H}"
            raise refused(
                f"{node.name} meets states of shape ({shape}) as {node.shape}", node.place
            )
        return node

    def _whole(self, node, source):
        """Raise Refused where columns of another node are not what a unit takes of it."""
        if self.H > 1 and node.shape[1] == 1 < source.shape[1]:
            raise refused("one unit of a state, or of a product, that all units see", node.place)
        exact = torch.finfo(self.states[0].dtype).eps
        if torch.finfo(node.dtype).eps > max(exact, torch.finfo(source.dtype).eps):
            raise refused(f"{node.name} rounds to {node.dtype} in the recurrence", node.place)

    def _of_products(self, node):
        """Whether a value of x is made of its products and of numbers alone, unit by unit."""
        if self.H > 1 and node.kind == X and node.shape[-1:] == (1,):
            return False  # which all units see
        if node.kind == FIXED or self.product(node):
            return len(node.shape) < 2 or node.kind == X
        if len(node.shape) != 2 or node.dtype == torch.bool:
            return False
        found = columns_of(node)
        if found:
            return self._of_products(found[0])
        point = node.func in POINTWISE and node.name not in OVER_UNITS
        return point and all(self._of_products(n) for n in node.inputs())

    def product(self, node):
        if node not in self.products:
            self.products[node] = product_of(node)
        return self.products[node]

    def _part(self, node, start):
        for part in parts_of(node):
            width = part.shape[1]
            if start < width:
                if start + self.H > width:
                    raise refused("units of a state out of several others", node.place)
                return self.lower(part, start)
            start -= width
        raise AssertionError(start)

    def _multiplied(self, product, node, start):
        """Columns of a product: a gate of the input, or of the recurrent product."""
        if start + self.H > node.shape[1]:
            what = f"a product of {node.shape[1]} columns, where states have {self.H}"
            raise refused(what, node.place)
        if node.kind == X:
            return self._give("x", (self._plane(node), start))
        value = self._root(product.value)
        if value.shape != (self.B, self.H):
            raise refused(f"a product with {value.shape[1:]} columns of the states", node.place)
        factor, gate = self.lower(value), self._give("h", (node, start))
        return gate if self.given is None else gate(factor, self.gates.index((node, start)))

    def _root(self, node):
        found = columns_of(node)
        if not found or found[0].shape != node.shape:
            return node
        self._whole(node, found[0])
        return self._root(found[0])

    def _cell(self, made, number):
        """A state that one of torch's cells has made."""
        rule = CELLS[functions.CELLS[made.name]]
        x, hx, w_ih, w_hh, *biases = made.args
        hx = hx if isinstance(hx, (tuple, list)) else [hx]
        if made not in self.parts:
            b_ih, b_hh = biases or (None, None)
            sides = linear(x, w_ih, b_ih, made), linear(hx[0], w_hh, b_hh, made)
            self.parts[made] = [functions.by_parts(side, self.cats) for side in sides]
        runs = range(0, rule.gates * self.H, self.H)
        gates = [Gates(self.lower(part, at) for at in runs) for part in self.parts[made]]
        new = rule.step(*gates, tuple(map(self.lower, hx)), (), ())
        return new[number]

    def _pointwise(self, node, start):
        """An operation of each unit by itself, or over all of them."""
        if node.func is F.dropout:
            return self._dropped(node, start)
        if node.func not in POINTWISE:
            raise refused(f"{node.name} in the recurrence is no operation of a step", node.place)
        over = node.name in OVER_UNITS
        wide = over or node.shape[-1:] != (1,) or self.H == 1
        shape = node.inputs()[0].shape if over else node.shape
        narrow = len(shape) != 2 or (wide and shape[1] < start + self.H)
        if narrow or (over and shape[1] > self.H):
            what = f"{node.name} of shape {shape}, where states are {(self.B, self.H)}"
            raise refused(what, node.place)

        def below(argument):
            one = self.H > 1 and getattr(argument, "shape", ())[-1:] in ((), (1,))
            return self.lower(argument, 0 if one else start)

        args, kwargs = replaced((node.args, node.kwargs), below)
        try:
            return POINTWISE[node.func](*args, **kwargs)
        except (Refused, TypeError) as error:  # an argument of torch's that is none of a step
            first, *_ = str(error).splitlines()  # then a place, which is not the step's
            raise refused(f"{node.name}: {first}", node.place) from None

    def _dropped(self, node, start):
        """Dropout: a product with a mask, which is drawn for all steps at once."""
        if node not in self.parts:
            (value,), p = node.inputs(), node.args[1] if len(node.args) > 1 else node.kwargs["p"]
            self.parts[node] = functions.call(
                mask, self.x, value.shape[1], value.dtype, p, kind=X, shape=value.shape, like=node
            )
        return self.lower(node.args[0], start) * self._give("x", (self.parts[node], start))
