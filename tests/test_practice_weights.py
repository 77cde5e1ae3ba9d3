"""Training practice: how people constrain, drop, freeze, average and optimise the weights."""

import copy
import itertools

import pytest
import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND
from practice import Model, assert_alike, data, loss_of, train
from test_weights import REPARAMETRISED
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector
from torch.nn.utils import vector_to_parameters as set_weights
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import fastrnn


def recurrent_weight(model):
    return "weight_hh_l0" if isinstance(model.rnn, nn.RNNBase) else "weight_hh"


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("change", REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_reparametrised_in_training(kind, cell, change, calls):
    """A power iteration of spectral_norm goes with every reading: ours reads as often as torch."""

    def practice(model):
        change(model.rnn, recurrent_weight(model))
        return train(model)

    assert_alike(practice, kind, cell)
    assert not calls["torch"]


class Dropped(nn.Module):
    def forward(self, weight):
        return nn.functional.dropout(weight, 0.5)


def by_parametrisation(model, name):
    register_parametrization(model.rnn, name, Dropped())


def by_attribute(model, name):
    """As in AWD-LSTM: a raw parameter, from which the weight is set before every forward."""
    raw = getattr(model.rnn, name)
    del model.rnn._parameters[name]
    model.rnn.register_parameter(f"{name}_raw", raw)

    def drop(rnn, args):
        setattr(rnn, name, nn.functional.dropout(getattr(rnn, f"{name}_raw"), 0.5))

    model.rnn.register_forward_pre_hook(drop)


def by_flat_weights(model, name):
    """As some do: behind the module's back, in the list that forward passes on."""
    place = model.rnn._flat_weights_names.index(name)

    def drop(rnn, args):
        rnn._flat_weights[place] = nn.functional.dropout(getattr(rnn, name), 0.5)

    model.rnn.register_forward_pre_hook(drop)


@EVERY_KIND
@pytest.mark.parametrize("how", [by_parametrisation, by_attribute, by_flat_weights])
def test_weight_drop(kind, how, calls):
    def practice(model):
        how(model, "weight_hh_l0")
        return train(model)

    assert_alike(practice, kind)
    assert not calls["torch"]


@EVERY_KIND
def test_weight_drop_of_a_cell(kind):
    def practice(model):
        by_parametrisation(model, "weight_hh")
        dropped = train(model)
        remove_parametrizations(model.rnn, "weight_hh")
        return dropped, train(model)

    assert_alike(practice, kind, cell=True)


OPTIMISERS = {
    "SGD foreach": lambda w: torch.optim.SGD(w, 0.1, momentum=0.9, foreach=True),
    "SGD fused": lambda w: torch.optim.SGD(w, 0.1, momentum=0.9, fused=True),
    "Adam foreach": lambda w: torch.optim.Adam(w, 0.01, foreach=True),
    "AdamW fused": lambda w: torch.optim.AdamW(w, 0.01, fused=True),
    "Adagrad fused": lambda w: torch.optim.Adagrad(w, 0.01, fused=True),
    "RMSprop": lambda w: torch.optim.RMSprop(w, 0.01, centered=True),
    "Rprop": lambda w: torch.optim.Rprop(w, 0.001),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimisers(kind, cell, optimiser):
    assert_alike(lambda model: train(model, optimiser(model.parameters())), kind, cell)


@EVERY_KIND
def test_an_optimiser_that_calls_back(kind):
    def practice(model):
        optimiser = torch.optim.LBFGS(model.parameters(), 0.3, max_iter=4)

        def closure():
            optimiser.zero_grad()
            loss = loss_of(model, *data())
            loss.backward()
            return loss

        return [optimiser.step(closure) for _ in range(3)]

    assert_alike(practice, kind)


@EVERY_KIND
def test_an_optimiser_inside_backward(kind):
    """A step per parameter, as soon as its gradient is there."""

    def practice(model):
        for weight in model.parameters():
            own = torch.optim.SGD([weight], 0.1)
            weight.register_post_accumulate_grad_hook(lambda _, own=own: own.step())
        losses = []
        for _ in range(3):
            loss = loss_of(model, *data())
            model.zero_grad()
            loss.backward()
            losses.append(loss)
        return losses, list(model.parameters())

    assert_alike(practice, kind)


CLIPS = {
    "norm": lambda w: clip_grad_norm_(w, 0.1),
    "norm foreach": lambda w: clip_grad_norm_(w, 0.1, foreach=True),
    "largest": lambda w: clip_grad_norm_(w, 0.1, norm_type=float("inf")),
    "value": lambda w: clip_grad_value_(w, 0.01),
}


@EVERY_KIND
@CELL_OR_LAYER
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_clipped(kind, cell, clip):
    def practice(model):
        norms = []
        return train(model, before_step=lambda: norms.append(clip(list(model.parameters())))), norms

    assert_alike(practice, kind, cell)


@EVERY_KIND
@CELL_OR_LAYER
def test_weights_as_a_vector(kind, cell):
    def practice(model):
        vector = parameters_to_vector(model.parameters()).detach()
        first = model(data()[0])
        set_weights(vector + 0.1, model.parameters())
        second = model(data()[0])
        set_weights(vector, model.parameters())
        assert model(data()[0]).equal(first)
        return vector, first, second, train(model)

    assert_alike(practice, kind, cell)


@EVERY_KIND
@CELL_OR_LAYER
def test_any_subset_frozen(kind, cell, calls):
    """Every subset of the weights of a layer or cell: the gradients of the others, and no more."""
    names = [
        n
        for n, _ in Model(nn, kind, cell, **({} if cell else {"num_layers": 1})).named_parameters()
    ]
    names = [n for n in names if n.startswith("rnn")]
    for frozen in itertools.chain(
        *(itertools.combinations(names, n) for n in range(len(names) + 1))
    ):

        def practice(model, frozen=frozen):
            for name in frozen:
                model.get_parameter(name).requires_grad_(False)
            loss_of(model, *data()).backward()
            return [w.grad for w in model.parameters()]

        assert_alike(practice, kind, cell, **({} if cell else {"num_layers": 1}))
    assert not calls["torch"]


@EVERY_KIND
def test_frozen_and_thawed(kind):
    def practice(model):
        model.rnn.requires_grad_(False)
        frozen = train(model)
        model.rnn.requires_grad_(True)
        return frozen, train(model)

    assert_alike(practice, kind)


@EVERY_KIND
@CELL_OR_LAYER
def test_averaged(kind, cell):
    """An exponential moving average of the weights, and the schedule that goes with it."""

    def practice(model):
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        optimiser = torch.optim.SGD(model.parameters(), 0.1)
        schedule = SWALR(optimiser, 0.05)
        result = train(model, optimiser, before_step=lambda: average.update_parameters(model))
        schedule.step()
        update_bn([data()[0]], average)
        return result, average(data()[0]), list(average.parameters())

    assert_alike(practice, kind, cell)


@EVERY_KIND
@CELL_OR_LAYER
def test_copied_in_the_midst_of_training(kind, cell):
    """Model and optimiser saved after some steps, and taken up by a copy."""

    def practice(model):
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        train(model, optimiser)
        other = copy.deepcopy(model)
        again = torch.optim.Adam(other.parameters(), 0.5)
        again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        found, expected = train(other, again), train(model, optimiser)
        assert all(a.equal(b) for a, b in zip(found[1], expected[1], strict=True))
        return found

    assert_alike(practice, kind, cell)


def test_what_is_shared_between_models_stays_shared():
    """An encoder in two models: the gradient is the sum of both."""
    found = []
    for library in (fastrnn, nn):
        torch.manual_seed(4)
        first, second = (Model(library, "gru").double() for _ in range(2))
        second.rnn = first.rnn
        (loss_of(first, *data()) + 2 * loss_of(second, *data(7))).backward()
        found.append([w.grad for w in first.rnn.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
