"""What a matrix unit is at work on must be left alone until somebody waits for it.

wgmma works on while its threads go on. Here it is done at once; that is the same if, until
wgmma.wait_group, nobody looks at its sums, changes the registers of a factor, writes to shared
memory, or passes a barrier after which others might. This is looked up in the text, before it runs.
"""

import re

from .found import InFlight


def check(kernel):
    """Raises InFlight, with the line. kernel: a text.Kernel."""
    begun, groups = set(), []  # registers that are in use: since the last commit, and before it
    ends = set(kernel.labels.values())
    for number, i in enumerate(kernel.instructions):
        used = begun.union(*groups)
        if used and number in ends:
            raise InFlight(f"at a label, by a way that this check does not follow: {i}")
        if i.parts[0] != "wgmma":
            _untouched(i, used)
        elif i.parts[1] == "mma_async":
            begun |= _registers(i.operands[:2])
        elif i.parts[1] == "commit_group":
            groups, begun = [*groups, begun], set()
        elif i.parts[1] == "wait_group":
            groups = groups[max(0, len(groups) - int(i.operands[0])) :]


def _untouched(i, used):
    shared = "shared" in i.parts and i.parts[0] in ("st", "stmatrix")
    if used and (shared or i.parts[0] in ("bar", "bra", "ret")):
        raise InFlight(f"before wgmma.wait_group: {i}")
    if touched := _registers(i.operands) & used:
        raise InFlight(f"{min(touched)}, which a matrix unit is at work on: {i}")


def _registers(operands):
    """The registers of sums and factors: not the descriptors, which are read at once."""
    return {name for operand in operands for name in re.findall(r"%r\d+", operand)}
