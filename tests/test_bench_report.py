"""What is made of the benchmark's results: files, groups, limits, tables and plots."""

import json
from dataclasses import asdict, replace

import pytest

from bench import groups, report, results, tables
from bench.cases import Case

SMALL = Case("LSTM", T=3, B=2, I=5, H=5)


def row(case, peer, seconds=1.0, **more):
    """A result row as python -m bench writes it, with made-up figures."""
    fields = {"peer": peer, "peer_version": "1", "cpu": "a machine", "gpu": None, "torch": "2"}
    fields |= {"numba": "0", "python": "3", "commit": "abc", "date": "2026-01-02T03:04:05"}
    fields |= {"command": "python -m bench", "time_s": seconds, "gflops": 1.0, "of_fma_peak": 0.5}
    fields |= {"of_weight_reading": 0.5, "kept_bytes": 2048, "peak_bytes": 4096}
    return asdict(case) | fields | more


def test_a_cut_off_line_loses_only_itself(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    whole = json.dumps(row(SMALL, "fastrnn"))
    path.write_text(whole + "\n" + whole[:50])
    sink = results.Sink(path)
    sink.write(row(SMALL, "fastrnn", 2.0))
    sink.write(row(SMALL, "torch_nn", 3.0))
    sink.close()
    assert [r["time_s"] for r in results.load(path)] == [2.0, 3.0]  # the last one counts
    assert ":2: not a whole row" in capsys.readouterr().err


def test_groups():
    slow, fast = (replace(SMALL, H=H) for H in (8, 16))
    rows = [row(slow, "torch_nn", 4.0), row(slow, "fastrnn", 4.0)]
    rows += [row(fast, "torch_nn", 8.0), row(fast, "fastrnn", 2.0), row(fast, "onnxruntime", 1.0)]
    (group,) = groups.groups(rows)
    assert group.mean == pytest.approx(2.0)  # of 1 and 4
    assert group.worst == (1.0, slow)
    (group,) = groups.groups(rows, "onnxruntime")
    assert group.mean == pytest.approx(0.5)


def test_the_limit_that_binds():
    near = {"of_fma_peak": 0.2, "of_weight_reading": 0.7}
    assert groups.limit(row(SMALL, "fastrnn", **near)) == (0.7, "reading weights")
    assert groups.limit(row(SMALL, "fastrnn", of_fma_peak=0.9)) == (0.9, "multiply-adds")
    assert groups.limit(row(SMALL, "fastrnn", of_fma_peak=None)) is None
    assert groups.limit(row(replace(SMALL, autocast=True), "fastrnn")) is None
    rows = [row(SMALL, "torch_nn", 2.0), row(SMALL, "fastrnn", **near)]
    (group,) = groups.groups(rows)
    assert group.of_limit == pytest.approx(0.7)
    assert "2.00x at 3x2x5 (70% of reading weights)" in tables.summary(rows, "torch_nn")
    assert "| 2.00x (70% reading) |" in tables.sizes(rows, 1)


def test_each_machine_keeps_its_rows(tmp_path):
    """What is measured anew takes the place of the same case on the same machine alone."""
    new, file = tmp_path / "new.jsonl", tmp_path / "rows.jsonl"
    old = [row(SMALL, "fastrnn", 1.0), row(SMALL, "fastrnn", 2.0, cpu="another")]
    file.write_text("".join(json.dumps(r) + "\n" for r in old))
    new.write_text(json.dumps(row(SMALL, "fastrnn", 3.0)))
    assert results.main([str(new), str(file)]) == 0
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert {r["cpu"]: r["time_s"] for r in kept} == {"a machine": 3.0, "another": 2.0}
    assert len(kept) == 2
    with pytest.raises(SystemExit):
        results.main([str(tmp_path / "missing"), str(file)])


def test_tables_of_a_file(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [row(SMALL, peer, 2.0, cpu=cpu) for peer in ("torch_nn", "fastrnn") for cpu in "AB"]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert report.main([str(file)]) == 0
    said = capsys.readouterr().out
    for part in ("# A", "# B", "LSTM training", "commit abc", "    python -m bench"):
        assert part in said


def test_durations():
    found = [tables.duration(s) for s in (12.3456, 0.9996, 0.0123, 9.996e-4, 2e-6, 5e-8)]
    assert found == ["12.3 s", "1 s", "12.3 ms", "1 ms", "2 µs", "50 ns"]


def test_cliffs():
    cases = [replace(SMALL, H=H, I=H) for H in (15, 16, 17, 18)]
    seconds = [case.flops * (1.5 if case.H == 17 else 1) for case in cases]
    rows = [row(c, "fastrnn", s) for c, s in zip(cases, seconds, strict=True)]
    found, pairs = groups.cliffs(rows, "H")
    assert ([case.H for case, _ in found], pairs) == ([17], 3)


def test_plots(tmp_path):
    cases = [replace(SMALL, T=T, I=H, H=H) for T, H in ((3, 8), (3, 16), (3, 32), (6, 8), (12, 8))]
    rows = [row(c, p, 1.0 + c.H) for c in cases for p in ("torch_nn", "fastrnn")]
    plots = pytest.importorskip("bench.plots", exc_type=ImportError)
    rows += [r | {"cpu": "Another (Zen 9), 2 cores"} for r in rows]
    drawn = plots.draw(rows, tmp_path / "plots")
    names = ["ratio_over_sizes", "time_per_step", "memory_against_length"]
    endings = ["a_machine", "another_zen_9_2_cores"]
    assert [path.stem for path in drawn] == [f"{n}_{e}" for e in endings for n in names]
    first = plots.times_faster(rows, tmp_path / "first.png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in [*drawn, first])
