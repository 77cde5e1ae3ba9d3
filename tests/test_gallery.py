"""python -m fastrnn NAME: each entry of the gallery, for a few steps."""

import inspect
import re
import tarfile
from importlib import import_module
from math import sin
from pathlib import Path

import pytest
from gallery_files import write_letters, write_pictures
from sounds import write_digits

from bench import gallery as bench
from bench import results
from fastrnn.demo.command import main
from fastrnn.gallery import ENTRIES

FEW = {  # what makes an entry short; {} is a folder with files in the format of those it reads
    "text": ["--steps", "12", "--hidden", "16", "--plot", "{}/plot.png"],
    "simple": ["--steps", "12", "--plot", "{}/plot.png"],
    "gradients": ["--steps", "3", "--length", "9"],
    "memory": ["--steps", "25", "--length", "9", "--hidden", "8"] + ["--plot", "{}/plot.png"],
    "sentiment": ["--steps", "12", "--data", "{}", "--plot", "{}/plot.png"],
    "forecast": ["--steps", "12", "--series", "sunspots", "--data", "{}/sunspots.csv"]
    + ["--plot", "{}/plot.png"],
    "speech": ["--steps", "12", "--data", "{}", "--plot", "{}/plot.png"],
    "pronounce": ["--quick", "--steps", "6", "--plot", "{}/plot.png"],
    "translate": ["--steps", "12", "--data", "{}", "--plot", "{}/plot.png"],
    "handwriting": ["--steps", "8", "--data", "{}/letters.pickle", "--plot", "{}/plot.png"],
    "video": ["--steps", "8", "--data", "{}/digits.csv", "--plot", "{}/plot.png"],
}

EVERY_ENTRY = pytest.mark.parametrize("name", ENTRIES)


def write_files(folder):
    """Sentences as the treebank has them, a cycle of years as statsmodels has it, and captions as
    Multi30k has them; and digits.
    """
    praise = [f"1 a fine and moving film , number {n % 7}" for n in range(200)]
    others = [f"0 a dull , tired film , part {n % 9}" for n in range(200)]
    for part in ("train", "test"):
        (folder / f"stsa.binary.{part}").write_text("\n".join(praise + others))
    years = [f"{1700 + n},{50 + 40 * sin(0.57 * n):.1f}" for n in range(309)]
    (folder / "sunspots.csv").write_text("\n".join(['"YEAR","SUNACTIVITY"', *years]))
    numbers = {"en": ["one", "two", "three"], "de": ["ein", "zwei", "drei"]}
    for language, line in (("en", "{} dogs run."), ("de", "{} Hunde rennen.")):
        lines = "\n".join(line.format(word) for word in numbers[language])
        for part, times in (("train", 40), ("test_2016_flickr", 2)):
            (folder / f"{part}.{language}").write_text(f"{lines}\n" * times)
    write_digits(folder)
    write_pictures(folder / "digits.csv")
    write_letters(folder / "letters.pickle")


def test_the_list_names_all(capsys):
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ENTRIES)
    assert set(FEW) == set(ENTRIES)


@EVERY_ENTRY
def test_a_few_steps(name, capsys, tmp_path):
    """It runs, fastrnn and the other way agree, and figures stand beside each other."""
    write_files(tmp_path)
    arguments = [each.format(tmp_path) for each in FEW[name]]
    assert main([name, "--threads", "1", *arguments]) == 0
    told = capsys.readouterr().out
    assert re.search(r"step (\d+) of \1: ", told)
    assert "nan" not in told.lower().split()
    if "--plot" in arguments:
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
        losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", told)]
        assert losses[-1] < losses[0]


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sentiment"], "pip download"),
        (["sentiment", "--data", "{}"], "stsa.binary.train"),
        (["sentiment", "--data", "{}/some.tar.gz"], "movieReviewSnippets_GroundTruth.txt"),
        (["sentiment", "--data", "{}/short.csv"], "not a gzip file"),
        (["sentiment", "--data", "{}/none.txt"], "no sentences"),
        (["translate"], "--data DIR"),
        (["translate", "--data", "{}"], "No such file"),
        (["translate", "--data", "{}/uneven"], "train.*: 2 and 1 lines are no pairs"),
        (["speech", "--data", "{}"], "no digit_speaker_index.wav"),
        (["speech", "--data", "{}/none"], "No such file"),
        (["speech", "--data", "{}/short.csv"], "not a gzip file"),
        (["speech", "--data", "{}/some.tar.gz"], "no digit_speaker_index.wav"),
        (["forecast", "--series", "ETTh1"], "--data FILE"),
        (["forecast", "--data", "{}/none.csv"], "No such file"),
        (["forecast", "--data", "{}/short.csv"], "1 rows, of the 14,400"),
        (["forecast", "--data", "{}/some.tar.gz"], "could not convert string to float"),
        (["handwriting", "--data", "{}/short.csv"], "could not convert string to float"),
        (["handwriting", "--data", "{}/some.tar.gz"], "letters.pickle is not in it"),
        (["handwriting", "--data", "{}/none.pickle"], "No such file"),
        (["handwriting", "--data", "{}/none.txt"], "empty file"),
        (["video", "--data", "{}/none.txt"], "0 rows, of the 50"),
    ],
)
def test_what_is_missing_is_said(arguments, said, capsys, tmp_path):
    (tmp_path / "short.csv").write_text("date,HUFL,OT\n2016-07-01,1,2\n")
    (tmp_path / "none.txt").touch()
    (tmp_path / "uneven").mkdir()
    (tmp_path / "uneven" / "train.en").write_text("A dog.\nA cat.\n")
    (tmp_path / "uneven" / "train.de").write_text("Ein Hund.\n")
    with tarfile.open(tmp_path / "some.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "short.csv", "short.csv")
    assert main([each.format(tmp_path) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m fastrnn {arguments[0]}: ")
    assert said in line


@EVERY_ENTRY
@pytest.mark.parametrize("steps", ["0", "-3", "many"])
def test_steps_that_cannot_be(name, steps, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--steps", steps])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument --steps: {steps!r} is not a whole number from 1" in line
