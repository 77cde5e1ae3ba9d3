"""``python -m fastrnn``: what it says, what it checks, and how it ends."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console

import fastrnn
from fastrnn.demo import check, command, machine, options, style
from fastrnn.demo.agreement import Comparison, differences
from fastrnn.demo.curves import braille
from fastrnn.demo.text import Corpus, built_in

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
COMMAND = [sys.executable, "-m", "fastrnn"]
TINY = ["--hidden=16", "--batch=4", "--length=16", "--steps=12"]


@pytest.fixture(autouse=True)
def threads():
    """The number of threads is torch's again after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(built_in()[:5000], encoding="utf-8")
    return str(path)


@pytest.fixture
def tiny(text):
    return [*TINY, "--text", text]


def run(*arguments, **environment):
    plain = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=plain | environment, timeout=300
    )


def test_the_whole_command(tiny):
    done = run(*tiny)
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search(done.stdout)
    assert all(line.startswith("fastrnn: compiling") for line in done.stderr.splitlines())
    for said in ("float32 on CPU", "19 gradients", "step 12 of 12", "Characters per second"):
        assert said in done.stdout
    assert "FAIL" not in done.stdout
    assert done.stdout.endswith("fastrnn agrees with torch.nn on this machine.\n")


def test_a_terminal_without_utf8(tiny):
    done = run(*tiny, "--only", "training", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads(tiny):
    process = subprocess.Popen([*COMMAND, *tiny], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0


def test_help(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    for name in ("layer", "hidden", "layers", "dtype", "text", "batch", "length", "steps", "seed"):
        assert f"--{name} " in said
    for default in ("lstm", "256", "float32", "32", "128", "0.003"):
        assert f"(default: {default})" in said
    assert max(map(len, said.splitlines())) <= 100


BAD = [
    ("--hidden", "0"),
    ("--hidden", "many"),
    ("--hidden", "1e3"),
    ("--hidden", "999999999"),
    ("--layers", "-1"),
    ("--layer", "transformer"),
    ("--batch", "0"),
    ("--length", ""),
    ("--steps", "0"),
    ("--lr", "nan"),
    ("--lr", "inf"),
    ("--lr", "-0.1"),
    ("--lr", "0"),
    ("--lr", "fast"),
    ("--seed", "-1"),
    ("--seed", str(2**64)),
    ("--threads", "0"),
    ("--dtype", "int8"),
    ("--only", "nothing"),
    ("--plot", "/no/such/folder/loss.png"),
    ("--unheard-of", "1"),
    ("--hid", "16"),
]


def refused(capsys, *arguments):
    """The one line that says why."""
    with pytest.raises(SystemExit) as left:
        command.main(list(arguments))
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("python -m fastrnn: ")
    return said.err


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_options(capsys, name, value):
    assert name in refused(capsys, name, value)


def test_bad_files(capsys, tmp_path):
    short, empty, binary = (tmp_path / name for name in ("short", "empty", "binary"))
    short.write_text("too short")
    empty.touch()
    binary.write_bytes(bytes(range(256)) * 100)
    for path, why in [
        (tmp_path / "missing", "No such file"),
        (tmp_path, "Is a directory"),
        (short, "9 characters are too few"),
        (empty, "0 characters are too few"),
        (binary, "not UTF-8"),
    ]:
        said = refused(capsys, "--text", str(path))
        assert why in said
        assert str(path) in said


def test_a_file_that_may_not_be_read(capsys, monkeypatch, text):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert "Permission denied" in refused(capsys, "--text", text)


def test_plot(capsys, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    assert command.main([*tiny, "--only", "training", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out.replace("\n", "")


def test_plot_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert "matplotlib" in refused(capsys, "--plot", str(tmp_path / "loss.png"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn"])
def test_layers_agree(layer, dtype, tiny):
    chosen = options.parse([*tiny, "--layer", layer, "--layers", "2", "--dtype", dtype])
    comparison = Comparison(chosen)
    weights = (run.model.state_dict() for run in (comparison.torch, comparison.ours))
    for theirs, ours in zip(*(state.values() for state in weights), strict=True):
        assert theirs.equal(ours)
    comparison.evaluate()
    for _ in comparison.train(chosen.steps):
        pass
    comparison.evaluate()
    apart = differences(comparison.torch.losses, comparison.ours.losses)
    assert apart.max() < {"float32": 1e-5, "float64": 1e-12}[dtype]
    assert all(agreement.passed for agreement in comparison.agreements())
    before, after = comparison.held_out[comparison.ours]
    assert after < before
    assert len(comparison.sample(20)) == 20


def wrong(change):
    """fastrnn.LSTM with its output changed."""

    class Wrong(fastrnn.LSTM):
        def forward(self, x, hx=None):
            y, states = super().forward(x, hx)
            return change(y), states

    return Wrong


@pytest.mark.parametrize("part", ["check", "training"])
@pytest.mark.parametrize("change", [lambda y: y * 1.01, lambda y: y * float("nan")])
def test_a_wrong_layer_fails(capsys, monkeypatch, tiny, part, change):
    monkeypatch.setattr(fastrnn, "LSTM", wrong(change))
    assert command.main([*tiny, "--only", part]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_wrong_gradient_fails(monkeypatch):
    def backward_only(y):
        return y.detach() + 1.001 * (y - y.detach())

    monkeypatch.setattr(fastrnn, "LSTM", wrong(backward_only))
    outputs, gradients, *others = check.findings()
    assert not gradients.passed
    assert outputs.passed
    assert all(finding.passed for finding in others)


def test_interrupt(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "findings", interrupted)
    assert command.main(["--only", "check"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c(tiny):
    process = subprocess.Popen(
        [*COMMAND, *tiny, "--only", "training", "--steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    for line in process.stdout:
        if line.startswith("Training"):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said


def test_too_little_memory(capsys, monkeypatch):
    def out_of_memory():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 PB")

    monkeypatch.setattr(command, "findings", out_of_memory)
    assert command.main(["--only", "check"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_engines_are_those_of_backends():
    with fastrnn.backends.use("reference"):
        assert {engine for _, _, engine, _ in machine.choices()} == {"reference"}
    engines = {tensors: engine for _, tensors, engine, _ in machine.choices()}
    assert engines["float64"] == fastrnn.backends.explain(torch.zeros(1).double()).name


def terminal(**arguments):
    return Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False, **arguments)


def test_on_a_terminal(monkeypatch, tiny):
    console = terminal()
    monkeypatch.setattr(command, "Console", lambda **_: console)
    assert command.main([*tiny, "--threads", "1"]) == 0
    assert "\x1b[" in console.file.getvalue()
    assert "char/s" in console.file.getvalue()


def test_what_the_engine_says_is_shown_by_the_spinner():
    console = terminal()
    with style.working(console, "checking"):
        print("fastrnn: compiling a kernel", file=sys.stderr)
        print("a warning", file=sys.stderr)
    said = console.file.getvalue()
    assert "a warning" in said
    assert "fastrnn: compiling" not in said


def test_windows_of_text():
    text = "abcdefghij" * 40
    corpus = Corpus(text, batch=3, length=7)
    windows = corpus.train()
    column = ""
    for place, (inputs, targets, fresh) in zip(range(17), windows, strict=False):
        assert inputs.shape == targets.shape == (7, 3)
        assert fresh == (place == 0)
        assert targets[:-1].equal(inputs[1:])
        column += corpus.decode(inputs[:, 0])
    assert text.startswith(column)  # nothing is skipped: the state may be carried on
    assert next(windows)[2]  # and then from the start
    assert sum(targets.numel() for _, targets, _ in corpus.held_out()) == 3 * (40 // 3 - 1)


def test_the_shortest_text():
    with pytest.raises(ValueError, match="79 characters are too few: batches of 4 x 16 need 80"):
        Corpus("x" * 79, 4, 16)
    assert next(Corpus("x" * 80, 4, 16).train())


def test_braille():
    assert braille([1.0, 0.0], 1, 1, 0.0, 1.0) == ["⢹"]
    assert braille([0.5, 0.5], 2, 1, 0.5, 0.5) == ["⠉⠉"]
    assert braille([float("nan")] * 4, 2, 2, 0.0, 1.0) == ["⠀⠀"] * 2


def test_importing_fastrnn_imports_no_rich():
    code = "import sys, fastrnn; sys.exit(bool({'rich', 'numba', 'triton'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_machine_facts():
    facts = dict(machine.facts())
    assert torch.__version__ in facts["Versions"]
    assert facts["Threads"].startswith(str(torch.get_num_threads()))
    assert facts["GPU"]
