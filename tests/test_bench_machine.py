"""Where a number was measured: the CPU's name, and rows of several machines in one file."""

import platform

import pytest

from bench import machine

PROCESSOR = """\
processor	: {number}
vendor_id	: {vendor}
cpu family	: {family}
model		: {model}
model name	: {name}
stepping	: 1
"""


def cpuinfo(vendor, family, model, name, cores=2):
    """What /proc/cpuinfo says of such a machine."""
    return "\n".join(
        PROCESSOR.format(number=i, vendor=vendor, family=family, model=model, name=name)
        for i in range(cores)
    )


@pytest.mark.parametrize(
    ("vendor", "family", "model", "generation"),
    [
        ("AuthenticAMD", 23, 0x31, "Zen 2"),
        ("AuthenticAMD", 25, 0x01, "Zen 3"),
        ("AuthenticAMD", 25, 0x11, "Zen 4"),
        ("AuthenticAMD", 25, 0x61, "Zen 4"),
        ("AuthenticAMD", 25, 0x50, "Zen 3"),
        ("AuthenticAMD", 26, 0x02, "Zen 5"),
        ("GenuineIntel", 6, 143, "Sapphire Rapids"),
        ("GenuineIntel", 6, 11, "family 6 model 11"),
        ("AuthenticAMD", 99, 7, "family 99 model 7"),
    ],
)
def test_generations_have_names(vendor, family, model, generation):
    text = cpuinfo(vendor, family, model, "A CPU")
    assert machine.name_in(text) == f"A CPU ({generation}), 2 cores"


def test_a_cpu_that_says_less():
    assert machine.name_in("processor\t: 0\nmodel name\t: Its name\n") == "Its name, 1 core"
    arm = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"
    assert machine.name_in(arm) == platform.machine()


def test_this_machine_has_a_name():
    assert machine.cpu_name()
