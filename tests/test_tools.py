"""Tools that know torch.nn's modules by their class: of our modules they make what they make of
those.
"""

import copy

import pytest
import torch
from conftest import run_python
from torch import nn
from torch.ao import quantization

import fastrnn
from fastrnn import tools

# torch has its own successors of all this in mind, and says so
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch.*"
)
X = torch.linspace(-1, 1, 4 * 5 * 6).view(4, 5, 6)


class Model(nn.Module):
    """Every layer and cell that torch can quantise, and one that it cannot."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 6, batch_first=True)
        self.rnn = nn.RNN(6, 6, batch_first=True)
        self.cells = nn.ModuleList([nn.LSTMCell(6, 6), nn.GRUCell(6, 6), nn.RNNCell(6, 6)])
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y = self.rnn(self.gru(self.lstm(x)[0])[0])[0]
        h = self.cells[0](y[:, 0])[0]
        return self.head(self.cells[2](self.cells[1](h)))


class Static(nn.Module):
    def __init__(self):
        super().__init__()
        self.quantise = quantization.QuantStub()
        self.lstm = nn.LSTM(6, 8)
        self.dequantise = quantization.DeQuantStub()

    def forward(self, x):
        return self.dequantise(self.lstm(self.quantise(x))[0])


class Tail(nn.Module):
    """What a pruner of LSTMs knows."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 8)
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.linear(y)


def pair(cls):
    """torch.nn's model, and the same one accelerated."""
    theirs = cls().eval()
    ours = copy.deepcopy(theirs)
    assert not fastrnn.accelerate(ours).left
    return theirs, ours


def classes(model):
    """By name: torch makes a class for every graph."""
    return [f"{type(m).__module__}.{type(m).__qualname__}" for m in model.modules()]


def assert_alike(cls, tool):
    """``tool`` makes the same model of both; returns it."""
    theirs, ours = (tool(model) for model in pair(cls))
    assert classes(ours) == classes(theirs)
    assert ours(X).equal(theirs(X))
    return ours


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
def test_dynamic_quantisation(dtype):
    found = assert_alike(Model, lambda m: quantization.quantize_dynamic(m, dtype=dtype))
    for module in (found.lstm, found.gru, *found.cells):
        assert type(module).__module__.startswith("torch.ao.nn.quantized.dynamic")
    assert type(found.rnn) is nn.RNN


@pytest.mark.parametrize("name", ["LSTM", "GRU", "LSTMCell"])
def test_a_quantised_module_made_by_hand(name):
    dynamic = torch.ao.nn.quantized.dynamic
    found = []
    for library in (fastrnn, nn):
        torch.manual_seed(0)
        module = getattr(library, name)(4, 5).eval()
        module.qconfig = torch.ao.quantization.default_dynamic_qconfig
        made = getattr(dynamic, name).from_float(module)
        x = torch.ones(*[2] * ("Cell" not in name), 3, 4)
        found.append(torch.utils._pytree.tree_leaves(made(x))[0])
    assert found[0].equal(found[1])


def test_the_model_that_a_quantised_one_was_made_of_stays_ours():
    _, ours = pair(Model)
    before = classes(ours)
    quantization.quantize_dynamic(ours)
    assert classes(ours) == before


@pytest.mark.parametrize("library", [nn, fastrnn])
def test_what_to_quantise_is_told_by_class(library):
    spec = {library.LSTM: quantization.default_dynamic_qconfig}
    for model in pair(Model):
        found = quantization.quantize_dynamic(model, spec)
        assert isinstance(found.lstm, torch.ao.nn.quantized.dynamic.LSTM)
        assert type(found.gru) is nn.GRU


@pytest.mark.parametrize("training", [False, True], ids=["static", "aware"])
def test_static_quantisation_and_training_for_it(training):
    torch.use_deterministic_algorithms(False)  # a kernel of torch's has no deterministic form

    def tool(model):
        model = model.train(training)
        model.qconfig = (
            quantization.get_default_qat_qconfig("fbgemm")
            if training
            else quantization.default_qconfig
        )
        prepared = (quantization.prepare_qat if training else quantization.prepare)(model)
        prepared(X)
        return quantization.convert(prepared.eval())

    assert isinstance(assert_alike(Static, tool).lstm, torch.ao.nn.quantized.LSTM)


@pytest.mark.parametrize("key", ["", nn.LSTM, fastrnn.LSTM], ids=str)
def test_quantisation_of_a_graph(key):
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    config = quantization.float16_dynamic_qconfig
    mapping = quantization.QConfigMapping()
    mapping = mapping.set_object_type(key, config) if key else mapping.set_global(config)
    found = assert_alike(Model, lambda m: convert_fx(prepare_fx(m, mapping, (X,))))
    assert isinstance(found.lstm, torch.ao.nn.quantized.dynamic.LSTM)


def test_pruning_in_structure():
    from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner

    def tool(model):
        pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
        names = ("lstm.weight_ih_l0", "lstm.weight_hh_l0")
        pruner.prepare(model, [{"tensor_fqn": name} for name in names])
        pruner.enable_mask_update = True
        pruner.step()
        return pruner.prune()

    assert assert_alike(Tail, tool).lstm.weight_hh_l0.shape == (16, 4)


def test_leaves_of_a_symbolic_trace(calls):
    """Ours are leaves where torch.nn's are: a trace of either model is the same graph."""
    theirs, ours = pair(Model)
    graphs = [torch.fx.symbolic_trace(model) for model in (theirs, ours)]
    assert str(graphs[1].graph) == str(graphs[0].graph)
    assert type(graphs[1].lstm) is fastrnn.LSTM
    calls.clear()
    assert graphs[1](X).equal(ours(X))
    assert calls["torch"] == 0
    assert calls["forward"] == 2 * (2 + 1 + 1 + 3)


def test_a_graph_is_accelerated():
    theirs, ours = pair(Model)
    graph = torch.fx.symbolic_trace(theirs)
    assert len(fastrnn.accelerate(graph).changed) == 6
    assert graph(X).equal(ours(X))


def test_a_tracer_of_ones_own_goes_by_its_own_rule():
    class Through(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return super().is_leaf_module(m, name) and name != "lstm"

    _, ours = pair(Model)
    with pytest.raises(torch.fx.proxy.TraceError):
        Through().trace(ours)


# Tables as third parties keep them: module, what stands in it, and how a class is looked up.
TABLES = {
    "thop.profile": ("register_hooks = {nn.LSTM: 7}", "tool.register_hooks[cls]"),
    "ptflops.pytorch_ops": ("MODULES_MAPPING = {nn.LSTM: 7}", "tool.MODULES_MAPPING[cls]"),
    "opacus.validators": (
        "class ModuleValidator:\n    VALIDATORS, FIXERS = {nn.LSTM: 0}, {nn.LSTM: 7}",
        "tool.ModuleValidator.FIXERS[cls] + tool.ModuleValidator.VALIDATORS[cls]",
    ),
    "backpack.extensions.backprop_extension": (
        "class BackpropExtension:\n    def __init__(self, savefield, module_exts):\n"
        "        self.found = module_exts",
        "tool.BackpropExtension('grad', {nn.LSTM: 7}).found[cls]",
    ),
}


@pytest.mark.parametrize("first", ["fastrnn", "the tool"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_by_class(name, first, tmp_path):
    """Whichever is imported first; and the watch for the tool is gone afterwards."""
    content, lookup = TABLES[name]
    path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    path.write_text(f"from torch import nn\n{content}\n")
    imports = [f"import {name}", "import fastrnn"][:: -1 if first == "fastrnn" else 1]
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{"; ".join(imports)}
from torch import nn
tool = sys.modules[{name!r}]
cls = nn.LSTM
assert {lookup} == 7
cls = fastrnn.LSTM
assert {lookup} == 7
assert {name!r} not in fastrnn.loading.WATCH.awaited
"""
    run_python(script)


@pytest.mark.parametrize("name", tools.TOOLS)
def test_a_tool_of_another_build_is_told_of_aloud(name):
    """Where what we know of a tool is not there, nothing breaks, and a warning says what to do."""
    with pytest.warns(UserWarning, match=r"call fastrnn.restore on a model"):
        tools._met(tools.TOOLS[name], type(copy)(name))


def test_torchs_own_tools_are_as_we_know_them():
    run_python("""
        import warnings
        warnings.filterwarnings("error", ".*know fastrnn")
        import fastrnn, torch.ao.quantization.quantize_fx, torch.ao.pruning._experimental.pruner
    """)
