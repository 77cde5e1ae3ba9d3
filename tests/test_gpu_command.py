"""``python -m fastrnn gpu`` and ``fastrnn.tune``: with a GPU and a worker that are pretended."""

import io
import json

import pytest
import torch
from gpu_trials import FACTS, ITEM, KEY, Tries, right, table
from rich.console import Console

from fastrnn.demo import command as whole
from fastrnn.gpu import command, shown, tune
from fastrnn.kernels.gpu import choice, verdicts
from fastrnn.kernels.gpu.kept import Table

__all__ = ["table"]
CPU = torch.device("cpu")
DIED = {"failed": "the process died", "killed": True}
ONE = ["--sizes", "64x512", "--cells", "lstm", "--dtypes", "bfloat16"]


def run(*arguments, worker=None):
    return command.main(list(arguments), device=CPU, worker=worker or Tries())


def test_without_a_gpu(capsys):
    """One line, and an exit status of its own; also of what tries nothing."""
    for options in ([], ["--show"], ["--forget"]):
        assert command.main(options) == 2
        said = capsys.readouterr()
        assert said.err == "python -m fastrnn gpu: there is no GPU that torch can use here\n"
        assert said.out == ""


def test_it_is_a_part_of_the_command(capsys):
    assert whole.main(["gpu"]) == 2
    assert "there is no GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        whole.main(["gpu", "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for option in ("model", "sizes", "show", "forget", "save", "again"):
        assert f"--{option} " in said
    assert max(map(len, said.splitlines())) <= 100


def test_common_sizes(table, capsys):
    worker = Tries()
    assert run(worker=worker) == 0
    count = len(command.SIZES) * 2 * len(command.DTYPES) * 2
    assert len(set(worker.asked)) == len(worker.asked) == count == len(table.known)
    assert worker.stopped == 1  # one process for all
    said = capsys.readouterr().out
    assert "lstm bfloat16 B=64 H=512 training: 2.00x as fast as otherwise, proven" in said
    assert "ours" in said
    assert "2.00x" in said


def test_sizes(table, capsys):
    worker = Tries()
    options = ["--sizes", "30x200", "8x4096", "--cells", "gru", "--dtypes", "float16"]
    assert run(*options, "--packed", "--bidirectional", "--inference", worker=worker) == 0
    (key,) = worker.asked
    assert key[:6] == ("gru", "float16", 200, 2, True, False)
    assert key.B == 32
    assert "gru float16 8x4096: torch serves: H = 4096 is beyond 1536" in capsys.readouterr().out


def test_what_is_known_is_not_tried_again(table, capsys):
    assert run(*ONE) == 0
    worker = Tries()
    assert run(*ONE, worker=worker) == 0
    assert not worker.asked
    assert "2.00x" in capsys.readouterr().out
    assert run(*ONE, "--again", worker=worker) == 0
    assert len(worker.asked) == 2


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (verdicts.wrong("d x is off by 1.0e-01"), 1, "wrong: d x is off by 1.0e-01"),
        (DIED, 1, "the process died"),
        ({"none": "too little memory is free on the GPU"}, 0, "too little memory"),
        (right(few=0.5, many=2.0), 0, "torch, few steps"),
        (right(few=2.0, many=0.5), 0, "torch, many steps"),
        (right(few=0.5, many=0.5), 0, "0.50x"),
    ],
    ids=str,
)
def test_what_comes_of_it(table, capsys, found, status, said):
    assert run(*ONE, worker=Tries(lambda key: found)) == status
    assert said in " ".join(capsys.readouterr().out.split())


def test_what_died_is_tried_again_by_who_asks(table, tmp_path, capsys):
    table.begin(KEY)
    path = table.folder / f"{KEY.name}.running"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"time": 0}))
    table.known |= Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none").known
    assert table.known[KEY].unseen
    assert run("--show") == 0
    assert "the process that tried it died" in " ".join(capsys.readouterr().out.split())
    worker = Tries()
    assert run(*ONE, worker=worker) == 0
    assert KEY in worker.asked
    assert Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none").known[KEY] == right()


def test_what_took_too_long_is_tried_again(table, capsys):
    """By the plain command, whatever its size; but a cell that torch has not needs its model."""
    slow, own = KEY._replace(H=200, B=2), KEY._replace(cell="Mine 0123")
    for key in (slow, own):
        table.add(key, verdicts.wrong(verdicts.SLOW + "compiling: killed after 60 s"))
    table.add(KEY._replace(H=208), verdicts.wrong("d x is off"))
    assert "fastrnn.tune, tries it anew" in table.known[slow].serves(100)[1]
    worker = Tries()
    assert run(*ONE, worker=worker) == 0
    assert slow not in worker.asked
    assert run(worker=worker) == 0
    assert slow in worker.asked
    assert {own, KEY._replace(H=208)}.isdisjoint(worker.asked)


def test_show_and_forget(table, tmp_path, capsys):
    run(*ONE)
    capsys.readouterr()
    worker = Tries()
    assert run("--show", worker=worker) == 0
    assert "2026-01-02" in capsys.readouterr().out
    assert run("--forget", worker=worker) == 0
    assert "2 verdicts are forgotten" in capsys.readouterr().out
    assert not worker.asked
    assert not list(table.folder.iterdir())


def test_save(table, tmp_path, capsys):
    """What one machine has found, as a table for others."""
    file = tmp_path / "table.json"
    assert run(*ONE, "--save", str(file)) == 0
    assert Table.of(FACTS, True, pinned=str(file)).known == table.known
    assert str(file) in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit) as left:
        run(*ONE, "--save", "/no/such/folder/table.json")
    assert left.value.code == 2
    assert "No such file" in capsys.readouterr().err


BAD = [
    ("--sizes", "64"), ("--sizes", "0x64"), ("--sizes", "ax64"), ("--cells", "mamba"),
    ("--dtypes", "float64"), ("--model", "/no/such/file.py"), ("--unheard-of",),
]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=str)
def test_options_that_cannot_be(table, capsys, options):
    with pytest.raises(SystemExit) as left:
        run(*options)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_where_ours_never_serves(table, capsys, monkeypatch):
    monkeypatch.setenv("FASTRNN_GPU", "off")
    assert run() == 2
    assert "no kernel of ours serves here: FASTRNN_GPU is off" in capsys.readouterr().err
    monkeypatch.setenv("FASTRNN_GPU", "no")
    choice.mode.cache_clear()
    with pytest.raises(SystemExit):
        run()
    assert "FASTRNN_GPU is 'no'" in capsys.readouterr().err
    monkeypatch.delenv("FASTRNN_GPU")
    choice.mode.cache_clear()


def test_ctrl_c(table, capsys):
    def interrupted(key):
        raise KeyboardInterrupt

    worker = Tries(interrupted)
    assert run(*ONE, worker=worker) == 130
    assert worker.stopped == 1
    assert not list(table.folder.glob("*.running"))
    assert capsys.readouterr().err == "interrupted; what was found is kept\n"


def test_a_model_in_a_file(table, tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.py"
    file.write_text("import torch\nmodel, example = torch.nn.Identity(), torch.zeros(2)\n")
    seen = []
    monkeypatch.setattr(tune, "tune", lambda *given, **options: seen.append(given) or [])
    assert run("--model", str(file)) == 0
    ((model, x),) = seen
    assert isinstance(model, torch.nn.Identity)
    assert x.shape == (2,)
    file.write_text("model = None\n")
    with pytest.raises(SystemExit):
        run("--model", str(file))
    assert "does not define example" in capsys.readouterr().err


def test_on_a_terminal(table):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    shown.follow({KEY: (table, ITEM)}, console, worker=Tries())
    assert "\x1b[" in console.file.getvalue()
