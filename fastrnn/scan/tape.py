"""A step of a module, run once and written down: every function of torch that it calls.

It is run on the numbers of the first step: so each value has its true shape and dtype, and what
torch would refuse, torch refuses. The numbers themselves may decide nothing, for they would decide
it for all other steps too.
"""

import inspect
from functools import cache
from operator import getitem

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..kernels.symbolic.refusals import Refused
from .functions import by_parts
from .node import FIXED, STATE, Node, X, leaves, place, refused, replaced

# What may be asked of a tensor: its numbers do not answer it.
QUESTIONS = {
    "dim", "size", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "__len__",
    "ndimension", "element_size", "is_complex", "get_device", "storage_offset", "type", "__hash__",
    "is_same_size", "is_inference", "is_signed", "__get__",
}  # fmt: skip
STATISTICS = {"batch_norm", "instance_norm"}  # which they update in training

IF = "`if`, `and`, `or` or `not` on a value: torch.where, & | ~ are for that"


class Stop(BaseException):
    """Ends a step that is refused: no TypeError, which operators make into another, nor any that a
    step itself catches.
    """

    def __init__(self, refused):
        super().__init__(refused)
        self.refused = refused


class Tape(TorchFunctionMode):
    """While it is entered, what torch computes becomes nodes.

    x, states: what the step is given; own: the tensors that it may use beside these.
    """

    def __init__(self, x, states, own):
        super().__init__()
        self.x = Node(None, (), {}, X, x)
        self.states = [Node(None, (), {}, STATE, s) for s in states]
        given = zip((self.x, *self.states), (x, *states), strict=True)
        self.known = {id(tensor): (node, tensor) for node, tensor in given}
        self.given, self.own = set(self.known), {id(t) for t in own}
        self.generators = [torch.default_generator]
        if x.is_cuda:
            self.generators.append(torch.cuda.default_generators[x.device.index])
        self.device, self.cats = x.device.type, {}
        self.mode = self._mode()

    def _mode(self):
        cast = torch.is_autocast_enabled(self.device)
        return torch.is_grad_enabled(), cast and torch.get_autocast_dtype(self.device)

    def node(self, value, where):
        """The node of a tensor; what is none stays as it is."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.known:
            if id(value) not in self.own:
                raise refused(
                    "a tensor that is neither the module's nor made by torch in the step", where
                )
            self.known[id(value)] = Node(None, (value,), {}, FIXED, value), value
        return self.known[id(value)][0]

    def result(self, tensor):
        """The node of what the step has returned."""
        return self.node(tensor, None)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        try:
            return self._recorded(func, args, kwargs or {}, place())
        except Refused as error:
            raise Stop(error) from None

    def _recorded(self, func, args, kwargs, where):
        target, func, args, kwargs = self._in_place(func, args, kwargs, where)
        before = [g.get_state() for g in self.generators]
        result = func(*args, **kwargs)
        made = [t for t in leaves(result) if isinstance(t, Tensor)]
        if not made:
            given = any(isinstance(t, Tensor) for t in leaves((args, kwargs)))
            if given and _name(func) == "__bool__":
                raise refused(IF, where)
            if given and _name(func) not in QUESTIONS:
                raise refused(f"{_name(func)}: a value becomes one of Python's", where)
            return result
        if target is None and all(id(t) in self.known for t in made):
            return result
        if self._mode() != self.mode:
            raise refused("no_grad, autocast or an autograd.Function within a step", where)
        drawn = any(
            not g.get_state().equal(b) for g, b in zip(self.generators, before, strict=True)
        )
        args, kwargs = replaced((args, kwargs), lambda leaf: self.node(leaf, where))
        kinds = [leaf.kind for leaf in leaves((args, kwargs)) if isinstance(leaf, Node)]
        kind = max([X if drawn else FIXED, *kinds])
        call = by_parts(Node(func, args, kwargs, kind, result, where), self.cats)
        if target is not None:
            self.known[id(target)] = call, target
            return target
        if isinstance(result, Tensor):
            self.known[id(result)] = call, result
        else:
            for i, each in enumerate(result):
                item = Node(getitem, (call, i), {}, call.kind, each, where)
                self.known.setdefault(id(each), (item, each))
        return result

    def _in_place(self, func, args, kwargs, where):
        """(what the call would change, or None; the call that changes nothing)."""
        name, at = _name(func), _place_of_inplace(func)
        if kwargs.get("inplace") or (at is not None and len(args) > at and args[at]):
            args, kwargs = args[: at or len(args)], {**kwargs, "inplace": False}
        elif name in STATISTICS and args[1:2] != (None,) and _trains(func, args, kwargs):
            raise refused(f"{name} in training changes the module at every step", where)
        elif name == "__setitem__" or any(kwargs.get(k) is not None for k in ("max_norm", "out")):
            func = None
        elif name.endswith("_") and not name.endswith("__"):
            func = getattr(Tensor, name[:-1], None)
        else:
            return None, func, args, kwargs
        target = next((t for t in leaves(args) if isinstance(t, Tensor)), None)
        if not callable(func) or not self._alone(target):
            raise refused(f"{name} changes a tensor in place", where)
        return target, func, args, kwargs

    def _alone(self, tensor):
        """Whether a tensor is made in the step, and shares its memory with none that is known."""
        if id(tensor) not in self.known or id(tensor) in self.given | self.own:
            return False
        where = tensor.untyped_storage().data_ptr()
        others = (t for _, t in self.known.values() if t is not tensor)
        return all(t.untyped_storage().data_ptr() != where for t in others)


def _name(func):
    return getattr(func, "__name__", str(func))


@cache
def _place_of_inplace(func):
    """Which of the arguments of a function says ``inplace``; None if it has none."""
    code = getattr(func, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    return names.index("inplace") if "inplace" in names else None


def _trains(func, args, kwargs):
    """Whether a normalization takes, and remembers, the statistics of this batch."""
    given = inspect.signature(func).bind(*args, **kwargs)
    given.apply_defaults()
    return given.arguments.get("training", given.arguments.get("use_input_stats"))
