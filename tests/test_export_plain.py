"""Exported programs where fastrnn is not: of torch's operations alone, or with a clear word."""

import shutil
from contextlib import nullcontext

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, build
from conftest import run_python
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import fastrnn
from fastrnn import backends, lowering

# the exporter's own
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="AOTInductor needs a C++ compiler")
OPTIONS = {
    "layer": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "cell": {"cell": True},
}
ABROAD = """
import sys, torch
sys.modules["fastrnn"] = None  # so that it cannot be imported

for name in {names}:
    program = torch.export.load(f"{folder}/{{name}}.pt2").module()
    x, expected = torch.load(f"{folder}/{{name}}.pt")
    found = torch.utils._pytree.tree_leaves(program(x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    print(name)
"""


def exported(module, x, engine=None, **options):
    with backends.use(engine) if engine else nullcontext():
        return torch.export.export(module, (x,), **options)


def in_aten(module, x, way, **options):
    """The program without our operators, made in one of the ways there are."""
    if way in backends.ENGINES:
        return exported(module, x, way, **options)
    table = torch.export.default_decompositions() if way == "core" else {}
    program = exported(module, x, **options)
    return program.run_decompositions({**table, **lowering.decompositions()})


def ours_in(program):
    return [n for n in program.graph.nodes if "fastrnn" in str(n.target)]


@pytest.mark.parametrize("way", ["torch", "reference", "lowered"])
def test_without_fastrnn(way, tmp_path):
    """Saved here, it is loaded and run where fastrnn cannot be imported; for any batch."""
    names = []
    for kind in KINDS:
        for name, options in OPTIONS.items():
            module = build(fastrnn, kind, 4, 5, **options).eval()
            sizes = (6, 4) if options.get("cell") else (6, 3, 4)
            shapes = ({0: torch.export.Dim("B")},)
            program = in_aten(module, torch.randn(sizes), way, dynamic_shapes=shapes)
            assert not ours_in(program)
            names.append(f"{kind}-{name}")
            torch.export.save(program, tmp_path / f"{names[-1]}.pt2")
            x = torch.randn(3, *sizes[1:])
            expected = torch.utils._pytree.tree_leaves(module(x))
            torch.save((x, [y.detach() for y in expected]), tmp_path / f"{names[-1]}.pt")
    output, _ = run_python(ABROAD.format(names=names, folder=tmp_path))
    assert output.split() == names


@pytest.mark.parametrize("way", ["torch", "reference", "lowered", "core"])
@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
def test_projection(way, strict):
    ours, x = fastrnn.LSTM(4, 5, proj_size=2).eval(), torch.randn(7, 3, 4)
    program = in_aten(ours, x, way, strict=strict)
    assert not ours_in(program)
    torch.testing.assert_close(program.module()(x), ours(x), rtol=0, atol=1e-6)


@EVERY_KIND
@pytest.mark.parametrize("table", [None, {}], ids=["default", "empty"])
@pytest.mark.parametrize("way", [None, "torch"], ids=["operators", "torch"])
def test_run_decompositions(kind, table, way):
    """torch's own tables leave our operators as they are, and take apart what is torch's."""
    ours, x = build(fastrnn, kind, 4, 5).eval(), torch.randn(7, 3, 4)
    program = exported(ours, x, way).run_decompositions(table)
    assert len(ours_in(program)) == (way is None)
    torch.testing.assert_close(program.module()(x), ours(x), rtol=0, atol=1e-6)


def test_lowered_program_trains():
    ours, x = fastrnn.GRU(4, 5), torch.randn(7, 3, 4)
    program = in_aten(ours, x, "lowered").module()
    found, expected = (
        torch.autograd.grad(m(x)[0].square().sum(), list(m.parameters())) for m in (program, ours)
    )
    torch.testing.assert_close(found, expected)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = fastrnn.GRU(4, 5)

    def forward(self, data, sizes):
        return self.rnn(PackedSequence(data, sizes))[0].data


def test_what_cannot_be_written_out():
    """The number of operations is that of the steps: it must be known."""
    x, sizes = torch.randn(7, 3, 4), torch.tensor([3, 2, 2])
    program = torch.export.export(
        fastrnn.GRU(4, 5), (x,), dynamic_shapes=({0: torch.export.Dim("T")},)
    )
    packed = torch.export.export(Packed(), (torch.randn(7, 4), sizes))
    for each in (program, packed):
        with pytest.raises(ValueError, match="of fixed T, dense"):
            each.run_decompositions(lowering.decompositions())


MISSING = """
import sys, torch
sys.modules["fastrnn"] = None

try:
    {load}
except RuntimeError as error:
    print(error)
"""


def test_a_program_with_our_operators_says_what_it_wants(tmp_path):
    """torch's own words, on stderr, name the operator, and that it must be imported."""
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(fastrnn.GRU(4, 5), (torch.randn(7, 3, 4),)), path)
    output, errors = run_python(MISSING.format(load=f"torch.export.load({str(path)!r})"))
    assert "deserializing" in output
    assert "failed to resolve torch.ops.fastrnn.layer.default" in errors
    assert "import the custom op" in errors


def package(program, path):
    with torch.no_grad():
        return torch._inductor.aoti_compile_and_package(program, package_path=str(path))


@COMPILER
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_packaged_with_our_operators(tmp_path):
    """AOTInductor's package runs where fastrnn is imported; elsewhere it names what it misses."""
    ours, shapes = fastrnn.GRU(4, 5).eval(), ({1: torch.export.Dim("B")},)
    program = exported(ours, torch.randn(7, 3, 4), dynamic_shapes=shapes)
    path = package(program, tmp_path / "packaged.pt2")
    x = torch.randn(7, 2, 4)
    found = torch._inductor.aoti_load_package(path)(x)
    torch.testing.assert_close(found, ours(x), rtol=0, atol=0)
    run = f"torch._inductor.aoti_load_package({path!r})(torch.randn(7, 2, 4))"
    output, _ = run_python(MISSING.format(load=run))
    assert "fastrnn::layer" in output


PACKAGED = """
import sys, torch
sys.modules["fastrnn"] = None

x, expected = torch.load(f"{folder}/values.pt")
found = torch._inductor.aoti_load_package(f"{folder}/packaged.pt2")(x)
torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)
print("ran")
"""


@COMPILER
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_packaged_in_aten(tmp_path):
    ours, shapes = fastrnn.GRU(4, 5).eval(), ({1: torch.export.Dim("B")},)
    program = in_aten(ours, torch.randn(3, 3, 4), "torch", dynamic_shapes=shapes)
    package(program, tmp_path / "packaged.pt2")
    x = torch.randn(3, 2, 4)
    torch.save((x, ours(x)[0].detach()), tmp_path / "values.pt")
    assert run_python(PACKAGED.format(folder=tmp_path))[0].split() == ["ran"]
