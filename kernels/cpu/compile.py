"""Compiled functions: rebound to their specialisation, and kept on disk by all that is in them.

What is kept is object code, in one file for each function. Numba's own cache does not serve: it
keys on a function's file and bytecode, so what a specialised function calls (the cell, the
microkernel) would go unnoticed; it needs those files, a setting of the whole process, and pickles.
"""

import ctypes
import hashlib
import os
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from functools import wraps
from types import FunctionType

import numba
from llvmlite import binding
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from ..refused import Refused
from . import cache
from .target import compiler, obstacle, registers

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
        if global_compiler_lock.is_locked():  # by this thread, for which another would wait
            return function(*args)
        done = Future()

        def work():
            try:
                done.set_result(function(*args))
            except BaseException as error:
                done.set_exception(error)

        try:
            threading.Thread(target=work, name="fastrnn").start()
        except RuntimeError:  # the interpreter ends, and starts no more threads
            return function(*args)
        return done.result()

    return apart


@undisturbed
def specialise(functions, names, label, sources, tile):
    """The last of ``functions`` as a C function of a plan's address: its ``address``, and
    ``ctypes``, to call it.

    It is compiled with ``names`` and the functions before it as globals. ``label`` says what it is,
    once aloud if it has to be compiled. The result must be determined by ``label``, the bytes in
    ``sources`` and the ``tile``; where None is among the sources, it is not kept on disk. Raises
    Refused if it has to be compiled and Numba has been told not to.
    """
    key = _fingerprint(label, sources, tile)
    root = None if None in sources else cache.default_root()
    with global_compiler_lock:
        if key not in _made:
            _made[key] = _load(root, key) or _compile(functions, names, label, root, key)
        return _made[key]


_made = {}  # what this process has, by its fingerprint


def _load(root, key):
    """The function that ``_compile`` has kept, None if there is none."""
    content = None if root is None else cache.read(root, key)
    if content is None:
        return None
    head, _, code = content.partition(b"\n")
    name, *outside = head.decode().split("\0")
    # LLVM would take the address of every function outside for zero if one of them were unknown
    rtsys.initialize(cpu_target.target_context)
    if not all(map(binding.address_of_symbol, outside)):
        return None
    return Linked(name, code)


def _compile(functions, names, label, root, key):
    if why := obstacle():  # the first of all calls would not have come here
        raise Refused("numba", f"{why} since an earlier call")
    cache.say(f"compiling {label} for this CPU, once")
    names = dict(names)

    def own(function):
        """Rebound, and called as nothing else is: code is linked by its name."""
        bound = rebind(function, names)
        bound.__qualname__ = f"{function.__name__}_{key}"
        return bound

    for function in functions[:-1]:
        inline = getattr(function, "inlined", False)
        compiled = numba.njit(error_model="numpy", forceinline=inline)(own(function))
        names[function.__name__] = compiled
    made = numba.cfunc(SIGNATURE, error_model="numpy")(own(functions[-1]))
    content = None if root is None else _content(made)
    if content is not None:
        cache.write(root, key, content)
    return made


def _content(made):
    """What to keep of Numba's CFunc: its name, those of what it calls outside, and its object code.

    None where this cannot be had, or holds addresses of this process.
    """
    try:
        library = made._library
        if library.has_dynamic_globals:
            return None
        module, code = library._final_module, library._get_compiled_object()
    except (
        AttributeError,
        RuntimeError,
        ValueError,
    ) as error:  # these are Numba's own affairs, and may change
        cache.say(f"compiled code is not kept: Numba {numba.__version__}: {error}")
        return None
    names = [
        value.name
        for value in (*module.functions, *module.global_variables)
        if value.is_declaration and not value.name.startswith("llvm.")
    ]
    return "\0".join([made.native_name, *names]).encode() + b"\n" + code


class Linked:
    """Object code, linked into this process for as long as this lives."""

    def __init__(self, name, code):
        machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine()
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        if numba.config.ENABLE_PROFILING:
            self._engine.enable_jit_events()
        self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.address = self._engine.get_function_address(name)
        self.ctypes = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)


def _fingerprint(label, sources, tile):
    digest = hashlib.sha256(repr((label, tile, registers(), compiler())).encode())
    for source in sources:
        digest.update(hashlib.sha256(source or b"").digest())
    return digest.hexdigest()[:24]


def _hold():
    for lock in LOCKS:
        lock.__enter__()


def _release():
    for lock in reversed(LOCKS):
        lock.__exit__(None, None, None)


# A child in which another thread's compilation stands still would wait for it for ever, and find
# LLVM halfway: a fork waits until nobody compiles.
LOCKS = [global_compiler_lock, getattr(binding.ffi.lib, "_lock", nullcontext())]
os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
