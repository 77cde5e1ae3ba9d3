"""The pages say what the committed results say: README.md and bench/RESULTS.md."""

import pytest
from test_bench_report import SMALL, row

from bench import calls, cold, pages, short, trust
from bench.cases import Case


def test_the_pages_hold_the_committed_results():
    assert pages.main(["--check"]) == 0


def test_a_changed_number_is_found_and_put_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "draw", lambda: [])
    monkeypatch.setattr(pages, "blocks", lambda: {"page.md": {"a": "1.00x", "b": "2.00x"}})
    page = tmp_path / "page.md"
    right = (
        "# A\n<!-- a:start -->\n1.00x\n<!-- a:end -->\nB\n<!-- b:start -->\n2.00x\n<!-- b:end -->\n"
    )
    page.write_text(right.replace("2.00x", "9.99x"))
    assert pages.main(["--check"]) == 1
    assert "9.99x" in page.read_text()
    assert "page.md" in capsys.readouterr().out
    assert pages.main([]) == 0
    assert page.read_text() == right
    assert pages.main(["--check"]) == 0


def test_a_block_has_one_place():
    for text in ("", "<!-- a:start -->", "<!-- a:end -->\n<!-- a:start -->"):
        with pytest.raises(ValueError, match="one line <!-- a:start -->"):
            pages.with_block(text, "new", "a")


def test_fuzz_and_soak_found_nothing():
    rows = trust.load()
    assert rows
    assert not any(found["status"] for found in rows)


def test_the_first_page_shows_every_cpu():
    large = Case("GRU", T=9, B=64, I=512, H=512)
    stream = Case("GRU", T=10, B=1, I=64, H=64, mode="inference", streamed=True)
    rows = [
        row(
            case,
            peer,
            seconds,
            cpu=f"{cpu}, 2 cores",
            of_fma_peak=0.8 if peer == "fastrnn" else 0.4,
        )
        for cpu in ("Old", "New")
        for case in (large, stream)
        for peer, seconds in (("torch_nn", 6e-4), ("fastrnn", 2e-4))
    ]
    said = short.block(rows, [], [])
    assert "|  | Old, 2 cores | New, 2 cores |" in said
    cell = "**3.00x** (worst 3.00x; 80% of the limit)"
    assert f"| GRU training | {cell} | {cell} |" in said
    assert "the New can do: GRU 80% (torch.nn 40%)." in said
    assert "GRU of 64 20 µs (torch.nn 60 µs, real time 0.2%) (Old, 2 cores)" in said


def kind_row(**more):
    """A row of bench.calls, with made-up figures."""
    shared = calls.kind(SMALL) | {"cpu": "a CPU", "gpu": None, "torch": "2", "commit": "abc"}
    ratios = {"1x1x32": 2.0, "1x1x64": 0.5, "16x4x32": 8.0}
    return shared | {"command": "python -m bench.calls", "ratio": ratios, "errors": {}} | more


def test_short_calls():
    said = calls.block([kind_row()])
    assert "| LSTM training, 1 thread | 1.00x | 2.00x | 0.50x at 1x1x64 | 1 of 3 |" in said
    assert "training 1.00x torch.nn's speed (a CPU)" in short.block([], [kind_row()], [])
    assert "Not measured" in calls.block([])


def test_short_calls_are_measured(tmp_path, monkeypatch):
    cases = [Case(cell, T=1, B=1, I=5, H=5) for cell in ("LSTM", "GRU")]
    monkeypatch.setitem(calls.SUITES, "step", cases)
    monkeypatch.setattr("bench.measure._of_ceilings", lambda case, seconds: {})
    out = tmp_path / "calls.jsonl"
    for _ in range(2):  # the second takes the place of the first
        assert calls.main(["--suite", "step", "--seconds", "0.001", "--out", str(out)]) == 0
    rows = calls.results.load(out, calls.what)
    assert len(out.read_text().splitlines()) == len(rows) == 4
    assert all(set(found["ratio"]) == {"1x1x5"} for found in rows)


def first_calls():
    """Rows of bench.cold, with made-up figures."""
    shared = {"cpu": "a CPU", "gpu": None, "torch": "2", "numba": "0", "commit": "abc"}
    shared |= {"date": "2026-01-02T03:04:05", "import_s": 0.1, "forward_s": 0.2, "backward_s": 0.05}
    costs = {"LSTM float32": 4.0, "GRU float32": 1.0, "RNN float32": 0.5}
    for kind, seconds in costs.items():
        for cache in ("empty", "warm"):
            spent = {"forward_cpu_s": seconds, "backward_cpu_s": 2 * seconds}
            yield shared | {"cache": cache, "kind": kind} | spent


def test_first_calls():
    rows = list(first_calls())
    said = cold.sentence(rows)
    for part in ("first layer compiles for 12 s", "for 2 to 3 s", "0.3 s after `import torch`"):
        assert part in said
    assert "| GRU float32 | 1 s | 2 s | 100 ms | 200 ms | 50 ms |" in cold.block(rows)
    assert "Not measured" in cold.block([])
    assert cold.sentence([]) == ""


def test_a_fresh_process_says_how_long_it_took(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # so that nothing is compiled for this test
    first, second = cold.fresh(["LSTM float32", "GRU float64"], str(tmp_path))
    assert (first["kind"], second["kind"]) == ("LSTM float32", "GRU float64")
    for found in (first, second):
        for part in ("import", "forward", "backward"):
            assert found[f"{part}_s"] > 0
            assert found[f"{part}_cpu_s"] > 0
