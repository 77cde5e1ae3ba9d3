"""PyTorch's own samples of these modules: its ModuleInfo database, as its test_modules.py uses it.

Of what is asked there nothing is left out in test_torch_suite.py and test_torch_suite_modules.py
but what has no object here: parity of CPU and GPU, transfers between devices (there is one), lazy
modules, and ``inplace=True`` (these modules have no such argument).
"""

from functools import cache

import pytest
import torch
from against_torch import name_outputs, plain_call, truth
from torch import nn

import fastrnn

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
EVERY_DTYPE = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
TRAIN_AND_EVAL = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@cache
def database():
    """{name: ModuleInfo}. Importing it must not forbid later tests to set torch's flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends, "disable_global_flags", lambda: None)
        from torch.testing._internal.common_modules import module_db
    found = {info.module_cls.__name__: info for info in module_db}
    return {name: found[name] for name in NAMES}


def samples(name, dtype, training=True, of_theirs=torch.float64):
    """(a module of ours in ``dtype``, torch.nn's ``of_theirs``, inputs by name, the sample)."""
    info = database()[name]
    for sample in info.module_inputs_func(info, "cpu", dtype, False, training):
        given = sample.constructor_input
        ours = getattr(fastrnn, name)(*given.args, **given.kwargs).to(dtype).train(training)
        theirs = getattr(nn, name)(*given.args, **given.kwargs).to(of_theirs)
        leaves = torch.utils._pytree.tree_leaves(sample.forward_input.args)
        inputs = dict(zip(("x", "h0", "c0"), leaves, strict=False))
        assert not sample.forward_input.kwargs
        yield ours, truth(ours, theirs), inputs, sample


def outputs(module, inputs):
    """The module's outputs by name, without a graph."""
    with torch.no_grad():
        return name_outputs(module, plain_call(module, *inputs.values()))


def assert_equal(found, expected):
    """The same names, each with the same numbers to the bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].equal(value), name
