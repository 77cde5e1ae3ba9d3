"""What is made of a run of python -m bench.gpu: its summary, the tile table, what the pages say."""

import json
from dataclasses import asdict, replace

import pytest
from gpu_cases import H200
from gpu_trials import FACTS, KEY, right

from bench import gpu_report
from bench.cases import Case
from bench.gpu import speed, summary
from bench.machine import ROOT
from fastrnn.kernels.gpu import measured, tiles, verdicts
from fastrnn.kernels.gpu.kept import Table


def row(case, ratio, mode="inference", **more):
    """A timed row of a run, with made-up figures."""
    fields = {"gpu": "NVIDIA H200", "processors": 132, "torch": "2", "triton": "3", "cudnn": 9}
    fields |= {"commit": "abc", "date": "2026-01-02T03:04:05", "section": "headlines"}
    fields |= {"case": asdict(case), "arithmetic": "bfloat16", "relu": False, "mode": mode}
    fields |= {"ours_us": 2.0, "torch_us": 2.0 * ratio, "ratio": ratio, "of_floor": 0.25}
    return fields | {"class": speed.algorithm(case)} | more


def rows():
    """A small run."""
    case = Case("LSTM", 512, 64, 512, 512, device="cuda", dtype="bfloat16")
    tuned = row(case, 1.0) | {"direction": "forward", "section": "tuning"}
    del tuned["ratio"], tuned["mode"]
    checked = {"section": "first checks", "gpu": "NVIDIA H200", "processors": 132, "right": True}
    checked |= {"case": asdict(case), "arithmetic": "bfloat16", "relu": False, "engine": "triton"}
    return [
        row(case, 2.5),
        row(case, 1.5, "training", ours_kept=10, torch_kept=20),
        row(replace(case, packed=True), 3.5),
        row(replace(case, H=1024), 0.5),
        row(replace(case, H=192), 1.25, "training"),
        tuned | {"tile": [16, 16, 256, 4, 1], "ours_us": 2.0},
        tuned | {"tile": [16, 32, 256, 4, 1], "ours_us": 1.5},
        tuned | {"tile": [16, 64, 256, 4, 0], "failed": "no"},
        checked,
        checked | {"engine": "torch", "why": "H is too wide"},
        checked | {"section": "behaviour", "what": "graph"},
    ]


def test_the_summary():
    wrong = rows()[0] | {"right": False, "of": "d x", "error": 0.1, "allowed": 0.01}
    obstacle = {"section": "environment", "gpu": "G", "obstacle": "Triton cannot start"}
    text = summary.table([*rows(), wrong, obstacle, obstacle | {"obstacle": None}])
    assert "FAILED no kernel of ours runs here: Triton cannot start" in text
    assert "environment: 1 bad, 1 good" in text
    assert "first checks: 1 good, 1 by torch's kernels" in text
    said = [summary.line(row) for row in rows()]
    assert "by torch's kernels: LSTM bfloat16 512x64x512: H is too wide" in said
    assert "WRONG LSTM bfloat16 512x64x512 inference: d x off by 1.0e-01" in text
    assert "headlines: 5 good, 1 bad" in text
    assert "2.50x" in text
    assert "50%" in text


def test_report(tmp_path, monkeypatch):
    """A result becomes a table that the engine chooses by, and what the pages say of it."""
    file, table = (tmp_path / name for name in ("gpu.jsonl", "measured.json"))
    file.write_text("\n".join(map(json.dumps, rows())) + '\n{"cut o')
    arguments = [str(file), "--table", str(table)]
    assert gpu_report.main([*arguments, "--check"]) == 1
    assert gpu_report.main(arguments) == 0
    assert gpu_report.main([*arguments, "--check"]) == 0
    text = gpu_report.block(gpu_report.load([file]))
    for part in ("NVIDIA H200", "commit abc", "2.00 against 5.00 (2.50x)", "0.50x at"):
        assert part in text
    assert "Of 1 checks against torch.nn in float64 1 were right; " in text
    assert "of all that was done 1 were wrong or failed" in text
    for part in ("packed rows", "its algorithm for small H, standard in backward"):
        assert f"| {part} |" in text
    monkeypatch.setattr(measured, "FILE", table)
    for function in (measured.gpus, tiles._faster, tiles._chosen_for):
        function.cache_clear()

    def choice(H, training):
        device = H200._replace(name="NVIDIA H200")
        return tiles.choose(4, "bfloat16", False, 512, 64, H, 1, device, training)

    assert "2.50x" in choice(512, training=False).reason
    assert choice(512, training=False).forward == tiles.Forward(16, 32, 256, 4, 1)
    assert choice(1024, training=False).forward is None
    for function in (measured.gpus, tiles._faster, tiles._chosen_for):
        function.cache_clear()


def test_verdicts_ship(tmp_path):
    """Of each GPU with its software the last one on a call, for whoever has such a GPU."""
    file, table, shipped = (tmp_path / name for name in ("gpu.jsonl", "m.json", "v.json"))
    case = Case("LSTM", 512, 64, 512, 512, device="cuda", dtype="bfloat16")
    about = {"section": "verdicts", "gpu": "NVIDIA H200", "case": asdict(case), "relu": False}
    about |= {"processors": 132}
    about |= {"arithmetic": "bfloat16", "mode": "training", "facts": FACTS}
    found = [about | {"proof": verdicts.written(KEY, each)} for each in (right(9.0), right())]
    other = KEY._replace(B=128)
    wrong = verdicts.written(other, verdicts.wrong("d x is off"))
    found.append(about | {"proof": wrong, "failed": "d x is off"})
    file.write_text("\n".join(map(json.dumps, found)))
    arguments = [str(file), "--table", str(table), "--verdicts", str(shipped)]
    assert gpu_report.main([*arguments, "--check"]) == 1
    assert gpu_report.main(arguments) == 0
    assert gpu_report.main([*arguments, "--check"]) == 0
    known = Table.of(FACTS | {"driver": "13000"}, True, shipped=shipped).known
    assert known == {KEY: right(), other: verdicts.read(wrong)[1]}
    assert not Table.of(FACTS | {"gpu": "NVIDIA L4"}, True, shipped=shipped).known
    said = summary.table(found)
    assert "verdicts: 2 good, 1 bad" in said
    line = "LSTM bfloat16 512x64x512 training: 2.00x as fast as otherwise, proven 2026-01-02"
    assert summary.line(found[1]) == line
    assert "FAILED LSTM bfloat16 512x64x512 training: d x is off" in said


@pytest.mark.parametrize("bad", [{"failed": "no"}, {"right": False, "error": 1.0, "allowed": 0.1}])
def test_a_tile_that_is_wrong_is_never_kept(bad):
    """Be it the one that is chosen where the table says nothing: there it names another."""
    tuned = [row for row in rows() if "tile" in row and "ours_us" in row]
    first = {name: tuned[0][name] for name in tuned[0] if name != "ours_us"} | bad
    (entry,) = gpu_report._tiles([first, tuned[1], tuned[1] | {"ours_us": 9.0}])
    assert entry["forward"] == tuned[1]["tile"]
    assert gpu_report._tiles([first]) == []


def test_rows_of_an_unknown_gpu_are_left_out(tmp_path, capsys):
    """As where the environment's own item has failed."""
    lost = [
        {n: v for n, v in row.items() if n not in ("gpu", "processors", "torch")} for row in rows()
    ]
    file, table = tmp_path / "gpu.jsonl", tmp_path / "measured.json"
    for written, expected in ((rows()[:1] + lost, "2.50x"), (lost, "not yet timed on a GPU")):
        file.write_text("\n".join(map(json.dumps, written)))
        assert gpu_report.main([str(file), "--table", str(table)]) == 0
        assert f"{len(lost)} rows do not say of which GPU" in capsys.readouterr().err
        assert expected in gpu_report.block(gpu_report.load([file]))
    assert json.loads(table.read_text()) == []


def test_an_unknown_commit_is_called_so():
    text = gpu_report.block([row | {"commit": None} for row in rows()])
    assert "an unknown commit, 2026-01-02" in text
    assert "None" not in text


def test_the_engine_has_the_table_of_what_is_committed():
    results = ROOT / "bench" / "gpu.jsonl"
    assert gpu_report.main([*[str(results)] * results.exists(), "--check"]) == 0


def test_without_results_the_readme_says_so():
    assert "not yet timed on a GPU" in gpu_report.block([])
