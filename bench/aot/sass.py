"""NVIDIA's machine code: how often a step waits for memory.

An instruction's 128 bits end in what the scheduler is to do (Jia et al. 2018, "Dissecting the
NVIDIA Volta GPU architecture via microbenchmarking"): among that a counter, of six, that a load
sets until it has arrived, and the counters to wait for.
"""

import re
import subprocess
import tempfile
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
LINE = re.compile(
    r"\s*/\*[0-9a-f]{4,5}\*/\s+(.*?);\s*/\* 0x[0-9a-f]{16} \*/\s+/\* 0x([0-9a-f]{16})"
)
NONE = 7  # no counter is set
ACQUIRED = "CCTL.IVALL"  # follows the look at a counter in memory: old copies are dropped


class Instruction(NamedTuple):
    text: str
    sets: int  # a counter, or NONE
    waits: int  # for these counters, a bit each


def cuobjdump(option, cubin):
    """What the tool of that name says of the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [CUOBJDUMP, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def instructions(listing):
    found = []
    for text, high in LINE.findall(listing):
        control = int(high, 16) >> 41
        found.append(Instruction(text.strip(), control >> 5 & 7, control >> 11 & 63))
    return found


def round_trips(code):
    """How often a step waits for what it has loaded, from when the others have arrived until it
    says that it has, too. 0 if it waits for nobody.

    What is under way together arrives together: loads that wait for each other count each.
    """
    rest = list(dropwhile(lambda instruction: ACQUIRED not in instruction.text, code))
    if not rest:
        return 0
    count, under_way = 0, set()
    for text, sets, waits in rest:
        if re.search(r"\b(RED|ATOM)\w*\.E\.ADD\.STRONG\.GPU", text):
            return count
        if any(waits >> counter & 1 for counter in under_way):
            count += 1
            under_way.clear()
        if "LDG" in text and sets != NONE:
            under_way.add(sets)
    raise ValueError("a step that looks at a counter, and never adds to one")
