"""Existing models on our kernels, and back: their modules change class, in place.

A module that changes its class is still the same object, with the same Parameters, buffers, hooks
and names. So whatever refers to it or to them (optimisers, tied weights, a place in another model)
stays valid, and there is nothing to copy.
"""

from functools import cache
from types import new_class
from typing import NamedTuple

from torch import nn

from . import modules
from .description import THEIRS

TWINS = {theirs: getattr(modules, theirs.__name__) for theirs in THEIRS}
ORIGINALS = {ours: theirs for theirs, ours in TWINS.items()}
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
    hooks, names, parametrisations, mode, device and dtype are untouched. Subclasses are changed,
    too, unless they have a ``forward`` of their own. A model pickled whole needs fastrnn to be
    loaded again; its ``state_dict`` does not.

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
    return _convert(model, "fastrnn", _obstacle, _accelerated)


def restore(model):
    """Undo ``accelerate``: every layer and cell of ours in ``model`` becomes torch.nn's, in place.

    Those that were ours from the start become torch.nn's as well. Arguments and result are as for
    ``accelerate``.
    """
    return _convert(model, "torch.nn", _obstacle_back, _restored)


def _convert(model, to, obstacle, switched):
    """Give every recurrent module of ``model`` its ``switched`` class, where no ``obstacle`` is."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    changed, left = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, RECURRENT):
            if why := obstacle(module):
                left[name] = why
            else:
                changed[name] = type(module).__name__
                module.__class__ = switched(type(module))
    return Conversion(to, changed, left)


def _obstacle(module):
    """Why ``module`` cannot be accelerated; None if it can."""
    cls = type(module)
    if isinstance(module, tuple(ORIGINALS)):
        return "it is fastrnn's already"
    base = next((theirs for theirs in TWINS if isinstance(module, theirs)), None)
    if base is None or cls.forward is not base.forward:
        return f"{cls.__name__} has a forward of its own"
    return "its forward was replaced" if "forward" in vars(module) else None


def _obstacle_back(module):
    """Why ``module`` cannot be restored; None if it can."""
    if not isinstance(module, tuple(ORIGINALS)):
        return "it is torch.nn's already"
    derived = (cls for cls in type(module).__mro__ if issubclass(cls, tuple(ORIGINALS)))
    for cls in derived:
        if not (cls in ORIGINALS or _made_by_torch(cls) or _stands_in(cls)):
            return f"{cls.__name__} is built on fastrnn's"
    return None


def _accelerated(cls):
    """``cls``, a class of torch.nn or derived from one, on our kernels."""
    if cls in TWINS:
        return TWINS[cls]
    return _rebuilt(cls, _accelerated) if _made_by_torch(cls) else _stand_in(cls)


def _restored(cls):
    """The class that ``_accelerated`` took."""
    if cls in ORIGINALS:
        return ORIGINALS[cls]
    return cls.__bases__[0] if _stands_in(cls) else _rebuilt(cls, _restored)


def _made_by_torch(cls):
    """Whether torch made the class for a single module, to parametrise or to shard it."""
    return cls.__module__.startswith("torch.") and cls not in TWINS


def _rebuilt(cls, switched):
    """A class made by torch, made again upon another base."""
    bases = tuple(switched(b) if issubclass(b, RECURRENT) else b for b in cls.__bases__)
    own = {name: v for name, v in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, bases, own)


@cache
def _stand_in(cls):
    """A subclass of a user's class ``cls``, in which ours comes before torch.nn's."""
    ours = next(ours for theirs, ours in TWINS.items() if issubclass(cls, theirs))
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    own = names | {"__reduce_ex__": _reduce}
    return new_class(cls.__name__, (cls, ours), exec_body=lambda body: body.update(own))


def _stands_in(cls):
    return vars(cls).get("__reduce_ex__") is _reduce


def _reduce(self, protocol):
    """Pickle by the user's class: nobody could import the one that stands in for it."""
    _, (cls, *arguments), *state = object.__reduce_ex__(self, protocol)
    return _new, (cls.__bases__[0], *arguments), *state


def _new(cls, *arguments):
    """A module, still empty, of the class that stands in for ``cls``."""
    return cls.__new__(_stand_in(cls), *arguments)
