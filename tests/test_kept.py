"""What is kept for backward is what it says: written to the last number, in its own dtype, ours."""

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, build, build_pair
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn

LENGTHS = [90, 90, 71, 70, 33, 2, 1]  # over 256 rows: recompute keeps the gates of some
LAYERS = {
    "dense": {},
    "both-ways": {"bidirectional": True, "num_layers": 2},
    "recompute": {"recompute": True, "bidirectional": True},
    "bfloat16": {"dtype": torch.bfloat16, "bidirectional": True},
    "float16": {"dtype": torch.float16},
    "no-bias": {"bias": False},
}
EVERY_LAYER = pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)


def layer_call(kind, options, packed, I=9, H=33):
    """A layer and a call of it, with gradients for everything."""
    module = build(fastrnn, kind, I, H, **options)
    x = torch.randn(max(LENGTHS), len(LENGTHS), I, dtype=options.get("dtype"), requires_grad=True)
    if packed:
        return lambda: module(pack_padded_sequence(x, LENGTHS))[0].data
    return lambda: module(x)[0]


def saved_by(call):
    """Every tensor that the graph of ``call`` keeps."""
    found = []
    with saved_tensors_hooks(lambda t: found.append(t) or t, lambda t: t):
        result = call()
    assert found
    return result, found


@EVERY_KIND
@EVERY_LAYER
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
def test_all_of_it_is_written(kind, options, packed, threads):
    """Where nobody wrote there would be NaN (conftest)."""
    _, kept = saved_by(layer_call(kind, options, packed))
    assert all(t.isfinite().all() for t in kept if t.is_floating_point())


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"dtype": torch.bfloat16}], ids=str)
def test_all_of_a_projected_layers_is_written(options):
    _, kept = saved_by(layer_call("lstm", options | {"proj_size": 20}, packed=True))
    assert all(t.isfinite().all() for t in kept if t.is_floating_point())


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_all_of_a_cells_is_written(kind, dtype):
    cell = build(fastrnn, kind, 9, 33, cell=True, dtype=dtype)
    x = torch.randn(3, 9, dtype=dtype, requires_grad=True)
    _, kept = saved_by(lambda: cell(x))
    assert all(t.isfinite().all() for t in kept)


def int8(tensor):
    """One scale a tensor: what is kept in it must be of one kind."""
    scale = tensor.abs().max().clamp(min=1e-12) / 127
    return (tensor / scale).round().to(torch.int8), scale, tensor.dtype


COMPRESSIONS = {
    "bfloat16": (lambda t: (t.bfloat16(), t.dtype), lambda kept: kept[0].to(kept[1])),
    "int8": (int8, lambda kept: (kept[0] * kept[1]).to(kept[2])),
}


@EVERY_KIND
@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
@pytest.mark.parametrize("hooks", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_compressed_saved_tensors(kind, cell, hooks):
    """The gradients lose no more than torch.nn's, which keeps other values: twice as much at most,
    and a part in a hundred where torch.nn's lose less.
    """
    pack, unpack = hooks
    shape = (3, 16) if cell else (20, 3, 16)
    x = torch.randn(shape)

    def gradients(module, compress):
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        with saved_tensors_hooks(pack, unpack) if compress else torch.enable_grad():
            result = module(leaf)
        (result[0] if isinstance(result, tuple) else result).square().sum().backward()
        return [leaf.grad, *(p.grad for p in module.parameters())]

    def loss(module):
        pairs = zip(gradients(module, True), gradients(module, False), strict=True)
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)

    ours, theirs = (loss(module) for module in build_pair(kind, 16, 33, cell=cell))
    assert ours <= max(2 * theirs, 0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_batch_sizes_that_are_used_again(kind, bidirectional):
    """A buffer that is written to between forward and backward."""
    found = []
    for library in (fastrnn, torch.nn):
        torch.manual_seed(1)
        module = build(library, kind, 4, 5, bidirectional=bidirectional)
        data = torch.randn(6, 4, requires_grad=True)
        batch_sizes = torch.tensor([3, 2, 1])
        y = module(PackedSequence(data, batch_sizes))[0].data
        batch_sizes.fill_(1_000_000)
        y.square().sum().backward()
        found.append([data.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[3, 3, 1], [7, 7, 7]], ids=str)
def test_batch_sizes_that_are_used_again_by_what_is_compiled(kind, sizes):
    module = build(fastrnn, kind, 4, 5)
    data = torch.randn(7, 4)
    found = []
    for call in (module, torch.compile(module, backend="aot_eager")):
        batch_sizes = torch.tensor([3, 2, 2])
        y = call(PackedSequence(data, batch_sizes))[0].data
        batch_sizes.numpy()[:] = sizes
        module.zero_grad()
        y.square().sum().backward()
        found.append([p.grad.clone() for p in module.parameters()])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))
