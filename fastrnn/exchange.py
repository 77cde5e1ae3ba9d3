"""A module becomes quantized, and is again what it was: its class and its weights are exchanged.

Its class becomes one that is derived from its own and from a base of quantized.py, which the class
decides (BASES). All else that is known of it stands under one name, ``_quantized``.
"""

from functools import cache
from types import new_class

import torch
from torch import nn
from torch.nn.modules.rnn import RNNCellBase

from .conversion import TWINS, Quiet, accelerated, reduced_as, represented, stands_in
from .kernels.form import Form

SCALE = "_scale"  # behind the name of a matrix: its scales
BASES = {}  # what a module is: the base that it has then


class State:
    """What is known of a quantized module.

    form: what its weights are of; names: of its matrices; dtype: of what it is given and returns;
    cls, ours: the class that it is of again after ``back``, accelerated if ``ours``; trained: which
    parameters required gradients; order: of all its parameters; others: the parameters that it had
    beside its matrices; panels: what quantized.py remembers.
    """

    def __init__(self, module, form, names, dtype):
        cls, self.ours = type(module), stands_in(type(module))
        self.cls = represented(cls) if self.ours else cls
        self.form, self.names, self.dtype, self.panels = tuple(form), tuple(names), dtype, None
        found = {n: p for n, p in module._parameters.items() if p is not None}
        self.trained = {n for n, p in found.items() if p.requires_grad}
        self.order = list(module._parameters)
        self.others = {n: p for n, p in found.items() if n not in names}

    def __getstate__(self):
        return self.__dict__ | {"others": {}, "panels": None}


def names_of(module):
    """(of its matrices, of its other parameters): those that torch's code and ours compute with."""
    if isinstance(module, nn.RNNBase):
        names = module._flat_weights_names
    elif isinstance(module, RNNCellBase):
        names = ["weight_ih", "weight_hh", *["bias_ih", "bias_hh"] * bool(module.bias)]
    else:
        places = [(*filter(None, fields), *own) for fields, own in module._places]
        names = [name for each in places for name, _ in each]
    matrices = [n for n in names if n.startswith(("weight_ih", "weight_hh", "weight_hr"))]
    return matrices, [n for n in names if n not in matrices]


@cache
def quantized_class(cls):
    """The class that modules of ``cls``, a recurrent one, become. It keeps its name, by which its
    cell is known.
    """
    base = next(made for kind, made in BASES.items() if issubclass(cls, kind))
    theirs = next((theirs for theirs in TWINS if issubclass(cls, theirs)), None)
    if theirs is not None:
        base = _plain(TWINS[theirs], base)
    if cls in (theirs, TWINS.get(theirs)):
        return base
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    names["__reduce_ex__"] = reduced
    if theirs is None:  # a user's class may have these of its own, and must not have them here
        names |= {"directions": base.directions, "explain": base.explain}
    return new_class(cls.__name__, (Quiet, cls, base), exec_body=lambda body: body.update(names))


@cache
def _plain(ours, base):
    names = {"__module__": ours.__module__, "__doc__": ours.__doc__, "__reduce_ex__": reduced}
    return type(ours.__name__, (base, ours), names)


def reduced(self, protocol):
    """Pickle by the class that it was of."""
    return reduced_as(self._quantized.cls, self, protocol, type(self), made_again)


def made_again(theirs, make, *arguments):
    """A module made as its class ``theirs`` has it, then of the class that it becomes."""
    module = make(*arguments)
    object.__setattr__(module, "__class__", quantized_class(theirs))
    return module


def convert(module, state, matrices):
    """Give a module its quantized class, and these {name: Matrix} for its parameters."""
    for name in matrices:
        del module._parameters[name]
    for name in ("_flat_weights", "_flat_weight_refs"):
        module.__dict__.pop(name, None)
    object.__setattr__(module, "__class__", quantized_class(state.cls))
    module.__dict__["_quantized"] = state
    for name, matrix in matrices.items():
        module.register_buffer(name, matrix.values)
        if matrix.scales is not None:
            module.register_buffer(name + SCALE, matrix.scales)
    for name in names_of(module)[1]:
        if (own := module._parameters[name]) is not None:  # the very numbers, untrained
            module._parameters[name] = nn.Parameter(own.detach(), False)


def back(module, weights):
    """``convert`` undone; weights: {name: tensor} in place of the matrices."""
    state = module.__dict__.pop("_quantized")
    for name in weights:
        module._buffers.pop(name + SCALE, None)
        del module._buffers[name]
    object.__setattr__(module, "__class__", accelerated(state.cls) if state.ours else state.cls)
    for name, weight in weights.items():
        trained = name in state.trained
        module.register_parameter(name, nn.Parameter(weight.to(state.dtype), trained))
    for name in names_of(module)[1]:
        if (own := module._parameters[name]) is not None:
            module._parameters[name] = _as_before(own, name, state)
    for name in [n for n in state.order if n in module._parameters]:
        module._parameters[name] = module._parameters.pop(name)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def _as_before(own, name, state):
    """The parameter that stood here, if its numbers are those of ``own``; or a new one."""
    before = state.others.get(name)
    if before is not None and before.data_ptr() == own.data_ptr() and before.dtype == own.dtype:
        return before
    return nn.Parameter(own.detach().clone(), name in state.trained)


def form_of(module):
    return Form(*module._quantized.form)


def told_dtype(fn, dtype):
    """The dtype that ``fn``, as Module._apply takes it, makes of one."""
    return fn(torch.empty(0, dtype=dtype)).dtype
