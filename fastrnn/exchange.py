"""A module becomes quantized, and is again what it was: its class and its weights are exchanged.

Its class becomes one that is derived from its own and from a base of quantized.py, which the class
decides (BASES).
"""

from functools import cache

from torch import nn
from torch.nn.modules.rnn import RNNCellBase

from .conversion import TWINS, accelerated, represented, stands_in

SCALE = "_scale"  # behind the name of a matrix: its scales
BASES = {}  # what a module is: the base that it has then


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
    if theirs is None:  # a user's class may have these of its own, and must not have them here
        names |= {"directions": base.directions, "explain": base.explain}
    return type(cls.__name__, (cls, base), names)


@cache
def _plain(ours, base):
    return type(ours.__name__, (base, ours), {"__doc__": ours.__doc__})


def made_again(cls, ours):
    """A module of the class that modules of ``cls`` become, for pickle to fill."""
    made = quantized_class(cls)
    module = made.__new__(made)
    module.__dict__["_origin"] = cls, ours
    return module


def convert(module, form, matrices):
    """Give a module its quantized class, and these {name: Matrix} for its parameters."""
    cls, ours = type(module), stands_in(type(module))
    cls = represented(cls) if ours else cls
    trained = {n for n, p in module._parameters.items() if p is not None and p.requires_grad}
    for name in matrices:
        del module._parameters[name]
    for name in ("_flat_weights", "_flat_weight_refs"):
        module.__dict__.pop(name, None)
    object.__setattr__(module, "__class__", quantized_class(cls))
    module.__dict__ |= {"form": tuple(form), "_matrices": tuple(matrices)}
    dtype = next(iter(matrices.values())).dtype
    module.__dict__ |= {"_trained": trained, "_origin": (cls, ours), "_dtype": dtype}
    for name, matrix in matrices.items():
        module.register_buffer(name, matrix.values)
        if matrix.scales is not None:
            module.register_buffer(name + SCALE, matrix.scales)
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)
        parameter.data = parameter.float()


def back(module, weights):
    """``convert`` undone; weights: {name: tensor} in place of the matrices."""
    (cls, ours), trained, dtype = module._origin, module._trained, module._dtype
    for name in ("form", "_matrices", "_trained", "_origin", "_dtype"):
        del module.__dict__[name]
    module.__dict__.pop("_panels", None)
    for name in weights:
        module._buffers.pop(name + SCALE, None)
        del module._buffers[name]
    object.__setattr__(module, "__class__", accelerated(cls) if ours else cls)
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            parameter.data = parameter.to(dtype)
            parameter.requires_grad_(name in trained)
    _in_order(module)


def _in_order(module):
    """Parameters in the order in which the class has made them, as optimisers number them."""
    if isinstance(module, nn.RNNBase):
        names = module._flat_weights_names
        module._init_flat_weights()
    elif isinstance(module, RNNCellBase):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    else:
        places = [filter(None, (*fields, *own)) for fields, own in module._places]
        names = [name for each in places for name, _ in each]
    for name in [n for n in names if n in module._parameters]:
        module._parameters[name] = module._parameters.pop(name)
