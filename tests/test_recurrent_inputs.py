"""What a step is given beside x, in every form that it has."""

import pytest
import torch
from custom_cells import Peephole, Skip, assert_same, loop, make, plain_call, trained
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastrnn

H, B, T = 9, 3, 6
SHAPES = {
    "each step": (T, B), "each unit": (T, B, H), "each step, of one number": (T, B, 1),
    "each sequence": (1, B, H), "each sequence, of one number": (1, B, 1), "each unit alone": (H,),
    "one number": (), "each step alone": (T, 1, 1),
}  # fmt: skip
LENGTHS = [2, 6, 5]


class Noisy(fastrnn.Recurrent):
    """Draws a mask for each layer and sequence, and takes another."""

    def step(self, wx, uh, h, mask, mine):
        return mask * torch.tanh(wx[0] + uh[0]) + mine

    def inputs_for(self, layer, like, mask):
        mine = torch.ones_like(like[:1]) if layer else like.new_zeros(())
        return {"mask": mask, "mine": mine * torch.arange(float(like.shape[1])).view(1, -1, 1)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_shapes_that_can_be_expanded(shape):
    module, x, hx, inputs = make(Skip, 5, H, num_layers=2, bidirectional=True)
    inputs["skip"] = torch.rand(shape, dtype=x.dtype)
    assert_same(trained(plain_call, module, x, hx, inputs), trained(loop, module, x, hx, inputs))


@pytest.mark.parametrize("shape", [s for s in SHAPES.values() if len(s) > 1], ids=str)
@pytest.mark.parametrize("square", [False, True], ids=["", "as many steps as sequences"])
def test_batch_first_has_them_batch_first(shape, square):
    """Also where (B, T, H) could be (T, B, H)."""
    module, x, hx, inputs = make(Skip, 5, H)
    if square:
        x, inputs = x[:B], {name: t[:B] for name, t in inputs.items()}
    skip = torch.rand(B if square and shape[0] == T else shape[0], *shape[1:], dtype=x.dtype)
    expected = loop(module, x, hx, **inputs | {"skip": skip})
    module.batch_first = True
    turned = {name: t.transpose(0, 1) for name, t in (inputs | {"skip": skip}).items()}
    y, h = module(x.transpose(0, 1), hx, **turned)
    assert_same((y.transpose(0, 1), h), expected)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(T, B, H), (1, B, H), (1, B, 1), (T, 1, 1)], ids=str)
def test_of_packed_input(shape, batch_first):
    """A PackedSequence; its rows; or three dimensions as if nothing were packed."""
    module, x, hx, inputs = make(Skip, 5, H, num_layers=2, bidirectional=True)
    skip, mask = torch.rand(shape, dtype=x.dtype), inputs["mask"]
    packed, packed_mask, rows = (
        pack_padded_sequence(t, LENGTHS, enforce_sorted=False)
        for t in (x, mask, skip.expand(T, B, H))
    )
    module.batch_first = batch_first
    turned = skip.transpose(0, 1) if batch_first else skip
    for given, masks in ((turned, packed_mask), (rows.data, packed_mask.data), (rows, packed_mask)):
        y, h = module(packed, hx, skip=given, mask=masks)
        y, _ = pad_packed_sequence(y)
        for b, length in enumerate(LENGTHS):
            one = [t.expand(T, B, *t.shape[2:])[:length, b : b + 1] for t in (x, skip, mask)]
            found = loop(module, one[0], hx[:, b : b + 1], skip=one[1], mask=one[2])
            assert_same((y[:length, b : b + 1], h[:, b : b + 1]), found)


def test_drawn_for_each_layer():
    """By a class's inputs_for: the same masks for each sequence, packed or not."""
    module = Noisy(5, H, 2, dtype=torch.float64)
    x, mask = torch.randn(T, B, 5).double(), torch.rand(T, B).double()
    y, h = module(x, mask=mask)
    one = Noisy(5, H, dtype=torch.float64)
    one.load_state_dict({n: p for n, p in module.state_dict().items() if "l0" in n})
    first = loop(one, x, mask=mask, mine=torch.zeros(1, B, H).double())[0]
    two = Noisy(H, H, dtype=torch.float64)
    two.load_state_dict(
        {n.replace("l1", "l0"): p for n, p in module.state_dict().items() if "l1" in n}
    )
    mine = torch.arange(3.0).double().view(1, B, 1)
    assert_same(y, loop(two, first, mask=mask, mine=mine)[0])
    packed, masks = (pack_padded_sequence(t, [T, T, T]) for t in (x, mask))
    found = module(packed, mask=masks)
    assert isinstance(found[0], PackedSequence)
    assert_same((found[0].data.view(T, B, H), found[1]), (y, h))


def test_gradient_of_packed_inputs():
    module, x, hx, inputs = make(Skip, 5, H)

    def call(module, x, hx, skip, mask):
        packed = (pack_padded_sequence(t, [T] * B) for t in (x, mask))
        x, mask = packed
        y, h = module(x, hx, skip=skip, mask=mask)
        return y.data.view(T, B, H), h

    inputs["skip"] = torch.rand(1, B, H, dtype=x.dtype)
    assert_same(trained(call, module, x, hx, inputs), trained(loop, module, x, hx, inputs))


PLACE = r"Skip\.step \(.*custom_cells\.py, line \d+\) has the inputs skip, mask; it is given "


def test_errors_name_what_is_wanted():
    module, x, _hx, inputs = make(Skip, 5, H)
    with pytest.raises(TypeError, match=PLACE + "skip"):
        module(x, skip=inputs["skip"])
    with pytest.raises(TypeError, match=PLACE + "other, skip, mask"):
        module(x, other=x, **inputs)
    with pytest.raises(TypeError, match=r"Peephole\.step .*has the inputs none; it is given mask"):
        Peephole(5, H)(x.float(), mask=x)
    match = r"Skip: the input skip should be \(T, B\), or what can be expanded to \(6, 3, 9\), not"
    with pytest.raises(ValueError, match=match + r" \(6, 4\)"):
        module(x, skip=torch.ones(6, 4), mask=inputs["mask"])
    with pytest.raises(TypeError, match="Skip: the input skip should be a tensor, not a float"):
        module(x, skip=1.0, mask=inputs["mask"])
    packed = pack_padded_sequence(x, [6, 5, 2])
    for lengths in ([6, 5, 1], [2, 6, 5]):
        mask = pack_padded_sequence(inputs["mask"], lengths, enforce_sorted=False)
        with pytest.raises(ValueError, match="Skip: the input mask is not packed as the sequence"):
            module(packed, skip=torch.ones(1, 1, 1), mask=mask)
    with pytest.raises(ValueError, match="Skip: the input mask is not packed as the sequence"):
        module(x, skip=inputs["skip"], mask=mask)


BAD = {
    "wrong width": ((6, 3, 4), {}, ValueError, r"Skip takes \(T, B, 5\)"),
    "four dimensions": ((6, 3, 4, 5), {}, ValueError, r"Skip takes \(T, B, 5\)"),
    "no steps": ((0, 3, 5), {}, RuntimeError, "Skip takes a sequence of one step or more"),
    "states": (
        (6, 3, 5), {"hx": torch.zeros(1, 4, 9)}, RuntimeError,
        r"Skip: state c of hx should be \(1, 3, 9\), not \(1, 4, 9\)",
    ),
    "unbatched states": (
        (6, 5), {"hx": torch.zeros(1, 3, 9)}, RuntimeError,
        r"Skip: state c of hx should be \(1, 9\), not \(1, 3, 9\)",
    ),
    "too many states": (
        (6, 3, 5), {"hx": (torch.zeros(1, 3, 9),) * 2}, ValueError,
        "Skip: hx should have 1 states, c; it has 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "options", "error", "words"), BAD.values(), ids=BAD)
def test_wrong_arguments(shape, options, error, words):
    with pytest.raises(error, match=words):
        Skip(5, 9)(torch.zeros(shape), skip=torch.ones(6, 3), mask=torch.ones(6, 3), **options)
    with pytest.raises(TypeError, match="Skip takes a tensor or a PackedSequence, not a list"):
        Skip(5, 9)([1.0])
