"""The choice of tiles for many layers and GPUs: always an answer, never over a device's limits."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.kernels.gpu import measured, sizes, tiles
from fastrnn.kernels.gpu.sizes import Device

KIB = 1024
H200 = Device(90, 132, 227 * KIB, 228 * KIB, "NVIDIA H200")
A100 = Device(80, 108, 163 * KIB, 164 * KIB)
DEVICES = {
    "H200": H200,
    "H200, a seventh": Device(90, 16, 227 * KIB, 228 * KIB),
    "A100": A100,
    "A100, a seventh": Device(80, 14, 163 * KIB, 164 * KIB),
    "RTX 4090": Device(89, 128, 99 * KIB, 100 * KIB),
    "T4": Device(75, 40, 64 * KIB, 64 * KIB),
    "MI300X": Device(0x942, 304, 64 * KIB, 64 * KIB),
}
ARITHMETICS = [("float16", False), ("bfloat16", False), ("float32", True), ("float32", False)]
TORCHS = 1, 3, 4  # gates, of the product
GATES = [0, *TORCHS, 2, 5, 8]

devices = st.builds(
    lambda processors, shared, more: Device(90, processors, shared, shared + more),
    st.integers(1, 400),
    st.integers(16 * KIB, 256 * KIB),
    st.sampled_from([0, KIB, 128 * KIB]),
)
layers = st.tuples(
    st.sampled_from(GATES),
    st.sampled_from(ARITHMETICS),
    st.integers(1, 5000),  # B
    st.integers(1, 3000),  # H
    st.sampled_from([1, 2]),
)


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch, tmp_path):
    use_file(monkeypatch, tmp_path / "none.json")


def use_file(monkeypatch, path):
    monkeypatch.setattr(measured, "FILE", path)
    for function in (measured.gpus, tiles._faster, tiles._chosen_for):
        function.cache_clear()


def chosen(layer, device):
    """(forward, backward), each a tile or a reason."""
    gates, arithmetic, B, H, D = layer
    return tuple(
        choose(gates, *arithmetic, B, H, D, device)
        for choose in (tiles.choose_forward, tiles.choose_backward)
    )


def hold(layer, device):
    """Assert that what is chosen is a reason in words, or a tile within the device's limits."""
    gates, arithmetic, B, H, D = layer
    kind = sizes.precision(*arithmetic)
    for (direction, kernel), tile in zip(sizes.KERNELS.items(), chosen(layer, device), strict=True):
        if isinstance(tile, str):
            assert f"H = {H}" in tile or device.arch < sizes.OLDEST
            continue
        assert all(size & (size - 1) == 0 for size in (tile[0], tile.BB, tile.warps))
        rows = tile[0] * (sizes.row_groups(gates) if direction == "forward" else 1)
        assert min(rows, tile.BB) >= 16 or not gates
        needed = kernel.shared(tile, gates, kind, H)
        assert needed <= device.shared
        found = sizes.launches(direction, tile, gates, kind, B, H, D, device)
        assert found.groups * tile[0] >= H
        assert found.blocks * tile.BB >= B
        shares = found._replace(grid=lambda groups, *share: share).each()
        lanes = [
            (block + i, first + d)
            for block, first, (blocks, directions) in shares
            for i, d in product(range(blocks), range(directions))
        ]
        assert sorted(lanes) == list(product(range(found.blocks), range(D)))
        grids = [grid for _, _, grid in found.each()]
        assert len(grids) == found.count
        if found.together is not None:
            room = device.processors * (device.shared_total // (needed + 1 * KIB))
            assert max(map(math.prod, grids)) <= room


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_within_the_limits(device):
    widths = [1, 7, 16, 40, 64, 65, 100, 128, 129, 200, 256, 384, 512, 768, 1000, 1024, 1536, 2048]
    batches = [1, 2, 16, 17, 32, 64, 100, 128, 256, 1024]
    for layer in product(GATES, ARITHMETICS, batches, widths, (1, 2)):
        hold(layer, device)


@given(layers, devices)
def test_within_the_limits_of_any_device(layer, device):
    hold(layer, device)


@given(layers, devices, st.integers(0, 100), st.integers(0, 64 * KIB))
def test_more_device_serves_more(layer, device, processors, shared):
    more = Device(90, device.processors + processors, device.shared + shared, 10**9)
    for small, large in zip(chosen(layer, device), chosen(layer, more), strict=True):
        assert isinstance(small, str) or not isinstance(large, str)


@given(layers, devices, st.integers(1, 5000))
def test_what_fits_fits_with_any_batch(layer, device, other):
    gates, arithmetic, _, H, D = layer
    unlike = (gates, arithmetic, other, H, 3 - D)
    for one, another in zip(chosen(layer, device), chosen(unlike, device), strict=True):
        assert isinstance(one, str) == isinstance(another, str)
        assert one == another or not isinstance(one, str)


@pytest.mark.parametrize("device", [H200, A100], ids=["H200", "A100"])
def test_a_smaller_last_batch_compiles_nothing_new(device):
    """Down to half of it and one more: its tiles are those of the next power of two."""
    for H, power in product((256, 512, 768, 1024), (16, 32, 64, 128, 256)):
        batches = range(power // 2 + 1, power + 1)
        assert len({chosen((4, ARITHMETICS[1], B, H, 1), device) for B in batches}) == 1


@given(layers, devices, st.integers(1, 64))
def test_a_margin_is_left_free(layer, device, margin):
    """No launch whose programs wait takes the processors that are left to others."""
    gates, arithmetic, B, H, D = layer
    kind, free = sizes.precision(*arithmetic), device._replace(margin=margin)
    smaller = device._replace(processors=max(1, device.processors - margin))
    assert chosen(layer, free) == chosen(layer, smaller)
    for direction, tile in zip(sizes.KERNELS, chosen(layer, free), strict=True):
        if not isinstance(tile, str):
            rest = direction, tile, gates, kind, B, H, D
            assert sizes.launches(*rest, free).together == sizes.launches(*rest, smaller).together


@given(layers, devices)
def test_fewest_launches(layer, device):
    gates, arithmetic, B, H, D = layer
    kind = sizes.precision(*arithmetic)
    for direction, tile in zip(sizes.KERNELS, chosen(layer, device), strict=True):
        if not isinstance(tile, str):
            sizes_of = gates, kind, 1 << (B - 1).bit_length(), H, D, device
            every = sizes.fitting(direction, *sizes_of)
            counts = [sizes.launches(direction, each, *sizes_of).count for each in every]
            assert every[0] == tile
            assert counts[0] == min(counts)


@pytest.mark.parametrize("gates", TORCHS)
def test_an_h200_serves_what_it_must(gates):
    """Half precision to H = 1024; TF32 to 768; exact float32 to 512."""

    def serves(dtype, B, H, training):
        choice = tiles.choose(gates, dtype, dtype == "float32", 100, B, H, 1, H200, training)
        assert choice.forward, f"{dtype} {choice.reason}"

    for H, B in product((1, 32, 100, 128, 256, 300, 512), (1, 16, 64)):
        for dtype in ("float16", "bfloat16", "float32"):
            serves(dtype, B, H, training=True)
    for H, B in product((768, 1000, 1024), (1, 16, 64)):
        serves("bfloat16", B, H, training=True)
    for B in (1, 16, 32):
        serves("float32", B, 768, training=True)
    serves("float32", 64, 768, training=False)
    exact = (gates, "float32", False, 100, 64, 512, 1, H200)
    assert tiles.choose(*exact, training=True).forward


def test_a_small_layer_is_one_program():
    """Then it needs no barrier, and runs on any GPU however small."""
    small = Device(86, 1, 64 * KIB, 64 * KIB)
    for gates, H in product(TORCHS, (8, 30, 64)):
        choice = tiles.choose(gates, "float16", False, 100, 1000, H, 2, small, True)
        assert choice.forward.BU >= H
        assert choice.backward.GU >= H


def test_reasons():
    """They say what is in the way, in numbers that a user knows."""
    wide = tiles.choose(4, "bfloat16", False, 100, 1, 4096, 1, H200, False)
    assert wide.forward is None
    assert "H = 4096 is beyond 1536" in wide.reason
    many = tiles.choose(4, "bfloat16", False, 100, 5000, 1024, 1, H200, False)
    assert many.reason == "B = 5000 takes 79 launches: torch is thought to be faster"
    few = tiles.choose(4, "bfloat16", False, 100, 1, 1024, 1, DEVICES["H200, a seventh"], False)
    assert few.reason == "H = 1024 takes 64 programs at the same time, more than this GPU runs"
    poor = Device(86, 40, 16 * KIB, 16 * KIB)
    tight = tiles.choose(4, "float16", False, 100, 1, 128, 1, poor, False)
    assert "KiB of shared memory" in tight.reason
    old = tiles.choose(4, "float16", False, 100, 1, 128, 1, DEVICES["T4"], False)
    assert old.reason == "compute capability 7.5, and 8.0 or newer is needed"
    inference = tiles.choose(4, "bfloat16", False, 100, 64, 512, 1, H200, False)
    assert inference.reason == measured.UNTIMED
    assert inference.backward is None


def test_tiles_as_told():
    forward, backward = tiles.Forward(16, 128, 64, 8, 0), tiles.Backward(32, 64, 4)
    with tiles.using(forward, backward):
        choice = tiles.choose(4, "bfloat16", False, 100, 64, 512, 1, H200, True)
    assert choice[:2] == (forward, backward)
    with tiles.using(forward, backward), ThreadPoolExecutor(1) as another:  # such as autograd's
        told = another.submit(tiles.choose_backward, 4, "bfloat16", False, 64, 512, 1, H200)
        assert told.result() == backward
    with tiles.using(forward=forward):
        assert tiles.choose_backward(4, "bfloat16", False, 64, 512, 1, H200) != backward


def test_without_a_product_nobody_waits():
    for layer in product([0], ARITHMETICS, [1, 100], [1, 100, 5000], [2]):
        gates, arithmetic, B, H, D = layer
        kind = sizes.precision(*arithmetic)
        for direction, tile in zip(sizes.KERNELS, chosen(layer, A100), strict=True):
            found = sizes.launches(direction, tile, gates, kind, B, H, D, A100)
            (launch,) = found.each()
            assert math.prod(launch[2]) == found.blocks * found.groups * D


def test_too_many_gates():
    for found in chosen((9, ARITHMETICS[0], 1, 64, 1), H200):
        assert found == "9 gates, and 8 at most are multiplied with the hidden state"


def test_a_cell_that_torch_has_not_is_ours_where_it_fits(monkeypatch):
    """However few its steps are, and however fast torch's own cells."""
    layer = (4, "bfloat16", False, 2, 64, 512, 1, H200, True)
    monkeypatch.setattr(measured, "verdict", lambda *_: (False, "torch is faster"))
    tiles._faster.cache_clear()
    assert not tiles.choose(*layer).forward
    found = tiles.choose(*layer, torchs=False)
    assert found.forward
    assert found.reason == "torch has no kernels for such a cell"
