"""Compiled once: what a later process finds, and when it must compile anew. In real processes."""

import compileall
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import run_python

import fastrnn
from fastrnn.kernels.cpu.compiler.target import registers

FIRST_CALL = """
import torch, fastrnn

torch.manual_seed(0)
with torch.no_grad():
    print(fastrnn.RNNCell(3, 4)(torch.ones(2, 3)).sum().item())
"""


def first_call(cache, **environment):
    """In a fresh process: (the result, whether it said that it compiles)."""
    output, errors = run_python(FIRST_CALL, **{"FASTRNN_CACHE_DIR": str(cache)} | environment)
    return float(output), "fastrnn: compiling" in errors


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


def test_torn_files_are_compiled_anew_and_mended(filled, tmp_path):
    cache, result = filled
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    whole = {path: path.stat().st_size for path in tmp_path.iterdir()}
    for path in whole:
        path.write_bytes(path.read_bytes()[:1000])
    assert first_call(tmp_path) == (result, True)
    assert sum(path.stat().st_size == size for path, size in whole.items()) == 1


def test_processes_that_compile_at_once(filled, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        results = {result for result, _ in pool.map(lambda _: first_call(tmp_path), range(2))}
    assert results == {filled[1]}
    assert len(list(tmp_path.iterdir())) == 1


def copy_of_the_house(folder):
    """The package's sources in ``folder``, to be changed there. Returns its kernels' folder."""
    skip = shutil.ignore_patterns("kernels", "__pycache__")
    shutil.copytree(Path(fastrnn.__file__).parent, folder / "fastrnn", ignore=skip)
    kernels = folder / "fastrnn" / "kernels"
    shutil.copytree(fastrnn.kernels.__path__[0], kernels, ignore=skip)
    return kernels


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_changed_source_is_compiled_anew(tmp_path):
    """No stale code: after a change of a cell, or of the engine, the cache is not believed."""
    kernels, here = copy_of_the_house(tmp_path), {"PYTHONPATH": str(tmp_path)}
    before, _ = first_call(tmp_path / "cache", **here)
    change(kernels / "cpu" / "loops" / "forward.py", "\nfrom", "\nUNUSED = 1\nfrom")
    assert first_call(tmp_path / "cache", **here) == (before, True)
    change(kernels / "cells" / "rnn.py", "tanh(wx[0] + uh[0])", "tanh(-(wx[0] + uh[0]))")
    after, compiled = first_call(tmp_path / "cache", **here)
    assert compiled
    assert after == -before


def without_sources(folder):
    copy_of_the_house(folder)
    compileall.compile_dir(folder, legacy=True, quiet=1)
    for path in folder.rglob("*.py"):
        path.unlink()
    return folder


def zipped(folder):
    copy_of_the_house(folder)
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in folder.rglob("*.py"):
            archive.write(path, path.relative_to(folder))
    shutil.rmtree(folder / "fastrnn")
    return folder / "all.zip"


def test_installed_otherwise(filled, tmp_path):
    """Without sources, or as a zip: kept all the same, and found again."""

    def two_calls(install):
        folder = tmp_path / install.__name__
        here = {"PYTHONPATH": str(install(folder))}
        return [first_call(folder / "cache", **here) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        for calls in pool.map(two_calls, [without_sources, zipped]):
            assert calls == [(filled[1], True), (filled[1], False)]


def test_works_without_a_cache(filled):
    assert first_call("/dev/null/cache") == (filled[1], True)


def test_numba_without_its_compiler(tmp_path):
    """Torch's kernels serve, and explain says why; no matter what is in the cache."""
    script = """
    import torch, fastrnn

    cell, layer = fastrnn.GRUCell(3, 4), fastrnn.LSTM(3, 4)
    for module, x in (cell, torch.ones(2, 3)), (layer, torch.ones(5, 3)):
        for autocast in (False, True):
            with torch.autocast("cpu", enabled=autocast):
                choice = fastrnn.backends.explain(module, x)
                assert choice.name == "torch"
                assert "NUMBA_DISABLE_JIT" in choice.reason or autocast and "step" in choice.reason
                module(x)[0].sum().backward()
    try:
        with fastrnn.backends.use("numba"):
            module(x)
    except RuntimeError as error:
        print(error)
    """
    output, errors = run_python(script, NUMBA_DISABLE_JIT="1", FASTRNN_CACHE_DIR=str(tmp_path))
    assert "NUMBA_DISABLE_JIT" in output
    assert not errors


KEPT_CODE = """
import ctypes, os, pathlib
from llvmlite import binding
from fastrnn.kernels.cpu.compiler import cache
from fastrnn.kernels.cpu.compiler import build
from fastrnn.kernels.cpu.compiler import target

root = pathlib.Path(os.environ["FASTRNN_CACHE_DIR"])
machine = target.target_machine()
for outside in "sched_yield", "memcpy", "PyErr_Clear", "nowhere_at_all":
    code = "declare void @{0}() define i64 @f() {{ ret i64 ptrtoint (void ()* @{0} to i64) }}"
    code = machine.emit_object(binding.parse_assembly(code.format(outside)))
    cache.write(root, outside, b"f" + bytes([1]) + outside.encode() + os.linesep.encode() + code)
    made = build._load(root, outside)
    print(made and ctypes.CFUNCTYPE(ctypes.c_int64)(made.addresses["f"])())
"""


def test_what_kept_code_calls_is_found(tmp_path):
    """Libc's functions and Python's, in a process that has compiled nothing.

    Of code that calls what is nowhere LLVM would make calls of address 0: it is compiled anew.
    """
    *addresses, nowhere = run_python(KEPT_CODE, FASTRNN_CACHE_DIR=str(tmp_path))[0].split()
    assert len(addresses) == 3
    assert all(map(int, addresses))
    assert nowhere == "None"


def test_threads_that_compile_at_once(tmp_path):
    """Each function once; and Numba's own cache stays where it was."""
    script = """
    from concurrent.futures import ThreadPoolExecutor
    import numba, torch, fastrnn
    from fastrnn.kernels.cpu.compiler import build

    def counted(*arguments, original=build._compile):
        print("compiles")
        return original(*arguments)

    build._compile = counted
    folder = numba.config.CACHE_DIR
    cell = fastrnn.RNNCell(3, 4)
    with ThreadPoolExecutor(3) as pool, torch.no_grad():
        results = {pool.submit(cell, torch.ones(2, 3)) for _ in range(3)}
    with torch.no_grad():
        assert all(torch.equal(r.result(), cell(torch.ones(2, 3))) for r in results)
    assert numba.config.CACHE_DIR == folder
    """
    output, errors = run_python(script, FASTRNN_CACHE_DIR=str(tmp_path))
    assert output.count("compiles") == errors.count("compiling") == 1


def test_a_child_forked_while_another_thread_compiles(tmp_path):
    """It can compile: the fork has waited until nobody did. Closed stderr on the way."""
    script = """
    import os, sys, threading, torch, fastrnn
    from fastrnn.kernels.cpu.compiler import build

    def call(nonlinearity):
        with torch.no_grad():
            return fastrnn.RNNCell(3, 4, nonlinearity=nonlinearity)(torch.ones(2, 3))

    def compile_slowly(*arguments, original=build._compile):
        compiling.set()
        return original(*arguments)

    sys.stderr.close()
    compiling = threading.Event()
    build._compile = compile_slowly
    thread = threading.Thread(target=call, args=("tanh",))
    thread.start()
    assert compiling.wait(60)
    child = os.fork()
    call("relu")
    call("tanh")
    if child:
        assert os.waitpid(child, 0)[1] == 0
    os._exit(0)
    """
    run_python(script, FASTRNN_CACHE_DIR=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
