"""Whom torch.compile lets in: our layers, whatever is imported first; not torch's own, as ever."""

import sys

import pytest
import torch
from against_torch import EVERY_KIND, build, make_inputs
from compiling import compiled, differs, layers_in
from conftest import run_python
from torch import nn

import fastrnn


def test_subclasses_of_ours():
    class Doubling(fastrnn.GRU):
        def forward(self, x, hx=None):
            return super().forward(2 * x, hx)

    ours = Doubling(5, 8)
    fast, graphs = compiled(ours)
    assert not differs(ours, fast, make_inputs(ours, 4, 3))
    assert layers_in(graphs[0])


@EVERY_KIND
def test_torchs_own_layers_are_refused_as_ever(kind):
    fast, _ = compiled(build(nn, kind, 5, 8))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="RNN, GRU, or LSTM"):
        fast(torch.randn(4, 3, 5))
    assert not torch._dynamo.config.allow_rnn


IMPORTS = {
    "before": "import torch._dynamo, fastrnn",
    "after": "import fastrnn; assert 'torch._dynamo' not in sys.modules; import torch._dynamo",
}


ADMITTED = """
import sys, torch
{imports}

waiting = [n for f in sys.meta_path if type(f).__module__ == "fastrnn.loading" for n in f.awaited]
assert "torch._dynamo.variables.builder" not in waiting
layer = fastrnn.GRU(3, 4)
fast = torch.compile(layer, fullgraph=True, backend="eager")
assert fast(torch.ones(2, 2, 3))[0].equal(layer(torch.ones(2, 2, 3))[0])
"""


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_order_of_imports(imports):
    run_python(ADMITTED.format(imports=imports))


def test_the_opt_in(monkeypatch):
    """Where torch's private interface is another, its own setting admits our layers."""
    from torch._dynamo.variables import builder

    from fastrnn import dynamo

    wrapped = builder.VariableBuilder.wrap_module
    assert wrapped.__wrapped__  # ours, around torch's
    monkeypatch.setattr(builder.VariableBuilder, "wrap_module", wrapped.__wrapped__)
    hidden = type(sys)("builder")
    dynamo._patch(hidden, nn.Module)  # finds nothing, changes nothing
    assert not vars(hidden).keys() & {"VariableBuilder"}
    ours = fastrnn.GRU(5, 8)
    fast, graphs = compiled(ours)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="allow_rnn=True"):
        fast(torch.randn(4, 3, 5))
    with torch._dynamo.config.patch(allow_rnn=True):
        assert not differs(ours, fast, make_inputs(ours, 4, 3))
    assert layers_in(graphs[0])
