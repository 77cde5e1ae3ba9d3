"""What is compiled: for which CPU, where it is kept, and when it must be compiled anew."""

import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import run_python

import fastrnn
from fastrnn.kernels.cpu.target import cpu_name, registers

# Other CPUs than the host, by their names and features in LLVM, and the width of their registers.
TARGETS = {
    "AVX2": ("haswell", "+sse2,+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2", 256),
    "SSE2": ("x86-64", "+sse2", 128),
}
COMPARE_ALL = """
import torch
from against_torch import KINDS, compare, make_inputs, twins
from conftest import spying
from fastrnn.kernels.cpu.target import registers

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
from fastrnn.kernels.cpu.target import registers

assert registers().bits == {bits}, registers()
with spying() as calls:
    for kind, dtype in [(kind, torch.float32) for kind in KINDS] + [("gru", torch.float64)]:
        for B, I, H in ((1, 5, 1), (1, 300, 70), (7, 3, 17), (66, 70, 133)):
            ours, theirs = twins(kind, I, H, cell=True, dtype=dtype)
            compare(ours, theirs, make_inputs(ours, 1, B))
assert calls.keys() == {{"forward", "backward"}}
"""
SCRIPTS = {"layers": COMPARE_ALL, "steps": COMPARE_STEPS}
FIRST_CALL = """
import torch, fastrnn

torch.manual_seed(0)
with torch.no_grad():
    print(fastrnn.RNN(3, 4)(torch.ones(5, 2, 3))[0].sum().item())
"""


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


def first_call(cache, **environment):
    """In a fresh process: (the result, whether it said that it compiles)."""
    output, errors = run_python(FIRST_CALL, **{"FASTRNN_CACHE_DIR": str(cache)} | environment)
    assert not errors or errors.startswith("fastrnn: compiling")
    return float(output), "compiling" in errors


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that one process has filled, and that process's result."""
    cache = tmp_path_factory.mktemp("filled")
    result, compiled = first_call(cache)
    assert compiled
    return cache, result


def test_second_process_does_not_compile(filled):
    cache, result = filled
    assert first_call(cache) == (result, False)


@pytest.mark.skipif(registers().bits == 128, reason="there is no narrower CPU than this one")
def test_another_cpu_is_compiled_apart(filled):
    """A folder on a network may serve unlike machines."""
    cache, result = filled
    narrow = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    assert first_call(cache, **narrow) == (pytest.approx(result), True)
    assert first_call(cache) == (result, False)


def test_interrupted_compilation_says_so_again(filled, tmp_path):
    """Folders without code in them, as an interrupt leaves them behind, are not taken for a hit."""
    cache, result = filled
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.rglob("*.nb*"):
        file.unlink()
    assert first_call(tmp_path) == (result, True)


def copy_of_the_house(folder):
    """The package's sources in ``folder``, to be changed there. Returns its kernels' folder."""
    skip = shutil.ignore_patterns("kernels", "__pycache__")
    shutil.copytree(Path(fastrnn.__file__).parent, folder / "fastrnn", ignore=skip)
    kernels = folder / "fastrnn" / "kernels"
    shutil.copytree(fastrnn.kernels.__path__[0], kernels, ignore=skip)
    return kernels


# A file, what is replaced in it, and whether results change.
CHANGES = {
    "cell": ("cells/rnn.py", "tanh(x[0] + h[0])", "tanh(x[0] - h[0])", True),
    "engine": ("cpu/forward.py", "\nfrom", "\nUNUSED = 1\nfrom", False),
}


@pytest.mark.parametrize(("file", "old", "new", "matters"), CHANGES.values(), ids=CHANGES)
def test_changed_source_is_compiled_anew(file, old, new, matters, tmp_path):
    """No stale code: after a change of a cell, or of the engine, the cache is not believed."""
    path = copy_of_the_house(tmp_path) / file
    here = {"PYTHONPATH": str(tmp_path)}
    before, _ = first_call(tmp_path / "cache", **here)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    after, compiled = first_call(tmp_path / "cache", **here)
    assert compiled
    assert (after == before) is not matters


def test_processes_that_compile_at_once(filled, tmp_path):
    """They share a fresh cache, and each other's files half written."""
    with ThreadPoolExecutor(3) as pool:
        results = {result for result, _ in pool.map(lambda _: first_call(tmp_path), range(3))}
    assert results == {filled[1]}
    assert first_call(tmp_path) == (filled[1], False)


NO_CACHE = {
    "cache-is-no-folder": {"FASTRNN_CACHE_DIR": "/dev/null/cache"},
    "no-home": {"FASTRNN_CACHE_DIR": "", "HOME": "/dev/null/home", "XDG_CACHE_HOME": ""},
}


@pytest.mark.parametrize("environment", NO_CACHE.values(), ids=NO_CACHE)
def test_works_without_a_cache(environment, filled, tmp_path):
    assert first_call("", TMPDIR=str(tmp_path), **environment)[0] == filled[1]


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
