"""Loads and stores (PTX ISA, "ld", "st"), and the parameters of the kernel.

An access says where it is wrong, and leaves its trace in the shadow of the memory. Cache operators
(.cg) change nothing here.
"""

import re

from .numbers import UNSIGNED_OF
from .operands import address, bits_of, every
from .text import Unknown, members

GLOBAL = ({"global"}, {"global", "cg"}, {"global", "gpu", "acquire"})


class Access:
    """What a load or store does to memory.

    names: the registers, as text; place: the address.
    """

    def __init__(self, i, names, place):
        said = {*i.parts[1:-1]}
        vector = next((p for p in said if re.fullmatch(r"v[24]", p)), None)
        self.count = int(vector[1]) if vector else 1
        self.names, self.place, self.line = members(names), address(place), i
        self.bytes, said = i.bits // 8, said - {vector}
        self.shared, self.acquire = said == {"shared"}, "acquire" in said
        if (not self.shared and said not in GLOBAL) or len(self.names) != self.count:
            raise Unknown(i)
        self.kind = UNSIGNED_OF[i.bits]

    @property
    def size(self):
        return self.count * self.bytes

    def at(self, gang):
        """(which memory, at which byte of it each access is), checked."""
        addresses = gang.chosen(self.place(gang))
        if self.shared:
            programs = gang.chosen(gang.programs[:, None])
            at = gang.shared.offsets(programs, addresses, self.size, self.line)
            memory = gang.shared
        else:
            at = gang.memory.offsets(addresses, self.size, self.line)
            memory = gang.memory
        return memory, at

    def traced(self, gang, at):
        """What the shadow wants to know."""
        return at, self.size, gang.chosen(gang.moments), gang.chosen(gang.warps), self.line

    def elements(self, memory, at):
        """(the memory as a row of elements, the first of each access)"""
        return memory.bytes.reshape(-1).view(self.kind), at // self.bytes


def load(i):
    if i.parts[1] == "param":
        return parameter(i)
    access = Access(i, *i.operands)
    kinds = [UNSIGNED_OF[bits_of(name)] for name in access.names]

    def run(gang):
        if not gang.anybody:
            return
        memory, at = access.at(gang)
        if access.acquire:
            acquire(gang, at)
        else:
            memory.read(*access.traced(gang, at))
        elements, first = access.elements(memory, at)
        for k, (name, kind) in enumerate(zip(access.names, kinds, strict=True)):
            gang.write(name, gang.spread(elements[first + k].astype(kind)))

    return run


def acquire(gang, at):
    if gang.memory.order:
        for program, address in zip(gang.chosen(gang.programs[:, None]), at, strict=True):
            gang.memory.order.acquire(program, address)


def store(i):
    place, names = i.operands
    access = Access(i, names, place)
    if access.acquire:
        raise Unknown(i)
    values = every(access.names, i.bits)

    def run(gang):
        if not gang.anybody:
            return
        memory, at = access.at(gang)
        memory.write(*access.traced(gang, at))
        elements, first = access.elements(memory, at)
        for k, value in enumerate(values):
            memory.put(elements, first + k, gang.chosen(value(gang)).astype(access.kind), i)

    return run


def parameter(i):
    """ld.param: what the kernel is given; a number of fewer bits than the register keeps its sign
    if the type has one.
    """
    (to, name), kind = i.operands, UNSIGNED_OF[bits_of(i.operands[0])]
    if len(i.parts) != 3 or i.type[0] not in "bus":
        raise Unknown(i)
    name, mask = name.strip("[]"), (1 << i.bits) - 1

    def run(gang):
        value = gang.machine.arguments[name]
        value = value if i.type[0] == "s" else value & mask
        gang.write(to, kind(value % (1 << (8 * kind().itemsize))))

    return run


INSTRUCTIONS = {"ld": load, "st": store}
