"""Launches with a kernel and a driver that are pretended: how many programs there is room for, and
how many steps a launch takes.
"""

from itertools import pairwise
from math import prod
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from fastrnn.kernels.gpu import launch, room
from fastrnn.kernels.gpu.grids import Launches, forward_grid

LANES = Launches(blocks=8, D=1, groups=4, together=99, grid=forward_grid)


class Kernel:
    """Refuses more than ``room`` programs, as the driver does, and notes what it runs."""

    def __init__(self, room, after=0):
        self.room, self.after, self.asked, self.ran = room, after, 0, []

    def __getitem__(self, grid):
        def call(**arguments):
            self.asked += 1
            if prod(grid) > self.room and self.asked > self.after:
                raise RuntimeError(f"Triton Error [CUDA]: {room.REFUSAL}")
            self.ran.append((grid, arguments))

        return call

    def warmup(self, grid, **arguments):
        return SimpleNamespace(function=7, metadata=SimpleNamespace(shared=100, num_warps=4))


@pytest.fixture(autouse=True)
def new(monkeypatch):
    """Nothing is remembered, and there is no driver."""
    monkeypatch.setattr(room, "_granted", {})
    monkeypatch.setattr(room, "_driver", lambda: None)


def run(kernel, launches=LANES, T=3):
    start = torch.zeros(1, 1, 8, 8)
    return start, launch.run(kernel, launches, start, 4, T, BB=16)


def grids(kernel):
    return [grid for grid, _ in kernel.ran]


def test_where_the_driver_cannot_be_asked_half_as_many_are_tried():
    """And then remembered: but of this kernel alone."""
    kernel = Kernel(room=16)
    run(kernel)
    assert grids(kernel) == [(4, 4, 1)] * 2
    run(kernel)
    assert kernel.asked == 1 + 2 + 2
    other = Kernel(room=32)
    run(other)
    assert grids(other) == [(8, 4, 1)]


def test_the_driver_is_asked(monkeypatch):
    """It says 1 for each of 20 processors: of lanes of 4 programs there is room for 5."""
    asked = []

    def ask(found, function, threads, shared):
        asked.append((function.value, threads, shared.value))
        found._obj.value = 1
        return 0

    driver = SimpleNamespace(cuOccupancyMaxActiveBlocksPerMultiprocessor=ask)
    monkeypatch.setattr(room, "_driver", lambda: driver)
    few = launch._described(torch.device("cpu"))._replace(processors=20)
    monkeypatch.setattr(launch, "describe", lambda device: few)
    kernel = Kernel(room=20)
    run(kernel)
    assert grids(kernel) == [(5, 4, 1), (3, 4, 1)]
    assert asked == [(7, 128, 100)]


def test_the_driver_may_refuse_what_it_has_said(monkeypatch):
    """Then one lane less is tried, until there is none."""
    driver = SimpleNamespace(cuOccupancyMaxActiveBlocksPerMultiprocessor=lambda *_: 1)
    monkeypatch.setattr(room, "_driver", lambda: driver)
    assert room.programs_of(Kernel(0).warmup((1,))) is None
    monkeypatch.setattr(room, "programs_of", lambda compiled: 1000)
    kernel = Kernel(room=20)
    run(kernel)
    assert grids(kernel) == [(5, 4, 1), (3, 4, 1)]


def test_no_room_for_one_lane():
    kernel = Kernel(room=3)
    with pytest.raises(RuntimeError, match=room.REFUSAL):
        run(kernel)
    assert not kernel.ran
    assert kernel.asked == 4  # of 8, 4, 2 and 1


def test_what_has_begun_is_not_begun_again():
    """Of later launches a refusal is an error: the first has written where it has read."""
    kernel, many = Kernel(room=16, after=1), LANES._replace(together=4, blocks=8)
    run(kernel, many)
    kernel = Kernel(room=8, after=1)
    with pytest.raises(RuntimeError, match=room.REFUSAL):
        run(kernel, many)
    assert grids(kernel) == [(4, 4, 1)]


def test_a_captured_launch_is_not_tried_again(monkeypatch):
    """The refusal has broken the capture."""
    monkeypatch.setattr(launch, "capturing", lambda device: True)
    kernel = Kernel(room=16)
    with pytest.raises(RuntimeError, match=room.REFUSAL):
        run(kernel)
    assert kernel.asked == 1


@pytest.mark.parametrize("T", [1, 4, 5, 8, 11])
def test_a_launch_takes_so_many_steps_at_most(monkeypatch, T):
    """Each begins with the states that the one before has ended with."""
    monkeypatch.setattr(launch, "STEPS", 4)
    kernel = Kernel(room=99)
    start, end = run(kernel, LANES._replace(together=4), T)
    calls = [arguments for _, arguments in kernel.ran]
    every = [(s, min(s + 4, T)) for s in range(0, T, 4)]
    assert [(c["s0"], c["s1"]) for c in calls] == every * 2
    assert [c["block0"] for c in calls] == [0] * len(every) + [4] * len(every)
    for lane in (calls[: len(every)], calls[len(every) :]):
        assert lane[0]["start"] is start
        assert lane[-1]["end"] is end
        for one, other in pairwise(lane):
            assert one["end"] is other["start"] is not one["start"]


def test_what_a_launch_is_given():
    kernel = Kernel(room=99)
    run(kernel)
    with launch.patience(7):
        run(kernel)
    run(kernel, LANES._replace(together=None))
    (_, first), (_, second), (_, alone) = kernel.ran
    assert (first["patience"], second["patience"]) == (2**30, 7)
    assert launch.STEPS == 2**15
    assert first["enable_fp_fusion"] is True
    assert (first["launch_cooperative_grid"], alone["launch_cooperative_grid"]) == (True, False)
    assert first["failed"].device.type == "cpu"
