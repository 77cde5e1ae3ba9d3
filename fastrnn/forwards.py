"""Whether the ``forward`` of a class derived from torch.nn's comes to that of its base.

Read from the code, which need not run: who calls super().forward will find ours there.
"""

from contextlib import suppress
from inspect import unwrap
from types import CodeType, FunctionType


def obstacle(cls, base):
    """Why calls of ``cls`` would not come to another forward of ``base``; None if they would."""
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        if vars(owner).get("forward", base.forward) is base.forward:
            continue
        if not any(map(_asks_super, vars(owner).values())):
            return f"{owner.__name__} has a forward of its own that never calls super().forward"
    return None


def _asks_super(member):
    """Whether a function, a member of a class, calls super().forward."""
    return any(_names_super(code) for f in _functions(member) for code in _codes(f.__code__))


def _functions(member, seen=()):
    """The functions that a member of a class is made of: those it wraps, or closes over."""
    function = unwrap(getattr(member, "__func__", member))
    if isinstance(function, FunctionType) and function not in seen:
        yield function
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # an empty cell
                yield from _functions(cell.cell_contents, (*seen, function))


def _codes(code):
    """The code of a function and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names_super(code):
    return {"super", "forward"} <= set(code.co_names)
