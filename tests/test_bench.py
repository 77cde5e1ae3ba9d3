"""The benchmark itself: its cases are sound, its gate shuts, and what it measures is written."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import pytest
import torch

import fastrnn
from bench import __main__ as command
from bench import compare, data, gate, machine, memory, peers, results, tables, timing, tree
from bench.cases import SUITES, Case
from bench.options import MODES, cases_of, chosen_cases, parser

ROOT = Path(__file__).parent.parent
SMALL = Case("LSTM", T=3, B=2, I=4, H=5)
PLAIN = [replace(SMALL, cell=cell) for cell in ("LSTM", "GRU", "RNN")]
DEEP = [replace(case, layers=2, directions=2) for case in PLAIN]
VARIANTS = [
    replace(SMALL, **change)
    for change in (
        {"projection": 2},
        {"packed": True},
        {"dtype": "float64"},
        {"autocast": True},
        {"step": True, "T": 1},
        {"cell": "RNN", "nonlinearity": "relu", "layers": 2, "directions": 2},
        {"cell": "RNN", "nonlinearity": "relu", "step": True, "T": 1},
    )
]
STREAMED = [replace(SMALL, cell=cell, mode="inference", streamed=True) for cell in ("LSTM", "GRU")]


@pytest.mark.parametrize("name", SUITES)
def test_cases_are_distinct_and_survive_a_result_file(name):
    cases = cases_of(SUITES[name], MODES, threads=[1, 2])
    assert len({case.label for case in cases}) == len(cases)
    for case in cases:
        assert Case.of_row(json.loads(json.dumps(asdict(case)))) == case
        assert case.flops > 0
        assert case.traffic > case.recurrent_bytes > 0


def test_a_row_of_before_a_field_was_thought_of():
    row = asdict(SMALL)
    del row["nonlinearity"], row["streamed"]
    assert Case.of_row(row) == SMALL
    with pytest.raises(TypeError):
        Case.of_row({name: row[name] for name in row if name != "H"})


@pytest.mark.parametrize("case", STREAMED, ids=lambda c: c.label)
def test_a_stream_is_the_whole_sequence(case):
    """Its last frame and state are those of one call for all frames."""
    numbers = data.make(case)
    y, *states = data.truth(case, numbers)
    whole, *finals = data.truth(replace(case, streamed=False), numbers)
    for mine, right in zip((y, *states), (whole[-1:], *finals), strict=True):
        torch.testing.assert_close(mine, right)


def test_work_of_a_case():
    assert SMALL.flops == 3 * 2 * 3 * 2 * 20 * (4 + 5)  # forward and twice that, 2 T B rows width
    packed = replace(SMALL, packed=True, B=40, T=9)
    assert packed.lengths[0] == 9
    assert packed.lengths == sorted(packed.lengths, reverse=True)
    assert packed.flops < replace(packed, packed=False).flops


def check(name, case):
    """Peer ``name`` computes what torch.nn does; skips where it is not installed."""
    peer = peers.load([name])[name]
    if peer.available():
        pytest.skip(peer.available())
    numbers = data.make(case)
    expected = data.truth(case, numbers)
    names = data.names(case, numbers)
    assert len(expected) == len(names)
    assert gate.wrong(names, peer.build(case, numbers).run(), expected, case.tolerance) is None


ALL = cases_of(PLAIN + DEEP + VARIANTS + STREAMED, MODES)


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.label)
def test_fastrnn_is_called_as_torch_is(case):
    check("fastrnn", case)


RELU = [replace(case, nonlinearity="relu") for case in PLAIN + DEEP if case.cell == "RNN"]


@pytest.mark.parametrize(
    "case", cases_of(PLAIN + DEEP + RELU + STREAMED, ["inference"]), ids=lambda c: c.label
)
def test_onnx_graph_is_the_same_layer(case):
    check("onnxruntime", case)


def test_a_peer_says_what_it_cannot_serve():
    with pytest.raises(peers.CannotServe, match="inference only"):
        check("onnxruntime", SMALL)
    assert peers.missing("torch", "no_such_package") == "needs pip install no_such_package"


@pytest.mark.parametrize("value", [0.01, float("nan")])
def test_gate_names_what_is_wrong(value):
    right = (torch.randn(3, 4), torch.randn(2))
    off = right[1].clone()
    off[0] += value
    assert gate.wrong(("a", "b"), right, right, 2e-4) is None
    assert gate.wrong(("a", "b"), (right[0], off), right, 2e-4).startswith("b is off")
    assert "shape" in gate.wrong(("a", "b"), (right[0].T, right[1]), right, 2e-4)


@pytest.fixture
def tiny(monkeypatch):
    """The core suite made small, and no ceilings measured."""
    monkeypatch.setitem(SUITES, "core", [SMALL, replace(SMALL, cell="GRU")])
    monkeypatch.setattr("bench.measure._of_ceilings", lambda case, seconds: {})
    before = torch.get_num_threads()
    yield ["--seconds", "0.001", "--modes", "training", "--peers", "torch_nn,fastrnn"]
    torch.set_num_threads(before)


def test_a_run_and_what_its_rows_say(tiny, tmp_path):
    out = tmp_path / "rows.jsonl"
    assert command.main([*tiny, "--out", str(out)]) == 0
    rows = results.load(out)
    assert [(r["cell"], r["peer"]) for r in rows] == [
        (cell, peer) for cell in ("LSTM", "GRU") for peer in ("torch_nn", "fastrnn")
    ]
    for found in rows:
        assert 0 < found["time_q20_s"] <= found["time_s"] <= found["time_q80_s"]
        assert found["kept_bytes"] > 0
        assert found["ratio"] == 1 or found["peer"] == "fastrnn"
        assert {"commit", "cpu", "torch", "numba", "python", "date", "command"} <= set(found)
    assert "LSTM training" in tables.details(rows)


def test_a_wrong_result_gets_no_number(tiny, tmp_path, monkeypatch):
    peer = peers.load([peers.OURS])[peers.OURS]
    build = peer.build

    def planted(case, numbers):
        call = build(case, numbers)
        return replace(call, run=lambda: tuple(t * 1.001 for t in call.run()))

    monkeypatch.setattr(peer, "build", planted)
    assert command.main([*tiny, "--out", str(tmp_path / "rows.jsonl")]) == 1
    torch_rows, ours = [
        [r for r in results.load(tmp_path / "rows.jsonl") if r["peer"] == name]
        for name in ("torch_nn", "fastrnn")
    ]
    assert all("time_s" in r for r in torch_rows)
    assert all("off by" in r["error"] and "time_s" not in r for r in ours)


def test_an_interrupted_run_keeps_its_rows(tiny, tmp_path, monkeypatch):
    peer = peers.load([peers.OURS])[peers.OURS]
    build = peer.build

    def interrupted(case, numbers):
        if case.cell == "GRU":
            raise KeyboardInterrupt
        return build(case, numbers)

    monkeypatch.setattr(peer, "build", interrupted)
    out = tmp_path / "rows.jsonl"
    assert command.main([*tiny, "--out", str(out)]) == 130
    assert [r["cell"] for r in results.load(out)] == ["LSTM", "LSTM"]


def test_race_takes_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    times = timing.race(runs, seconds=0.05, rounds=4, case=SMALL)
    assert len(times["a"].seconds) == len(times["b"].seconds) >= 4
    turns = [name for name, _ in groupby(order)]
    assert len(turns) > len(times["a"].seconds)  # not all of one, then all of the other


def test_kept_bytes():
    case = replace(SMALL, cell="RNN")
    numbers = data.make(case)
    weights = [w.requires_grad_() for w in numbers.state_dict.values()]

    def run():
        return (numbers.x @ weights[0].t()).exp().sin()  # keeps exp's result once, inputs not

    rows = case.T * case.B * case.H
    assert memory.kept(data.Call(run, tuple(weights)), numbers) == rows * 4


def test_options():
    cases = chosen_cases(parser().parse_args(["--suite", "full", "--only", "packed LSTM 4x256"]))
    assert {case.kind for case in cases} == {"packed LSTM"}
    for wrong in (["--cells", "lsmt"], ["--threads", "0"], ["--suite", "none"], ["--peers", "x"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(wrong)
        assert stopped.value.code == 2


HELPED = (
    "report", "results", "compare", "calls", "cold", "pages", "quantized", "trust", "programs",
)  # fmt: skip


@pytest.mark.parametrize("module", ["bench", *(f"bench.{name}" for name in HELPED)])
def test_help(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert f"usage: python -m {module}" in done.stdout


def test_a_slowdown_is_one_in_every_pair():
    assert compare.slower([1.05, 1.2, 1.04], margin=0.03)
    assert not compare.slower([1.05, 1.2, 1.02], margin=0.03)


def test_another_tree_is_imported_uninstalled(tmp_path):
    for folder, text in (("fastrnn", "from .kernels.here import X"), ("kernels", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "kernels" / "here.py").write_text("X = 'the other'")
    code = f"from bench import tree; tree.use({str(tmp_path)!r}); import fastrnn; print(fastrnn.X)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "the other\n", done.stderr


def test_a_tree_comes_before_the_first_import():
    import fastrnn  # noqa: F401

    with pytest.raises(RuntimeError, match="already"):
        tree.use(ROOT)


def test_a_plain_copy_is_told_its_commit(monkeypatch):
    monkeypatch.setattr(fastrnn, "__file__", "/fastrnn/__init__.py")
    monkeypatch.delenv("FASTRNN_COMMIT", raising=False)
    assert machine.commit() is None
    monkeypatch.setenv("FASTRNN_COMMIT", "abc")
    assert machine.commit() == "abc"
