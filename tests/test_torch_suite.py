"""PyTorch's own samples and error inputs, on ours: results, derivatives, errors."""

from functools import partial
from statistics import median

import pytest
import torch
from against_torch import TOLERANCE, compare, difference, name_outputs, outputs_and_gradients, truth
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch_samples import (
    EVERY_DTYPE,
    EVERY_NAME,
    NAMES,
    TRAIN_AND_EVAL,
    assert_equal,
    database,
    outputs,
    samples,
)

import fastrnn


def test_the_database_has_samples():
    """Or else all of the below would pass over nothing."""
    counts = {name: len(list(samples(name, torch.float32))) for name in NAMES}
    assert sum(counts.values()) >= 87
    assert min(counts.values()) >= 2
    errors = [info.module_error_inputs_func for info in database().values()]
    assert all(errors)


@EVERY_NAME
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@TRAIN_AND_EVAL
def test_outputs_and_gradients(name, dtype, training, calls):
    for ours, theirs, inputs, _ in samples(name, dtype, training):
        compare(ours, theirs, inputs)
    assert not calls["torch"]


@EVERY_NAME
@TRAIN_AND_EVAL
def test_outputs_and_gradients_in_bfloat16(name, training, calls):
    """No coarser than torch.nn's own: inputs up to 9 in units of 2 leave little of 8 bits.

    By the largest and by the median error of several hundred tensors (of a dozen, for a cell).
    """
    errors = []
    for ours, theirs, inputs, _ in samples(name, torch.bfloat16, training):
        exact = outputs_and_gradients(theirs, {n: t.double() for n, t in inputs.items()})
        peer = truth(ours, theirs.to(torch.bfloat16))
        found = [outputs_and_gradients(module, inputs) for module in (ours, peer)]
        assert {n: t.dtype for n, t in found[0].items()} == {
            n: t.dtype for n, t in found[1].items()
        }
        errors += [[difference(f[key], exact[key]) for f in found] for key in exact]
    for measure in (max, median):
        mine, torchs = map(measure, zip(*errors, strict=True))
        # both round at random: a tenth of room for that
        assert mine <= 1.1 * torchs


@EVERY_NAME
@EVERY_DTYPE
def test_reference_function(name, dtype):
    """The sample's own: unbatched input is a batch of one."""
    for ours, _, inputs, sample in samples(name, dtype):
        expected = name_outputs(ours, sample.reference_fn(ours, *sample.forward_input.args))
        for key, value in outputs(ours, inputs).items():
            assert value.shape == expected[key].shape
            assert difference(value, expected[key].detach().double()) <= TOLERANCE[dtype], key


@EVERY_NAME
@TRAIN_AND_EVAL
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_gradcheck(name, training, check):
    """By finite differences, of inputs and weights; in float64, as narrower ones are too coarse.

    Along random directions: element by element it would take minutes.
    """
    for ours, _, inputs, _ in samples(name, torch.float64, training):
        names, hidden = [n for n, _ in ours.named_parameters()], len(inputs) - 1

        def function(*tensors, ours=ours, names=names, hidden=hidden):
            x, *rest = tensors
            states, weights = rest[:hidden], dict(zip(names, rest[hidden:], strict=True))
            hx = tuple(states) if hidden > 1 else states[0] if hidden else None
            result = torch.func.functional_call(ours, weights, (x, hx))
            return tuple(torch.utils._pytree.tree_leaves(result))

        tensors = (*inputs.values(), *ours.parameters())
        assert check(function, [t.detach().requires_grad_() for t in tensors], fast_mode=True)


def every_second(t):
    """The same numbers, not contiguous."""
    return t.unsqueeze(-1).repeat_interleave(2, -1)[..., 0] if t.dim() else t


@EVERY_NAME
@EVERY_DTYPE
@pytest.mark.parametrize("which", ["inputs", "weights", "both"])
def test_not_contiguous(name, dtype, which):
    """The same results as from contiguous tensors, to the bit."""
    for ours, _, inputs, _ in samples(name, dtype):
        expected = outputs_and_gradients(ours, inputs)
        if which != "weights":
            inputs = {n: every_second(t) for n, t in inputs.items()}
            assert not any(t.is_contiguous() for t in inputs.values())
        if which != "inputs":
            for weight in ours.parameters():
                weight.data = every_second(weight.data)
        assert_equal(outputs_and_gradients(ours, inputs), expected)


@EVERY_NAME
@EVERY_DTYPE
def test_errors(name, dtype):
    """Each wrong input: torch.nn's exception and message, which are what the database expects."""
    info = database()[name]
    for wrong in info.module_error_inputs_func(info, "cpu", dtype, False, True):
        sample, said = wrong.module_error_input, []
        given, called = sample.constructor_input, sample.forward_input
        for library in (fastrnn, nn):
            make = partial(getattr(library, name), *given.args, **given.kwargs)
            call = make if called is None else partial(make(), *called.args, **called.kwargs)
            with pytest.raises(wrong.error_type, match=wrong.error_regex) as caught:
                call()
            said.append((caught.type, str(caught.value)))
        assert said[0] == said[1]
