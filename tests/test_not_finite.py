"""NaN and infinity go where they go in torch, and nowhere else."""

import pytest
import torch
from against_torch import (
    CELL_OR_LAYER,
    EVERY_KIND,
    FLOATS,
    compare,
    make_inputs,
    outputs_without_grad,
    truth,
    twins,
)

POISON = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}


@EVERY_KIND
@CELL_OR_LAYER
@FLOATS
@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_not_finite(kind, cell, dtype, poison, calls):
    """One bad number in one tensor after another goes where it goes in torch."""
    wrong = []
    ours, theirs = twins(kind, 3, 17, cell=cell, dtype=dtype)
    inputs = make_inputs(ours, 4, 3)
    for name, value in (inputs | dict(ours.named_parameters())).items():
        middle = tuple(n // 2 for n in value.shape)
        before = value[middle].item()
        value.data[middle] = poison
        truth(ours, theirs)
        try:
            compare(ours, theirs, inputs)
        except AssertionError as error:
            wrong.append(f"{poison} in {name} {error}")
        value.data[middle] = before
    assert not wrong, "\n".join(wrong)
    assert not calls["torch"]


@EVERY_KIND
@CELL_OR_LAYER
@FLOATS
def test_every_nan(kind, cell, dtype):
    """A NaN stays one whatever its other bits are: of halves that were widened all may be set."""
    ours, _ = twins(kind, 3, 1, cell=cell, dtype=dtype)
    inputs = make_inputs(ours, 1, 2)
    bias = ours.bias_ih.data if cell else ours.bias_ih_l0.data
    bits = bias.view(torch.int32 if dtype == torch.float32 else torch.int64)
    quiet = {torch.float32: 0x7FC00000, torch.float64: 0x7FF8 << 48}[dtype]
    for nan in (quiet, quiet + 1, quiet + 3, -1, torch.iinfo(bits.dtype).max):
        for gate in range(len(bias)):
            bias.zero_()
            bits[gate] = nan
            assert bias[gate].isnan()
            assert outputs_without_grad(ours, inputs)["h_n"].isnan().all(), (hex(nan), gate)


@EVERY_KIND
def test_a_bad_row_stays_in_its_row(kind, threads):
    """NaN in one sequence of a batch changes no bit of the others."""
    ours, _ = twins(kind, 40, 48)
    x = torch.randn(21, 20, 40)
    good = ours(x)[0]
    x[3, 7] = torch.nan
    bad = ours(x)[0]
    others = [b for b in range(20) if b != 7]
    assert bad[:, others].equal(good[:, others])
    assert bad[3:, 7].isnan().all()
    assert bad[:3, 7].equal(good[:3, 7])
