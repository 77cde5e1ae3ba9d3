"""``accelerate`` and ``restore``: the model stays the same one, in everything but what runs it."""

import copy

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    TOLERANCE,
    build,
    compare,
    difference,
    make_inputs,
    plain_call,
    truth,
)
from test_modules import by_file, by_pickle
from torch import nn

import fastrnn

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


class Tagger(nn.Module):
    """A user's model: an LSTM used in two places, a GRU, a cell, and weights tied to another."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.encoder = nn.LSTM(6, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.block = nn.ModuleDict({"rnn": nn.GRU(12, 8, batch_first=True), "again": self.encoder})
        self.cell = nn.LSTMCell(8, 6)
        self.tied = nn.LSTMCell(8, 6)
        self.tied.weight_ih = self.cell.weight_ih
        self.head = nn.Linear(6, 3)

    def forward(self, words):
        y, _ = self.encoder(self.embed(words))
        y, _ = self.block["rnn"](y)
        state = self.cell(y[:, 0])
        return self.head(self.tied(y[:, -1], state)[0])


class Own(nn.LSTM):
    """Its forward asks for torch.nn's by name, which no other can answer."""

    def forward(self, x, hx=None):
        return nn.LSTM.forward(self, 2 * x, hx)


class OfOurs(fastrnn.LSTM):
    pass


def tagger():
    torch.manual_seed(3)
    return Tagger().double()


WORDS = torch.arange(12).view(3, 4)


def losses(model, optimiser, steps=4):
    found = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(WORDS), torch.tensor([0, 2, 1]))
        loss.backward()
        optimiser.step()
        found.append(loss.detach())
    return torch.stack(found)


def identity(model):
    """What must be the very same objects afterwards, in the same order."""
    return (
        [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)],
        [(name, id(weight)) for name, weight in model.named_parameters(remove_duplicate=False)],
        [(name, value.data_ptr()) for name, value in model.state_dict().items()],
        [(m.training, list(m._forward_hooks), list(m._backward_hooks)) for m in model.modules()],
    )


def test_a_model_is_changed_and_restored():
    model = tagger().eval()
    before, text, classes = identity(model), repr(model), [type(m) for m in model.modules()]
    done = fastrnn.accelerate(model)
    assert done.changed == {
        "encoder": "LSTM", "block.rnn": "GRU", "cell": "LSTMCell", "tied": "LSTMCell"
    }  # fmt: skip
    assert not done.left
    assert identity(model) == before
    assert repr(model) == text
    assert type(model.encoder) is fastrnn.LSTM
    assert model.block["again"] is model.encoder
    assert model.tied.weight_ih is model.cell.weight_ih
    undone = fastrnn.restore(model)
    assert undone.changed == done.changed
    assert identity(model) == before
    assert [type(m) for m in model.modules()] == classes


@pytest.mark.parametrize("when", ["before", "between", "and back"])
def test_training_goes_on(when, calls):
    """The optimiser, made before, trains the very weights; so the losses are torch.nn's."""
    model, reference = tagger(), tagger()
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    expected = losses(reference, torch.optim.Adam(reference.parameters(), 0.05), 8)
    if when == "before":
        fastrnn.accelerate(model)
    found = [losses(model, optimiser)]
    fastrnn.accelerate(model)
    if when == "and back":
        fastrnn.restore(model)
    calls.clear()
    found.append(losses(model, optimiser))
    assert difference(torch.cat(found), expected) <= TOLERANCE[torch.float64]
    assert expected[-1] < 0.5 * expected[0]
    if when == "and back":
        assert not calls
    else:
        # two layers, one layer, and two cells
        assert calls == {"forward": 4 * 5, "backward": 4 * 5}


@EVERY_KIND
@CELL_OR_LAYER
def test_the_model_is_itself_a_layer(kind, cell, calls):
    module = build(nn, kind, 5, 17, cell=cell)
    theirs = truth(module, build(nn, kind, 5, 17, cell=cell, dtype=torch.float64))
    done = fastrnn.accelerate(module)
    assert done.changed == {"": type(theirs).__name__}
    compare(module, theirs, make_inputs(module, 4, 3))
    assert calls == {"forward": 2, "backward": 1}


def test_every_class_has_its_twin():
    for name in NAMES:
        module = getattr(nn, name)(3, 4)
        fastrnn.accelerate(module)
        assert type(module) is getattr(fastrnn, name)
        fastrnn.restore(module)
        assert type(module) is getattr(nn, name)


def test_what_is_left():
    """Nothing of these changes, and the report says why."""
    model = nn.ModuleDict({"own": Own(3, 4), "ours": fastrnn.LSTM(3, 4), "of_ours": OfOurs(3, 4)})
    model["replaced"] = nn.GRU(3, 4)
    model["replaced"].forward = model["replaced"].forward
    model["base"] = nn.modules.rnn.RNNBase("LSTM", 3, 4)
    model["linear"] = nn.Linear(3, 4)
    classes = [type(m) for m in model.modules()]
    done = fastrnn.accelerate(model)
    assert [type(m) for m in model.modules()] == classes
    assert not done.changed
    assert done.left == {
        "own": "Own has a forward of its own that never calls super().forward",
        "ours": "it is fastrnn's already",
        "of_ours": "it is fastrnn's already",
        "replaced": "its forward was replaced",
        "base": "RNNBase has a forward of its own",
    }
    undone = fastrnn.restore(model)
    assert undone.changed == {"ours": "LSTM"}
    assert undone.left["of_ours"] == "OfOurs is built on fastrnn's"
    assert undone.left["own"] == "it is torch.nn's already"


def test_twice_is_once():
    model = tagger()
    changed = fastrnn.accelerate(model).changed
    classes = [type(m) for m in model.modules()]
    assert fastrnn.accelerate(model).left.keys() == changed.keys()
    assert [type(m) for m in model.modules()] == classes


def test_the_report_reads_well():
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "tail": Own(3, 4)})
    assert repr(fastrnn.accelerate(model)) == (
        "1 of 2 recurrent modules changed to fastrnn\n"
        "  lstm  LSTM\n"
        "  tail  left: Own has a forward of its own that never calls super().forward"
    )
    assert str(fastrnn.accelerate(nn.GRU(3, 4))).endswith("(the model)  GRU")
    assert str(fastrnn.accelerate(nn.Linear(3, 4))) == "0 of 0 recurrent modules changed to fastrnn"


@pytest.mark.parametrize(
    "model", [None, nn.LSTM, {}, torch.zeros(1)], ids=lambda m: type(m).__name__
)
def test_no_module(model):
    for convert in (fastrnn.accelerate, fastrnn.restore):
        with pytest.raises(
            TypeError, match=f"expected a torch.nn.Module, got {type(model).__name__}"
        ):
            convert(model)


@EVERY_KIND
@CELL_OR_LAYER
def test_hooks_stay(kind, cell):
    module, seen = build(nn, kind, 5, 7, cell=cell), []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    next(module.parameters()).register_hook(lambda _: seen.append("weight"))
    module.register_state_dict_post_hook(lambda *_: seen.append("state_dict"))
    fastrnn.accelerate(module)
    module.state_dict()
    y = plain_call(module, make_inputs(module, 4, 3)["x"].requires_grad_())
    torch.utils._pytree.tree_leaves(y)[0].sum().backward()
    assert sorted(seen) == ["after", "backward", "before", "state_dict", "weight"]


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_file])
def test_copies_of_an_accelerated_model(copied):
    model = tagger()
    fastrnn.accelerate(model)
    new = copied(model)
    assert [type(m) for m in new.modules()] == [type(m) for m in model.modules()]
    assert new.block["again"] is new.encoder
    assert new.tied.weight_ih is new.cell.weight_ih
    assert new(WORDS).equal(model(WORDS))


def test_a_checkpoint_loads_either_way():
    ours, theirs = tagger(), tagger()
    fastrnn.accelerate(ours)
    for source, target in ((ours, theirs), (theirs, ours)):
        for weight in source.parameters():
            weight.data.add_(0.01)
        assert target.load_state_dict(source.state_dict()) is not None
        torch.testing.assert_close(target(WORDS), source(WORDS), rtol=1e-10, atol=1e-12)


def test_moved_afterwards():
    model = tagger()
    fastrnn.accelerate(model)
    model.float()
    assert model(WORDS).dtype == torch.float32
    expected = tagger().float()(WORDS)
    assert difference(model(WORDS).detach(), expected.detach().double()) <= TOLERANCE[torch.float32]
