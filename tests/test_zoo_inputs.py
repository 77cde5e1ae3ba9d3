"""fastrnn.zoo: what its layers draw, and what they make of their input before the loop."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from zoo_cases import build, recorded

import fastrnn
from fastrnn import zoo


def seen(layer, monkeypatch, *args, **inputs):
    """The input that reaches the loop."""
    found, forward = [], fastrnn.Recurrent.forward

    def noted(self, input, *rest, **others):
        found.append(input)
        return forward(self, input, *rest, **others)

    monkeypatch.setattr(fastrnn.Recurrent, "forward", noted)
    layer(*args, **inputs)
    return found[0]


@pytest.mark.parametrize("full", [False, True], ids=["(B, T)", "(B, T, H)"])
def test_inputs_of_steps_are_batch_first_too(full):
    """With as many sequences as steps, where sizes do not tell which is which."""
    layer = zoo.AUGRU(3, 4, batch_first=True)
    x, attention = torch.randn(5, 5, 3), torch.rand(5, 5, 4) if full else torch.rand(5, 5)
    y, _ = layer(x, attention=attention)
    layer.batch_first = False
    right, _ = layer(x.transpose(0, 1), attention=attention.transpose(0, 1))
    torch.testing.assert_close(y, right.transpose(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_zones_are_drawn_for_each_unit_step_and_layer(p):
    layer = zoo.ZoneoutLSTM(3, 40, 2, zoneout_h=p, zoneout_c=0.5)
    with recorded(layer) as drawn:
        layer(torch.randn(30, 8, 3))
    zones = [layer["zone_h"] for layer in drawn["inputs"]]
    assert all(zone.shape == (30, 8, 40) and {*zone.unique().tolist()} <= {0, 1} for zone in zones)
    assert abs(torch.stack(zones).mean().item() - p) < 0.02
    assert p in (0, 1) or not torch.equal(*zones)


def test_a_unit_in_its_zone_keeps_its_state():
    h, c = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    layer = zoo.ZoneoutLSTM(3, 4, zoneout_h=1.0, zoneout_c=1.0)
    y, final = layer(torch.randn(5, 2, 3), (h, c))
    assert torch.equal(y, h.expand_as(y))
    assert all(map(torch.equal, final, (h, c)))


def test_without_zones_it_is_torchs():
    layer, lstm = zoo.ZoneoutLSTM(3, 4, zoneout_h=0.0, zoneout_c=0.0), torch.nn.LSTM(3, 4)
    lstm.load_state_dict(layer.state_dict())
    gru, torchs = zoo.ZoneoutGRU(3, 4, zoneout=0.0), torch.nn.GRU(3, 4)
    torchs.load_state_dict(gru.state_dict())
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(layer(x)[0], lstm(x)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(gru(x)[0], torchs(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["dense", "batch_first", "packed"])
def test_dropout_is_one_mask_a_sequence(form, monkeypatch):
    layer = zoo.WeightDropLSTM(
        6, 5, 2, batch_first=form == "batch_first", input_dropout=0.5, hidden_dropout=0.25
    )
    x, lengths = torch.ones(4, 3, 6), [2, 4, 3]
    given = pack_sequence([x[:n, 0] for n in lengths], False) if form == "packed" else x
    with recorded(layer, lengths if form == "packed" else None) as drawn:
        masked = seen(layer, monkeypatch, given)
    if form == "packed":
        found = torch.nn.utils.rnn.unpack_sequence(masked)
    else:
        found = masked.unbind(0 if form == "batch_first" else 1)
    masks = [sequence[0] for sequence in found]
    assert all(torch.equal(s, m.expand_as(s)) for s, m in zip(found, masks, strict=True))
    assert {*torch.cat(masks).tolist()} == {0, 2}
    assert not torch.equal(*masks[:2])
    hidden, output = (inputs["mask"] for inputs in drawn["inputs"])
    there = hidden[0]
    assert {*there.unique().tolist()} <= {0, torch.tensor(4 / 3).item()}
    assert all(((step == there) | (step == 0)).all() for step in hidden)
    assert {*output.unique().tolist()} <= {0, 1}


def test_weights_are_dropped_at_each_call_of_training():
    layer = zoo.WeightDropLSTM(6, 30, weight_dropout=0.25)
    first, second = (layer.directions()[0].hh for _ in range(2))
    assert not torch.equal(first, second)
    assert abs((first == 0).double().mean() - 0.25) < 0.02
    torch.testing.assert_close(first[first != 0], (layer.weight_hh_l0 / 0.75)[first != 0])
    assert torch.equal(layer.eval().directions()[0].hh, layer.weight_hh_l0)


@pytest.mark.parametrize("batch_first", [False, True])
def test_missing_values(batch_first):
    """What stands where a value is missing does not matter; before the first it is the mean."""
    layer = build("GRUD", batch_first=batch_first)
    mask, delta = torch.rand(5, 4, 3).round(), torch.rand(5, 4, 3)
    x, inputs = torch.randn(5, 4, 3).double(), {"mask": mask.double(), "delta": delta.double()}
    missing = torch.where(mask > 0.5, x, torch.nan).requires_grad_()
    y, _ = layer(missing, **inputs)
    torch.testing.assert_close(y, layer(x, **inputs)[0], rtol=0, atol=0)
    y.sum().backward()
    assert missing.grad.isfinite().all()
    assert torch.equal(missing.grad != 0, mask > 0.5)
    nothing = inputs | {"mask": torch.zeros_like(x)}
    found, right = (layer(v, **nothing)[0] for v in (missing, layer.mean.expand_as(x)))
    torch.testing.assert_close(found, right, rtol=0, atol=0)


def test_grud_of_packed_sequences():
    """What was there last is looked for in the sequence itself."""
    layer, lengths = build("GRUD", 1, 1), [2, 5, 4]
    x, delta = torch.randn(2, 5, 3, 3).double()
    mask = torch.rand_like(x).round()
    rows = [
        pack_sequence([t[:n, b] for b, n in enumerate(lengths)], enforce_sorted=False)
        for t in (x, mask, delta)
    ]
    y, h_n = layer(rows[0], mask=rows[1], delta=rows[2])
    y, _ = pad_packed_sequence(y)
    for b, n in enumerate(lengths):
        expected, end = layer(x[:n, b], mask=mask[:n, b], delta=delta[:n, b])
        assert y[:n, b].equal(expected)
        assert h_n[:, b].equal(end)


def test_an_unbatched_sequence_is_a_batch_of_one():
    for name in ("QRNN", "GRUD", "WeightDropLSTM"):
        layer = build(name, 1, 1).eval()
        x = torch.randn(5, 3).double()
        inputs = {"mask": torch.ones_like(x), "delta": x.abs()} if name == "GRUD" else {}
        y, _ = layer(x, **inputs)
        batch = {n: t.unsqueeze(1) for n, t in inputs.items()}
        torch.testing.assert_close(y, layer(x.unsqueeze(1), **batch)[0].squeeze(1))
