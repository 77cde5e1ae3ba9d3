"""``accelerate`` of classes whose forward, or whose class, is not what it seems."""

import pytest
import torch
from torch import nn

import fastrnn


class ByAnotherName(nn.LSTM):
    """torch's own forward, by a name of the class's own."""

    forward = nn.LSTM.forward


def wrapped_in_silence(function):
    def call(*args):
        return function(*args)

    return call


class SilentlyWrapped(nn.LSTM):
    @wrapped_in_silence
    def forward(self, x, hx=None):
        return super().forward(x, hx)


@pytest.mark.parametrize("made", [ByAnotherName, SilentlyWrapped])
def test_a_forward_that_is_torchs_after_all(made, calls):
    module, x = made(4, 5), torch.randn(7, 3, 4)
    expected = module(x)[0]
    assert fastrnn.accelerate(module).changed
    calls.clear()
    torch.testing.assert_close(module(x)[0], expected)
    assert calls["forward"] == 1
    assert calls["torch"] == 0
    fastrnn.restore(module)
    assert type(module) is made


class Stubborn(nn.LSTM):
    @property
    def __class__(self):
        return nn.LSTM


def test_a_class_that_cannot_be_given_away_leaves_nothing_half_done():
    model = nn.Sequential(nn.GRU(4, 4), Stubborn(4, 5), nn.GRU(4, 4))
    report = fastrnn.accelerate(model)
    assert set(report.changed) == {"0", "2"}
    assert set(report.left) == {"1"}
