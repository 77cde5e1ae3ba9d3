"""python -m bench.gpu without a GPU: its plan, its driver and its command."""

import json
import time
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python
from gpu_cases import H200, ITEM, SMALL

import fastrnn
from bench.gpu import __main__ as command
from bench.gpu import (
    behaviour,
    checks,
    driver,
    environment,
    oracle,
    plan,
    speed,
    summary,
    worker,
)
from fastrnn import substitute
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.refused import Failed


def section(run, items=({},), share=1.0, limit=60, **more):
    return plan.Section(run, f"gpu_items:{run}", list(items), share, limit, **more)


def drive(sections, seconds, tmp_path):
    """The rows of a run."""
    rows = []
    driver.Run(sections, seconds, rows.append, str(tmp_path / "log.txt")).all()
    return rows


def test_a_run_goes_on_whatever_happens(tmp_path):
    """What raises, hangs or dies is a row, and the rest is done."""
    sections = [
        section("raising"),
        section("well", [{"n": 0}]),
        section("hanging", limit=1),
        section("dying"),
        section("well", [{"n": 1}]),
    ]
    rows = drive(sections, 300, tmp_path)
    assert [row["section"] for row in rows] == [
        *["raising"] * 2, "well", *["hanging"] * 2, "dying", "well",
    ]  # fmt: skip
    failures = [row["failed"] for row in rows if "failed" in row]
    assert failures == [
        "ArithmeticError: no such number", "killed after 1 s", "the process died",
    ]  # fmt: skip
    assert [row["n"] for row in rows if "n" in row] == [0, 1]
    assert "no such number" in (tmp_path / "log.txt").read_text()


def test_what_is_killed_twice_is_left_out(tmp_path):
    items = [{"case": {"cell": cell}, "arithmetic": "tf32"} for cell in ("LSTM",) * 3 + ("GRU",)]
    rows = drive([section("dying", items)], 300, tmp_path)
    said = [row.get("failed", row.get("undone")) for row in rows]
    assert said == ["the process died"] * 2 + ["others like it were killed", "the process died"]


def test_a_run_ends_in_time(tmp_path):
    """Nothing begins after the end; a section ends with its share, and what is left comes last."""
    start = time.monotonic()
    items = [{"n": n} for n in range(3)]
    rows = drive([section("well", items, share=0.0), section("hanging")], 4, tmp_path)
    assert time.monotonic() - start < 4 + driver.START
    assert not any("failed" in row for row in rows)  # what the end cuts short has not failed
    undone = Counter(row["undone"] for row in rows if "undone" in row)
    assert undone == {"the time was up": 1, "no time was left": 3}


def test_the_start_of_a_process_counts(tmp_path, monkeypatch):
    """What is begun after a slow start has the time that is left then, not what was left before."""
    start = driver.Worker.start

    def slow(worker):
        time.sleep(5)
        start(worker)

    monkeypatch.setattr(driver.Worker, "start", slow)
    begun = time.monotonic()
    (row,) = drive([section("hanging")], 5, tmp_path)
    assert row["undone"] == "the time was up"
    assert time.monotonic() - begun < 8


def test_what_cannot_be_compiled_beforehand_is_told(tmp_path):
    """In a row: else a run in which it all fails would only be slow."""
    file = tmp_path / "uncompiled.txt"
    broken = {"case": ITEM["case"] | {"cell": "no such"}, "arithmetic": "tf32", "relu": False}
    wait = section("until", [broken | {"file": str(file)}])
    *_, waited, told = rows = drive([section("machine"), wait], 300, tmp_path)
    assert waited["right"], waited
    assert told["section"] == "environment"
    assert told["failed"].startswith("1 calls were not; the first: KeyError: 'no such'")
    assert "FAILED compiling beforehand: 1 calls" in summary.table(rows)


def test_one_process_does_what_goes_well(tmp_path):
    """The machine is asked in the process that goes on to check."""
    rows = drive([section("process"), section("process")], 300, tmp_path)
    assert len({row["process"] for row in rows}) == 1


def test_the_environment_says_what_stands_in_the_way(monkeypatch):
    """Here Triton finds no GPU to compile for."""
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=2**37)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(environment.launch, "describe", lambda _: H200)
    found = environment.describe()
    assert found["obstacle"]
    assert found["gpu"] == "NVIDIA H200"
    assert summary.bad(found)


def test_the_ceilings_are_known_where_they_were_measured(monkeypatch):
    found = {"copy_bytes": 1e12}
    monkeypatch.setattr(environment, "describe", lambda: {"gpu": "G"})
    monkeypatch.setattr(environment, "ceilings", lambda: found)
    monkeypatch.setattr(worker, "_ceilings", {})
    assert list(worker.environment({})) == [{"gpu": "G"}, found]
    assert worker._ceilings == found


def test_the_plan():
    """It covers what it must, as plain values, and every item can be read back."""
    sections = {s.name: s for s in plan.sections()}
    assert next(iter(sections)) == "environment"
    assert sum(s.share for s in sections.values()) <= 1
    assert next(reversed(sections)) == "grid"
    assert sections["grid"].share == 0  # first what the others have left undone
    for s in sections.values():
        assert json.loads(json.dumps(s.items)) == s.items
        for item in s.items:
            assert "case" not in item or oracle.case_of(item).device == "cuda"
    checked = [i for s in ("first checks", "more checks") for i in sections[s].items]
    kinds = {(i["case"]["cell"], i["relu"], i["arithmetic"]) for i in checked}
    assert len(kinds) == 4 * len(plan.ARITHMETICS)
    assert any(i["case"]["packed"] and i["case"]["directions"] == 2 for i in checked)
    timed = [oracle.case_of(i) for i in sections["headlines"].items]
    assert {speed.algorithm(case) for case in timed} == {
        *("standard", "small H", "persistent", "small H, standard"),
    }
    assert all(callable(behaviour.find(what)) for what in plan.BEHAVIOURS)


@pytest.mark.parametrize("run", [checks.check, worker.measure], ids=["check", "measure"])
def test_nobody_steps_in_for_a_kernel_that_fails(monkeypatch, run):
    """It is wrong, and not torch's: forward, which is refused, and backward, which is told."""
    monkeypatch.setattr(substitute, "_told", set())
    failed = Failed("triton", "a kernel does not run here")

    def forward(*_):
        raise failed

    def backward(*_):
        substitute.tell(failed, CELLS["lstm"])

    for judge, error in ((forward, Failed), (backward, RuntimeWarning)):
        monkeypatch.setattr(oracle, "judge", judge)
        with pytest.raises(error, match="does not run here"):
            list(run(ITEM))


@pytest.mark.skipif(
    version("triton").startswith("3.6."),
    reason="the interpreter of Triton 3.6 does not work with NumPy 2.4",
)
def test_checks_in_the_interpreter(tmp_path, monkeypatch):
    """The GPU engine itself, as the run checks it, in a process of its own."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    items = [
        {"case": asdict(replace(SMALL, **more)), "arithmetic": arithmetic, "relu": False}
        for arithmetic, more in (
            ("float32", {"H": 20}),
            ("bfloat16", {"cell": "GRU", "packed": True, "directions": 2, "dtype": "bfloat16"}),
        )
    ]
    rows = drive([plan.Section("checks", f"{plan.HERE}:check", items, 1.0, 200)], 400, tmp_path)
    assert [(row["engine"], row["right"]) for row in rows] == [("triton", True)] * 2


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_found", lambda: False)
    assert command.main(["--out", str(tmp_path)]) == 2
    assert "FASTRNN_COMMIT" in command.parser().format_help()
    assert command.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "headlines: 22 items, 25% of the time" in said
    assert "items, in what is left" in said
    monkeypatch.setattr(command, "_found", lambda: True)
    first = {"gpu": "G", "processors": 132, "torch": "2", "triton": "3", "cudnn": 9, "commit": "c"}
    items = [first, {"n": 1}]
    monkeypatch.setattr(command, "sections", lambda: [section("well", items)])
    assert command.main(["--minutes", "5", "--out", str(tmp_path), "--only", "well"]) == 0
    written = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [r["gpu"] for r in written] == ["G", "G"]
    assert written[1]["n"] == 1
    assert "well: 2 good" in capsys.readouterr().out


IMPORTS = """
import sys
sys.path.insert(0, "..")
from bench import machine, tree
tree.use(machine.ROOT)
import bench.gpu.__main__
from bench.gpu import behaviour, checks, environment, speed, worker
import fastrnn.kernels.gpu.engine
wanted = {"rich", "numba", "llvmlite", "matplotlib", "pytest", "hypothesis", "onnx", "onnxruntime"}
print(*sorted(wanted & sys.modules.keys()))
"""


def test_it_needs_torch_and_triton_alone():
    assert run_python(IMPORTS)[0].split() == []
    assert fastrnn.backends.ENGINES["triton"]
