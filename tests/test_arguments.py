"""Arguments that torch.nn refuses, at the call or when they are set: the same errors from ours."""

import re

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, build, make_inputs, plain_call
from torch import nn

import fastrnn

# What may be made of a module behind its constructor's back, or past it.
ATTRIBUTES = [
    ("bidirectional", 1),
    ("bidirectional", None),
    ("training", 1),
    ("bias", 1),
    ("batch_first", 0),
    ("num_layers", True),
    ("dropout", None),
    ("dropout", "0.1"),
    ("dropout", 1),
]
NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def outcomes(attempt):
    """What ``attempt`` comes to with torch.nn, and with fastrnn: an error's class and words."""
    found = []
    for library in (nn, fastrnn):
        torch.manual_seed(5)
        try:
            result = attempt(library)
        except Exception as error:
            words = re.sub(r"\bj\d+\b", "j", str(error))  # jagged tensors are numbered
            found.append((type(error), words))
        else:
            found.append([t.shape for t in torch.utils._pytree.tree_leaves(result)])
    return found


def assert_alike(attempt):
    theirs, ours = outcomes(attempt)
    assert ours == theirs
    return theirs


def refused(outcome):
    return isinstance(outcome, tuple)


@EVERY_KIND
@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
def test_a_parameter_set_to_none(kind, cell, name):
    """For a layer's bias, too: what is missing is never read."""

    def attempt(library):
        module = build(library, kind, 4, 5, cell=cell)
        setattr(module, name if cell else f"{name}_l0", None)
        return plain_call(module, **make_inputs(module, 7, 3, states=False))

    outcome = assert_alike(attempt)
    assert refused(outcome) == (not cell or name.startswith("weight"))


@pytest.mark.parametrize("name", ["weight_hr_l0", "weight_ih_l1", "bias_hh_l1_reverse"])
def test_a_parameter_of_a_stack_set_to_none(name):
    def attempt(library):
        module = library.LSTM(4, 5, 2, bidirectional=True, proj_size=3)
        setattr(module, name, None)
        return module(torch.ones(7, 3, 4))

    assert refused(assert_alike(attempt))


@EVERY_KIND
@pytest.mark.parametrize(("name", "value"), ATTRIBUTES)
def test_attributes_of_another_type(kind, name, value):
    def attempt(library):
        module = build(library, kind, 4, 5)
        setattr(module, name, value)
        return module(torch.ones(7, 3, 4))

    assert refused(assert_alike(attempt)) == (value != 1 or name != "dropout")


@EVERY_KIND
def test_bidirectional_given_as_a_number(kind):
    def attempt(library):
        return build(library, kind, 4, 5, bidirectional=1)(torch.ones(7, 3, 4))

    assert refused(assert_alike(attempt))


@CELL_OR_LAYER
def test_a_tensor_for_a_pair_of_states(cell):
    def attempt(library, pair):
        module = build(library, "lstm", 4, 5, cell=cell)
        shape = (3, 5) if cell else (1, 3, 5)
        x = torch.ones(3, 4) if cell else torch.ones(7, 3, 4)
        return module(x, pair(torch.zeros(shape)))

    assert refused(assert_alike(lambda library: attempt(library, lambda h: torch.stack([h, h]))))
    assert refused(assert_alike(lambda library: attempt(library, lambda h: (h, h, h))))
    assert not refused(assert_alike(lambda library: attempt(library, lambda h: [h, h])))


@NESTED
@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_input(kind, cell, layout):
    rows = [torch.ones(4), torch.ones(4)] if cell else [torch.ones(3, 4), torch.ones(5, 4)]

    def attempt(library):
        options = {"cell": True} if cell else {"batch_first": True}
        x = torch.nested.nested_tensor(rows, layout=layout)
        return build(library, kind, 4, 5, **options)(x)

    assert refused(assert_alike(attempt))


@NESTED
@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("what", ["states", "weights"])
def test_nested_states_and_weights(kind, cell, what):
    def attempt(library):
        module = build(library, kind, 4, 5, cell=cell)
        x, *states = make_inputs(module, 7, 3).values()
        if what == "states":
            states = [torch.nested.nested_tensor(list(h)) for h in states]
            return plain_call(module, x, *states)
        name = "weight_hh" if cell else "weight_hh_l0"
        weight = torch.nested.nested_tensor(list(getattr(module, name).detach()))
        arguments = (x, states[0] if len(states) == 1 else tuple(states))
        return torch.func.functional_call(module, {name: weight}, arguments)

    assert refused(assert_alike(attempt))


@EVERY_KIND
@pytest.mark.parametrize("library", [nn, fastrnn])
def test_flat_weights_of_a_module_that_has_none(kind, library):
    """Not yet, or no more: an attribute like any other."""
    emptied = build(library, kind, 4, 5)
    empty = type(emptied).__new__(type(emptied))
    assert not hasattr(empty, "_flat_weights")
    assert hasattr(emptied, "_flat_weights")
    del emptied._flat_weights
    assert not hasattr(emptied, "_flat_weights")
    for attempt in (lambda: emptied._flat_weights, lambda: delattr(emptied, "_flat_weights")):
        with pytest.raises(AttributeError, match="has no attribute '_flat_weights'"):
            attempt()
    with pytest.raises(AttributeError, match="has no attribute '_parameters'"):
        del empty._flat_weights
