"""A step run on symbols: Python's operators on these, and torch's functions, build its graph."""

from numbers import Real

import torch

from .graph import WANTED
from .operations import OPERATIONS, C
from .refusals import Refused, refuse

# What a function of torch's is on symbols, and what a method of that name: functions.py says it.
FUNCTIONS, METHODS = {}, {}
MIXED = "add", "mul", "div"  # of which torch has those of a condition and a value


def _infix(op, swapped=False):
    def method(self, other):
        return apply(op, other, self) if swapped else apply(op, self, other)

    return method


def _in_place(operator):
    """As torch's ``a += b``: whatever else ``a`` is called has changed too."""

    def method(self, other):
        self.node = operator(self, other).node
        return self

    return method


def _refusing(what):
    return lambda *args: refuse(what)


class Symbol:
    """What a step computes with while it is traced: a node of a graph, one number of a unit."""

    __slots__ = ("graph", "node")
    __array_ufunc__ = None  # NumPy's numbers leave their arithmetic to it
    __hash__ = None

    def __init__(self, graph, node):
        self.graph, self.node = graph, node

    __add__, __radd__ = _infix("add"), _infix("add", True)
    __sub__, __rsub__ = _infix("sub"), _infix("sub", True)
    __mul__, __rmul__ = _infix("mul"), _infix("mul", True)
    __truediv__, __rtruediv__ = _infix("div"), _infix("div", True)
    __lt__, __le__ = _infix("lt"), _infix("le")
    __gt__, __ge__ = _infix("lt", True), _infix("le", True)
    __eq__, __and__, __or__ = _infix("eq"), _infix("and"), _infix("or")
    __rand__, __ror__ = _infix("and", True), _infix("or", True)

    def __ne__(self, other):
        return ~(self == other)

    def __neg__(self):
        return apply("neg", self)

    def __abs__(self):
        return apply("abs", self)

    def __invert__(self):
        return apply("not", self)

    def __pow__(self, exponent):
        return METHODS["pow"](self, exponent)

    def __rpow__(self, base):
        return METHODS["pow"](base, self)

    __iadd__, __isub__ = _in_place(__add__), _in_place(__sub__)
    __imul__, __itruediv__ = _in_place(__mul__), _in_place(__truediv__)
    __ipow__, __iand__, __ior__ = _in_place(__pow__), _in_place(__and__), _in_place(__or__)

    __bool__ = _refusing("`if`, `and`, `or` or `not` on a value: torch.where, & | ~ are for that")
    __float__ = __int__ = __index__ = item = tolist = _refusing(
        "a value cannot become a number of Python's in a step"
    )
    __iter__ = __len__ = __contains__ = __getitem__ = _refusing(
        "a value is one number of a unit: it has no parts"
    )
    __setitem__ = __delitem__ = _refusing("a value cannot be changed: c = c + x makes another")
    __matmul__ = __rmatmul__ = _refusing("a product with a matrix: a step has W x and U h as gates")
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = _refusing(
        "% and // are no operations of a step"
    )
    __xor__ = __rxor__ = _refusing("^ is no operation of a step: & | ~ are")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in METHODS:
            refuse(f".{name} is no operation of a step")
        return lambda *args, **kwargs: call(METHODS[name], name, self, *args, **kwargs)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        if function not in FUNCTIONS:
            refuse(f"torch's {name} is no operation of a step")
        return call(FUNCTIONS[function], name, *args, **(kwargs or {}))

    @property
    def is_condition(self):
        return self.node.serves(C)


def call(function, name, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Refused:
        raise
    except TypeError as error:  # an argument that is torch's, but not ours
        why = str(error).rpartition("() ")[2]
        refuse(f"{name} with these arguments is no operation of a step: it {why}")


def apply(op, *args):
    """The operation of that name on symbols and numbers."""
    graph, *others = {id(a.graph): a.graph for a in args if isinstance(a, Symbol)}.values()
    if others:
        refuse("a value of another step: what a step returns as its states is all that lasts")
    takes = OPERATIONS[op].takes
    if len(args) != len(takes):
        raise TypeError(f"takes {len(takes)} arguments but {len(args)} were given")
    if op in MIXED and any(isinstance(a, Symbol) and not a.is_condition for a in args):
        args = [as_value(a) for a in args]
    nodes = [operand(graph, a) for a in args]
    for node, wanted in zip(nodes, takes, strict=True):
        if not node.serves(wanted):
            refuse(f"{op} takes {WANTED[wanted]}")
    return Symbol(graph, graph.op(op, *nodes))


def as_value(x):
    """A condition as 1 or 0, as torch has it in arithmetic with floats; all else as it is."""
    if isinstance(x, Symbol) and x.is_condition:
        return apply("where", x, 1.0, 0.0)
    return x


def operand(graph, value):
    """The node of a symbol or a number."""
    if isinstance(value, Symbol):
        return value.node
    if isinstance(value, torch.Tensor) and value.dim() == 0 and not value.requires_grad:
        value = value.item()
    if isinstance(value, Real):
        return graph.number(value)
    refuse(
        f"a {type(value).__name__} in the arithmetic of a step: it computes with gates, states, "
        "its inputs, parameters that are declared in its class, and numbers"
    )
