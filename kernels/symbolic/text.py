"""A graph written as functions of Python, which every engine compiles.

A file of programs cannot smuggle anything into it: it is made of the names of operations.py, of
numbers, and of names that are made here.
"""

import hashlib
import linecache

from .graph import needed
from .operations import OPERATIONS


class Function:
    """The text of one function; what it is given has a name each, whatever else is made is v7."""

    def __init__(self, name, arguments):
        self.lines = [f"def {name}({', '.join(arguments)}):"]
        self.names, self.like = {}, None

    def take(self, expression, nodes, prefix):
        """Bind the values of a tuple to these nodes (None: unused)."""
        names = [f"{prefix}{i}" for i in range(len(nodes))]
        if any(node is not None for node in nodes):
            self.lines.append(f"    ({', '.join(names)},) = {expression}")
            for node, name in zip(nodes, names, strict=True):
                if node is not None:
                    self.bind(node, name)

    def bind(self, node, name):
        self.names[node] = name
        self.like = self.like or name

    def make(self, nodes):
        """Write what these nodes need."""
        for node in needed(nodes, self.names):
            if node.op != "number":
                text = OPERATIONS[node.op].text.format(*map(self.operand, node.args))
                self.bind(node, f"v{node.number}")
                self.lines.append(f"    {self.names[node]} = {text}")

    def give(self, *results):
        """The whole text, whose last line gives these: nodes, or tuples of nodes."""
        self.make([n for r in results for n in (r if isinstance(r, (list, tuple)) else (r,))])
        self.lines.append(f"    return {', '.join(map(self._result, results))}")
        return "\n".join(self.lines) + "\n"

    def operand(self, node):
        # a number of Python's, of which infinity has no literal that all compilers read
        return self.names.get(node) or repr(node.value).replace("inf", "1e999")

    def _result(self, result):
        if isinstance(result, (list, tuple)):
            return f"({''.join(f'{self._result(n)}, ' for n in result)})"
        if not result.is_number():
            return self.names[result]
        zeros = f"zeros_like({self.like})"
        return zeros if result.is_number(0) else f"{zeros} + {self.operand(result)}"


def functions(text, name, operations):
    """{name: function} of a text, with the functions that its operations are.

    Compilers that ask for a function's source find it.
    """
    file = f"<fastrnn {name} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = len(text), None, text.splitlines(True), file
    scope = {"__name__": __name__, **operations}
    exec(compile(text, file, "exec"), scope)
    return scope
