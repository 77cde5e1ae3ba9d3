"""A step in stages: what must wait until all hidden units are there.

A mean over units needs a value of every unit, and so does a recurrent product with a value that the
step itself computes. Such a value ends a stage, and what is made of it is known in the next one.
Most cells have one stage.
"""

from dataclasses import dataclass

from .text import Function


@dataclass(frozen=True)
class Product:
    """A run of gates of the recurrent product, with one factor."""

    factor: int  # of those that the step computes; -1 for the first state
    first: int  # gate
    count: int
    stage: int  # forward: before which it is made; backward, after which that of its gradient


class Levels:
    """Which stage each value of a graph is first known in.

    waits: {input: the values that it is made of, all units of them}; known: those that are known
    from the beginning.
    """

    def __init__(self, waits, known=()):
        self.waits, self.found = waits, dict.fromkeys(known, 0)

    def of(self, node):
        waiting = [node]
        while waiting:
            node = waiting[-1]
            args = self.waits.get(node, node.args)
            if unknown := [a for a in args if a not in self.found]:
                waiting += unknown
                continue
            later = node in self.waits or node.op == "mean"
            self.found.setdefault(node, max(map(self.found.get, args), default=0) + later)
            waiting.pop()
        return self.found[node]

    def last(self, nodes):
        return max(map(self.of, nodes), default=0)


def groups(factors, first_state, level):
    """The Products of gates with these factors, and the factors that the step computes, each once.

    level(gate): before which stage that of a gate is made.
    """
    computed = list(dict.fromkeys(f for f in factors if f is not first_state))
    found = []
    for gate, factor in enumerate(factors):
        number = -1 if factor is first_state else computed.index(factor)
        before = found[-1] if found else None
        if before and before.factor == number:
            found[-1] = Product(number, before.first, before.count + 1, before.stage)
        else:
            found.append(Product(number, gate, 1, level(gate)))
    return tuple(found), computed


def functions(name, arguments, take, levels, last, waited, means, results):
    """The texts of a step's functions, stage after stage; the last is called ``name`` alone.

    take(function, known): bind what a function is given, where ``known(node)``; waited: values that
    products are made of; means: nodes. An early stage gives those values, and what is to be
    averaged, of its level; the last gives ``results``.
    """
    texts = []
    for stage in range(last):
        function = Function(f"{name}_{stage}", arguments)
        take(function, lambda node, stage=stage: levels.of(node) <= stage)
        mine = [node for node in waited if levels.of(node) == stage]
        averaged = [node.args[0] for node in means if levels.of(node) == stage + 1]
        texts.append(function.give(mine, averaged))
    function = Function(name, arguments)
    take(function, lambda node: True)
    texts.append(function.give(*results))
    return "\n\n".join(texts)
