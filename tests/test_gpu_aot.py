"""The GPU kernels, compiled ahead of time: no row of the committed table gets worse."""

import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench.aot import __main__ as command
from bench.aot import compiler, rows
from fastrnn.kernels.gpu import tiles

SPILLED = 192  # bytes of a thread that a tile in use may spill, at most
MADE_WITH = "3.7."  # the Triton that made the table; others take some registers more or less
MATRIX = {"sm90": "wgmma.mma_async", "sm100": "tcgen05.mma", "gfx942": "v_mfma"}

needs_file = pytest.mark.skipif(not command.FILE.exists(), reason="bench/aot.jsonl is not made yet")


@pytest.fixture(scope="module")
def committed():
    return command.load()


@needs_file
def test_every_tile_in_use_is_in_the_table(committed):
    """What the choice gives to common layers: if it changes, the table is to be made anew."""
    assert set(rows.rows()) == set(committed), "run python -m bench.aot"


@needs_file
def test_the_table_holds_what_it_must(committed):
    """Weights stay on the chip, shared memory is as reckoned, matrix units are used."""
    wrong = []
    for row, found in committed.items():
        if "error" in found:
            wrong.append((row, found["error"]))
            continue
        if not found["held"]:
            wrong.append((row, "weights are loaded in the loop"))
        if not found["shared"] <= row.shared <= rows.GPUS[row.gpu].shared:
            wrong.append((row, f"{found['shared']} shared bytes, {row.shared} reckoned"))
        if found["spilled"] > SPILLED:
            wrong.append((row, f"{found['spilled']} bytes spilled"))
        exact = row.arithmetic == "float32"
        small = row.direction == "backward" and row.tile[0] < 64  # wgmma has 64 rows
        wanted = {MATRIX.get(row.gpu, "mma.sync"), *["mma.sync"] * small}
        if not exact and found["instruction"] not in wanted:
            wrong.append((row, found["instruction"]))
    assert not wrong, "\n".join(map(str, wrong))


@needs_file
@pytest.mark.skipif(not version("triton").startswith(MADE_WITH), reason="made with another Triton")
@pytest.mark.parametrize("row", [row for row in rows.rows() if row.in_ci()], ids=str)
def test_no_row_gets_worse(committed, row):
    before, now = committed[row], row.compile()
    assert now["held"]
    assert now["instruction"] == before["instruction"]
    assert now["shared"] <= before["shared"]
    assert now["spilled"] <= before["spilled"]
    assert now["registers"] <= before["registers"]


def test_it_is_what_a_launch_compiles():
    """No number of a call is compiled in but its constants; every address is a multiple of 16."""
    row = next(row for row in rows.rows() if row.gpu == "sm90" and row.H == 512)
    layer = compiler.Layer(row.cell, *rows.ARITHMETICS[row.arithmetic], row.H)
    target = compiler.target("sm90")
    once, other = (
        compiler.compiled(target, layer._replace(B=B, D=D), forward=tiles.Forward(*row.tile))
        for B, D in ((16, 1), (33, 2))
    )
    kernel = once["forward"]
    assert kernel.hash == other["forward"].hash
    assert kernel.metadata.launch_cooperative_grid
    assert kernel.metadata.num_warps == row.tile[3]
    names = kernel.src.fn.arg_names
    pointers = [n for n, kind in kernel.src.signature.items() if kind.startswith("*")]
    assert len(pointers) == 11
    for name in pointers:
        assert ["tt.divisibility", 16] in kernel.src.attrs[names.index(name),]
    for name in ("s0", "s1", "T", "B", "N"):
        assert not kernel.src.attrs.get((names.index(name),))


HELD = """
tt.func public @forward(%gates: !tt.ptr<bf16>, %weights: !tt.ptr<bf16>) {
  %place = tt.addptr %weights, %offset : tensor<64x256x!tt.ptr<bf16>>
  %held = tt.load %place : tensor<64x256x!tt.ptr<bf16>>
  %there = ttg.local_alloc %held : (tensor<64x256xbf16>) -> !ttg.memdesc<64x256xbf16>
  %end = scf.for %s = %s0 to %s1 step %one : i32 {
    %h = tt.load %other : tensor<256x16x!tt.ptr<bf16>>
    %total = ttng.warp_group_dot %there, %h, %zero : tensor<64x16xf32>
  }
"""


def test_the_eye_for_weights_that_are_not_held():
    assert compiler.weights_are_held(HELD)
    loaded = HELD.replace("tt.load %other", "tt.load %place")
    assert not compiler.weights_are_held(loaded)
    first, copy = "  %there = ttg.local_alloc %held : (", "    %there = ttg.local_alloc %held : ("
    lines = [line for line in HELD.splitlines() if not line.startswith(first)]
    at = next(i for i, line in enumerate(lines) if "%h =" in line)
    lines.insert(at, copy + "tensor<64x256xbf16>) -> !ttg.memdesc<64x256xbf16>")
    assert not compiler.weights_are_held("\n".join(lines))
    assert not compiler.weights_are_held(HELD.replace("%weights", "%biases"))


def test_the_command(tmp_path, monkeypatch, capsys):
    """It writes a row for each tile, keeps what it was not asked for, and notes what fails."""
    wanted = [row for row in rows.rows() if row.gpu in ("sm90", "gfx942")][:2]
    wanted.append(wanted[0]._replace(gpu="gfx942"))
    figures = {"registers": 99, "spilled": 0, "shared": 1, "instruction": "i", "held": True}

    def compile_row(row):
        return (row, figures) if row.gpu == "gfx942" else (row, {"error": "no such thing"})

    monkeypatch.setattr(rows, "rows", lambda: wanted)
    monkeypatch.setattr(rows, "compile_row", compile_row)
    monkeypatch.setattr(command, "get_context", lambda _: None)
    pool = lambda jobs, *_: ThreadPoolExecutor(jobs)  # noqa: E731
    monkeypatch.setattr(command, "ProcessPoolExecutor", pool)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "aot.jsonl"
    assert command.main(["--out", str(path), "--gpus", "gfx942"]) == 0
    assert command.main(["--out", str(path), "--gpus", "sm90"]) == 1
    assert command.load(path)[wanted[2]] == figures
    assert command.load(path)[wanted[0]] == {"error": "no such thing"}
    assert json.loads(path.read_text().splitlines()[0])["gpu"] == "gfx942"
    assert command.main(["--out", str(path), "--show"]) == 1
    assert "no such thing" in capsys.readouterr().out
