"""How python -m bench.gpu measures and tunes, and what it compiles beforehand: without a GPU."""

import ast
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python
from gpu_cases import H200, ITEM, SMALL
from gpu_trials import FACTS, KEY, right
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from bench.cases import Case
from bench.gpu import oracle, plan, prepare, speed, summary, worker
from fastrnn.gpu import oracle as tried
from fastrnn.gpu import race, trial
from fastrnn.kernels.gpu import choice, launch, sizes, tiles, verdicts
from fastrnn.kernels.keep import Keep


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("LSTM", 9, 64, 512, 512, dtype="float16"), "persistent"),
        (Case("LSTM", 9, 64, 512, 512, dtype="bfloat16"), "standard"),
        (Case("GRU", 9, 64, 512, 512, dtype="float16"), "standard"),
        (Case("LSTM", 9, 60, 512, 512, dtype="float16"), "standard"),
        (Case("LSTM", 9, 64, 512, 512, dtype="float16", packed=True), "standard"),
        (Case("LSTM", 9, 64, 128, 128), "small H"),
        (Case("LSTM", 9, 64, 128, 128, packed=True), "standard"),
        (Case("LSTM", 9, 64, 128, 128, projection=64), "standard"),
        (Case("LSTM", 9, 64, 512, 512, dtype="float16", projection=64), "standard"),
        (Case("LSTM", 9, 64, 512, 512, dtype="float16", directions=2), "standard"),
        (Case("LSTM", 9, 64, 128, 128, dtype="float16", directions=2), "small H"),
        (Case("GRU", 9, 64, 192, 192), "small H, standard"),
        (Case("GRU", 9, 64, 192, 192, mode="inference"), "small H"),
        (Case("GRU", 9, 64, 193, 193), "standard"),
        (Case("RNN", 9, 64, 256, 256), "small H"),
        (Case("RNN", 9, 64, 384, 384), "small H, standard"),
        (Case("RNN", 9, 64, 384, 384, dtype="float16"), "small H, persistent"),
        (Case("RNN", 9, 64, 384, 384, mode="inference"), "small H"),
        (Case("RNN", 9, 64, 512, 512), "standard"),
        (Case("RNN", 9, 96, 896, 896, dtype="float16"), "standard"),
        (Case("RNN", 9, 88, 896, 896, dtype="float16"), "persistent"),
        (Case("LSTM", 9, 96, 896, 896, dtype="float16"), "persistent"),
        (Case("RNN", 9, 64, 128, 128, dtype="float64"), "standard"),
    ],
)
def test_algorithms(case, expected):
    assert speed.algorithm(case) == expected


@pytest.mark.parametrize("do", [worker.measure, worker.tune])
def test_what_triton_does_not_serve_is_not_timed(do, monkeypatch):
    monkeypatch.setattr(launch, "describe", lambda _: H200)
    (row,) = do(ITEM | {"direction": "forward"})
    assert "cannot serve this" in row["skipped"]


def test_verdicts_that_ship(monkeypatch):
    """The engine's own trial of a call, in both modes; what does not fit is left out."""
    asked = []

    def tried(item, device):
        asked.append((verdicts.key_of(item["key"]), item["cell"], device.type))
        yield {"phase": "proving"}
        yield ends[0]

    monkeypatch.setattr(launch, "describe", lambda _: H200)
    monkeypatch.setattr(trial, "tried", tried)
    monkeypatch.setattr(choice, "facts", lambda _: FACTS)
    training, inference = (item for item in (*plan.verdicts(),)[1::-1])
    ends = [verdicts.written(KEY, right())]
    (row,) = worker.prove(training)
    assert (row["proof"], row["facts"]) == (ends[0], FACTS)
    assert not summary.bad(row)
    ends = [verdicts.written(KEY, verdicts.wrong("it hangs"))]
    (row,) = worker.prove(inference)
    assert row["failed"] == "it hangs"
    ends = [{"none": "the GPU is busy"}]
    (row,) = worker.prove(plan.item("GRU", "float16", 9, 3, 40, packed=True, directions=2))
    assert row["skipped"] == "the GPU is busy"
    (first, second, third) = asked
    assert first == (KEY, "lstm", "cuda")
    assert second[0] == KEY._replace(training=False, backward=None)
    assert third[0][:6] == ("gru", "float16", 40, 2, True, True)
    (row,) = worker.prove(plan.item("LSTM", "tf32", 9, 64, 2048))
    assert "beyond" in row["skipped"]


@pytest.fixture
def processor(monkeypatch):
    """The CPU in the place of the GPU: its clock for events."""

    def seconds_of(run, calls):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    monkeypatch.setattr(race, "seconds_of", seconds_of)
    monkeypatch.setattr(speed, "kept", lambda *_: 1000)
    monkeypatch.setattr(race, "SECONDS", 0.01)
    monkeypatch.setattr(race, "TURN", 1e-4)


@pytest.mark.usefixtures("processor")
def test_measuring():
    rows = list(speed.measure(ITEM, {"float32_flops": 1e12, "copy_bytes": 1e11}))
    assert [row["mode"] for row in rows] == ["inference", "training"]
    for row in rows:
        assert row["ours_us"] > 0
        assert row["torch_us"] > 0
        assert row["ratio"] == pytest.approx(row["torch_us"] / row["ours_us"], rel=0.9)
        assert 0 < row["of_floor"] < 1
        assert row["class"] == "small H"
    assert rows[1]["ours_kept"] == 1000


@pytest.mark.usefixtures("processor")
def test_nothing_wrong_is_timed(monkeypatch):
    monkeypatch.setattr(tried, "ALLOWED", dict.fromkeys(tried.ALLOWED, -1.0))
    judge = oracle.judge
    verdict = {"right": False, "allowed": 0.0}
    monkeypatch.setattr(oracle, "judge", lambda *args: judge(*args) | verdict)
    (row,) = speed.measure(ITEM, {})
    assert summary.bad(row)
    assert "ours_us" not in row


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_tuning_tries_every_tile_that_fits(monkeypatch, direction):
    monkeypatch.setattr(launch, "describe", lambda _: H200)
    rows = list(speed.tune(ITEM | {"direction": direction}))
    fitting = sizes.fitting(direction, 4, "fp32", SMALL.B, SMALL.H, 1, H200)
    assert [row["tile"] for row in rows] == [list(tile) for tile in fitting]
    assert all(row["right"] and row["ours_us"] > 0 for row in rows)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize(
    "error",
    [
        OutOfResources(300000, 232448, "shared memory"),
        PTXASError("ptxas died"),
        CompilationError("src", ast.Pass(lineno=1, col_offset=0), "no"),
        RuntimeError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_tile_that_fails_does_not_end_the_tuning(monkeypatch, error):
    def judge(case, *arguments):
        tried.append(case)
        if len(tried) == 1:
            raise error
        return {"error": 0.0, "allowed": 1.0, "right": True}

    tried = []
    monkeypatch.setattr(launch, "describe", lambda _: H200)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(oracle, "judge", judge)
    first, *others = speed.tune(ITEM | {"direction": "forward"})
    assert first["failed"].startswith(type(error).__name__)
    assert others
    assert all(row["ours_us"] > 0 for row in others)


def test_what_is_compiled_beforehand():
    """Of a measured layer both modes, of a tuned one every tile, of what does not fit nothing."""
    item = plan.item("LSTM", "bfloat16", 512, 64, 512)
    sections = plan.Section("s", f"{plan.HERE}:measure", [item], 1.0, 1)
    training, inference = prepare.calls(sections, item, H200)
    chosen = tiles.choose(4, "bfloat16", False, 512, 64, 512, 1, H200, True)
    assert training[1:4] == (chosen.forward, chosen.backward, Keep.ALL)
    assert inference[1:4] == (chosen.forward, None, Keep.NOTHING)
    tuned = prepare.calls(sections, item | {"direction": "forward"}, H200)
    fitting = sizes.fitting("forward", 4, "half", 64, 512, 1, H200)
    assert [call.forward for call in tuned] == fitting
    assert prepare.calls(sections, plan.item("LSTM", "tf32", 9, 64, 2048), H200) == []
    assert prepare.calls(sections, {"what": "graph"}, H200) == []


def test_a_compiler_that_dies_is_told_of(tmp_path):
    compilers = prepare.Compilers([], H200, tmp_path / "uncompiled.txt")
    assert compilers.failed() == []
    compilers.processes += [SimpleNamespace(exitcode=code) for code in (None, 0, -6)]
    assert compilers.failed() == ["a process ended with -6"]


def test_compiling_beforehand(tmp_path):
    """It leaves in Triton's cache what the engine then finds there."""
    script = """
    import sys
    sys.path.insert(0, "..")
    from bench import machine, tree
    tree.use(machine.ROOT)
    from bench.gpu import plan, prepare
    item = plan.item("RNN", "bfloat16", 9, 3, 64)
    section = plan.Section("s", f"{plan.HERE}:measure", [item], 1.0, 1)
    prepare.serve([(section, item)], (90, 132, 232448, 233472), None)
    """
    run_python(script, TRITON_CACHE_DIR=str(tmp_path))
    kernels = Counter(path.stem for path in tmp_path.rglob("*.cubin"))
    assert kernels == {"forward": 2, "backward": 1}
