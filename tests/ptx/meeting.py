"""Where threads and programs meet: barriers, fences, atomics; and the way through the code.

A step that returns something says where the way goes: BARRIER, END, or the name of a label.
"""

import numpy as np

from .operands import address, bits_of, of
from .text import Unknown

BARRIER, END = "bar.sync", "ret"


def barrier(i):
    """bar.sync 0: all threads of the program. bar.warp.sync: those of a warp, which run together
    here anyway.
    """
    if i.guard or i.parts not in (("bar", "sync"), ("bar", "warp", "sync")):
        raise Unknown(i)
    if "warp" in i.parts:
        return lambda gang: None
    if i.operands != ("0",):
        raise Unknown(i)
    return lambda gang: BARRIER


def fence(i):
    """fence.proxy.async: what was written before, matrix units will find (PTX ISA, "membar")."""
    if i.guard or i.parts != ("fence", "proxy", "async", "shared"):
        raise Unknown(i)
    return lambda gang: gang.shared.fence(gang.programs, gang.times)


def branch(i):
    if i.parts not in (("bra",), ("bra", "uni")):
        raise Unknown(i)
    (label,) = i.operands
    return lambda gang: label


def leave(i):
    if i.guard:
        raise Unknown(i)
    return lambda gang: END


def atomic(i):
    """atom.global.gpu.release.add, red: one thread after another adds to a counter.

    With .release, others may see what the program has done before its last barrier; with .acquire,
    it sees what others have released there, from its next barrier on; .relaxed does neither.
    """
    returns = i.parts[0] == "atom"
    semantics = {*i.parts[1:-1]} - {"global", "gpu", "add"}
    if i.type != "u32" or not {"global", "gpu", "add"} <= {*i.parts} or len(semantics) != 1:
        raise Unknown(i)
    if not semantics <= {"release", "acquire", "acq_rel", "relaxed"}:
        raise Unknown(i)
    (to, place, value) = i.operands if returns else (None, *i.operands)
    place, value = address(place), of(value, 32)
    acquires, releases = semantics & {"acquire", "acq_rel"}, semantics & {"release", "acq_rel"}

    def run(gang):
        if not gang.anybody:
            return
        order = gang.memory.order
        at = gang.memory.offsets(gang.chosen(place(gang)), 4, i)
        counters = gang.memory.bytes.view(np.uint32)
        found = np.empty(len(at), np.uint32)
        programs, values = gang.chosen(gang.programs[:, None]), gang.chosen(value(gang))
        for n, (program, counter) in enumerate(zip(programs, at, strict=True)):
            found[n] = counters[counter // 4]
            counters[counter // 4] += values[n]
            if order and acquires:
                order.acquire(program, counter)
            if order and releases:
                order.release(program, counter, gang.machine.stretch[program])
        if returns:
            gang.write(to, gang.spread(found))

    if returns and bits_of(to) != 32:
        raise Unknown(i)
    return run


INSTRUCTIONS = {
    "bar": barrier,
    "fence": fence,
    "bra": branch,
    "ret": leave,
    "atom": atomic,
    "red": atomic,
}
