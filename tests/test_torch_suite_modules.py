"""PyTorch's own samples, on ours: what a module is besides its results."""

import pytest
import torch
from against_torch import name_outputs, outputs_and_gradients, plain_call, truth
from test_modules import by_file, by_pickle
from torch_samples import EVERY_DTYPE, EVERY_NAME, assert_equal, outputs, samples

import fastrnn


@EVERY_NAME
@EVERY_DTYPE
@pytest.mark.parametrize("passed", [by_pickle, by_file])
def test_pickled(name, dtype, passed):
    for ours, _, inputs, _ in samples(name, dtype):
        new = passed(ours)
        assert_equal(new.state_dict(), ours.state_dict())
        assert_equal(outputs(new, inputs), outputs(ours, inputs))


@EVERY_NAME
@EVERY_DTYPE
def test_state_dict_and_repr(name, dtype):
    """To torch.nn and back: the same names in the same order, dtypes and all."""
    for ours, theirs, inputs, _ in samples(name, dtype, of_theirs=dtype):
        assert repr(ours) == repr(theirs)
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        assert_equal(ours.state_dict(), state)
        before = outputs(ours, inputs)
        for weight in ours.parameters():
            weight.data.zero_()
        assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
        assert_equal(outputs(ours, inputs), before)


@EVERY_NAME
@pytest.mark.parametrize("way", ["_swap", "_overwrite", None])
def test_to(name, way, monkeypatch):
    """Through every dtype, by each of torch's ways to replace parameters: as if made there."""
    for ours, _, inputs, sample in samples(name, torch.float32):
        outputs(ours, inputs)
        given = sample.constructor_input
        for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
            with monkeypatch.context() as patch:
                if way:
                    patch.setattr(torch.__future__, f"{way}_module_params_on_conversion", True)
                ours.to(dtype)
            fresh = truth(ours, getattr(fastrnn, name)(*given.args, **given.kwargs, dtype=dtype))
            moved = {n: t.to(dtype) for n, t in inputs.items()}
            assert_equal(outputs_and_gradients(ours, moved), outputs_and_gradients(fresh, moved))


@EVERY_NAME
@EVERY_DTYPE
def test_to_meta_and_back(name, dtype):
    for ours, _, inputs, _ in samples(name, dtype):
        state = {n: t.clone() for n, t in ours.state_dict().items()}
        expected = outputs_and_gradients(ours, inputs)
        ours.to("meta")
        for key, value in outputs(ours, {n: t.to("meta") for n, t in inputs.items()}).items():
            assert (value.shape, value.dtype) == (expected[key].shape, dtype)
        ours.to_empty(device="cpu").load_state_dict(state)
        assert_equal(outputs_and_gradients(ours, inputs), expected)


@EVERY_NAME
@EVERY_DTYPE
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_memory_format(name, dtype, memory_format):
    """A module may be told; with tensors of at most 3 dimensions it changes nothing."""
    for ours, _, inputs, _ in samples(name, dtype):
        before = outputs(ours, inputs)
        ours.to(memory_format=memory_format)
        assert all(weight.is_contiguous() for weight in ours.parameters())
        assert_equal(outputs(ours, inputs), before)


@EVERY_NAME
@EVERY_DTYPE
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_factory_arguments(name, dtype, device):
    for _, _, _, sample in samples(name, dtype):
        given = sample.constructor_input
        ours = getattr(fastrnn, name)(*given.args, **given.kwargs, device=device, dtype=dtype)
        assert all((p.dtype, p.device.type) == (dtype, device) for p in ours.parameters())


@EVERY_NAME
def test_the_mode_is_read(name):
    """A layer's forward reads ``training``; a cell's does not: both as torch's."""
    for ours, theirs, inputs, _ in samples(name, torch.float64):
        said = []
        for module in (ours, theirs):
            del module.training
            try:
                outputs(module, inputs)
                said.append(None)
            except AttributeError as error:
                said.append(str(error))
        assert said[0] == said[1]
        assert (said[0] is None) == name.endswith("Cell")


@EVERY_NAME
@EVERY_DTYPE
def test_nothing_is_changed_in_place(name, dtype):
    for ours, _, inputs, _ in samples(name, dtype):
        tensors = [*inputs.values(), *ours.parameters()]
        before = [(t.detach().clone(), t._version) for t in tensors]
        leaves = {n: t.requires_grad_() for n, t in inputs.items()}
        name_outputs(ours, plain_call(ours, *leaves.values()))["h_n"].sum().backward()
        for t, (value, version) in zip(tensors, before, strict=True):
            assert t.detach().equal(value)
            assert t._version == version
