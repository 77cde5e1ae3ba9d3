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
        self.names, self.like = {}, None  # a name of which ``zeros_like`` can be asked

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
            if not node.is_number():
                line = f"    v{node.number} = {self._operation(node)}"
                self.bind(node, f"v{node.number}")
                self.lines.append(line)

    def _operation(self, node):
        args = [self.names.get(a) or _number(a.value) for a in node.args]
        if node.op == "where" and node.args[1].is_number() and node.args[2].is_number():
            args[1] = self.value(node.args[1])  # of two numbers torch would choose the dtype
        return OPERATIONS[node.op].text.format(*args)

    def give(self, *results):
        """The whole text, whose last line gives these: nodes, or tuples of nodes."""
        self.make([n for r in results for n in (r if isinstance(r, (list, tuple)) else (r,))])
        self.lines.append(f"    return {', '.join(map(self._result, results))}")
        return "\n".join(self.lines) + "\n"

    def _result(self, result):
        if isinstance(result, (list, tuple)):
            return f"({''.join(f'{self.value(n)}, ' for n in result)})"
        return self.value(result)

    def value(self, node):
        """A node as a value, which a number is not."""
        if not node.is_number():
            return self.names[node]
        zeros = f"zeros_like({self.like})"
        return zeros if node.is_number(0) else f"{zeros} + {_number(node.value)}"


def _number(value):
    """A number of Python's; of infinity and NaN there is no literal that all compilers read."""
    return "(1e999 - 1e999)" if value != value else repr(value).replace("inf", "1e999")


def functions(text, name, operations):
    """{name: function} of a text, with the functions that its operations are.

    Compilers that ask for a function's source find it.
    """
    file = f"<fastrnn {name} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = len(text), None, text.splitlines(True), file
    scope = dict(operations)
    exec(compile(text, file, "exec"), scope)
    return scope
