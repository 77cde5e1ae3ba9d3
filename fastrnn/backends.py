"""Which engine serves these tensors, and why; and a way to say otherwise.

    >>> fastrnn.backends.explain(fastrnn.LSTM(8, 9), torch.zeros(5, 3, 8))
    Choice(name='numba', reason='float32 on CPU')
    >>> with fastrnn.backends.use("torch"): ...   # torch's own kernels, to compare

Engines: "numba" (CPU) and "triton" (GPU), fused; "reference" (plain PyTorch, differentiable any
number of times); "torch" (torch's own kernels, for all that has no better engine here).
"""

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from . import description, heads
from .gpu import when
from .kernels.refused import Refused
from .tracing import PLAIN, RECORDED, constant, tracing

ENGINES = {
    "numba": "fastrnn.kernels.cpu.engine",
    "triton": "fastrnn.kernels.gpu.engine",
    "reference": "fastrnn.kernels.reference",
    "torch": None,
}
NUMBA_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CUDNN_BFLOAT16 = 91300  # cuDNN's version from which torch gives it bfloat16
_STRIDED, _asked = torch.strided, ContextVar("fastrnn_engine", default=None)


class Choice(NamedTuple):
    """An engine's name, and why it was chosen."""

    name: str
    reason: str


_TRANSFORMED = Choice("reference", "torch.func or forward-mode AD is active")


def explain(*called, step=False, **inputs):
    """The Choice for a call: of a module, ``explain(module, input, hx, **inputs)``, or of any layer
    on these tensors (input, states, weights; None where absent). ``step``: of a cell, which takes
    one step; only for tensors. Of a GPU ask for the module: sizes count, and the verdict that there
    is on them, with its date. Nothing is tried for it.
    """
    layer, tensors = None, called
    with when.asking(None):
        if isinstance(called[0], torch.nn.Module):
            if hasattr(type(called[0]), "explain"):  # a Recurrent
                return called[0].explain(*called[1:], **inputs)
            if description.is_torchs(called[0]):
                return Choice("torch", "a module of torch.nn: fastrnn.accelerate(model) changes it")
            tensors, step, layer = description.describe(*called, **inputs)
        return choose(tensors, step, layer, tracing(tensors[0]))


def choose(tensors, step, layer, traced):
    """As ``explain``; traced: ``tracing`` of the tensors; layer: (cell, T, D) of a module's, or of
    one that an engine is given (cell, T, D, whether packed, whether trained).
    """
    told = _told() if traced else _asked.get()
    find = _recorded if traced else _able
    able = find(tensors, step, layer, told == "triton")
    if told is None:
        return able
    if told in ("numba", "triton") and able.name != told:
        raise Refused(told, able.reason)
    return Choice(told, "asked for by fastrnn.backends.use")


asked = _asked.get
_told = constant(_asked.get)  # a compiled graph keeps the engine of its compilation


def _able(tensors, step, layer, gpu):
    """The best engine for the tensors; gpu: whether the GPU engine was asked for."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return _TRANSFORMED
    if gpu or torch._C._is_tracing() or torch.is_autocast_enabled("cpu"):
        return _unserved(tensors, step, layer, gpu)
    dtype = tensors[0].dtype
    for t in tensors:
        if t is not None and not (
            type(t) in PLAIN and t.is_cpu and t.dtype is dtype and t.layout is _STRIDED
        ):
            return _unserved(tensors, step, layer)
    return served(dtype, step) or _unserved(tensors, step, layer)


def _recorded(tensors, step, layer, gpu):
    """As ``_able``, for the tensors of a trace."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return _TRANSFORMED
    first, alike = tensors[0], True
    for t in tensors:
        if t is not None:
            if type(t) not in RECORDED:
                return _unserved(tensors, step, layer, gpu)
            if t.device != first.device or t.dtype != first.dtype or t.layout != torch.strided:
                alike = False
    if gpu or first.device.type == "cuda":
        return _on_gpu(tensors, step, layer, gpu, traced=True)
    if not alike or first.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return _unserved(tensors, step, layer)
    return _served_in_trace(first.dtype, step) or _unserved(tensors, step, layer)


def _unserved(tensors, step, layer, gpu=False):
    """The Choice for tensors that are not served as they are: mostly torch, and why."""
    tensors = [t for t in tensors if t is not None]
    first = tensors[0]
    if any(type(t) not in RECORDED for t in tensors):
        return Choice("torch", "not every tensor is a plain torch.Tensor")
    if torch.jit.is_tracing():
        return Choice("torch", "torch.jit.trace is recording")
    if gpu or first.device.type == "cuda":
        return _on_gpu(tensors, step, layer, gpu)
    if first.device.type != "cpu":
        return Choice("torch", f"no engine of ours for {first.device.type} yet")
    if torch.is_autocast_enabled("cpu"):
        return _under_autocast(tensors, step)
    if any(t.device != first.device or t.dtype != first.dtype for t in tensors):
        return Choice("torch", "devices or dtypes differ")
    return Choice("torch", f"no engine of ours for {first.dtype}, {first.layout}")


def _under_autocast(tensors, step):
    """The best engine for tensors, the first of them on CPU, that torch would cast."""
    to = torch.get_autocast_dtype("cpu")
    if step:
        return Choice("torch", "autocast of one step: torch remembers the weights it has cast")
    plain = all(t.device.type == "cpu" and t.layout == torch.strided for t in tensors)
    if not plain or any(t.dtype not in (torch.float32, to) for t in tensors):
        return Choice("torch", f"autocast, and not every tensor is float32 or {_name(to)} on CPU")
    return _on_cpu(to, step, f"autocast to {_name(to)}")


def _on_gpu(tensors, step, layer, forced, traced=False):
    """The best engine for plain tensors on GPU, or on CPU if ``forced``: interpreted."""
    tensors = [t for t in tensors if t is not None]
    if step:
        return Choice("torch", "a single step on GPU is torch's")
    first, dtype, cast = tensors[0], tensors[0].dtype, torch.is_autocast_enabled("cuda")
    if any(t.device != first.device or t.layout != torch.strided for t in tensors):
        return Choice("torch", "devices or layouts differ")
    if cast and (any(t.dtype not in TRITON_DTYPES for t in tensors) or not _cudnn_takes(dtype)):
        return Choice("torch", "autocast that is not cuDNN's, to float16")
    if not cast and torch.is_autocast_enabled("cpu") and first.device.type == "cpu":
        return Choice("torch", "autocast on CPU")
    if not cast and any(t.dtype != dtype for t in tensors):
        return Choice("torch", "dtypes differ")
    dtype = torch.float16 if cast else dtype
    if dtype not in TRITON_DTYPES:
        return Choice("torch", f"no engine of ours for {_name(dtype)} on GPU")
    training = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if layer is None:
        return _gpu_choice(dtype, cast, first.device, training, forced)
    cell, c = layer[0], tensors[layer[0].states]
    if c.dim() != 3 or cell.staged:
        return Choice("torch", "a step in stages" if c.dim() == 3 else "states of other dimensions")
    training, *layer = heads.asked(tensors, training, traced, *layer)
    return _gpu_choice(dtype, cast, first.device, training, forced, *layer)


@constant
def _gpu_choice(dtype, cast, device, training, forced, *layer):
    """The best engine for (cell, ..., stack) as choice.fit takes it, or for layers that fit."""
    name = f"{'autocast to ' * cast}{_name(dtype)} on GPU"
    if not forced and os.environ.get("FASTRNN_GPU") == "off":  # then Triton is not even loaded
        return Choice("torch", f"{name}: FASTRNN_GPU is off")
    try:
        choice = import_module("fastrnn.kernels.gpu.choice")
    except ImportError as error:
        return Choice("torch", f"Triton cannot be imported: {error}")
    if obstacle := choice.obstacle(device.type):
        return Choice("torch", obstacle)
    if not layer:
        return Choice("triton", f"{name}, where sizes fit and it was proven right and faster")
    fits, reason = choice.fit(dtype, device, training, forced, *layer, prove=when.prover())
    return Choice("triton" if fits else "torch", f"{name}: {reason}")


@constant
def _cudnn_takes(dtype):
    """Whether cuDNN serves torch's layers with x of ``dtype``; autocast is for it alone."""
    cudnn = torch.backends.cudnn
    there = cudnn.enabled and not torch.version.hip and cudnn.version()
    return bool(there) and (dtype != torch.bfloat16 or there >= CUDNN_BFLOAT16)


@cache
def served(dtype, step):
    """The Choice for tensors of ``dtype`` on CPU."""
    return _on_cpu(dtype, step, _name(dtype)) if dtype in NUMBA_DTYPES else None


_served_in_trace = constant(served)


@constant
def _on_cpu(dtype, step, name):
    """The Choice for what is called ``name`` and of a dtype that the CPU engine knows."""
    if obstacle := import_module("fastrnn.kernels.cpu.compiler.target").obstacle():
        return Choice("torch", obstacle)
    half = step and dtype == torch.bfloat16  # which the engine of single steps has not
    computed = torch.float32 if half else load("numba").dtypes(dtype)[0]
    other = "" if computed == dtype else f", computed in {_name(computed)}"
    return Choice("numba", f"{name} on CPU{other}")


def _name(dtype):
    return str(dtype).removeprefix("torch.")


@constant
@cache
def dtypes(engine, dtype):
    """In what an engine computes tensors of ``dtype``: x and the output; states and weights."""
    return load(engine).dtypes(dtype)


@cache
def load(name):
    """The engine's module (None for torch's own kernels)."""
    return ENGINES[name] and import_module(ENGINES[name])


@contextmanager
def use(name):
    """Within this context the engine ``name`` serves every layer (of this thread or task).

    What torch.compile has compiled keeps the engine of its compilation. Raises ValueError if no
    engine has that name; a layer raises Refused, a RuntimeError, where "numba" or "triton" was
    asked for and cannot serve it.
    """
    if name not in ENGINES:
        raise ValueError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)
