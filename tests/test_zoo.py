"""fastrnn.zoo: every layer, its outputs and all gradients, against plain loops in float64."""

import copy
import pickle

import pytest
import torch
from against_torch import FLOATS, TOLERANCE, difference
from zoo_cases import (
    EVERY_CELL,
    LENGTHS,
    NAMES,
    SINGLE,
    arguments,
    build,
    call,
    expected,
    gradients,
    recorded,
)

import fastrnn
from fastrnn import zoo

LIMIT = TOLERANCE | {torch.float64: 1e-10, torch.float32: 2e-4}


def errors(name, module, given, batch_first=False, lengths=None):
    """{what: error} of a call's outputs and gradients, against the plain loop in float64."""
    with recorded(module, lengths) as drawn:
        found = call(module, given, batch_first, lengths)
    leaves = {n: t for n, t in given.items() if t.requires_grad}
    found += gradients(found, [*leaves.values(), *module.parameters()])
    exact = copy.deepcopy(module).double()
    truth = {n: t.detach().double().requires_grad_(n in leaves) for n, t in given.items()}
    right = expected(name, exact, truth, drawn, lengths)
    right += gradients(right, [*(truth[n] for n in leaves), *exact.parameters()])
    parts = ["output", *type(module).signature.states, *(f"d {n}" for n in leaves)]
    parts += [f"d {n}" for n, _ in module.named_parameters()]
    assert {t.dtype for t in found} == {given["x"].dtype}
    named = zip(parts, found, right, strict=True)
    return {part: difference(f.detach(), r.detach()) for part, f, r in named}


def check(name, module, **form):
    limit = LIMIT[next(module.parameters()).dtype]
    found = errors(name, module, arguments(name, module), **form)
    wrong = {n: e for n, e in found.items() if not e <= limit}
    assert not wrong


@EVERY_CELL
@FLOATS
def test_outputs_and_gradients(name, dtype):
    """A stack of two layers, both directions."""
    check(name, build(name, dtype=dtype))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SINGLE])
def test_packed(name):
    check(name, build(name), lengths=LENGTHS)


@pytest.mark.parametrize("name", ["SRU", "PeepholeLSTM", "LayerNormGRU", "ResetFirstGRU"])
def test_recompute_gives_the_same_bits(name):
    module, found = build(name, 1, dtype=torch.float32), []
    given = arguments(name, module)
    leaves = [*given.values(), *module.parameters()]
    for module.recompute in (False, True):
        outputs = call(module, given)
        found.append((*outputs, *gradients(outputs, leaves)))
    assert all(map(torch.equal, *found))


@EVERY_CELL
def test_batch_first_without_bias(name):
    bias = {} if name.startswith("LayerNorm") else {"bias": False}
    check(name, build(name, 1, 1, batch_first=True, **bias), batch_first=True)


@pytest.mark.parametrize("name", ["PeepholeLSTM", "CfC", "LayerNormGRU", "ResetFirstGRU"])
def test_bfloat16(name):
    check(name, build(name, 1, dtype=torch.bfloat16))


@EVERY_CELL
def test_two_threads_give_the_bits_of_one(name, team_sizes):
    module = build(name, 1, dtype=torch.float32, sizes=(40, 48)).eval()
    given = arguments(name, module, 21, 20)
    leaves = [*(t for t in given.values() if t.requires_grad), *module.parameters()]
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        outputs = call(module, given)
        found.append((*outputs, *gradients(outputs, leaves)))
    assert max(team_sizes) == 2
    assert all(map(torch.equal, *found))


@EVERY_CELL
def test_second_derivatives(name):
    module = build(name, 1, 1, sizes=(2, 2)).eval()
    given = arguments(name, module, 2, 1)
    weights, states = dict(module.named_parameters()), [*type(module).signature.states]
    names = ["x", *states, *(n for n in given if n not in ("x", *states))]

    def function(*tensors):
        mine = dict(zip([*names, *weights], tensors, strict=True))
        rest = {n: mine[n] for n in names[1 + len(states) :]}
        hx = tuple(mine[n] for n in states)
        arguments = mine["x"], hx[0] if len(hx) == 1 else hx
        replaced = {n: mine[n] for n in weights}
        return torch.func.functional_call(module, replaced, arguments, rest)[0]

    tensors = *(given[n] for n in names), *weights.values()
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@EVERY_CELL
def test_copies_are_the_same_layer(name):
    module = build(name, 1, 1).eval()
    given = arguments(name, module)
    right = call(module, given)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert all(map(torch.equal, call(other, given), right))
    fresh = build(name, 1, 1).eval()
    fresh.load_state_dict(module.state_dict())
    assert all(map(torch.equal, call(fresh, given), right))


def test_names_of_parameters():
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "p_i", "p_f", "p_o"]
    both = [name + tail for tail in ("_l0", "_l0_reverse") for name in names]
    assert list(zoo.PeepholeLSTM(2, 3, bidirectional=True).state_dict()) == both
    assert list(zoo.IndRNN(2, 3).state_dict()) == ["weight_ih_l0", "bias_ih_l0", "u_l0"]
    assert list(zoo.MinGRU(2, 3, bias=False).state_dict()) == ["weight_ih_l0"]


@EVERY_CELL
def test_what_serves(name):
    """The compiled engine has every one of them; who asks gives what a call takes."""
    module = build(name, 1, 1, dtype=torch.float32)
    given, states = arguments(name, module), type(module).signature.states
    inputs = {n: t for n, t in given.items() if n not in states}
    choice = fastrnn.backends.explain(module, inputs.pop("x"), **inputs)
    assert choice == ("numba", "float32 on CPU")
    with pytest.raises(TypeError, match="other"):
        fastrnn.backends.explain(module, given["x"], **inputs, other=3)


def test_all_are_recurrent_layers():
    assert all(issubclass(getattr(zoo, name), fastrnn.Recurrent) for name in NAMES)
