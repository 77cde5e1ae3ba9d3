"""Training practice: the modes, contexts and hooks of autograd, with a layer of ours inside."""

import warnings
from functools import partial

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    build,
    build_pair,
    compare,
    make_inputs,
    plain_call,
    twins,
)
from practice import H, I, Model, assert_alike, data, loss_of, train
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn.modules import module as global_hooks
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import fastrnn

CONTEXTS = {
    "save_on_cpu": save_on_cpu,
    "saved through NumPy": lambda: saved_tensors_hooks(torch.Tensor.numpy, torch.from_numpy),
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "autograd on one thread": lambda: torch.autograd.set_multithreading_enabled(False),
    "views replayed": lambda: torch.autograd._force_original_view_tracking(True),
    "profiled": lambda: torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_training_within(kind, cell, context, calls):
    def practice(model):
        with context():
            return train(model)

    assert_alike(practice, kind, cell)
    assert calls.keys() == {"forward", "backward"}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("filled", [True, False], ids=["filled", "unfilled"])
def test_deterministic_or_not(kind, cell, deterministic, filled):
    """In both modes the same numbers, and the same to the bit when it is done again."""
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    assert_alike(train, kind, cell)
    runs = []
    for _ in range(2):
        torch.manual_seed(4)
        runs.append(train(Model(fastrnn, kind, cell)
                          .double())[0])  # fmt: skip
    assert runs[0].equal(runs[1])


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(kind, cell, reentrant):
    """Forward twice: dropout between the layers draws the same elements both times."""

    def practice(model):
        def loss(model, x, goal):
            y = checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)
            return (y - goal).square().mean() + checkpoint(
                lambda x: model(x).sum(), x, use_reentrant=reentrant
            )

        return train(model, loss=loss)

    assert_alike(practice, kind, cell, **({} if cell else {"dropout": 0.3}))


@EVERY_KIND
def test_checkpoint_of_a_sequence_of_layers(kind):
    def practice(model):
        class Output(nn.Module):
            def forward(self, result):
                return result[0]

        deep = nn.Sequential(model.rnn, Output(), nn.Linear(H, I).double(), model.rnn, Output())
        y = checkpoint_sequential(deep, 2, data()[0].requires_grad_(), use_reentrant=False)
        return torch.autograd.grad(y.sum(), list(model.rnn.parameters()))

    assert_alike(practice, kind)


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_grad(kind, cell, mode, calls):
    def practice(model):
        with mode():
            y = model(data()[0])
        return y, y.requires_grad, y.is_inference(), train(model)

    assert_alike(practice, kind, cell)
    assert not calls["torch"]


def said(call):
    """The type of what ``call`` raised, and the first sentence of its text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomaly mode warns, and is no subject here
        try:
            call()
        except RuntimeError as error:
            return str(error).partition(".")[0].partition(":")[0]
    return None


@EVERY_KIND
@CELL_OR_LAYER
def test_inference_tensors_cannot_be_trained_on(kind, cell):
    """Of the input or of the weights: torch's error."""
    for what in ("x", "weights"):
        errors = []
        for library in (fastrnn, nn):
            with torch.inference_mode(what == "weights"):
                module = build(library, kind, I, H, cell=cell)
            with torch.inference_mode(what == "x"):
                x = make_inputs(module, 3, 2, states=False)["x"]
            if what == "weights":
                x.requires_grad_()
            errors.append(said(lambda module=module, x=x: module(x)))
        assert errors[0] == errors[1] == "Inference tensors cannot be saved for backward"


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("place", [0, 1, "weight_ih", "weight_hh"])
def test_saved_tensors_changed_in_place(kind, cell, place):
    """Between forward and backward: torch's error, wherever torch has one."""
    errors = []
    for module in build_pair(kind, I, H, cell=cell):
        inputs = list(make_inputs(module, 3, 2).values())
        leaves = [t.clone().requires_grad_() for t in inputs]
        values = [leaf * 1 for leaf in leaves]
        y = torch.utils._pytree.tree_leaves(plain_call(module, *values))[0]
        suffix = "" if cell else "_l0"
        target = getattr(module, place + suffix) if isinstance(place, str) else values[place]
        with torch.no_grad():
            target.add_(1)
        errors.append(said(y.sum().backward))
    ours, theirs = errors
    if theirs is not None:  # in one of torch's two wordings
        assert ours.startswith("one of the variables needed for gradient computation has been mod")


@EVERY_KIND
@CELL_OR_LAYER
def test_anomaly_mode_finds_nan(kind, cell):
    """A gradient that is NaN is blamed on the layer, which is where it arises."""
    model = Model(fastrnn, kind, cell)
    next(model.rnn.parameters()).data.fill_(torch.nan)

    def train():
        with torch.autograd.detect_anomaly():
            model(data(dtype=torch.float32)[0]).sum().backward()

    assert "returned nan values" in said(train)


def hooked(model, seen):
    """Every kind of hook on the module and its tensors; those that may change values do."""
    rnn, note = model.rnn, seen.append
    halve = partial(torch.utils._pytree.tree_map_only, torch.Tensor, lambda t: t / 2)
    rnn.register_forward_pre_hook(lambda m, args: note("pre") or (args[0] * 1.5, *args[1:]))
    rnn.register_forward_pre_hook(
        lambda m, args, kwargs: note("pre kwargs") or (args, kwargs), with_kwargs=True
    )
    rnn.register_forward_hook(lambda m, args, result: note("forward") or halve(result))
    rnn.register_full_backward_pre_hook(lambda m, dy: note("backward pre") or halve(dy))
    rnn.register_full_backward_hook(lambda m, dx, dy: note("backward") or halve(dx))
    for weight in rnn.parameters():
        weight.register_hook(lambda g: note("gradient") or 2 * g)
        weight.register_post_accumulate_grad_hook(lambda w: note("accumulated"))


@EVERY_KIND
@CELL_OR_LAYER
def test_hooks(kind, cell):
    def practice(model):
        seen = []
        handle = global_hooks.register_module_forward_hook(lambda *_: seen.append("global"))
        try:
            hooked(model, seen)
            x, goal = data()
            x.requires_grad_()
            result = train(model, loss=lambda model, *_: loss_of(model, x, goal))
        finally:
            handle.remove()
        return result, x.grad, sorted(seen)

    assert_alike(practice, kind, cell)


@EVERY_KIND
@CELL_OR_LAYER
def test_gradients_in_parts(kind, cell):
    """Accumulated over micro-batches, with the graph kept, and by autograd.grad."""

    def practice(model):
        for seed in range(3):
            loss = loss_of(model, *data(seed)) / 3
            loss.backward(retain_graph=True)
            loss.backward(inputs=list(model.rnn.parameters()))
        parts = torch.autograd.grad(loss_of(model, *data()), list(model.rnn.parameters())[:2])
        return [w.grad for w in model.parameters()], parts

    assert_alike(practice, kind, cell)


def in_double(make):
    torch.set_default_dtype(torch.float64)
    try:
        return make()
    finally:
        torch.set_default_dtype(torch.float32)


def on_meta(make):
    with torch.device("meta"):
        return make()


MAKING = {
    "on meta, then empty": lambda make: on_meta(make).to_empty(device="cpu"),
    "default dtype": lambda make: in_double(make).float(),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("making", MAKING.values(), ids=MAKING)
def test_made_under_a_context(kind, cell, making):
    ours, theirs = twins(kind, I, H, cell=cell)
    given = {"nonlinearity": ours.nonlinearity} if hasattr(ours, "nonlinearity") else {}
    made = making(partial(type(ours), I, H, **given))
    made.load_state_dict(ours.state_dict())
    compare(made, theirs, make_inputs(made, 3, 2))
