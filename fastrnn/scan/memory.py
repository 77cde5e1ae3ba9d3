"""What is known of modules that were scanned: a step is read once, until its module is another."""

import warnings
from operator import is_
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .. import backends
from ..kernels.symbolic.refusals import Refused
from .cut import Cut
from .tape import Stop, Tape

FORMS = 64  # of calls, remembered for each module
LONG = 100  # a list that is longer is looked at as a whole
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = {int, float, bool, str, complex, bytes, torch.dtype, torch.device, torch.Size}
_known = WeakKeyDictionary()  # {module: {form of a call: (attributes or None, Cut or why not)}}


def cut_of(module, step, xs, states, strict):
    """The Cut of a module's step for such arguments; None if it has to be a plain loop.

    step(x, states) -> (y, states). Raises Refused if it has to and ``strict`` says so.
    """
    form, attributes = _form(xs, states), _attributes(module)
    known = _known.setdefault(module, {})
    before, cut = known.get(form, ((), None))
    if (before is None or _same(before, attributes)) and (isinstance(cut, Cut) or not strict):
        return cut if isinstance(cut, Cut) else None
    said = {why for _, why in known.values()}
    if len(known) >= FORMS:
        known.clear()
    try:
        cut = _read(module, step, xs[0], states, attributes)
        cut.try_out(xs[:1], states)
        if not _same(attributes, _attributes(module)):
            attributes = None  # it will be another at every call
            raise Refused(f"a step of {type(module).__name__} changes an attribute of its module")
    except Refused as refused:
        if strict:
            raise
        cut = f"{type(module).__name__} is scanned as a plain loop, which is slow: {refused}"
        if cut not in said:
            warnings.warn(cut, stacklevel=3)
    known[form] = attributes, cut
    return cut if isinstance(cut, Cut) else None


def _form(xs, states):
    """What of a call a step may ask for, but for its module."""
    device = xs.device.type
    cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    forms = [(t.shape, t.dtype, t.device) for t in (*states, xs)]
    return xs.shape[1:], xs.dtype, tuple(forms[:-1]), torch.is_grad_enabled(), cast


def _read(module, step, x, states, attributes):
    for part in module.modules():
        if any(getattr(part, name, None) for name in HOOKS):
            raise Refused(f"{type(part).__name__} has hooks, which are to see every step")
    states = [s.view_as(s) for s in states]  # a tensor each, whatever they were
    tape = Tape(x, states, [a for a in attributes if isinstance(a, Tensor)])
    try:
        with backends.use("torch"), tape:  # whose cells it reads
            y, new = step(x, states)
    except Stop as stop:
        raise stop.refused from None
    return Cut(tape, tape.result(y), [tape.result(s) for s in new], type(module).__name__)


def _attributes(module):
    """All attributes of a module and its parts, one after the other."""
    found = []
    for part in module.modules():
        _gather(vars(part), found)
    return found


def _gather(value, found):
    if isinstance(value, dict) and len(value) < LONG:
        found.append(len(value))
        for key, each in value.items():
            found.append(key)
            _gather(each, found)
    elif isinstance(value, (tuple, list)) and len(value) < LONG:
        found.append(len(value))
        for each in value:
            _gather(each, found)
    else:  # of parts, which are looked at themselves
        found.append(type(value) if isinstance(value, nn.Module) else value)


def _same(before, now):
    if len(before) != len(now):
        return False
    return all(map(is_, before, now)) or all(map(_equal, before, now))


def _equal(a, b):
    return a is b or (type(a) is type(b) and type(a) in PLAIN and a == b)
