"""What a launch needs of a GPU, shown with a GPU that is pretended."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from against_torch import EVERY_KIND

from bench.aot import compiler
from fastrnn.kernels import schedule
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu import buffers, choice, engine, guard, kernels, launch, products, tiles
from fastrnn.kernels.gpu.sizes import Device
from fastrnn.kernels.keep import Keep
from fastrnn.kernels.refused import Refused
from fastrnn.kernels.weights import Weights


@EVERY_KIND
def test_compiled_once_for_every_batch(kind):
    """B = 1 and multiples of 16 are numbers like any other, in a kernel's key."""
    cell = CELLS[kind]
    bound = {name: getattr(kernels, name)(cell) for name in ("forward", "backward")}
    before = {name: sizes(kernel) for name, kernel in bound.items()}
    found = []
    for B in (1, 16, 17):
        layer = compiler.Layer(cell, "float16", tf32=False, H=16, B=B)
        chosen = tiles.Forward(16, 16, 16, 4, 0), tiles.Backward(16, 16, 4)
        found.append(compiler.compiled(compiler.target("sm90"), layer, *chosen))
    for name, kernel in bound.items():
        assert all(compiled[name] is found[0][name] for compiled in found)
        assert sizes(kernel) == before[name] + 1


def sizes(kernel):
    """How many versions of a kernel were compiled."""
    return sum(len(caches[0]) for caches in kernel.device_caches.values())


def test_without_a_driver(monkeypatch):
    """Where Triton finds no GPU that it can use, or no C compiler, that is a reason, no error."""

    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(choice, "driver", Driver())
    assert choice.obstacle.__wrapped__("cuda") == "Triton cannot start: Failed to find C compiler."
    assert "no GPU" in choice.obstacle.__wrapped__("cpu")


@EVERY_KIND
def test_what_no_tile_fits_is_refused(kind):
    """By the engine itself, should a caller not have asked before."""
    cell, B, H = CELLS[kind], 3, 4096
    empty = partial(torch.empty, dtype=torch.bfloat16, device="meta")
    weights = Weights(empty(cell.gates * H, 5), empty(cell.gates * H, H), None, None, None)
    states = [empty(1, B, H)] * cell.states
    with pytest.raises(Refused, match="the triton engine cannot serve this: "):
        engine.layer(cell, empty(B, 5), schedule.dense(1, B), [weights], states, Keep.NOTHING)


@pytest.fixture
def gpu(monkeypatch):
    """torch.cuda, pretended: a list of what happened, and who is the current stream."""

    class Event:
        def record(self, stream):
            done.append(f"record on {stream.name}")

    class Stream(SimpleNamespace):
        def wait_event(self, event):
            done.append(f"{self.name} waits")

    @contextmanager
    def device(which):
        done.append(f"enter {which.index}")
        yield
        done.append(f"leave {which.index}")

    done, state = [], SimpleNamespace(stream=None, capturing=False)
    state.done, state.streams = done, [Stream(name=name) for name in "ab"]
    for name, value in {
        "Event": Event,
        "device": device,
        "current_stream": lambda: state.stream,
        "is_current_stream_capturing": lambda: state.capturing,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(launch, "_last", {})
    return state


def test_streams_take_turns(gpu):
    """A launch on one stream waits for the one before on another: each device by itself, and not
    one whose programs wait for nobody.
    """

    def run(stream, device=0, alone=False):
        gpu.stream = gpu.streams[stream]
        gpu.done.clear()
        with launch.in_turn(torch.device("cuda", device), alone):
            gpu.done.append("launch")
        return gpu.done[1:-1]

    assert run(0) == ["launch", "record on a"]
    assert run(0) == ["launch", "record on a"]
    assert run(1) == ["b waits", "launch", "record on b"]
    assert run(0, device=1) == ["launch", "record on a"]
    assert run(1, alone=True) == ["launch"]
    gpu.capturing = True
    assert run(0) == ["launch"]
    gpu.capturing = False
    assert run(0) == ["a waits", "launch", "record on a"]
    assert (gpu.done[0], gpu.done[-1]) == ("enter 0", "leave 0")


@pytest.mark.parametrize("sizes", [[3], [2, 2, 2], [4, 4, 2, 1, 1], [5, 4, 3]], ids=str)
def test_tables_are_alike(sizes):
    """Made from the numbers or copied: (sizes, offsets), with an empty step at either end."""
    found = schedule.Steps(sizes)
    made, copied = (f(found, torch.device("cpu")) for f in (buffers._made_there, buffers._copied))
    assert made[0].tolist() == copied[0].tolist() == [0, *sizes, 0]
    assert made[1, 1:-1].tolist() == copied[1, 1:-1].tolist() == found.offsets.tolist()


def test_tables_are_remembered(gpu, monkeypatch):
    """For each stream; not for a graph, which may outlive what is remembered, nor by it."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: gpu.stream)
    for name in ("_made_there", "_copied"):
        monkeypatch.setattr(buffers, name, lambda *arguments: object())
    found, device = schedule.Steps([2, 2]), torch.device("cuda", 0)

    def made(stream, capturing=False):
        gpu.stream, gpu.capturing = "ab"[stream], capturing
        return buffers.table(found, device)

    captured = [made(0, True), made(0, True)]
    assert made(0) is made(0) is not made(1)
    assert len({*captured, made(0, True), made(0), made(1)}) == 5


@pytest.mark.parametrize(
    ("properties", "hip", "expected"),
    [
        (
            {"major": 9, "minor": 0, "shared_memory_per_block_optin": 232448},
            None,
            Device(90, 132, 232448, 233472, "GPU"),
        ),
        (
            {"gcnArchName": "gfx942:sramecc+:xnack-", "shared_memory_per_block": 65536},
            "6.4",
            Device(0x942, 132, 65536, 65536, "GPU"),
        ),
    ],
    ids=["cuda", "hip"],
)
def test_describe(monkeypatch, properties, hip, expected):
    found = SimpleNamespace(
        name="GPU",
        multi_processor_count=132,
        shared_memory_per_multiprocessor=233472,
        **properties,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert launch._described.__wrapped__(torch.device("cuda", 0)) == expected


@pytest.mark.parametrize(
    ("said", "ranks", "expected"),
    [("", 0, 4), ("", 1, 4), ("", 2, 32), ("7", 2, 7), ("0", 0, 0)],
)
def test_margin(monkeypatch, said, ranks, expected):
    """Processors for others: more of them beside NCCL, and as many as somebody says."""
    monkeypatch.setenv("FASTRNN_GPU_MARGIN", said)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: ranks > 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    found = launch.describe(torch.device("cpu"))
    assert found.margin == expected
    assert found.processors == 132


def test_a_margin_that_is_no_number(monkeypatch):
    monkeypatch.setenv("FASTRNN_GPU_MARGIN", "a few")
    with pytest.raises(ValueError, match="FASTRNN_GPU_MARGIN should be a number of processors"):
        launch.margin()


def test_who_is_barred(monkeypatch):
    """AMD's GPUs and the interpreter, unless ours is asked for; where it was given up, all."""
    device = torch.device("cuda", 0)
    assert launch.barred(device, False) is None
    for module, name, value, word in (
        (torch.version, "hip", "6.4", "AMD"),
        (launch, "INTERPRETED", True, "interpreted"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert word in launch.barred(device, False)
            assert launch.barred(device, True) is None
            patch.setattr(choice.tiles, "choose", lambda *_: pytest.fail("is barred"))
            fit = torch.float16, device, False, False, "lstm", 100, 8, 64, 1, False
            assert word in choice.fit(*fit)[1]
    monkeypatch.setattr(guard, "_off", {device: "given up"})
    assert launch.barred(device, True) == launch.barred(device, False) == "given up"


def test_no_tf32_on_amd(monkeypatch):
    """Its flag is on in every build of torch; the compiler has no such product there."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    monkeypatch.setattr(torch.version, "hip", None)
    assert products.tf32()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not products.tf32()
