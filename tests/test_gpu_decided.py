"""What verdicts are about, and what was decided by them: with a GPU that is pretended."""

from contextlib import ExitStack

import pytest
import torch
from gpu_asked import BFLOAT16, asked, gpu, told, trying
from gpu_trials import KEY, Tries, found, right
from torch import nn

import fastrnn
from fastrnn import backends, description, heads
from fastrnn.gpu import tune, when
from fastrnn.kernels.gpu import choice, guard, launch, products, tiles, verdicts
from fastrnn.step import cell_of_module

__all__ = ["gpu"]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"num_layers": 2}, {"layers": 2}),
        ({"num_layers": 2, "bidirectional": True}, {"layers": 2, "D": 2}),
        ({"proj_size": 64}, {"projection": 64}),
        ({"num_layers": 3, "proj_size": 64}, {"layers": 3, "projection": 64}),
    ],
    ids=str,
)
def test_stacks_and_projections_have_verdicts_of_their_own(gpu, options, changes):
    """Torch takes several layers at once, and multiplies less where a state is projected."""
    gpu.known[KEY] = right()
    layer, tries = nn.LSTM(8, 512, dtype=BFLOAT16, **options), Tries()
    x = torch.empty(100, 64, 8, dtype=BFLOAT16)
    tensors, step, called = description.describe(layer, x)
    with trying(tries):
        assert backends._on_gpu(tensors, step, called, False).name == "triton"
    (key,) = tries.asked
    assert {
        n: v for n, v in key._asdict().items() if v != getattr(KEY, n)
    }.items() >= changes.items()


@pytest.fixture
def counted(gpu, monkeypatch):
    """A list that grows with each call whose answer is not remembered."""
    made, key_of = [], choice.key_of
    monkeypatch.setattr(choice, "key_of", lambda *given: made.append(given) or key_of(*given))
    return made


def test_an_answer_is_remembered(gpu, counted):
    """For calls of the same sizes, whether it is yes or no."""
    with trying(found()):
        for B, name in ((64, "triton"), (100_000, "torch")):
            assert [asked(B=B).name for _ in range(3)] == [name] * 3
    assert len(counted) == 1  # of the other one it was enough that it takes many launches


def test_lengths_without_end(gpu, counted, monkeypatch):
    monkeypatch.setattr(choice, "REMEMBERED", 4)
    with trying(found()):
        for T in range(100, 110):
            assert asked(T=T).name == "triton"
            assert len(gpu.decided) <= 4
    assert len(counted) == 10


def off_by_environment(gpu, patch):
    told(patch, "off")


def given_up(gpu, patch):
    patch.setattr(guard, "_off", {torch.device("cpu"): "given up"})


def with_more_ranks(gpu, patch):
    patch.setattr(launch, "margin", lambda: 32)


def with_other_tiles(gpu, patch):
    context = tiles.using(tiles.Forward(32, 16, 256, 4, 0))
    context.__enter__()
    patch.callback(context.__exit__, None, None, None)


def forgotten(gpu, patch):
    gpu.forget()


CHANGES = [off_by_environment, given_up, with_more_ranks, with_other_tiles, forgotten]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_answer_does_not_outlive_what_it_came_of(gpu, counted, change):
    """Whatever we change ourselves, or look at."""
    worker = found()
    with trying(worker), ExitStack() as patch:
        assert asked().name == "triton"
        monkeypatch = patch.enter_context(pytest.MonkeyPatch.context())
        patch.setattr, patch.setenv = monkeypatch.setattr, monkeypatch.setenv
        change(gpu, patch)
        worker.told = ()
        assert asked().name == "torch" or len(counted) == 2


def test_tf32(gpu, monkeypatch):
    """It is another arithmetic, of which there is another verdict."""
    layer = nn.LSTM(8, 64)
    tensors, step, called = description.describe(layer, torch.empty(100, 64, 8))
    tries = Tries()
    with trying(tries):
        for allowed in (False, True, False):
            monkeypatch.setattr(products, "tf32", lambda allowed=allowed: allowed)
            assert backends._on_gpu(tensors, step, called, False).name == "triton"
    assert [key.arithmetic for key in tries.asked] == ["float32", "tf32"]


def test_who_only_looks_decides_nothing(gpu, counted):
    """explain, and tune: the first call decides, and it does not hide kinds from tune."""
    with when.asking(None):
        assert choice.UNPROVEN in asked().reason
    with trying(found()):
        assert asked().name == "triton"
    wanted = tune.Wanted()
    with when.asking(wanted):
        asked()
    assert list(wanted.found) == [KEY]
    gpu.known[KEY] = verdicts.wrong("d x is off")
    with when.asking(None):
        assert "d x is off" in asked().reason
    assert not any(answer[1] == choice.UNPROVEN for answer in gpu.decided.values())


def test_heads_are_directions_once(gpu):
    """An engine is given a layer whose heads are apart: the operator of a graph asks about that."""

    class Heads(fastrnn.Recurrent):
        gates, states = 1, "h"

        def step(self, wx, uh, h):
            return torch.tanh(wx[0] + uh[0])

    layer, tries = Heads(8, 512, heads=4), Tries()
    cell, x = cell_of_module(layer, True, layer._edition), torch.empty(100, 64, 8)
    weights, states = layer.directions(), [torch.empty(1, 64, 512)]
    directions, apart, _ = heads.apart(cell, weights, states, None)
    with trying(tries):
        for D, many, hx, called in (
            (1, weights, states, (cell, 100, 1)),
            (4, directions, apart, (cell, 100, 4, False, True)),
        ):
            flat = [w for each in many for w in each if w is not None]
            backends._on_gpu([x, *hx, *flat], False, called, False)
            assert hx[0].shape == (D, 64, 512 // D)
    (key,) = tries.asked
    assert (key.H, key.D, key.training) == (128, 4, True)
