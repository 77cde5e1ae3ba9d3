"""What a translation of the gallery is made of: files, pieces of words, a search, training."""

import gzip
import io
from itertools import pairwise, product

import pytest
import torch
from rich.console import Console
from torch import nn

import fastrnn
from fastrnn.gallery import data, pictures, translate
from fastrnn.gallery.search import likeliest
from fastrnn.gallery.sentences import learn_pieces, pairs_of
from fastrnn.gallery.training import Run, at_one_length, seeded

ENGLISH = ["A dog runs.", "Two dogs run in the snow.", ""]
GERMAN = ["Ein Hund rennt.", "Zwei Hunde rennen durch den Schnee.", "Leer."]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_pairs_of_sentences(end, packed, tmp_path):
    """Plain or packed, of any system; other signs that could end a line are part of a sentence."""
    lines = [ENGLISH[0] + "\x85\u2028", *ENGLISH[1:]]
    for language, each in (("en", lines), ("de", GERMAN)):
        text, path = "".join(line + end for line in each).encode(), tmp_path / f"part.{language}"
        if packed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text))
        else:
            path.write_bytes(text)
    assert pairs_of(tmp_path, "part") == [lines, GERMAN]


def test_a_packed_file_that_is_damaged(tmp_path):
    whole = gzip.compress(b"A dog runs.\n" * 99)
    for bad in (whole[:-9], whole[:12] + b"\xff" * 9 + whole[21:], b"A dog runs."):
        (tmp_path / "part.en.gz").write_bytes(bad)
        with pytest.raises(data.Missing, match=r"part\.en"):
            data.lines_of(tmp_path / "part.en")


def test_a_library_that_is_not_there():
    with pytest.raises(data.Missing, match="it needs the package no_such_library: pip install"):
        data.library_of("no_such_library")
    assert data.library_of("torch") is torch


def test_pieces_of_words():
    """They give a sentence back; what never was in one is a number, too."""
    pieces = learn_pieces(ENGLISH + GERMAN, 60)
    assert pieces.decode(pieces.encode(GERMAN)) == GERMAN
    assert pieces.get_piece_size() <= 60
    assert pieces.encode("", add_eos=True) == [translate.END]
    assert pieces.piece_to_id("<s>") == translate.START
    assert all(number < 60 for number in pieces.encode("Ω!"))


def _table(places, numbers):
    """Log-probabilities of what comes after what, at each place."""
    return torch.randn(places, numbers, numbers, generator=torch.manual_seed(0)).log_softmax(2)


def _step(table, width):
    place = torch.arange(len(table)).repeat_interleave(width)
    return lambda last, rows: table[place[rows], last]


def test_a_wide_search_finds_the_likeliest():
    """All that could be said, in at most 4 numbers, was looked at: as good as the best of these."""
    places, numbers, most, (start, end) = 5, 4, 4, (0, 3)
    table, width = _table(places, numbers), 3**4
    found = likeliest(_step(table, width), places, start, end, most, width)
    for place in range(places):
        told = [(*one, end) for n in range(most) for one in product(range(end), repeat=n)]
        scores = {one[:-1]: _score(table[place], (start, *one)) for one in told}
        assert tuple(found[place]) == max(scores, key=scores.get)


def _score(table, told):
    return sum(table[a, b].item() for a, b in pairwise(told)) / (len(told) - 1)


def test_a_search_that_keeps_one():
    """It says the likeliest next number, until the end is likelier than all that goes on."""
    table = torch.tensor([[0.0, 0.7, 0.2, 0.1], [0, 0.1, 0.8, 0.1], [0, 0.0, 0.02, 0.98]])
    table = torch.cat([table, torch.full((1, 4), 0.25)]).log()[None]
    assert likeliest(_step(table, 1), 1, 0, 3, 9, width=1) == [[1, 2]]


def test_a_sentence_is_told_as_it_is_scored():
    """Piece by piece, in beams whose states move with them, or all at once: the same score; and
    none that is one piece away from it is likelier.
    """
    model = seeded(3, translate.Translator, fastrnn, 9).eval()
    model.score.bias.data[translate.END] = 1.0  # so that some end soon
    sentences = [[4, 7, 5, 2], [8, 3, 3, 2], [6, 6, 4, 2]]
    for sentence, told in zip(sentences, model.translate(sentences), strict=True):
        assert model.translate([sentence]) == [told]
        best = _likelihood(model, sentence, told)
        for n, other in product(range(len(told)), range(3, 9)):
            assert _likelihood(model, sentence, told[:n] + [other]) <= best + 1e-6


@torch.no_grad()
def _likelihood(model, sentence, told):
    known, states = model.read([sentence])
    numbers = torch.tensor([[translate.START, *told, translate.END]]).T
    said, _, _ = model(known, numbers[:-1], states)
    chances = model.score(said).log_softmax(2)
    return chances.gather(2, numbers[1:, :, None]).mean().item()


def test_padding_changes_no_loss():
    """Nothing is learned from what fills up the shorter translations."""
    model = seeded(0, translate.Translator, fastrnn, 9).eval()
    short, long = ([4, 5, 2], [6]), ([7, 8, 2], [3, 4, 5, 6, 7])
    one, other, both = (translate.loss(model, batch) for batch in ([short], [long], [short, long]))
    torch.testing.assert_close(both, (2 * one + 6 * other) / 8)


def test_what_is_dropped_is_dropped_for_a_whole_sentence():
    model = seeded(0, translate.Translator, fastrnn, 9)
    kept = model.drop(torch.ones(7, 5, translate.WIDTH)) != 0
    assert (kept == kept[0]).all()
    assert 0.7 < kept.float().mean() < 0.9
    assert (kept[0, 0] != kept[0, 1]).any()


def test_one_length_at_a_time():
    def doubled(words):
        assert len({len(word) for word in words}) == 1
        return [2 * word for word in words]

    assert at_one_length(doubled, ["a", "bc", "d", "a", ""]) == ["aa", "bcbc", "dd", "aa", ""]


def test_the_rate_rises_and_falls():
    model = nn.Linear(4, 1)
    run = Run(model, lambda model, x: model(x).sum(), lr=0.8, steps=8, warm=4)
    for rate in (0.2, 0.4, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
        run.step(torch.ones(3, 4))


def test_attention_to_words():
    console = Console(file=io.StringIO())
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    pictures.show_attention(console, ["a", "dog"], ["ein", "Hund"], weights)
    assert console.file.getvalue() == "\n     a  dog\nein  @     \nHund :  #  \n"
