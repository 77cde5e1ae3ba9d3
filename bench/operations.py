"""The table of docs/cells.md: what a step may consist of, from the tables of kernels/symbolic."""

import torch
from torch.nn import functional

from fastrnn.kernels.symbolic.functions import FUNCTIONS

from .tables import table

OPERATORS = "+ - * / ** abs < <= > >= == != & | ~"
PLACES = {"torch": torch, "torch.nn.functional": functional}


def block():
    rows = [["operators", _words(OPERATORS.split())]]
    for place, module in PLACES.items():
        names = {n for n, f in vars(module).items() if callable(f) and _known(f)}
        rows.append([f"`{place}`", _words(sorted(names))])
    rows.append(["methods", "those of these names, and " + _words(["float"]) + " of a condition"])
    return table(["where", "what"], rows)


def _known(function):
    return getattr(function, "__hash__", None) is not None and function in FUNCTIONS


def _words(names):
    return " ".join(f"`{name}`" for name in names).replace("`|`", "`\\|`")
