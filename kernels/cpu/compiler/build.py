"""Compiled functions: rebound to their specialisation, and kept on disk by all that is in them.

Numba gives the functions of a call as modules (front.py), which are linked, optimised and turned
into object code here, once; and that is what is kept, in one file. Numba's own cache does not
serve: it keys on a function's file and bytecode, so what a specialised function calls (the cell,
the microkernel) would go unnoticed; it needs those files, a setting of the whole process, and
pickles.
"""

import ctypes
import hashlib
import os
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial, wraps
from types import FunctionType

import numba
from llvmlite import binding
from numba.core.compiler_lock import global_compiler_lock

from ...refused import Refused
from . import cache, front
from .integers import larger, smaller
from .target import compiler, obstacle, registers, target_machine


def rebind(function, names):
    """The same code over other globals: ``names`` go before the function's own."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
    )


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
def code(label, depends, facts, emit, aloud=False):
    """The C functions in the modules that ``emit`` makes: {name: address}, as an object that keeps
    them in memory.

    They are compiled unless they are there, or on disk; ``label`` says what they are, and does so
    on stderr if ``aloud``. ``emit()`` returns (modules of llvmlite's, names). It must be determined
    by ``label``, the bytes ``depends`` and ``facts``; where None is among ``depends``, nothing is
    kept on disk. Raises Refused if they have to be compiled and Numba has been told not to.
    """
    key = _fingerprint(label, depends, facts)
    root = None if None in depends else cache.default_root()
    with global_compiler_lock:
        if key not in _made:
            _made[key] = _load(root, key) or _compile(emit, root, key, label if aloud else None)
        return _made[key]


_made = {}  # what this process has, by its fingerprint


def _load(root, key):
    """The functions that ``_compile`` has kept, None if there are none."""
    content = None if root is None else cache.read(root, key)
    if content is None:
        return None
    head, _, object_code = content.partition(b"\n")
    names, outside = (part.split("\0") for part in head.decode().split("\1"))
    linked = Linked(names)
    # LLVM would take the address of every function outside for zero if one of them were unknown
    if not all(map(binding.address_of_symbol, filter(None, outside))):
        return None
    return linked.with_code(object_code)


def _compile(emit, root, key, announced):
    if why := obstacle():  # the first of all calls would not have come here
        raise Refused("numba", f"{why} since an earlier call")
    if announced:
        cache.say(f"compiling {announced} for this CPU, once")
    modules, names = emit()
    outside, object_code = _translate(modules, names)
    linked = Linked(names)
    if unknown := [name for name in outside if not binding.address_of_symbol(name)]:
        raise RuntimeError(f"compiled code needs what is nowhere: {', '.join(unknown)}")
    if root is not None:
        head = "\1".join("\0".join(each) for each in (names, outside))
        cache.write(root, key, head.encode() + b"\n" + object_code)
    return linked.with_code(object_code)


def _translate(modules, names):
    """(names of what is called outside, object code) of modules; of these ``names`` are to stay."""
    machine = target_machine()
    first, *others = (binding.parse_assembly(str(module)) for module in modules)
    for module in (first, *others):
        module.data_layout, module.triple = str(machine.target_data), machine.triple
    for module in others:
        first.link_in(module)
    for function in first.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in names else "internal"
    options = binding.create_pipeline_tuning_options(speed_level=int(numba.config.OPT))
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(first, builder)
    outside = [
        value.name
        for value in (*first.functions, *first.global_variables)
        if value.is_declaration and not value.name.startswith("llvm.")
    ]
    return outside, machine.emit_object(first)


class Linked:
    """Object code, linked into this process for as long as this lives."""

    def __init__(self, names):
        """No code yet; but from here on LLVM knows the functions of this process."""
        machine = target_machine()
        self._names = names
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        if numba.config.ENABLE_PROFILING:
            self._engine.enable_jit_events()

    def with_code(self, object_code):
        """This, with ``size`` bytes of code, and the ``addresses`` of the functions in it."""
        self.size = len(object_code)
        self._engine.add_object_file(binding.ObjectFileRef.from_data(object_code))
        self._engine.finalize_object()
        self.addresses = {name: self._engine.get_function_address(name) for name in self._names}
        return self


class Compiled:
    """A C function of an address: its ``address``, and ``ctypes``, to call it."""

    def __init__(self, functions):
        self._functions, (self.address,) = functions, functions.addresses.values()
        self.ctypes = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address)


def specialise(functions, names, label, depends, facts, entries=1, aloud=False):
    """The last ``entries`` of ``functions``, each with ``names`` and those before it as globals.

    The other arguments and the result are those of ``code``.
    """
    return code(label, depends, facts, partial(_emit, functions, names, entries), aloud)


def _emit(functions, names, entries):
    names, found, last = {"min": smaller, "max": larger, **names}, [], len(functions) - entries
    seen = set()
    for i, function in enumerate(functions):
        bound = rebind(function, names)
        if i < last:
            names[function.__name__] = front.njit(bound, getattr(function, "inlined", False))
        else:
            found += front.modules(bound, function.__name__, seen)
    return found, [function.__name__ for function in functions[last:]]


def _fingerprint(label, depends, facts):
    digest = hashlib.sha256(repr((label, facts, registers(), compiler())).encode())
    for source in depends:
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
