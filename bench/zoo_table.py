"""The table of docs/zoo.md: what the docstrings of fastrnn.zoo say, and what serves each on CPU."""

import inspect
import re
from pathlib import Path

import torch

from fastrnn import zoo

from .tables import table

HEADER = ["layer", "formula", "paper", "gates", "states", "parameters of its own", "CPU engine"]


def block():
    classes = [getattr(zoo, name) for name in sorted(zoo.__all__, key=str.lower)]
    return table(HEADER, [_line(cls) for cls in classes])


def _line(cls):
    says, file = cls.signature, Path(inspect.getfile(cls)).name
    formula = section(cls, "Formula").strip().splitlines()
    _, rest = " ".join(section(cls, "Paper").split()).split(": ", 1)
    title, url = rest.rsplit(", ", 1)
    return [
        f"[{cls.__name__}](../fastrnn/zoo/{file}): {summary(cls)}",
        "<br>".join(f"`{line.strip()}`" for line in formula),
        f"[{title}]({url})",
        cls.gates,
        ", ".join(f"`{name}`" for name in says.states),
        ", ".join(f"`{name}`" for name in says.own),
        engine(cls),
    ]


def summary(cls):
    """The first sentence of the docstring."""
    return " ".join(inspect.getdoc(cls).partition("\n\n")[0].split())


def section(cls, name):
    """What stands in a section of the docstring. Raises ValueError if there is none."""
    found = re.search(rf"^{name}:(.*?)(?=^\S|\Z)", inspect.getdoc(cls), re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"the docstring of {cls.__name__} has no section {name}")
    return found[1]


def engine(cls):
    """Which engine serves a layer of float32 on this CPU."""
    module = cls(2, 3)
    parameters = inspect.signature(cls.forward).parameters
    own = [n for n, p in parameters.items() if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    drawn = "inputs_for" in vars(cls)
    named, x = own if own else () if drawn else cls.signature.inputs, torch.zeros(1, 1, 2)
    return module.explain(x, **{name: x if own else x[..., 0] for name in named}).name
