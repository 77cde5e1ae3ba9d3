"""How python -m bench.gpu judges: without a GPU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gpu_cases import ITEM, SMALL

from bench.gpu import checks, oracle, summary
from fastrnn.gpu import oracle as tried


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("variant", [{}, {"packed": True, "directions": 2}, {"mode": "inference"}])
def test_the_oracle_knows_right_from_wrong(cell, variant):
    case = replace(SMALL, cell=cell, **variant)
    report = oracle.judge(case, "float32", relu=cell == "RNN")
    assert report["right"], report

    class Wrong(getattr(torch.nn, cell)):
        """Its first weight is a little off."""

        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            with torch.no_grad():
                self.weight_ih_l0.mul_(1.001)

    wrong = SimpleNamespace(**{cell: Wrong})
    report = oracle.judge(case, "float32", relu=cell == "RNN", namespace=wrong)
    assert not report["right"], report
    assert report["error"] > 1e-5


def test_signs_that_roundings_flip_are_not_wrong(monkeypatch):
    """Weights rounded to TF32 flip the sign of what some units of a ReLU RNN take in."""

    class Rounded(torch.nn.RNN):
        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            with torch.no_grad():
                for weight in self.parameters():
                    bits = (weight.view(torch.int32) + 0x1000) & ~0x1FFF
                    weight.copy_(bits.view(torch.float32))

    def judge(relu):
        case = replace(SMALL, cell="RNN", T=40, B=33, I=100, H=200)
        return oracle.judge(case, "tf32", relu, namespace=SimpleNamespace(RNN=Rounded))

    assert judge(relu=True)["right"], judge(relu=True)
    monkeypatch.setattr(tried, "allowed", lambda name, *_: oracle.ALLOWED[name])
    assert judge(relu=False)["right"]
    report = judge(relu=True)  # as strict with gradients as with outputs
    assert not report["right"]
    assert report["of"].startswith("d ")


def test_nan_is_never_right():
    assert oracle.distance(torch.tensor([1.0, torch.nan]), torch.ones(2)) == torch.inf


def test_what_triton_does_not_serve_is_checked_all_the_same():
    """On a CPU that is everything."""
    row = checks.check(ITEM)
    assert row["engine"] == "torch"
    assert "cannot serve this" in row["why"]
    assert row["right"]
    assert summary.line(ITEM | row | {"section": "first checks"}).startswith("by torch's kernels: ")
