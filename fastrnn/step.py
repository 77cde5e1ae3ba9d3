"""The ``step`` of a user's class: what it takes, and the cell that it is."""

import inspect
import warnings
from threading import RLock
from types import SimpleNamespace
from typing import NamedTuple

import torch

from .kernels.cells import cell_of, key_of
from .kernels.symbolic.cell import Cell
from .kernels.symbolic.gates import Gates, Product
from .kernels.symbolic.symbol import Refused, Symbol
from .parameters import PerUnit
from .tracing import constant

GATES = range(1, 9)  # so many the engines take
TAKEN = ("input", "hx", "lengths", "resets", "reset_to", "return_states")  # by forward
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_reading = RLock()  # of threads that come at once one reads the step; it may read another's
_warned = set()


class Signature(NamedTuple):
    """What a class says of its step."""

    arguments: tuple[str, ...]  # in their order
    states: tuple[str, ...]
    inputs: tuple[str, ...]  # what is neither gates nor a state
    own: dict[str, PerUnit]
    recurrent: bool  # whether it takes ``uh``
    place: str  # the class, and where its step is


def signature_of(cls):
    """The Signature of a class. Raises TypeError where it says what cannot be."""
    code = inspect.unwrap(cls.step).__code__
    place = f"{cls.__name__}.step ({code.co_filename}, line {code.co_firstlineno})"
    states = (cls.states,) if isinstance(cls.states, str) else tuple(cls.states)
    parameters = list(inspect.signature(cls.step).parameters.values())[1:]
    arguments = tuple([p.name for p in parameters])
    if not isinstance(cls.gates, int) or cls.gates not in GATES:
        raise TypeError(f"{cls.__name__}.gates should be a number from 1 to 8, not {cls.gates!r}")
    if not states or len(set(states)) < len(states) or {"wx", "uh"} & set(states):
        raise TypeError(f"{cls.__name__}.states should be names, each once, not {cls.states!r}")
    if any(p.kind != p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise TypeError(f"{place} should name all that it takes, without * and /")
    missing = [name for name in ("wx", *states) if name not in arguments]
    if missing:
        raise TypeError(f"{place} should take {' and '.join(missing)}, as its states say")
    inputs = tuple([n for n in arguments if n not in ("wx", "uh", *states)])
    if taken := {*TAKEN} & set(inputs):
        raise TypeError(f"{place}: an input of a step cannot be called {' or '.join(taken)}")
    declared = [n for c in reversed(cls.__mro__) for n, v in vars(c).items() if _is_own(v)]
    own = {name: getattr(cls, name) for name in declared if _is_own(getattr(cls, name))}
    if own.keys() & set(WEIGHTS):
        raise TypeError(f"{cls.__name__}: a parameter cannot be called {' or '.join(WEIGHTS)}")
    return Signature(arguments, states, inputs, own, "uh" in arguments, place)


def _is_own(value):
    return isinstance(value, PerUnit)


class ModuleTensor:
    """A tensor of a module, while its step is read: its numbers may change, so none is taken."""


def _unreadable(module):
    """The attributes of a module that are tensors, each as a ModuleTensor."""
    named = {**vars(module), **module._parameters, **module._buffers}
    return {n: ModuleTensor() for n, value in named.items() if isinstance(value, torch.Tensor)}


def bound(module):
    """step(wx, uh, states, own, inputs) -> (output, states): the module's own.

    It sees the module as it is, but for its parameters: these are those of the layer and direction.
    """
    cls, says = type(module), type(module).signature

    def step(wx, uh, states, own, inputs):
        twin = object.__new__(cls)
        twin.__dict__.update(module.__dict__)
        if isinstance(wx[0], Symbol):
            twin.__dict__.update(_unreadable(module))
        twin.__dict__.update(zip(says.own, own, strict=True))
        given = dict(zip(says.states + says.inputs, (*states, *inputs), strict=True))
        given |= {"wx": wx, "uh": uh}
        result = cls.step(twin, *[given[name] for name in says.arguments])
        result = result if isinstance(result, tuple) else (result,)
        output, new = result if isinstance(result[-1], tuple) else (result[0], result)
        if len(new) != len(states):
            raise ValueError(
                f"{says.place} returns {len(new)} states; it has {len(states)}: "
                f"{', '.join(says.states)}. An output that is no state is `return output, (state,)`"
            )
        return output, new

    step.__wrapped__ = cls.step  # whose place is named where it is refused as a whole
    return step


class Plain(SimpleNamespace):
    """A cell that is no program: the step as it stands, in PyTorch. ``why`` it is none."""

    reverse = Cell.reverse

    def undivided(self):
        """This one without heads."""
        return Plain(**vars(self) | {"heads": 1})

    def whole(self, x, product, states, own, inputs):
        """As a Cell's."""

        def multiply(value, gate):
            return product(value, gate, 1)[0]

        uh = product(states[0], 0, self.gates) if self.recurrent else ()
        output, new = self.step(Gates(x), Product(uh, multiply), states, own, inputs)
        for name, value, like in zip(self.names, (output, *new), (states[0], *states), strict=True):
            shape = getattr(value, "shape", None)
            if shape != like.shape:
                raise ValueError(f"{self.place} returns {name} of shape {shape}, not {like.shape}")
        return output, new


@constant
def cell_of_module(module, training, edition):
    """The Cell of a module, or a Plain one: found once, until an attribute of the module changes.

    training, edition: module.training, which its step may ask, and module._edition: a trace that
    has read them is not used where they are others.
    """
    known = module.__dict__["_cells"]
    if training not in known:
        with _reading:
            if training not in known:
                known[training] = _traced(module)
    return known[training]


def _traced(module):
    says = type(module).signature
    ports = {
        "gates": module.gates, "states": len(says.states), "recurrent": says.recurrent,
        "own": len(says.own), "inputs": len(says.inputs), "heads": module.heads,
    }  # fmt: skip
    step, name = bound(module), type(module).__name__
    try:
        return cell_of(key_of(Cell(name, step, **ports)))
    except Refused as refused:
        if module.strict:
            raise
        why = str(refused)
        if (type(module), why) not in _warned:
            _warned.add((type(module), why))
            what = f"{name}.step runs in plain PyTorch, step by step, which is slow"
            warnings.warn(f"{what}: {why}", stacklevel=8)  # where the module is called
        names = ("an output", *says.states)
        return Plain(name=name, step=step, why=why, names=names, place=says.place, **ports)
    except Exception as error:
        error.add_note(
            f"{says.place} was read with {module.gates} gates, which wx"
            f"{' and uh' * says.recurrent} have each"
        )
        raise
