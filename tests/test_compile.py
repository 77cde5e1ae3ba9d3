"""What is compiled: for which CPU, and how long a first call takes."""

import platform
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import run_python

from fastrnn.kernels.cpu.compiler.target import cpu_name, registers

# Other CPUs than the host, by their names and features in LLVM, and the width of their registers.
TARGETS = {
    "AVX2": ("haswell", "+sse2,+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2", 256),
    "SSE2": ("x86-64", "+sse2", 128),
}
COMPARE_ALL = """
import torch
from against_torch import KINDS, compare, make_inputs, twins
from conftest import spying
from fastrnn.kernels.cpu.compiler.target import registers

assert registers().bits == {bits}, registers()
with spying() as calls:
    dtypes = [torch.float32, torch.float64, *[torch.bfloat16] * (not registers().bfloat16)]
    for dtype in dtypes:
        for kind in KINDS:
            for H in (1, 17, 33):
                ours, theirs = twins(kind, 9, H, dtype=dtype, bidirectional=True)
                compare(ours, theirs, make_inputs(ours, 6, 13))
        ours, theirs = twins("lstm", 9, 21, proj_size=18, dtype=dtype)
        compare(ours, theirs, make_inputs(ours, 6, 13))
assert calls.keys() == {{"forward", "backward"}}
"""
COMPARE_STEPS = """
import torch
from against_torch import KINDS, compare, make_inputs, twins
from conftest import spying
from fastrnn.kernels.cpu.compiler.target import registers

assert registers().bits == {bits}, registers()
with spying() as calls:
    for kind, dtype in [(kind, torch.float32) for kind in KINDS] + [("gru", torch.float64)]:
        for B, I, H in ((1, 5, 1), (1, 300, 70), (7, 3, 17), (66, 70, 133)):
            ours, theirs = twins(kind, I, H, cell=True, dtype=dtype)
            compare(ours, theirs, make_inputs(ours, 1, B))
assert calls.keys() == {{"forward", "backward"}}
"""
SCRIPTS = {"layers": COMPARE_ALL, "steps": COMPARE_STEPS}


@pytest.fixture(scope="module")
def narrow():
    """{(script, target): a process that runs it}, two at a time: they compile for minutes."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            (script, target): pool.submit(
                run_python,
                SCRIPTS[script].format(bits=bits),
                timeout=230,
                NUMBA_CPU_NAME=name,
                NUMBA_CPU_FEATURES=features,
            )
            for script in SCRIPTS
            for target, (name, features, bits) in TARGETS.items()
            if registers().bits >= bits
        }


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="these are x86's registers"
)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_narrower_registers(target, script, narrow):
    """Every cell, forward and backward, as another CPU would run it."""
    if (script, target) not in narrow:
        pytest.skip(f"{cpu_name()} has no registers so wide to run this on")
    narrow[script, target].result()


def test_this_machines_registers():
    run_python(COMPARE_ALL.format(bits=registers().bits))


def test_first_call_time():
    """Once compiled, the first training step of a process is no long wait, at best."""
    script = """
import time, torch, fastrnn

layer = fastrnn.LSTM(64, 64)
x = torch.randn(20, 8, 64)
start = time.perf_counter()
layer(x)[0].sum().backward()
print(time.perf_counter() - start)
"""
    run_python(script)
    assert any(float(run_python(script)[0]) < 1.5 for _ in range(5))
