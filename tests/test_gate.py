"""What is no plain memory: lazy zeros and signs, freed storage, what hooks and others hand back.

No compiled function may be given its address: the result is torch.nn's, or an error that says why.
"""

import pytest
import torch
from against_torch import EVERY_KIND, KINDS, build, build_pair
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.testing._internal.two_tensor import TwoTensor

import fastrnn

T, B, I, H = 7, 3, 4, 5
GONE = r"memory|storage|not allocated"  # in our words or in torch's
MODULES = pytest.mark.parametrize(
    ("kind", "cell"),
    [(kind, cell) for cell in (False, True) for kind in KINDS],
    ids=[f"{kind}{'-cell' * cell}" for cell in (False, True) for kind in KINDS],
)


def sizes(module):
    """(the shape of x, the shapes of its states)."""
    cell = isinstance(module, nn.RNNCellBase)
    count = 2 if isinstance(module, (nn.LSTM, nn.LSTMCell)) else 1
    return ((B, I), [(B, H)] * count) if cell else ((T, B, I), [(1, B, H)] * count)


def run(module, x, *states):
    """The output (of a cell its first state)."""
    found = module(x, states if len(states) > 1 else states[0] if states else None)
    return found[0] if isinstance(found, tuple) else found


def results(module, x, states, gradient=None):
    """The output and every gradient, with ``gradient`` as that of the output."""
    module.zero_grad()
    x, *states = (t.detach().requires_grad_() for t in (x, *states))
    y = run(module, x, *states)
    y.backward(torch.ones_like(y) if gradient is None else gradient)
    return [y.detach(), x.grad, *(s.grad for s in states), *(p.grad for p in module.parameters())]


def same(ours, theirs):
    """float32 beside float32, of sums of a few terms: 1e-5 is a hundred roundings."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@MODULES
def test_gradients_that_are_lazy_zeros(kind, cell):
    """The derivative of sgn, which autograd hands over without memory."""
    for module in build_pair(kind, I, H, cell=cell):
        x = torch.randn(sizes(module)[0], requires_grad=True)
        torch.sgn(run(module, x)).sum().backward()
        assert not x.grad.any()
        assert not any(p.grad.any() for p in module.parameters())


@MODULES
def test_inputs_and_states_of_lazy_zeros(kind, cell):
    ours, theirs = build_pair(kind, I, H, cell=cell)
    x_shape, state_shapes = sizes(ours)
    lazy, plain = (
        [make(shape) for shape in (x_shape, *state_shapes)]
        for make in (torch._efficientzerotensor, torch.zeros)
    )
    assert lazy[0]._is_zerotensor()
    torch.testing.assert_close(run(ours, *lazy), run(theirs, *plain))


@MODULES
@pytest.mark.parametrize("what", ["x", "states", "weights", "gradient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_lazily_negated_views(kind, cell, what, dtype):
    """They lie in memory with the other sign."""
    ours, theirs = build_pair(kind, I, H, cell=cell)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    x_shape, state_shapes = sizes(ours)
    x, states = torch.randn(x_shape), [torch.randn(shape) for shape in state_shapes]
    x, states = x.to(dtype), [s.to(dtype) for s in states]
    gradient = torch.randn((*x_shape[:-1], H)).to(dtype)
    expected = results(theirs, x, states, gradient)

    def negated(tensor):
        return torch._neg_view(-tensor.detach())

    if what == "weights":
        for name, weight in list(ours.named_parameters()):
            setattr(ours, name, nn.Parameter(negated(weight)))
            assert getattr(ours, name).is_neg()
    if what == "x":
        x = negated(x)
    elif what == "gradient":
        gradient = negated(gradient)
    elif what == "states":
        states = [negated(s) for s in states]
    found = results(ours, x, states, gradient)
    if dtype == torch.float32:
        same(found, expected)
    else:  # of 11 bits, where torch.nn's own steps are rounded too
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


def test_the_imaginary_part_of_a_conjugate():
    z = torch.randn(1, 1, dtype=torch.complex64).conj().imag
    assert z.is_neg()
    assert z.is_contiguous()
    cell = fastrnn.GRUCell(1, 3)
    assert cell(z).equal(cell(z.clone()))


@pytest.mark.filterwarnings("ignore:.*MaskedTensor")  # they are a prototype
@MODULES
def test_gradients_of_another_class(kind, cell):
    """torch.nn's raise a Python error, too."""
    for module in build_pair(kind, I, H, cell=cell):
        y = run(module, torch.randn(sizes(module)[0]))
        masked = torch.masked.as_masked_tensor(y, torch.ones_like(y, dtype=torch.bool))
        with pytest.raises((RuntimeError, TypeError)):
            masked.sum().backward()


@MODULES
@pytest.mark.parametrize("what", ["x", "weight_ih", "weight_hh", "bias_hh"])
@pytest.mark.parametrize("left", [0, 4], ids="left={}".format)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_that_is_gone_before_forward(kind, cell, what, left, dtype):
    """As FSDP frees it, and shrunk to ``left`` bytes."""
    module = build(fastrnn, kind, I, H, cell=cell, dtype=dtype)
    x = torch.randn(sizes(module)[0], dtype=dtype)
    tensor = x if what == "x" else getattr(module, what + "_l0" * (not cell))
    tensor.untyped_storage().resize_(left)
    with pytest.raises(RuntimeError, match=GONE):
        run(module, x)
    with pytest.raises(RuntimeError, match=GONE), torch.no_grad():
        run(module, x)


@MODULES
@pytest.mark.parametrize("what", ["x", "weight_ih", "weight_hh"])
@pytest.mark.parametrize("left", [0, 4], ids="left={}".format)
def test_memory_that_is_gone_before_backward(kind, cell, what, left):
    module = build(fastrnn, kind, I, H, cell=cell)
    x = torch.randn(sizes(module)[0], requires_grad=True)
    y = run(module, x)
    tensor = x if what == "x" else getattr(module, what + "_l0" * (not cell))
    tensor.untyped_storage().resize_(left)
    with pytest.raises(RuntimeError, match="no memory, or too little"):
        y.sum().backward()


@EVERY_KIND
def test_a_weight_in_the_middle_of_a_storage_that_ends_too_soon(kind):
    """What is left is as large as the weight, but begins elsewhere."""
    module = build(fastrnn, kind, I, H, bias=False)
    weight = module.weight_hh_l0
    flat = torch.randn(2 * weight.numel())
    weight.data = flat[weight.numel() :].view(weight.shape)
    assert run(module, torch.randn(T, B, I)).isfinite().all()
    flat.untyped_storage().resize_(weight.nbytes)
    with pytest.raises(RuntimeError, match="no memory, or too little"):
        run(module, torch.randn(T, B, I))


@MODULES
def test_data_that_is_exchanged_before_backward(kind, cell):
    module = build(fastrnn, kind, I, H, cell=cell)
    y = run(module, torch.randn(sizes(module)[0]))
    getattr(module, "weight_hh" + "_l0" * (not cell)).data = torch.randn(2, 2)
    with pytest.raises(RuntimeError, match="must keep shape, dtype and device"):
        y.sum().backward()


CHANGES = {
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "meta": lambda t: t.to("meta"),
    "narrow": lambda t: t[..., :1],
    "flat": lambda t: t.flatten(),
}


@MODULES
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hooks_of_saved_tensors_that_return_something_else(kind, cell, change):
    module = build(fastrnn, kind, I, H, cell=cell)
    with saved_tensors_hooks(lambda t: t, change):
        y = run(module, torch.randn(sizes(module)[0], requires_grad=True))
    with pytest.raises((RuntimeError, IndexError)):
        y.sum().backward()


@MODULES
def test_hooks_that_copy_change_nothing(kind, cell):
    module = build(fastrnn, kind, I, H, cell=cell)
    x_shape, states = sizes(module)
    given = torch.randn(x_shape), [torch.randn(shape) for shape in states]
    expected = results(module, *given)
    with saved_tensors_hooks(lambda t: t.clone(), lambda t: t.mT.clone().mT if t.dim() > 1 else t):
        found = results(module, *given)
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_an_operator_called_with_what_does_not_fit():
    """By hand, where nothing has looked at the shapes before."""
    x, h = torch.randn(T * B, I), torch.zeros(1, B, H)
    w_ih, w_hh = torch.randn(3 * H, I), torch.randn(3 * H, H)
    layer = torch.ops.fastrnn.layer
    y, h_n = layer("numba", "gru", 0, x, None, [h], [w_ih, w_hh])
    assert (y.shape, h_n.shape) == ((T * B, H), (1, B, H))
    for wrong in (
        [w_ih, w_hh[:, 1:]],
        [w_ih[:, 1:], w_hh],
        [w_ih.double(), w_hh],
        [w_ih[1:], w_hh],
    ):
        with pytest.raises(RuntimeError, match="where the other tensors ask for"):
            layer("numba", "gru", 0, x, None, [h], wrong)
    with pytest.raises(RuntimeError, match="where the other tensors ask for"):
        layer("numba", "gru", 0, x, None, [h[..., 1:]], [w_ih, w_hh])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch.nn's LSTM
@MODULES
def test_gradients_of_vmap_and_of_a_wrapper(kind, cell):
    """Of a graph that was made outside: they know torch's operations alone."""
    found = []
    for module in build_pair(kind, I, H, cell=cell):
        torch.manual_seed(0)
        x = torch.randn(sizes(module)[0], requires_grad=True)
        y = run(module, x)

        def of_x(gradient, x=x, y=y):
            return torch.autograd.grad(y, x, gradient, retain_graph=True)[0]

        many = torch.vmap(of_x)(torch.randn(6, *y.shape))
        both = of_x(TwoTensor(torch.ones_like(y), torch.full_like(y, 2)))
        found.append([many, both.a, both.b])
    same(*found)
