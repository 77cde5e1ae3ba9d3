"""python -m fastrnn NAME: each entry of the gallery, for a few steps."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from bench import gallery as bench
from bench import results
from fastrnn.demo.command import main
from fastrnn.gallery import ENTRIES

FEW = {  # what makes an entry short
    "text": ["--steps", "3", "--hidden", "16"],
    "simple": ["--steps", "12"],
    "gradients": ["--steps", "3", "--length", "9"],
    "memory": ["--steps", "25", "--length", "9", "--hidden", "8"],
}
EVERY_ENTRY = pytest.mark.parametrize("name", ENTRIES)


def test_the_list_names_all(capsys):
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ENTRIES)
    assert set(FEW) == set(ENTRIES)


@EVERY_ENTRY
def test_a_few_steps(name, capsys, tmp_path):
    """It runs, fastrnn and the other way agree, and figures stand beside each other."""
    assert main([name, "--threads", "1", *FEW[name]]) == 0
    told = capsys.readouterr().out
    assert "step 3 of 3" in told or "of 12: fastrnn.scan, loss" in told or "25 of 25" in told
    assert "nan" not in told.lower().split()


@EVERY_ENTRY
def test_the_help_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert inspect.getdoc(import_module(f"fastrnn.gallery.{name}")).splitlines()[0] in told
    for option in ("--quick", "--seed", "--threads", "--plot", "exit status"):
        assert option in told


@EVERY_ENTRY
def test_it_is_a_file_to_be_copied(name):
    lines = Path(import_module(f"fastrnn.gallery.{name}").__file__).read_text().splitlines()
    assert len(lines) <= 130


def test_a_row_of_the_bench(tmp_path, capsys):
    out = tmp_path / "gallery.jsonl"
    options = "--steps 3 --length 9 --hidden 8 --threads 1"
    assert bench.main(["memory", "--options", options, "--out", str(out)]) == 0
    (row,) = results.load(out, bench.what)
    assert (row["entry"], row["options"], row["agreed"]) == ("memory", options, True)
    page = bench.block([row])
    assert f"`python -m fastrnn memory {options}`" in page
    assert all(words in page for words in row["figures"][0])
