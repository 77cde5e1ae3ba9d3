"""The choice of tiles, where a GPU has been measured."""

import json

import pytest
from test_gpu_tiles import A100, H200, KIB, hold, unmeasured, use_file

from fastrnn.kernels.gpu import measured, sizes, tiles
from fastrnn.kernels.gpu.sizes import Device

__all__ = ["unmeasured"]


@pytest.fixture
def measurements(monkeypatch, tmp_path):
    """An H200 on which ours was fast at H 512, slow at H 1024, and another tile was the best."""
    key = {"gates": 4, "arithmetic": "bfloat16", "D": 1, "T": 512}
    speed = [
        key | {"H": 512, "B": 64, "inference": 2.0, "training": 1.5},
        key | {"H": 1024, "B": 64, "inference": 1.1, "training": 0.5},
        key | {"H": 1024, "B": 16, "inference": None, "training": 3.0},
    ]
    best = [key | {"H": 512, "B": 64, "forward": [16, 32, 128, 4, 0], "backward": None}]
    path = tmp_path / "measured.json"
    gpu = {"gpu": "NVIDIA H200", "processors": 132, "speed": speed, "tiles": best}
    path.write_text(json.dumps([gpu]))
    use_file(monkeypatch, path)


@pytest.mark.usefixtures("measurements")
def test_measurements_decide():
    def choice(B, H, training, dtype="bfloat16", device=H200, D=1, T=500):
        return tiles.choose(4, dtype, False, T, B, H, D, device, training)

    fast = choice(64, 500, training=True, T=9999)
    assert fast.reason == "1.50x as fast as torch.nn at 512x64x512 on NVIDIA H200"
    assert fast.forward == tiles.Forward(16, 32, 128, 4, 0)
    assert fast.backward.GU == 128  # not measured: as ever
    slow = choice(64, 1000, training=True)
    assert slow.forward is None
    assert "0.50x" in slow.reason
    with tiles.using():
        assert choice(64, 1000, training=True).forward
    assert choice(64, 1000, training=False).forward  # that mode was fast
    assert choice(16, 1024, training=True).forward  # and so was that batch
    assert not choice(None, 1024, training=True).forward  # it is slow with one, so with any
    assert choice(None, 1024, training=False).forward
    assert choice(None, 100, training=True).reason == measured.UNTIMED
    assert choice(None, 1024, training=True, T=None).forward is None
    few = choice(64, 512, training=True, T=30)  # what was measured with 512 says nothing of them
    assert few.reason == "T = 30: torch is thought to be faster, which has less to prepare"
    forced = tiles.choose(4, "bfloat16", False, 30, 64, 1024, 1, H200, True, forced=True)
    assert forced.forward
    for unlike in (
        choice(64, 512, training=True, dtype="float16"),
        choice(64, 512, training=True, device=A100),
        choice(64, 512, training=True, D=2),
        choice(1, 64, training=True),
    ):
        assert unlike.reason == measured.UNTIMED


@pytest.mark.usefixtures("measurements")
def test_a_gpu_is_like_no_other():
    """An H200 says nothing of an H100, nor of a part of itself."""

    def reason(device):
        return tiles.choose(4, "bfloat16", False, 512, 64, 512, 1, device, False).reason

    assert "2.00x" in reason(H200)
    for other in (H200._replace(name="NVIDIA H100"), H200._replace(processors=130)):
        assert reason(other) == measured.UNTIMED
    # what is left to others is still there
    assert "2.00x" in reason(H200._replace(margin=4))


@pytest.mark.usefixtures("measurements")
def test_a_measurement_is_of_so_many_launches():
    """It says nothing of a batch that takes more of them, nor of a tile for it; and whatever was
    measured elsewhere, an estimate is a veto.
    """

    def choice(B, device, T=512):
        return tiles.choose(4, "bfloat16", False, T, B, 512, 1, device, False)

    few = H200._replace(margin=92)
    for device, count, said in ((H200, 1, "as fast as torch.nn"), (few, 2, measured.UNTIMED)):
        found = choice(256, device)
        rest = found.forward, 4, "half", 256, 512, 1, device
        assert sizes.launches("forward", *rest).count == count
        assert said in found.reason
        assert "2.00x" in choice(64, device).reason
    kind = "forward", 4, "half"
    assert measured.tile(*kind, 256, 512, 1, few, lambda row: True) == [16, 32, 128, 4, 0]
    assert tiles.choose_forward(4, "bfloat16", False, 256, 512, 1, few) == (16, 64, 128, 4, 1)
    short = choice(64, H200, T=31)
    assert short.forward is None
    assert "T = 31: torch is thought" in short.reason


@pytest.mark.usefixtures("measurements")
def test_a_measured_tile_serves_only_where_it_fits():
    poor = Device(90, 132, 60 * KIB, 64 * KIB)
    hold((4, ("bfloat16", False), 64, 512, 1), poor)
    hold((4, ("bfloat16", False), 2000, 300, 1), H200)


def test_nothing_measured_is_fine():
    given = "bfloat16", False, 9, 1, 64, 1, H200
    assert measured.verdict(4, *given, True, bool) == (None, measured.UNTIMED)
    assert measured.tile("forward", 4, "half", 1, 64, 1, H200, bool) is None
