"""python -m bench.gpu without a GPU: its plan, driver and figures; and what is made of them."""

import json
import time
from collections import Counter
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python

import fastrnn
from bench import gpu_report, report
from bench.cases import Case
from bench.gpu import __main__ as command
from bench.gpu import behaviour, checks, driver, oracle, plan, prepare, speed, summary, worker
from fastrnn.kernels.gpu import launch, measured, tiles
from fastrnn.kernels.keep import Keep

SMALL = Case("LSTM", T=5, B=3, I=4, H=8)
H200 = tiles.Device(90, 132, 232448, 233472)


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
        section("well", [{"n": 1}], spins=7),
    ]
    rows = drive(sections, 300, tmp_path)
    assert [row["section"] for row in rows] == [
        *["raising"] * 2, "well", *["hanging"] * 2, "dying", "well",
    ]  # fmt: skip
    failures = [row["failed"] for row in rows if "failed" in row]
    assert failures == [
        "ArithmeticError: no such number", "killed after 1 s", "the process died",
    ]  # fmt: skip
    assert [row["limit"] for row in rows if "limit" in row] == ["0", "7"]
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


def test_the_plan():
    """It covers what it must, as plain values, and every item can be read back."""
    sections = {s.name: s for s in plan.sections()}
    assert next(iter(sections)) == "environment"
    assert sum(s.share for s in sections.values() if s.name != "grid") <= 1
    for s in sections.values():
        assert json.loads(json.dumps(s.items)) == s.items
        for item in s.items:
            assert "case" not in item or oracle.case_of(item).device == "cuda"
    checked = [i for s in ("first checks", "more checks") for i in sections[s].items]
    kinds = {(i["case"]["cell"], i["relu"], i["arithmetic"]) for i in checked}
    assert len(kinds) == 4 * len(plan.ARITHMETICS)
    assert any(i["case"]["packed"] and i["case"]["directions"] == 2 for i in checked)
    timed = [oracle.case_of(i) for i in sections["headlines"].items]
    assert {speed.algorithm(case) for case in timed} == {"standard", "small H", "persistent"}
    assert all(callable(getattr(behaviour, what)) for what in plan.BEHAVIOURS)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("LSTM", 9, 64, 512, 512, dtype="float16"), "persistent"),
        (Case("LSTM", 9, 64, 512, 512, dtype="bfloat16"), "standard"),
        (Case("GRU", 9, 64, 512, 512, dtype="float16"), "standard"),
        (Case("LSTM", 9, 60, 512, 512, dtype="float16"), "standard"),
        (Case("LSTM", 9, 64, 512, 512, dtype="float16", packed=True), "standard"),
        (Case("LSTM", 9, 64, 128, 128), "small H"),
        (Case("GRU", 9, 64, 192, 192), "standard"),
        (Case("GRU", 9, 64, 192, 192, mode="inference"), "small H"),
        (Case("RNN", 9, 64, 128, 128), "standard"),
    ],
)
def test_algorithms(case, expected):
    assert speed.algorithm(case) == expected


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


def test_nan_is_never_right():
    assert oracle.distance(torch.tensor([1.0, torch.nan]), torch.ones(2)) == torch.inf


def test_what_triton_does_not_serve_is_checked_all_the_same():
    """On a CPU that is everything."""
    row = checks.check({"case": asdict(SMALL), "arithmetic": "float32", "relu": False})
    assert row["engine"] == "torch"
    assert "cannot serve this" in row["why"]
    assert row["right"]


@pytest.mark.parametrize("do", [worker.measure, worker.tune])
def test_what_triton_does_not_serve_is_not_timed(do, monkeypatch):
    monkeypatch.setattr(launch, "describe", lambda _: H200)
    item = {"case": asdict(SMALL), "arithmetic": "float32", "relu": False, "direction": "forward"}
    (row,) = do(item)
    assert "cannot serve this" in row["skipped"]


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


@pytest.fixture
def processor(monkeypatch):
    """The CPU in the place of the GPU: its clock for events."""

    def seconds_of(run, calls):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    monkeypatch.setattr(speed, "seconds_of", seconds_of)
    monkeypatch.setattr(speed, "kept", lambda *_: 1000)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    monkeypatch.setattr(speed, "TURN", 1e-4)


ITEM = {"case": asdict(SMALL), "arithmetic": "float32", "relu": False}


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
    monkeypatch.setattr(oracle, "ALLOWED", dict.fromkeys(oracle.ALLOWED, -1.0))
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
    fitting = tiles.fitting(direction, 4, "fp32", SMALL.B, SMALL.H, 1, H200)
    assert [row["tile"] for row in rows] == [list(tile) for tile in fitting]
    assert all(row["right"] and row["ours_us"] > 0 for row in rows)


def test_what_is_compiled_beforehand():
    """Of a measured layer both modes, of a tuned one every tile, of what does not fit nothing."""
    item = plan.item("LSTM", "bfloat16", 512, 64, 512)
    sections = plan.Section("s", f"{plan.HERE}:measure", [item], 1.0, 1)
    training, inference = prepare.calls(sections, item, H200)
    chosen = tiles.choose(4, "bfloat16", False, 64, 512, 1, H200, True)
    assert training[1:4] == (chosen.forward, chosen.backward, Keep.ALL)
    assert inference[1:4] == (chosen.forward, None, Keep.NOTHING)
    tuned = prepare.calls(sections, item | {"direction": "forward"}, H200)
    fitting = tiles.fitting("forward", 4, "half", 64, 512, 1, H200)
    assert [call.forward for call in tuned] == fitting
    assert prepare.calls(sections, plan.item("LSTM", "tf32", 9, 64, 2048), H200) == []
    assert prepare.calls(sections, {"what": "graph"}, H200) == []


def test_compiling_beforehand(tmp_path):
    """It leaves in Triton's cache what the engine then finds there."""
    script = """
    import sys
    sys.path.insert(0, "..")
    from dataclasses import replace
    from bench import machine, tree
    tree.use(machine.ROOT)
    from bench.gpu import plan, prepare
    item = plan.item("RNN", "bfloat16", 9, 3, 64)
    section = plan.Section("s", f"{plan.HERE}:measure", [item], 1.0, 1)
    prepare.serve([(replace(section, spins=7), item)], (90, 132, 232448, 233472), sys.argv[0])
    """
    run_python(script, TRITON_CACHE_DIR=str(tmp_path))
    kernels = Counter(path.stem for path in tmp_path.rglob("*.cubin"))
    assert kernels == {"forward": 2, "backward": 1}


def row(case, ratio, mode="inference", **more):
    """A timed row of a run, with made-up figures."""
    fields = {"gpu": "NVIDIA H200", "arch": 90, "torch": "2", "triton": "3", "cudnn": 9}
    fields |= {"commit": "abc", "date": "2026-01-02T03:04:05", "section": "headlines"}
    fields |= {"case": asdict(case), "arithmetic": "bfloat16", "relu": False, "mode": mode}
    fields |= {"ours_us": 2.0, "torch_us": 2.0 * ratio, "ratio": ratio, "of_floor": 0.25}
    return fields | {"class": speed.algorithm(case)} | more


def rows():
    """A small run."""
    case = Case("LSTM", 512, 64, 512, 512, device="cuda", dtype="bfloat16")
    tuned = row(case, 1.0) | {"direction": "forward", "section": "tuning"}
    del tuned["ratio"], tuned["mode"]
    return [
        row(case, 2.5),
        row(case, 1.5, "training", ours_kept=10, torch_kept=20),
        row(replace(case, packed=True), 3.5),
        row(replace(case, H=1024), 0.5),
        tuned | {"tile": [16, 16, 256, 4, False], "ours_us": 2.0},
        tuned | {"tile": [16, 32, 256, 4, False], "ours_us": 1.5},
        tuned | {"tile": [16, 64, 256, 4, True], "failed": "no"},
        {"section": "first checks", "gpu": "NVIDIA H200", "arch": 90, "right": True},
    ]


def test_the_summary():
    wrong = rows()[0] | {"right": False, "of": "d x", "error": 0.1, "allowed": 0.01}
    text = summary.table([*rows(), wrong])
    assert "WRONG LSTM bfloat16 512x64x512 inference: d x off by 1.0e-01" in text
    assert "headlines: 4 good, 1 bad" in text
    assert "2.50x" in text
    assert "50%" in text


def test_report(tmp_path, monkeypatch):
    """A result becomes a table that the engine chooses by, and the README's block."""
    readme, file, table = (tmp_path / name for name in ("README.md", "gpu.jsonl", "measured.json"))
    file.write_text("\n".join(map(json.dumps, rows())) + '\n{"cut o')
    readme.write_text(f"# A\n{gpu_report.START}\nold\n{gpu_report.END}\nB\n")
    arguments = [str(file), "--readme", str(readme), "--table", str(table)]
    assert gpu_report.main([*arguments, "--check"]) == 1
    assert gpu_report.main(arguments) == 0
    assert gpu_report.main([*arguments, "--check"]) == 0
    text = readme.read_text()
    for part in ("NVIDIA H200", "commit abc", "2.00 against 5.00 (2.50x)", "1 checks", "0.50x at"):
        assert part in text
    assert "old" not in text
    monkeypatch.setattr(measured, "FILE", table)
    for function in (measured.gpus, measured.verdict, tiles._chosen):
        function.cache_clear()

    def choice(H, training):
        return tiles.choose(4, "bfloat16", False, 64, H, 1, H200, training)

    assert "2.50x" in choice(512, training=False).reason
    assert choice(512, training=False).forward == tiles.Forward(16, 32, 256, 4, False)
    assert choice(1024, training=False).forward is None
    for function in (measured.gpus, measured.verdict, tiles._chosen):
        function.cache_clear()


def test_the_readme_holds_what_is_committed():
    """The block is what the committed result says, or that there is none yet."""
    results = gpu_report.ROOT / "bench" / "gpu.jsonl"
    assert gpu_report.main([*[str(results)] * results.exists(), "--check"]) == 0


def test_without_results_the_readme_says_so():
    assert "not yet timed on a GPU" in gpu_report.block([])
    assert report.with_block("a\nX\nold\nY\nb", "new", "X", "Y") == "a\nX\nnew\nY\nb"


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_found", lambda: False)
    assert command.main(["--out", str(tmp_path)]) == 2
    assert command.main(["--list"]) == 0
    assert "headlines" in capsys.readouterr().out
    monkeypatch.setattr(command, "_found", lambda: True)
    first = {"gpu": "G", "arch": 90, "torch": "2", "triton": "3", "cudnn": 9, "commit": "c"}
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
