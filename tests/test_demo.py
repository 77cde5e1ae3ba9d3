"""The parts of ``python -m fastrnn``, each by itself."""

import io
import subprocess
import sys

import pytest
import torch
from rich.console import Console

import fastrnn
from fastrnn.demo import machine, options, style
from fastrnn.demo.agreement import Comparison
from fastrnn.demo.curves import braille
from fastrnn.demo.existing import show_existing
from fastrnn.demo.text import Corpus


def test_engines_are_those_of_backends():
    with fastrnn.backends.use("reference"):
        assert {engine for _, _, engine, _ in machine.choices()} == {"reference"}
    engines = {tensors: engine for _, tensors, engine, _ in machine.choices()}
    assert engines["float64"] == fastrnn.backends.explain(torch.zeros(1).double()).name


def test_what_the_engine_says_is_shown_by_the_spinner():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with style.working(console, "checking"):
        print("fastrnn: compiling a kernel", file=sys.stderr)
        print("a warning", file=sys.stderr)
    said = console.file.getvalue()
    assert "a warning" in said
    assert "fastrnn: compiling" not in said


@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn"])
def test_an_existing_model(layer, monkeypatch):
    tiny = ["--hidden=16", "--batch=32", "--length=16", "--steps=1", "--layer", layer]
    console = Console(file=io.StringIO(), width=100)
    assert show_existing(console, Comparison(options.parse(tiny)))
    assert f"recurrent  {layer.upper()}" in console.file.getvalue()
    monkeypatch.setattr(fastrnn, "accelerate", fastrnn.restore)  # which changes nothing
    assert not show_existing(console, Comparison(options.parse(tiny)))


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
