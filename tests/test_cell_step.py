"""One step of a cell: what its own engine and its own autograd function could get wrong."""

import pytest
import torch
from against_torch import (
    EVERY_KIND,
    FLOATS,
    KINDS,
    build,
    build_pair,
    compare,
    difference,
    make_inputs,
    outputs_and_gradients,
    outputs_without_grad,
    plain_call,
    truth,
    twins,
)
from torch import nn

import fastrnn
from fastrnn.kernels.cpu.host import cell_calls

# B, I, H: around the widths of registers, of panels, of chunks of rows and of pieces of a sum
SIZES = [(1, 5, 1), (5, 1, 3), (64, 5, 17), (5, 33, 33), (64, 65, 65), (1, 300, 70), (130, 2, 150)]
SIZES += [(300, 7, 40), (2, 128, 129), (1, 513, 256)]
OF_SIZES = pytest.mark.parametrize(("B", "I", "H"), SIZES, ids=str)


@FLOATS
@EVERY_KIND
@OF_SIZES
def test_sizes(kind, B, I, H, dtype, calls):
    ours, theirs = twins(kind, I, H, cell=True, dtype=dtype)
    compare(ours, theirs, make_inputs(ours, 1, B))
    assert calls == {"forward": 2, "backward": 1}


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("B", [1, 3], ids="B{}".format)
def test_no_hidden_units(kind, B, dtype):
    """Nothing depends on x: its gradient is zero, and somebody has to write that."""
    ours = build(fastrnn, kind, 5, 0, cell=True, dtype=dtype)
    found = outputs_and_gradients(ours, make_inputs(ours, 1, B))
    assert found["d x"].equal(torch.zeros(B, 5, dtype=dtype))


@EVERY_KIND
@OF_SIZES
def test_as_accurate_as_torch(kind, B, I, H):
    """Where rounding decides, no worse than torch's own kernels in float32."""
    ours, theirs = twins(kind, I, H, cell=True)
    inputs = make_inputs(ours, 1, B)
    usual = outputs_and_gradients(truth(ours, build(nn, kind, I, H, cell=True)), inputs)
    exact = outputs_and_gradients(theirs, {name: v.double() for name, v in inputs.items()})
    for name, value in outputs_and_gradients(ours, inputs).items():
        # twice, and a few roundings: with few elements torch may be exact by chance
        allowed = 2 * difference(usual[name], exact[name]) + 8 * torch.finfo(torch.float32).eps
        assert difference(value, exact[name]) <= allowed, name


@FLOATS
@EVERY_KIND
@pytest.mark.parametrize("H", [1, 17, 33, 100], ids="H{}".format)
@pytest.mark.parametrize("B", [1, 3, 66], ids="B{}".format)
def test_reads_and_writes_stay_inside(kind, dtype, B, H, guards, monkeypatch):
    monkeypatch.setattr(cell_calls, "empty_like", lambda t: guards.tensor(torch.empty_like(t)))
    ours, theirs = twins(kind, 5, H, cell=True, dtype=dtype)
    for weight in ours.parameters():
        weight.data = guards.tensor(weight.data)
    inputs = {name: guards.tensor(v) for name, v in make_inputs(ours, 1, B).items()}
    compare(ours, theirs, inputs)
    assert guards.intact()
    assert len(guards.made) > 10


@EVERY_KIND
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_each_gradient_alone(kind, bias, calls):
    """One tensor at a time asks for a gradient, or all but one: each is right, no other is made."""
    ours, theirs = twins(kind, 5, 17, cell=True, bias=bias)
    for B in (1, 7):
        inputs = make_inputs(ours, 1, B)
        weights = [name for name, _ in ours.named_parameters()]
        for one in [*inputs, *weights]:
            for alone in (True, False):
                asked = {one} if alone else {*inputs, *weights} - {one}
                for module in (ours, theirs):
                    for name in weights:
                        module.get_parameter(name).requires_grad_(name in asked)
                compare(ours, theirs, inputs, frozen={*inputs} - asked)
    assert calls.keys() == {"forward", "backward"}


@EVERY_KIND
def test_what_nobody_asked_for_is_not_computed(kind, monkeypatch):
    made, gradients = [], cell_calls.gradients
    monkeypatch.setattr(
        cell_calls, "gradients", lambda *args: made.append(gradients(*args)) or made[-1]
    )
    ours = build(fastrnn, kind, 5, 17, cell=True).requires_grad_(False)
    ours.weight_hh.requires_grad_(True)
    outputs_and_gradients(ours, make_inputs(ours, 1, 3), frozen={"x", "h0", "c0"})
    assert [t is not None for t in made[0]] == [False, False, False, False, True, False, False]


@EVERY_KIND
@FLOATS
@pytest.mark.parametrize("H", [5, 33, 128])
def test_a_row_does_not_depend_on_its_batch(kind, H, dtype):
    """Bit for bit: outputs, and the gradients of input and states."""
    ours = build(fastrnn, kind, 70, H, cell=True, dtype=dtype)
    inputs = make_inputs(ours, 1, 67)

    def loss(outputs):
        return sum(value.square().sum() for value in outputs.values())

    whole = outputs_and_gradients(ours, inputs, loss=loss)
    for rows in (slice(0, 1), slice(66, 67), slice(3, 5), slice(7, 50)):
        part = outputs_and_gradients(ours, {n: t[rows] for n, t in inputs.items()}, loss=loss)
        for name, value in part.items():
            if "weight" not in name and "bias" not in name:
                assert value.equal(whole[name][rows]), name


@EVERY_KIND
@pytest.mark.parametrize("sizes", [(64, 100, 130), (1, 600, 513), (3, 900, 70)], ids=str)
def test_threads(kind, sizes, team_sizes):
    """The same bits from two threads as from one."""
    B, I, H = sizes
    ours = build(fastrnn, kind, I, H * (1 if kind in ("lstm", "gru") else 3), cell=True)
    inputs = make_inputs(ours, 1, B)
    one = outputs_and_gradients(ours, inputs)
    assert not team_sizes
    torch.set_num_threads(2)
    for name, value in outputs_and_gradients(ours, inputs).items():
        assert value.equal(one[name]), name
    assert team_sizes == [2, 2]


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, "h_n") for kind in KINDS), ("lstm", "c_n")], ids=str
)
def test_results_may_be_changed_in_place(kind, name):
    """Wherever torch's cells allow it, the gradients are theirs; where they raise, ours are right.

    (torch's RNN cell keeps its result for backward and raises; ours keeps a copy.)
    """
    ours, theirs = twins(kind, 5, 17, cell=True, dtype=torch.float64)

    def in_place(outputs):
        outputs[name].mul_(2).add_(1)
        return sum(value.square().sum() for value in outputs.values())

    def out_of_place(outputs):
        return in_place(outputs | {name: outputs[name].clone()})

    inputs = make_inputs(ours, 1, 3)
    found = outputs_and_gradients(ours, inputs, loss=in_place)
    for label, value in outputs_and_gradients(theirs, inputs, loss=out_of_place).items():
        if label.startswith("d "):
            torch.testing.assert_close(found[label], value, rtol=1e-10, atol=1e-12)


@EVERY_KIND
@pytest.mark.parametrize("changed", ["x", "h0", "weight_ih", "weight_hh"])
def test_an_operand_changed_before_backward_is_noticed(kind, changed):
    """As torch's cells do, where every operand has a gradient."""
    for module in build_pair(kind, 5, 17, cell=True):
        inputs = {n: t.requires_grad_() for n, t in make_inputs(module, 1, 3).items()}
        leaves = {name: value.clone() for name, value in inputs.items()}
        total = sum(torch.utils._pytree.tree_leaves(plain_call(module, *leaves.values()))).sum()
        with torch.no_grad():
            (leaves[changed] if changed in leaves else module.get_parameter(changed)).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()


@EVERY_KIND
def test_one_result_is_enough(kind):
    """A loss of one state alone: the other's gradient is zero."""
    for name in ("h_n", "c_n") if kind == "lstm" else ("h_n",):
        ours, theirs = twins(kind, 5, 17, cell=True)
        compare(ours, theirs, make_inputs(ours, 1, 3), loss=lambda y, n=name: y[n].square().sum())


@EVERY_KIND
def test_expanded_operands(kind, calls):
    """Strides of zero, in the input and in the gradients that come back."""
    ours, theirs = twins(kind, 5, 17, cell=True)
    inputs = {name: t[:1].expand(6, -1) for name, t in make_inputs(ours, 1, 2).items()}
    compare(ours, theirs, inputs, loss=lambda outputs: sum(t.sum() for t in outputs.values()))
    assert calls == {"forward": 2, "backward": 1}


@EVERY_KIND
def test_many_steps(kind):
    """A chain of steps, each keeping what it needs, as a layer does."""
    ours, theirs = twins(kind, 5, 17, cell=True, dtype=torch.float64)

    def call(module, x, *states):
        state = states[0] if len(states) == 1 else states
        for scale in (1.0, 0.5, -1.0, 2.0):
            state = module(scale * x, state)
        return state

    inputs = make_inputs(ours, 1, 3)
    compare(ours, theirs, inputs, call=call)
    assert outputs_without_grad(ours, inputs, call)["h_n"].isfinite().all()
