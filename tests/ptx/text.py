"""PTX as text: the kernel in it, its parameters, and its instructions."""

import re
from typing import NamedTuple


class Instruction(NamedTuple):
    """A line such as ``@!%p1 ld.global.cg.v2.b32 {%r1, %r2}, [%rd1 + 8];``."""

    line: int  # in the text, from 1
    text: str
    guard: str | None  # the predicate that says which threads take part: "%p1"
    unless: bool  # whether those do for which it is false
    parts: tuple  # of the name: ("ld", "global", "cg", "v2", "b32")
    operands: tuple  # as text: ("{%r1, %r2}", "[%rd1 + 8]")

    def __str__(self):
        return f"line {self.line}: {self.text}"

    @property
    def type(self):
        """The last part of the name: most often the type."""
        return self.parts[-1]

    @property
    def bits(self):
        """Of the type, where it has any: 1 for a predicate."""
        if self.type == "pred":
            return 1
        return int(re.fullmatch(r"[a-z]+(\d+)(x2)?", self.type)[1])


class Unknown(NotImplementedError):
    """An instruction, or a form of one, that the emulator does not know."""

    def __init__(self, instruction, why=""):
        super().__init__(f"{instruction} ({why})" if why else str(instruction))


class Kernel(NamedTuple):
    """What stands in the text."""

    name: str
    parameters: tuple  # their names, in order
    threads: int  # of a program
    instructions: tuple
    labels: dict  # name: the place in ``instructions``


def read(text):
    """The Kernel in PTX text, which has one."""
    lines = [re.sub(r"//.*", "", line) for line in text.splitlines()]
    begin = next(i for i, line in enumerate(lines) if ".visible .entry" in line)
    open_ = next(i for i, line in enumerate(lines) if i > begin and line.strip() == "{")
    head = "\n".join(lines[begin:open_])
    instructions, labels = [], {}
    for number, line in _statements(lines, open_ + 1):
        if label := re.fullmatch(r"([$\w]+):", line):
            labels[label[1]] = len(instructions)
        else:
            instructions.append(_instruction(number, line))
    return Kernel(
        re.search(r"\.entry (\w+)\(", head)[1],
        tuple(re.findall(r"\.param .*?(\w+),?$", head, re.MULTILINE)),
        int(re.search(r"\.(?:reqntid|maxntid) (\d+)", head)[1]),
        tuple(instructions),
        labels,
    )


def _statements(lines, begin):
    """(line number, statement) of the body, without directives; it begins after its brace."""
    for number, line in enumerate(lines[begin:], begin + 1):
        if line.strip() == "}":
            return
        for statement in line.split(";"):
            if statement.strip() and not statement.strip().startswith("."):
                yield number, " ".join(statement.split())


def _instruction(number, text):
    unless, guard, name, rest = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?(\S+)\s*(.*)", text).groups()
    parts = tuple(name.replace("shared::cta", "shared").split("."))  # which is the default
    return Instruction(number, text, guard, unless == "!", parts, tuple(split(rest)))


def split(text):
    """The operands in ``text``, between the commas that are in no bracket."""
    found = re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,{\[])+", text)
    return [operand.strip() for operand in found]


def members(operand):
    """The registers of "{%r1, %r2}", or of "%r1"."""
    return split(operand.strip("{} "))
