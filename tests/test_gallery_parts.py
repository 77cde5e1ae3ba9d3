"""What the entries of the gallery read, and what they are made of."""

import gzip
import io
import tarfile
import zipfile
from random import Random

import pytest
import torch
from rich.console import Console
from torch import nn

import fastrnn
from fastrnn.gallery import data, pictures, pronounce, sentiment
from fastrnn.gallery.scores import distance
from fastrnn.gallery.training import Run, in_turn, of_one_length, seeded, show_speed, shuffled

SNIPPETS = b"1\t2.2\tA joy.\n" * 19 + b"2\t-1.6\tIt isn't one.\n"


def tar(path, name, content):
    """The bytes of a .tar.gz file that has one file."""
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(f"a folder/{name}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def test_snippets_of_the_source_of_vader(tmp_path):
    """They are in an archive in the archive; that one, and the text in it, will do too."""
    inner, outer = tmp_path / sentiment.ARCHIVE, tmp_path / "vaderSentiment-3.3.2.tar.gz"
    tar(outer, sentiment.ARCHIVE, tar(inner, sentiment.SNIPPETS, SNIPPETS))
    plain = tmp_path / sentiment.SNIPPETS
    plain.write_bytes(SNIPPETS)
    learned, held_out, others = sentiment.read(outer, Random(0))
    assert (len(learned), len(held_out)) == (18, 2)
    assert set(learned + held_out) == {("A joy.", True), ("It isn't one.", False)}
    assert others == sentiment.VADER
    for path in (inner, plain):
        assert sentiment.read(path, Random(0)) == (learned, held_out, others)


def test_words_of_a_sentence():
    words = ["it", "is", "n't", "good", ",", "it", "'s", "100", "%", "dull", "."]
    assert sentiment.words_of("It isn't good, it's 100% dull.") == words
    assert sentiment.words_of("it is n't good , it 's 100 % dull .") == words


@pytest.mark.parametrize("suffix", [".csv", ".gz", ".zip"])
def test_a_table_in_any_wrapping(suffix, tmp_path):
    text, path = b"date,a,b\n1,2,3\n2,,4.5\n", tmp_path / f"some{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("some", text)
    else:
        path.write_bytes(gzip.compress(text) if suffix == ".gz" else text)
    values = data.table_of(path, slice(1, None), 2)
    assert values.tolist() == [[2.0, 3.0], [2.0, 4.5]]
    path.write_bytes(path.read_bytes()[:15])
    with pytest.raises(data.Missing, match="some"):
        data.table_of(path, slice(1, None), 2)


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "bc", 1), ("ab", "ba", 2)],
)
def test_distance(one, other, far):
    assert distance(one, other) == distance(other, one) == far


def test_batches():
    drawn = [next(each) for each in [shuffled(list(range(10)), 3, Random(0))] for _ in range(3)]
    assert len({number for batch in drawn for number in batch}) == 9
    assert sorted(next(shuffled([1, 2], 3, Random(0)))) == [1, 2]  # all, where there are fewer
    pairs = [("a" * (1 + n % 3), n) for n in range(30)]
    for _, batch in zip(range(20), of_one_length(pairs, 4, Random(0)), strict=False):
        assert len(batch) == 4
        assert len({len(word) for word, _ in batch}) == 1


def test_dropout_is_the_same_for_all():
    """Runs in turn would otherwise part with the first number drawn."""
    runs = {name: Run(seeded(0, _dropping), _square, lr=0.0) for name in "ab"}
    in_turn(runs, iter([torch.ones(3, 4)] * 3), 3, Console(file=io.StringIO()))
    assert runs["a"].losses == runs["b"].losses
    assert len(set(runs["a"].losses)) == 3


def _dropping():
    return nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1))


def _square(model, batch):
    return model(batch).square().mean()


def test_the_rate_falls_to_nothing():
    run = Run(nn.Linear(4, 1), _square, lr=0.5, steps=4)
    for rate in (0.5, 0.375, 0.25, 0.125):
        assert run.optimizer.param_groups[0]["lr"] == rate
        run.step(torch.ones(3, 4))


def test_the_same_steps_are_compared():
    """A run that goes on alone may have other batches then, on a machine that is busier."""
    runs = {name: Run(nn.Linear(1, 1), _square) for name in "ab"}
    for run in runs.values():
        run.losses = [1.0] * 12
    runs["a"].seconds, runs["b"].seconds = [0.2] * 3, [0.1] * 3 + [0.9] * 9
    console = Console(file=io.StringIO(), width=120)
    assert show_speed(console, runs) == (True, 2.0)
    assert "100.0 ms" in console.file.getvalue()


def test_a_word_is_said_as_it_is_scored():
    """Phone by phone, and all phones at once: the same phones, and the same attention."""
    model = seeded(0, pronounce.Pronouncer, fastrnn, "abc", [pronounce.END, "AH", "B", "K"])
    model.say.bias.data[0] = -0.2  # so that some phones come before the end
    words = ["abca", "ccba", "baaa"]
    told, attention = model.eval().pronounce(words)
    assert any(told)
    for n, phones in enumerate(told):
        numbers = torch.tensor([model.phones[p] for p in [pronounce.END, *phones]])[:, None]
        scores, looked, _ = model(model.read(words[n : n + 1]), numbers[: pronounce.MOST])
        said = [list(model.phones)[k] for k in scores.argmax(2)[:, 0].tolist()]
        assert said == [*phones, pronounce.END][: pronounce.MOST]
        torch.testing.assert_close(looked[0], attention[n, : len(said)])


def test_attention_as_characters():
    console = Console(file=io.StringIO())
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    pictures.show_attention(console, "ab", ["AH", "B"], weights)
    assert console.file.getvalue() == "\n    a  b\nAH  @   \nB   :  #\n"
