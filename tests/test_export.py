"""torch.export, make_fx and the operators' own contract."""

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, KINDS, build, make_inputs, plain_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

import fastrnn
from fastrnn import operators
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.keep import Keep

T_AND_B = {"input": {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}}
ONLY_B = {"input": {0: torch.export.Dim("B")}}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning")
def test_export(kind, cell, strict):
    """With T and B left open: the program serves every size, in the operators it was made of."""
    options = {"cell": True} if cell else {"num_layers": 2, "bidirectional": True}
    ours = build(fastrnn, kind, 5, 8, **options).eval()
    example = make_inputs(ours, 4, 3)["x"]
    shapes = ONLY_B if cell else T_AND_B
    program = torch.export.export(ours, (example,), dynamic_shapes=shapes, strict=strict)
    found = [n for n in program.graph.nodes if "fastrnn.layer" in str(n.target)]
    assert len(found) == (0 if cell else 2)
    x = make_inputs(ours, 9, 7)["x"]
    torch.testing.assert_close(program.module()(x), ours(x), rtol=0, atol=1e-6)


def test_an_exported_program_trains():
    """It keeps nothing for backward, which computes all anew."""
    ours = fastrnn.LSTM(5, 8)
    x = torch.randn(4, 3, 5)
    program = torch.export.export(ours, (x,)).module()
    found, expected = (
        torch.autograd.grad(m(x)[0].square().sum(), list(m.parameters())) for m in (program, ours)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@EVERY_KIND
@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_make_fx(kind, mode):
    ours = build(fastrnn, kind, 5, 8)
    weights = dict(ours.named_parameters())

    def run(weights, x):
        return torch.func.functional_call(ours, weights, (x,))

    graph = make_fx(run, tracing_mode=mode)(weights, torch.randn(4, 3, 5))
    assert [n for n in graph.graph.nodes if "fastrnn.layer" in str(n.target)]
    x = torch.randn(4, 3, 5) if mode == "real" else torch.randn(7, 2, 5)
    torch.testing.assert_close(graph(weights, x), ours(x), rtol=0, atol=0)


def arguments(kind, keep, *, D, packed, bias, projected=False):
    """What fastrnn::layer takes, all of it in need of a gradient.

    12 rows of 8 or 4: what is kept then fills whole cache lines, with no byte between that nobody
    writes, and that would not be the same in each of opcheck's runs.
    """
    G, N, B, I, H = CELLS[kind].gates, 12, 4, 5, 8
    P = 4 if projected else H

    def tensor(*shape):
        return torch.randn(shape, requires_grad=True)

    sizes = torch.tensor([4, 4, 3, 1]) if packed else None
    states = [tensor(D, B, width) for width in (P, H)[: CELLS[kind].states]]
    weights = []
    for _ in range(D):
        weights += [tensor(G * H, I), tensor(G * H, P), *(tensor(G * H) for _ in range(2 * bias))]
        weights += [tensor(P, H)] * projected
    return "numba", kind, int(keep), tensor(N, I), sizes, states, weights


CONTRACTS = {
    **{kind: (kind, Keep.ALL, {"D": 1, "packed": False, "bias": True}) for kind in KINDS},
    "both-ways": ("lstm", Keep.ALL, {"D": 2, "packed": False, "bias": True}),
    "packed": ("gru", Keep.ALL, {"D": 2, "packed": True, "bias": True}),
    "no-bias": ("lstm", Keep.ALL, {"D": 1, "packed": False, "bias": False}),
    "nothing-kept": ("gru", Keep.NOTHING, {"D": 1, "packed": False, "bias": True}),
    "projected": (
        "lstm",
        Keep.ALL,
        {"D": 1, "packed": False, "bias": True, "projected": True},
    ),
}


@pytest.mark.parametrize(("kind", "keep", "options"), CONTRACTS.values(), ids=CONTRACTS)
def test_opcheck(kind, keep, options):
    """torch's own check of an operator: schema, fake kernel, autograd, dynamic shapes."""
    given = arguments(kind, keep, **options)
    name = "layer_packed" if options["packed"] else "layer"
    layer, gradients = (getattr(torch.ops.fastrnn, n).default for n in (name, f"{name}_gradients"))
    for operator in (layer, gradients):
        assert (torch.Tag.cudagraph_unsafe in operator.tags) == options["packed"]
    opcheck(layer, given)
    x, sizes, states, weights = torch.utils._pytree.tree_map(
        lambda t: t.detach() if isinstance(t, torch.Tensor) else t, given[3:]
    )
    y, *rest = layer(*given[:3], x, sizes, states, weights)
    finals, kept = rest[: len(states)], rest[len(states) :]
    if options["packed"]:  # the last of it are the sizes, backward's own
        *kept, sizes = kept
    grads = [torch.randn_like(t) for t in (y, *finals)]
    for needed in ([True] * (1 + len(states) + len(weights)), [False, *[True] * len(states)]):
        needed += [False] * (1 + len(states) + len(weights) - len(needed))
        rest = (x, sizes, states, weights, kept, grads, needed)
        opcheck(gradients, (*given[:3], *rest))


@EVERY_KIND
def test_vmap_of_the_operator(kind):
    """One call for each member, whichever of its tensors are batched."""
    *words, x, sizes, states, weights = arguments(kind, Keep.ALL, D=1, packed=False, bias=True)
    many = torch.randn(2, *x.shape)
    found = torch.vmap(
        lambda x, w: operators.layer(*words, x, sizes, states, [w, *weights[1:]])[0],
        in_dims=(0, None),
    )(many, weights[0])
    expected = [operators.layer(*words, x, sizes, states, weights)[0] for x in many]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_plain_call_is_no_operator():
    """An eager call does not pass through the operator, which would cost it microseconds."""
    ours = fastrnn.LSTM(5, 8)
    before = ours(torch.randn(4, 3, 5))[0].grad_fn
    assert "GeneratedBackward" not in str(before.next_functions) + str(before)
    assert plain_call(ours, torch.randn(4, 3, 5))
