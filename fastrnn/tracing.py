"""Calls that are recorded, or observed, instead of just made."""

from functools import wraps

import torch
from torch._C import _functorch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from .kernels.gate import PLAIN

RECORDED = PLAIN | {FakeTensor, FunctionalTensor}  # and that have none besides a trace's


def tracing(tensor):
    """Whether a call with ``tensor`` is recorded, or observed, or about shapes alone.

    That is torch.compile, torch.export, make_fx, fake tensors, and every other dispatch mode.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or type(tensor) is FakeTensor
    )


def plain(tensors):
    """Whether the tensors (or None) have numbers of their own, and no behaviour: not those of a
    subclass, nor of vmap or torch.func.
    """
    for t in tensors:
        if t is not None and (
            type(t) not in PLAIN
            or _functorch.is_functorch_wrapped_tensor(t)
            or _functorch.is_legacy_batchedtensor(t)
        ):
            return False
    return True


def constant(function):
    """``function``, whose results torch.compile takes as they are, without a look inside."""

    @wraps(function)
    def call(*arguments):
        return function(*arguments)

    call._dynamo_marked_constant = True  # what torch.compiler.assume_constant_result does
    return call
