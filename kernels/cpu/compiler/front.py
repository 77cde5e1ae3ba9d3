"""Numba's front end: Python functions as LLVM modules that are not optimised yet.

Numba by itself optimises every function and turns it into machine code before it compiles the next,
which inlines it and does so again; of all that only the last is ever called. Here its libraries
gather modules, nothing more. build.py links and optimises these once, all together.
"""

import llvmlite.ir as ir
import numba
from numba.core import compiler, typed_passes, untyped_passes
from numba.core.codegen import CodeLibrary
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target

from .integers import I64

PASSES = [
    (untyped_passes.TranslateByteCode, "bytecode"),
    (untyped_passes.FixupArgs, "arguments"),
    (untyped_passes.IRProcessing, "control flow"),
    (untyped_passes.RewriteSemanticConstants, "constants"),
    (untyped_passes.DeadBranchPrune, "branches on constants"),
    (untyped_passes.GenericRewrites, "constant indices"),
    (untyped_passes.ReconstructSSA, "single assignment"),
    (typed_passes.NopythonTypeInference, "types"),
    (typed_passes.PreLowerStripPhis, "no phis"),
    (typed_passes.IRLegalization, "legal"),
    (typed_passes.NativeLowering, "LLVM"),
    (typed_passes.NoPythonBackend, "result"),
]


class Gathered(CodeLibrary):
    """A function's modules, and the libraries of those it calls."""

    def __init__(self, codegen, name):
        super().__init__(codegen, name)
        self.modules, self.called = [], []

    def add_ir_module(self, module):
        self.modules.append(module)

    def add_linking_library(self, library):
        self.called.append(library)

    def get_pointer_to_function(self, name):
        """None: it is not called from Python."""
        return 0

    @property
    def codegen(self):
        return self

    def set_env(self, name, environment):
        """Nothing: no Python object is used."""

    def finalize(self):
        raise NotImplementedError

    get_function = get_llvm_str = get_asm_str = finalize


class FrontEnd(compiler.CompilerBase):
    """Numba's compiler with the passes that functions of numbers and registers need."""

    def __init__(self, typing, target, library, arguments, result, flags, locals):
        library = Gathered(target.codegen(), "fastrnn")
        super().__init__(typing, target, library, arguments, result, flags, locals)

    def define_pipelines(self):
        passes = PassManager("fastrnn")
        for each, why in PASSES:
            passes.add_pass(each, why)
        passes.finalize()
        return [passes]


def njit(function, inline=False):
    """``function`` as Numba's, compiled when it is called by another."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(pipeline_class=FrontEnd, forceinline=inline, **options)(function)


def inlined(function):
    """Have ``specialise`` inline the function wherever it is called: constants fold into it."""
    function.inlined = True
    return function


def inline(function):
    """``function`` as Numba's, inlined wherever it is called."""
    return njit(function, inline=True)


def modules(function, name, seen):
    """The LLVM modules of a function of int64s, as the C function ``name``, and all it calls.

    Without the libraries in ``seen``, to which it adds its own.
    """
    dispatcher = njit(function)
    arguments = (numba.int64,) * function.__code__.co_argcount
    dispatcher.compile(arguments)
    result = dispatcher.overloads[arguments]
    found, waiting = [_entry(result.fndesc, name)], [result.library]
    while waiting:
        library = waiting.pop()
        if isinstance(library, Gathered) and library not in seen:
            seen.add(library)
            found += library.modules
            waiting += library.called
    return found


def _entry(described, name):
    """A module with the C function that calls what is described in Numba's way."""
    context = cpu_target.target_context
    convention, module = context.call_conv, context.create_module(name)
    types = described.restype, described.argtypes
    inner = ir.Function(module, convention.get_function_type(*types), described.llvm_func_name)
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(described.argtypes))
    function = ir.Function(module, kind, name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    convention.call_function(builder, inner, *types, function.args)
    builder.ret_void()
    return module
