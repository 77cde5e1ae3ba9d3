"""Where and with what a number was measured."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
AMD, INTEL = "AuthenticAMD", "GenuineIntel"
GENERATIONS = [  # vendor, family, models, what people call them; the first that fits
    (AMD, 23, range(0x30), "Zen 1"),
    (AMD, 23, range(0x30, 0x100), "Zen 2"),
    (AMD, 25, range(0x10, 0x20), "Zen 4"),
    (AMD, 25, range(0x60, 0x80), "Zen 4"),
    (AMD, 25, range(0xA0, 0xB0), "Zen 4"),
    (AMD, 25, range(0x60), "Zen 3"),
    (AMD, 26, range(0x100), "Zen 5"),
    (INTEL, 6, [85], "Skylake or Cascade Lake"),
    (INTEL, 6, [106], "Ice Lake"),
    (INTEL, 6, [143], "Sapphire Rapids"),
    (INTEL, 6, [173], "Granite Rapids"),
    (INTEL, 6, [207], "Emerald Rapids"),
]


def describe(device):
    """The fields of every row that say which machine, which versions, which commit."""
    return {
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": version("numba"),
        "commit": commit(),
    }


def cpu_name():
    """Such as "AMD EPYC (Zen 5), 2 cores": two CPUs that differ in speed have different names."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    return name_in(text)


def name_in(text):
    """The CPU's name from what /proc/cpuinfo says: model, generation, cores.

    Virtual machines often leave the model's number out of its name, so that the generation is
    worked out from the numbers of family and model.
    """
    blocks = [dict(_fields(block)) for block in text.split("\n\n") if "model name" in block]
    if not blocks:
        return platform.machine()
    first = blocks[0]
    numbers = [first.get(field, "") for field in ("cpu family", "model")]
    told = f" ({_generation(first.get('vendor_id'), *numbers)})" if all(numbers) else ""
    return f"{first['model name']}{told}, {len(blocks)} core{'s' * (len(blocks) > 1)}"


def _fields(block):
    for line in block.splitlines():
        field, colon, value = line.partition(":")
        if colon:
            yield field.strip(), value.strip()


def _generation(vendor, family, model):
    for its_vendor, its_family, models, name in GENERATIONS:
        if (vendor, int(family)) == (its_vendor, its_family) and int(model) in models:
            return name
    return f"family {family} model {model}"


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def commit():
    """The commit of the fastrnn that is measured, -dirty where files differ.

    Outside git what the environment variable FASTRNN_COMMIT says, or None.
    """
    import fastrnn  # not before: bench.compare says first which one

    home = Path(fastrnn.__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("FASTRNN_COMMIT") or None
    return done.stdout.strip()
