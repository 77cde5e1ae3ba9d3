"""What a step computes, as a graph of operations: each once, and simplified as it is built."""

import math

from .operations import COMMUTE, OPERATIONS


class Node:
    """A value: an input of the step (``value``: its kind and number), a number, or an operation."""

    __slots__ = ("args", "number", "op", "value")

    def __init__(self, op, args, value, number):
        self.op, self.args, self.value, self.number = op, args, value, number

    def __repr__(self):
        return f"v{self.number}"

    def is_number(self, value=None):
        """Whether it is a number, or the one that is given."""
        return self.op == "number" and value in (None, self.value)


class Graph:
    """Nodes in the order of their making: the arguments of one stand before it."""

    def __init__(self):
        self.nodes, self._known = [], {}

    def input(self, kind, index):
        """One of what a step is given: ("x", 0), ("state", 1) ..."""
        return self._make("input", (), (kind, index))

    def number(self, value):
        return self._make("number", (), float(value))

    def op(self, op, *args):
        """The operation of that name on nodes, or on Python's numbers; or what it comes to."""
        args = tuple(a if isinstance(a, Node) else self.number(a) for a in args)
        operation = OPERATIONS[op]
        if len(args) != operation.arguments:
            raise TypeError(f"{op} has {operation.arguments} arguments, not {len(args)}")
        if operation.value and all(a.op == "number" for a in args):
            try:
                return self.number(operation.value(*(a.value for a in args)))
            except (ValueError, ZeroDivisionError, OverflowError):
                pass  # not a number of Python's: whoever runs it knows of inf and NaN
        simpler = SIMPLER.get(op)
        found = simpler(self, *args) if simpler else None
        return self._make(op, args) if found is None else found

    def _make(self, op, args, value=None):
        if op in COMMUTE:
            args = tuple(sorted(args, key=lambda a: a.number))
        sign = math.copysign(1, value) if op == "number" else 0  # 0 and -0 are equal
        key = op, tuple(a.number for a in args), repr(value), sign
        if key not in self._known:
            self._known[key] = Node(op, args, value, len(self.nodes))
            self.nodes.append(self._known[key])
        return self._known[key]


# What an operation comes to, where that is simpler; None where it is not. All of it is exact.


def _add(g, a, b):
    if a.is_number(0):
        return b
    if b.is_number(0):
        return a
    if b.op == "neg":
        return g.op("sub", a, b.args[0])
    return g.op("sub", b, a.args[0]) if a.op == "neg" else None


def _sub(g, a, b):
    if b.is_number(0):
        return a
    if a.is_number(0):
        return g.op("neg", b)
    return g.op("add", a, b.args[0]) if b.op == "neg" else None


def _mul(g, a, b):
    for one, other in ((a, b), (b, a)):
        if one.is_number(1):
            return other
        if one.is_number(-1):
            return g.op("neg", other)
        if one.op == "neg":
            return g.op("neg", g.op("mul", one.args[0], other))
    return None


def _div(g, a, b):
    if b.is_number() and math.frexp(b.value)[0] in (0.5, -0.5):  # by a power of two
        return g.op("mul", a, 1 / b.value)
    return None


def _neg(g, a):
    if a.op == "neg":
        return a.args[0]
    return g.op("sub", *reversed(a.args)) if a.op == "sub" else None


def _where(g, condition, a, b):
    return a if a is b else None


SIMPLER = {"add": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "where": _where}


def needed(nodes, known=(), more=None):
    """All that ``nodes`` need, arguments first; nothing that only ``known`` ones need.

    more: {node: what it needs beside its arguments}.
    """
    seen, found, more = {n.number for n in known}, [], more or {}

    def visit(node):
        if node.number not in seen:
            seen.add(node.number)
            for argument in (*node.args, *more.get(node, ())):
                visit(argument)
            found.append(node)

    for node in nodes:
        visit(node)
    return found
