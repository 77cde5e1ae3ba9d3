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
from fastrnn.demo import check, command, options
from fastrnn.demo.agreement import Comparison, differences
from fastrnn.demo.text import built_in

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
COMMAND = [sys.executable, "-m", "fastrnn"]
TINY = ["--layer=lstm", "--hidden=16", "--batch=4", "--length=16", "--steps=12"]


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
    for said in (
        "float32 on CPU",
        "19 gradients",
        "step 12 of 12",
        "Characters per second",
        "fastrnn.accelerate",
    ):
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
    for default in ("gru", "256", "float32", "32", "64", "200", "0.003", "1"):
        assert f"(default: {default})" in said
    assert max(map(len, said.splitlines())) <= 100


BAD = [
    ("--hidden", "0"),
    ("--hidden", "many"),
    ("--hidden", "999999999"),
    ("--layer", "transformer"),
    ("--length", ""),
    ("--steps", "0"),
    ("--lr", "nan"),
    ("--lr", "inf"),
    ("--seed", str(2**64)),
    ("--threads", "0"),
    ("--dtype", "int8"),
    ("--only", "nothing"),
    ("--text", ""),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_wrong_gradient_fails(monkeypatch, dtype):
    def backward_only(y):
        return y.detach() + 1.001 * (y - y.detach())

    monkeypatch.setattr(fastrnn, "LSTM", wrong(backward_only))
    outputs, gradients, *others = check.findings(dtype)
    assert not gradients.passed
    assert outputs.passed
    assert all(finding.passed for finding in others)


NO_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 PB")


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt(), 130), (NO_MEMORY, 2)])
def test_ends_with_one_line(capsys, monkeypatch, raised, status):
    def findings(dtype):
        raise raised

    monkeypatch.setattr(command, "findings", findings)
    assert command.main(["--only", "check"]) == status
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c(tiny):
    process = subprocess.Popen(
        [*COMMAND, *tiny, "--only", "training", "--steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # a shell that starts the tests in the background has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stdout:
            if line.startswith("Training"):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said


def test_on_a_terminal(monkeypatch, tiny):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(command, "Console", lambda **_: console)
    assert command.main([*tiny, "--threads", "1"]) == 0
    assert "\x1b[" in console.file.getvalue()
    assert "char/s" in console.file.getvalue()
