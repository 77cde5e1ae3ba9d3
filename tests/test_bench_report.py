"""What is made of the benchmark's results: files, groups, tables, the README's block and plots."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import groups, report, results, tables, trust
from bench.cases import Case
from bench.report import with_block

ROOT = Path(__file__).parent.parent
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
    assert group.worst == (1.0, slow.size)
    (group,) = groups.groups(rows, "onnxruntime")
    assert group.mean == pytest.approx(0.5)


def test_durations():
    found = [tables.duration(s) for s in (12.3456, 0.9996, 0.0123, 9.996e-4, 2e-6, 5e-8)]
    assert found == ["12.3 s", "1 s", "12.3 ms", "1 ms", "2 µs", "50 ns"]


def test_cliffs():
    cases = [replace(SMALL, H=H, I=H) for H in (15, 16, 17, 18)]
    seconds = [case.flops * (1.5 if case.H == 17 else 1) for case in cases]
    rows = [row(c, "fastrnn", s) for c, s in zip(cases, seconds, strict=True)]
    found, pairs = groups.cliffs(rows, "H")
    assert ([case.H for case, _ in found], pairs) == ([17], 3)


def test_readme_block(tmp_path):
    readme, file = tmp_path / "README.md", tmp_path / "rows.jsonl"
    rows = [row(SMALL, "torch_nn", 2.0), row(SMALL, "fastrnn", 1.0)]
    file.write_text("\n".join(map(json.dumps, rows)))
    readme.write_text(f"# A\n{report.START}\nold\n{report.END}\nB\n")
    arguments = [str(file), "--readme", str(readme)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("# A\n")
    assert text.endswith("\nB\n")
    assert "old" not in text
    for part in ("2.00x", "a machine", "commit abc", "    python -m bench"):
        assert part in text
    readme.write_text(text.replace("2.00x", "9.99x"))
    assert report.main([*arguments, "--check"]) == 1
    with pytest.raises(SystemExit):
        report.main([str(file), "--readme", str(file)])  # no markers


def test_the_readme_holds_the_committed_results():
    readme, file = ROOT / "README.md", ROOT / "bench" / "results.jsonl"
    if not (readme.exists() and file.exists()):
        pytest.skip("nothing is committed yet")
    assert report.main([str(file), "--readme", str(readme), "--check"]) == 0


def test_the_readme_holds_what_fuzz_and_soak_found():
    text, rows = (ROOT / "README.md").read_text(encoding="utf-8"), trust.load()
    assert with_block(text, trust.block(rows), *trust.MARKERS) == text
    assert [row["status"] for row in rows] == [0, 0]


def test_plots(tmp_path):
    cases = [replace(SMALL, T=T, I=H, H=H) for T, H in ((3, 8), (3, 16), (3, 32), (6, 8), (12, 8))]
    rows = [row(c, p, 1.0 + c.H) for c in cases for p in ("torch_nn", "fastrnn")]
    draw = pytest.importorskip("bench.plots", exc_type=ImportError).draw
    drawn = draw(rows, tmp_path / "plots")
    names = ["ratio_over_sizes", "time_per_step", "memory_against_length"]
    assert [path.stem for path in drawn] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
