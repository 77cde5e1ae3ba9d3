"""The GPU kernels, compiled ahead of time: no row of the committed table gets worse."""

import ast
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench.aot import __main__ as command
from bench.aot import compiler, rows, table
from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.gpu import kernels, tiles

SPILLED = 192  # bytes of a thread that a tile in use may spill, at most
MATRIX = {"sm90": "wgmma.mma_async", "sm100": "tcgen05.mma", "gfx942": "v_mfma"}


@pytest.fixture(scope="module")
def committed():
    return table.load()[1]


def test_every_tile_in_use_is_in_the_table(committed):
    """What the choice gives to common layers: if it changes, the table is to be made anew."""
    assert set(rows.rows()) == set(committed), "run python -m bench.aot"


def test_the_table_is_made_from_these_sources():
    """A change of a kernel may be for the worse in a row that is not compiled here."""
    made_from, now = table.load()[0], table.made_from()["sources"]
    others = [gpu for gpu in rows.GPUS if made_from[gpu]["sources"] != now]
    assert not others, "run python -m bench.aot"


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


@pytest.mark.parametrize("row", [row for row in rows.rows() if row.in_ci()], ids=str)
def test_no_row_gets_worse(row):
    made_from, committed = table.load()
    made_with, here = made_from[row.gpu]["triton"], version("triton")
    if here.split(".")[:2] != made_with.split(".")[:2]:
        pytest.skip(f"made with Triton {made_with}: {here} may spill some bytes more")
    assert not table.worse(committed[row], row.compile())


def test_it_is_what_a_launch_compiles():
    """No number of a call is compiled in but its constants; every address is a multiple of 16."""
    row = next(row for row in rows.rows() if row.gpu == "sm90" and row.H == 512)
    layer = compiler.Layer(CELLS[row.cell], *rows.ARITHMETICS[row.arithmetic], row.H)
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
    assert len(pointers) == 10  # of packed rows there is a table, too
    for name in pointers:
        assert ["tt.divisibility", 16] in kernel.src.attrs[names.index(name),]
    for name in kernels.RUN_TIME:
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


CODE = """
def kernel(x, y):
    return x + 2 * y
"""
SAME = '''
"""What it is."""

def kernel(x,
           y,):
    """What it does."""
    return (x + 2*y)  # why
'''


def test_the_digest_is_of_the_code_alone():
    def digest(code):
        return table.digest({"kernel": code})

    assert digest(CODE) == digest(SAME)
    assert digest(CODE) != digest(CODE.replace("2", "3"))
    assert digest(CODE) != digest(CODE.replace("x + 2 * y", "(x + 2) * y"))


def test_the_text_of_a_cell_is_a_source(monkeypatch):
    """However it comes about that it is another."""
    before = table.made_from()
    gru = CELLS["gru"]
    monkeypatch.setitem(vars(gru), "text", gru.text.replace("sigmoid", "tanh"))
    assert table.made_from() != before


def test_the_sources_are_all_there():
    """What a source imports from the project is a source."""
    for path in table.SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                names = [node.module] if node.module else [alias.name for alias in node.names]
                assert {path.with_name(f"{name}.py") for name in names} <= set(table.SOURCES)


FIGURES = {"registers": 99, "spilled": 0, "shared": 64, "instruction": "mma.sync", "held": True}
FIGURES |= {"trips": 1}
ERROR = {"error": "CompilationError: no such thing"}


@pytest.mark.parametrize(
    "change",
    [{"spilled": 8}, {"shared": 65}, {"instruction": None}, {"held": False}, {"trips": 2}],
    ids=str,
)
def test_worse(change):
    assert table.worse(FIGURES, FIGURES | change).keys() == change.keys()


def test_what_is_better_is_not_worse():
    before = FIGURES | {"spilled": 8, "shared": 65, "held": False}
    assert not table.worse(before, FIGURES)
    assert not table.worse(FIGURES, FIGURES | {"registers": 255})
    assert not table.worse(FIGURES | {"trips": None}, FIGURES | {"trips": None})


def test_what_compiles_no_longer_is_worse():
    assert "no such thing" in table.worse(FIGURES, ERROR)["compiles"]
    assert not table.worse(ERROR, FIGURES)
    assert not table.worse(ERROR, ERROR)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(figures, *arguments)``: the exit status of the command where the compiler says so."""
    sm90 = next(row for row in rows.rows() if row.gpu == "sm90")
    wanted = [sm90, sm90._replace(gpu="gfx942")]
    monkeypatch.setattr(rows, "rows", lambda: wanted)
    monkeypatch.setattr(command, "get_context", lambda _: None)
    pool = lambda jobs, *_: ThreadPoolExecutor(jobs)  # noqa: E731
    monkeypatch.setattr(command, "ProcessPoolExecutor", pool)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "aot.jsonl"

    def call(figures, *arguments):
        monkeypatch.setattr(rows, "compile_row", lambda row: (row, figures))
        return command.main(["--out", str(path), *arguments])

    call.path, call.rows = path, wanted
    return call


def test_the_command(run, capsys):
    """It writes a row for each tile, keeps what it was not asked for, and notes what fails."""
    sm90, gfx942 = run.rows
    assert run(FIGURES, "--gpus", "gfx942") == 0
    assert run(ERROR, "--gpus", "sm90") == 1
    made_from, found = table.load(run.path)
    assert found == {gfx942: FIGURES, sm90: ERROR}
    assert made_from == dict.fromkeys(("gfx942", "sm90"), table.made_from())
    assert run(None, "--show") == 1
    assert "no such thing" in capsys.readouterr().out


def test_what_got_worse_is_said_and_not_written(run, capsys, monkeypatch):
    assert run(FIGURES) == 0
    before = run.path.read_text()
    monkeypatch.setattr(table, "digest", lambda _: "of a change")
    worse = FIGURES | {"spilled": 8}
    assert run(worse, "--gpus", "sm90") == 1
    assert "forward" in (said := capsys.readouterr().out)
    assert "spilled was 0, is 8" in said
    assert run.path.read_text() == before
    assert run(worse, "--gpus", "sm90", "--accept") == 0
    made_from, found = table.load(run.path)
    assert found == dict(zip(run.rows, (worse, FIGURES), strict=True))
    assert made_from["sm90"]["sources"] == "of a change" != made_from["gfx942"]["sources"]
    assert run(FIGURES | {"registers": 255}) == 0
