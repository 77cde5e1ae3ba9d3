"""Existing models on our kernels, and back: their modules change class, in place.

A module that changes its class is still the same object, with the same Parameters, buffers, hooks
and names. So whatever refers to it or to them (optimisers, tied weights, a place in another model)
stays valid, and there is nothing to copy.
"""

from abc import ABCMeta
from functools import cache
from types import new_class
from typing import NamedTuple

from torch import nn

from . import episodes, forwards, modules
from .description import THEIRS

TWINS = {theirs: getattr(modules, theirs.__name__) for theirs in THEIRS}
ORIGINALS = {ours: theirs for theirs, ours in TWINS.items()}
PLAIN_NEW = (type.__new__, ABCMeta.__new__)  # of metaclasses that keep no account of classes
QUANTIZED = "it is quantized: fastrnn.dequantize(model) comes first"
RECURRENT = (nn.RNNBase, nn.modules.rnn.RNNCellBase)


class Conversion(NamedTuple):
    """What ``accelerate`` or ``restore`` did, by the modules' names in the model."""

    to: str  # "fastrnn" or "torch.nn"
    changed: dict  # name: class name
    left: dict  # name: why

    def __str__(self):
        count = len(self.changed) + len(self.left)
        lines = [f"{len(self.changed)} of {count} recurrent modules changed to {self.to}"]
        width = max(map(len, map(_shown, [*self.changed, *self.left])), default=0)
        lines += [f"  {_shown(name):{width}}  {kind}" for name, kind in self.changed.items()]
        lines += [f"  {_shown(name):{width}}  left: {why}" for name, why in self.left.items()]
        return "\n".join(lines)

    __repr__ = __str__


def _shown(name):
    return name or "(the model)"


def accelerate(model):
    """Let every torch.nn RNN, LSTM, GRU and cell in ``model`` run on our kernels, in place.

    The modules stay the objects that they are and change their class alone: Parameters, buffers,
    hooks, names, parametrisations, mode, device and dtype are untouched. So it is with subclasses.
    A ``forward`` of their own stays, and finds ours where it calls ``super().forward``; one that
    does not, or asks for ``torch.nn.LSTM.forward`` by name, is left. A model pickled whole needs
    fastrnn to be loaded again; its ``state_dict`` does not.

    A policy of sb3-contrib's RecurrentPPO calls its LSTM once for each step of its episodes. It is
    changed, too: one call serves for all steps.

    ``type(module) is torch.nn.LSTM`` no longer holds. torch.fx, torch.ao's quantisation and
    pruning, thop, ptflops, Opacus and BackPACK know our classes nevertheless. For another tool that
    goes by the very class, call ``restore`` first, or let it do its work and accelerate what it
    returns. What is quantised, or pruned in structure, becomes torch.nn's in the course of it.

    Args:
        model: a ``torch.nn.Module``, which may itself be such a layer.

    Returns:
        A ``Conversion``: the modules ``changed``, and those ``left`` as they are and why. Print it.

    Example::

        >>> model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.LSTM(4, 8))
        >>> fastrnn.accelerate(model)
        1 of 1 recurrent modules changed to fastrnn
          1  LSTM
    """
    return _convert(model, "fastrnn", obstacle, accelerated, episodes.join)


def restore(model):
    """Undo ``accelerate``: every layer and cell of ours in ``model`` becomes torch.nn's, in place.

    Those that were ours from the start become torch.nn's as well. Arguments and result are as for
    ``accelerate``.
    """
    return _convert(model, "torch.nn", _obstacle_back, _restored, episodes.part)


def _convert(model, to, hinders, switched, policy):
    """Give every recurrent module of ``model`` its ``switched`` class, where nothing ``hinders``.

    policy: what is done with a policy that walks through episodes; it returns what hinders it.

    Every class is made before the first module changes: a class that cannot be made stops nothing.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    planned, changed, left = [], {}, {}
    for name, module in model.named_modules():
        if isinstance(module, RECURRENT):
            if why := hinders(module):
                left[name] = why
                continue
            try:
                planned.append((name, module, switched(type(module))))
            except Exception as error:  # whatever the user's class makes of being derived from
                left[name] = f"no class can be made of {type(module).__name__}: {error!r}"
    for name, module, cls in planned:
        kind = type(module).__name__
        try:
            object.__setattr__(module, "__class__", cls)  # a user's own might refuse it
            changed[name] = kind
        # the two lay out their instances in different ways, or the class has no way to change it
        except (TypeError, AttributeError) as error:
            left[name] = f"no other class can be given to {kind}: {error}"
    for name, module in model.named_modules():
        if episodes.walks(module):
            why = policy(module)
            (left if why else changed)[name] = why or type(module).__name__
    return Conversion(to, changed, left)


def is_quantized(module):
    """Whether the module is one of quantized.py's."""
    return "_quantized" in vars(module)


def obstacle(module):
    """Why ``module`` cannot be accelerated; None if it can."""
    cls = type(module)
    if is_quantized(module):
        return QUANTIZED
    if isinstance(module, tuple(ORIGINALS)):
        return "it is fastrnn's already"
    if "forward" in vars(module):
        return "its forward was replaced"
    base = next((theirs for theirs in TWINS if isinstance(module, theirs)), None)
    if base is None:
        return f"{cls.__name__} has a forward of its own"
    return forwards.obstacle(cls, base) or _watches(cls)


def _watches(cls):
    """Why no class may be derived from ``cls`` behind its back; None if one may."""
    meta = type(cls)
    if meta.__new__ in PLAIN_NEW and meta.__init__ is type.__init__:
        return None
    return f"its metaclass {meta.__name__} may keep account of classes"


def _obstacle_back(module):
    """Why ``module`` cannot be restored; None if it can."""
    if not isinstance(module, tuple(ORIGINALS)):
        return "it is torch.nn's already"
    if is_quantized(module):
        return QUANTIZED
    derived = (cls for cls in type(module).__mro__ if issubclass(cls, tuple(ORIGINALS)))
    for cls in derived:
        if not (cls in ORIGINALS or made_by_torch(cls) or stands_in(cls)):
            return f"{cls.__name__} is built on fastrnn's"
    return None


def accelerated(cls):
    """``cls``, a class of torch.nn or derived from one, on our kernels."""
    if cls in TWINS:
        return TWINS[cls]
    return _rebuilt(cls, accelerated) if made_by_torch(cls) else _stand_in(cls)


def _restored(cls):
    """The class that ``accelerated`` took."""
    if cls in ORIGINALS:
        return ORIGINALS[cls]
    return represented(cls) if stands_in(cls) else _rebuilt(cls, _restored)


def made_by_torch(cls):
    """Whether torch made the class for a single module, to parametrise or to shard it."""
    return cls.__module__.startswith("torch.") and cls not in TWINS


def _rebuilt(cls, switched):
    """A class made by torch, made again upon another base."""
    bases = tuple(switched(b) if issubclass(b, RECURRENT) else b for b in cls.__bases__)
    own = {name: v for name, v in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, bases, own)


class Quiet:
    """The first base of what stands in for a class that is told of its subclasses: not of this."""

    def __init_subclass__(cls):
        pass


@cache
def _stand_in(cls):
    """A subclass of a user's class ``cls``, in which ours comes right before torch.nn's."""
    ours = next(ours for theirs, ours in TWINS.items() if issubclass(cls, theirs))
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    own = names | {"__reduce_ex__": _reduce}
    if cls.forward in {theirs.forward for theirs in TWINS}:  # by a name of the class's own
        own["forward"] = ours.forward
    told = any("__init_subclass__" in vars(base) for base in cls.__mro__[:-1])
    bases = (Quiet,) * told + (cls, ours)
    return new_class(cls.__name__, bases, exec_body=lambda body: body.update(own))


def stands_in(cls):
    return vars(cls).get("__reduce_ex__") is _reduce


def represented(cls):
    """The user's class that ``cls`` stands in for."""
    return next(base for base in cls.__bases__ if base is not Quiet)


def _reduce(self, protocol):
    mine = next(cls for cls in type(self).__mro__ if stands_in(cls))
    return reduced_as(represented(mine), self, protocol, mine, _made_again)


def reduced_as(theirs, module, protocol, mine, made_again):
    """Pickle by the class ``theirs``: nobody could import ``mine``, which is in its place.

    made_again(theirs, make, *arguments): a module as pickle has it made, of the right class again.
    """
    reduced = theirs.__reduce_ex__(module, protocol)
    if isinstance(reduced, str):
        return reduced
    make, arguments, *state = reduced
    make, *arguments = (theirs if part is mine else part for part in (make, *arguments))
    return made_again, (theirs, make, *arguments), *state


def _made_again(theirs, make, *arguments):
    """A module made as its class ``theirs`` has it, then of the class that stands in for that."""
    module = make(*arguments)
    if type(module) is theirs:
        object.__setattr__(module, "__class__", _stand_in(theirs))
    return module
