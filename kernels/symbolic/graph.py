"""What a step computes, as a graph of operations: each once, and simplified as it is built."""

import math

import numpy as np

from .operations import COMMUTE, CONDITIONS, OPERATIONS, C, V

WANTED = {
    V: "a value, which a condition is not: its .float() is 1 or 0",
    C: "a condition, as x < 0 or x != 0 is",
    "limit": "a number above zero",
}


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

    def serves(self, wanted):
        """Whether it can be an argument of that kind."""
        if wanted in (V, C):
            return (self.op in CONDITIONS) == (wanted == C)
        return self.is_number() and self.value > 0


class Graph:
    """Nodes in the order of their making: the arguments of one stand before it."""

    def __init__(self, begun=None):
        """Empty, or with all that another has."""
        self.nodes = list(begun.nodes) if begun else []
        self._known = dict(begun._known) if begun else {}

    def input(self, kind, index):
        """One of what a step is given: ("x", 0), ("state", 1) ..."""
        return self._make("input", (), (kind, index))

    def number(self, value):
        return self._make("number", (), float(value))

    def op(self, op, *args):
        """The operation of that name on nodes, or on numbers; or what it comes to.

        Raises TypeError if its arguments are others.
        """
        args = [a if isinstance(a, Node) else self.number(a) for a in args]
        takes, _, _, value, _ = OPERATIONS[op]
        if len(args) != len(takes):
            raise TypeError(f"{op} takes {len(takes)} arguments, not {len(args)}")
        for node, wanted in zip(args, takes, strict=True):
            if not node.serves(wanted):
                raise TypeError(f"{op} takes {WANTED[wanted]}")
        if op in COMMUTE:
            args.sort(key=lambda a: a.number)
        if value and op not in CONDITIONS and all(a.is_number() for a in args):
            with np.errstate(all="ignore"):
                return self.number(value(*(a.value for a in args)))
        simpler = SIMPLER.get(op)
        found = simpler(self, *args) if simpler else None
        return self._make(op, tuple(args)) if found is None else found

    def _make(self, op, args, value=None):
        key = op, args, repr(value)  # of numbers 0 and -0 are equal, and NaN is not
        if key not in self._known:
            self._known[key] = Node(op, args, value, len(self.nodes))
            self.nodes.append(self._known[key])
        return self._known[key]


# What an operation comes to, where that is simpler; None where it is not. All of it is exact.


def _is_zero(node, sign):
    return node.is_number(0) and math.copysign(1, node.value) == sign


def _add(g, a, b):
    for one, other in ((a, b), (b, a)):
        if _is_zero(one, -1):  # -0 + 0 is 0
            return other
        if one.op == "neg":
            return g.op("sub", other, one.args[0])
    return None


def _sub(g, a, b):
    if _is_zero(b, 1):
        return a
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
    if b.is_number():
        digits, power = math.frexp(b.value)
        if abs(digits) == 0.5 and abs(power) < 100:  # whose inverse is exact, in float32 too
            return g.op("mul", a, 1 / b.value)
    return None


def _neg(g, a):
    return a.args[0] if a.op == "neg" else None


def _where(g, condition, a, b):
    known = _truth(condition)
    if known is not None:
        return a if known else b
    if condition.op == "not":
        return g.op("where", condition.args[0], b, a)
    if a.op == "where" and a.args[0] is condition:
        return g.op("where", condition, a.args[1], b)
    if b.op == "where" and b.args[0] is condition:
        return g.op("where", condition, a, b.args[2])
    return a if a is b else None


def _truth(condition):
    """True or False for a comparison of numbers, None for what depends on values."""
    if all(a.is_number() for a in condition.args):
        return bool(OPERATIONS[condition.op].value(*(a.value for a in condition.args)))
    return None


def _and(g, a, b):
    for one, other in ((a, b), (b, a)):
        if _truth(one) is not None:
            return other if _truth(one) else one
    return a if a is b else None


def _or(g, a, b):
    for one, other in ((a, b), (b, a)):
        if _truth(one) is not None:
            return one if _truth(one) else other
    return a if a is b else None


def _not(g, a):
    if a.op == "not":
        return a.args[0]
    known = _truth(a)
    return None if known is None else g.op("lt", float(known), 1.0)


SIMPLER = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "where": _where,
    "and": _and, "or": _or, "not": _not,
}  # fmt: skip


def needed(nodes, known=(), more=None):
    """All that ``nodes`` need, arguments first; nothing that only ``known`` ones need.

    more: {node: what it needs beside its arguments}.
    """
    seen, found, more = set(known), [], more or {}
    for root in nodes:
        waiting = [(root, False)]
        while waiting:
            node, ready = waiting.pop()
            if ready:
                found.append(node)
            elif node not in seen:
                seen.add(node)
                args = *node.args, *more.get(node, ())
                waiting += [(node, True), *((a, False) for a in reversed(args))]
    return found
