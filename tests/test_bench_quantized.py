"""python -m bench.quantized: its rows, its tables, and what it does about wrong results."""

from dataclasses import replace

import pytest
import torch

from bench import quantized, quantized_table, results, timing
from bench.cases import SUITES, Case
from bench.data import Call, make, truth, truth_in_float64
from bench.quantized_ways import all_of_them

LSTM = Case("LSTM", T=3, B=1, I=256, H=256)
GRU = replace(LSTM, cell="GRU", T=2, B=16)
STREAM = replace(LSTM, T=2, I=8, H=8, streamed=True)
OURS = ["fastrnn int8 x int8", "fastrnn int8 x float32", "fastrnn bfloat16 x float32"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The arguments of a small run; its rows go to the last of them."""
    cases = [replace(case, I=64, H=64) for case in (LSTM, GRU, STREAM)]
    monkeypatch.setitem(SUITES, "quantized", cases)
    monkeypatch.setattr(quantized, "ROUNDS", 1)
    monkeypatch.setattr(timing, "TURN", 1e-6)  # one call a turn
    return ["--seconds", "0.001", "--out", str(tmp_path / "quantized.jsonl")]


def test_rows(small):
    assert quantized.main(["--threads", "2,1", *small]) == 0
    rows = results.load(small[-1])
    found = {results.what(row): row for row in rows}
    ways = list(all_of_them())
    assert {"torch_nn", "fastrnn", "onnxruntime int8", *OURS} <= set(ways)
    assert any(way.startswith("quantize_dynamic ") for way in ways)
    assert len(found) == len(rows) == 2 * 3 * len(ways)
    without = {(row["peer"], row["cell"], row["skipped"]) for row in rows if "skipped" in row}
    assert without == {("onnxruntime int8", "GRU", "ONNX Runtime has no GRU of eight bits")}
    for (case, way), row in found.items():
        if "skipped" not in row:
            theirs = found[case, "torch_nn"]
            assert row["time_s"] > 0
            assert row["ratio"] > 0
            assert row["error_rms"] < row["error_max"]
            narrow = way in OURS or way.startswith("quantize_dynamic") or way.endswith("int8")
            assert (row["error_max"] > 1e-4) == narrow
            share = 1 / 4 if "int8" in way or "quantize" in way else 1 / 2 if narrow else 1
            assert row["weight_bytes"] == pytest.approx(share * theirs["weight_bytes"], rel=0.15)


def test_the_first_look_is_short():
    cases, few = quantized.chosen(False, [1, 2]), quantized.chosen(True, [1])
    assert set(few) < set(cases)
    assert {(case.cell, case.streamed) for case in few} == {
        (cell, streamed) for cell in ("LSTM", "GRU") for streamed in (False, True)
    }


def test_wrong_results_are_a_fault(small, monkeypatch):
    ways = all_of_them()
    strict = {name: replace(way, bound=1e-4) for name, way in ways.items()}
    monkeypatch.setattr("bench.quantized_ways.all_of_them", lambda: strict)
    assert quantized.main(small) == 1
    for row in results.load(small[-1]):
        exact = row["peer"] in ("torch_nn", "fastrnn", "onnxruntime")
        assert ("time_s" in row) == exact
        assert exact or "is off by" in row.get("error", "") or "skipped" in row


def test_bits_that_depend_on_threads_are_a_fault():
    def same():
        return (torch.ones(2),)

    def other():
        return (torch.ones(2) * torch.get_num_threads(),)

    assert quantized._other_bits(Call(same), same(), 1) is None
    assert quantized._other_bits(Call(other), other(), 1) == "other bits on 2 threads than on 1"
    assert torch.get_num_threads() == 1


def test_float64_is_of_the_same_numbers():
    case = replace(GRU, mode="inference")
    numbers = make(case)
    for wide, near in zip(truth_in_float64(case, numbers), truth(case, numbers), strict=True):
        assert wide.dtype == torch.float64
        torch.testing.assert_close(wide.float(), near)


def row(case, way, ratio, error, **more):
    """A row with made-up figures."""
    about = {"cpu": "a CPU", "gpu": None, "torch": "2", "commit": "abc", "command": "the command"}
    about |= {name: getattr(case, name) for name in ("cell", "T", "B", "I", "H", "streamed")}
    size = 100 if ratio is None or error == 0 else 25
    figures = {"time_s": 1e-3, "ratio": ratio, "error_rms": error, "error_max": 3 * error}
    figures |= {"weight_bytes": size}
    return about | {"threads": 1, "peer": way} | (figures if ratio else {}) | more


def made_up():
    yield from (row(case, "torch_nn", 1.0, 0) for case in (LSTM, GRU, STREAM))
    yield row(LSTM, OURS[0], 4.0, 0.01)
    yield row(GRU, OURS[0], 3.0, 0.02)
    yield row(STREAM, OURS[0], 1.0, 0.01)
    yield row(LSTM, "quantize_dynamic x86", 2.0, 0.05)
    yield row(LSTM, "quantize_dynamic onednn", 1.0, 0.05)
    yield row(LSTM, "onnxruntime int8", 5.0, 0.03)
    yield row(GRU, "onnxruntime int8", None, 0, skipped="none of GRU")


def test_tables():
    said = quantized_table.block(list(made_up()))
    alone = [f"{x:.2f}x (worst {x:.2f}x, {at})" for x, at in (
        (4, "LSTM 3x1x256"), (3, "GRU 2x16x256"), (1, "LSTM 2x1x8"),
    )]  # fmt: skip
    assert f"| torch.nn | {' | '.join(alone)} |" in said
    faster = "quantize_dynamic, its faster engine | 2.00x (worst 2.00x, LSTM 3x1x256) |  |  |"
    assert faster in said
    assert "ONNX Runtime, int8 (LSTM) | 0.80x (worst 0.80x, LSTM 3x1x256)" in said
    assert f"| fastrnn int8 x int8 | 25% | 2.0% | 6.0% | {' | '.join(alone)} |" in said
    assert "| LSTM 3x1x256 | 1 ms | 4.00x (1.0%) | 2.00x (5.0%) | 1.00x (5.0%) | 5.00x" in said
    assert "| GRU 2x16x256 | 1 ms | 3.00x (2.0%) |  |  | none of GRU |" in said
    short = quantized_table.short(list(made_up()))
    assert "| torch.nn | 100% | 0.0% | 0.0% | 4.00x (worst 4.00x" in short
    assert "| ONNX Runtime int8 | 25% | 3.0% | 9.0% | 0.80x (worst 0.80x" in short
    assert "| fastrnn int8 x int8 | 25% | 2.0% | 6.0% |  |  |  |" in short
    assert "Not measured yet" in quantized_table.block([])
