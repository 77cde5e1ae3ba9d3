"""Compiled functions: rebound to their specialisation, and cached on disk by all that is in them.

Numba's own cache keys on a function's file and bytecode; what a specialised function calls (the
cell, the microkernel) would go unnoticed. So each specialisation has a folder and a name of its
own.
"""

import hashlib
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from types import FunctionType

import numba

from .target import cpu_name, registers

SIGNATURE = numba.types.void(numba.types.voidptr)


def rebind(function, names):
    """The same code over other globals: ``names`` go before the function's own."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
    )


def inlined(function):
    """Have ``specialise`` inline the function wherever it is called: constants fold into it."""
    function.inlined = True
    return function


def undisturbed(function):
    """Have ``function`` run in a thread of its own, where no signal handler runs.

    One that raises would break off llvmlite, whose lock then stays locked: the next call that
    compiles would hang. So what has begun goes on to its end, though nobody waits for it.
    """

    @wraps(function)
    def apart(*args):
        pool = ThreadPoolExecutor(1)
        try:
            return pool.submit(function, *args).result()
        finally:
            pool.shutdown(wait=False)

    return apart


@undisturbed
def specialise(functions, names, label, sources, tile):
    """The last of ``functions`` as a C function of a plan's address (Numba's CFunc).

    It is compiled with ``names`` and the functions before it as globals. ``label`` says what it is,
    once aloud if it has to be compiled. The result must be determined by ``label``, the bytes in
    ``sources`` and the ``tile``.
    """
    names = dict(names)
    fingerprint = _fingerprint(label, sources, tile)

    def own(function):
        """Rebound, and called as nothing else is: code from the cache is linked by its name."""
        bound = rebind(function, names)
        bound.__qualname__ = f"{function.__name__}_{fingerprint}"
        return bound

    for function in functions[:-1]:
        inline = getattr(function, "inlined", False)
        compiled = numba.njit(error_model="numpy", forceinline=inline)(own(function))
        names[function.__name__] = compiled
    folder = cache_root() / fingerprint
    if not any(folder.rglob("*.nbi")):
        print(f"fastrnn: compiling {label} for this CPU, once", file=sys.stderr)
    with _cache_in(folder):
        compiled = numba.cfunc(SIGNATURE, cache=True, error_model="numpy")
        return compiled(own(functions[-1]))


@cache
def cache_root():
    """Where compiled code is kept: $FASTRNN_CACHE_DIR, or fastrnn/ in the user's cache folder.

    Where neither can be written to, a folder that lasts as long as the process.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("FASTRNN_CACHE_DIR") or base / "fastrnn")
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="fastrnn-"))
    return root


def _fingerprint(label, sources, tile):
    host = (numba.__version__, cpu_name(), registers())
    digest = hashlib.sha256(repr((label, tile, host)).encode())
    for source in sources:
        digest.update(source)
    return digest.hexdigest()[:24]


@contextmanager
def _cache_in(folder):
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
