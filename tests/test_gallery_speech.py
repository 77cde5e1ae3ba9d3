"""What the entry speech reads, hears and says."""

import math
from importlib.metadata import PackageNotFoundError
from random import Random

import pytest
import torch
from sounds import tone, write_digits, write_sound
from torch import nn

import fastrnn
from fastrnn.demo.command import main
from fastrnn.gallery import data, sound, speech, vowels
from fastrnn.gallery.scores import nearest, share
from fastrnn.gallery.training import of_lengths, seeded


def test_a_sound_is_read(tmp_path):
    path = tmp_path / "some.wav"
    write_sound(path, tone(440))
    samples = sound.samples_of(str(path))
    assert samples.shape == (1200,)
    assert samples.square().mean().item() == pytest.approx(1, rel=1e-5)
    expected = math.sqrt(2) * torch.sin(2 * math.pi * 440 / 8000 * torch.arange(1200))
    torch.testing.assert_close(samples, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("samples", "given", "said"),
    [
        (tone(440), {"rate": 16000}, "16 bits, 1 channels, 16000 Hz"),
        (tone(440), {"channels": 2}, "16 bits, 2 channels, 8000 Hz"),
        (torch.zeros(1000, dtype=torch.uint8), {}, "8 bits, 1 channels, 8000 Hz"),
        (tone(440, 255), {}, "shorter than 256 samples"),
    ],
)
def test_a_sound_of_another_kind_is_refused(samples, given, said, tmp_path):
    write_digits(tmp_path)
    write_sound(tmp_path / "3_c_0.wav", samples, **given)
    with pytest.raises(data.Missing, match=f"--data .*: 3_c_0.wav: .*{said}"):
        sound.recordings(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no sound at all, but some text"])
def test_what_is_no_sound_is_refused(content, tmp_path):
    (tmp_path / "3_c_0.wav").write_bytes(content)
    with pytest.raises(data.Missing, match=r"3_c_0\.wav: ."):
        sound.recordings(tmp_path)


def test_recordings_of_one_speaker_are_too_few(tmp_path, capsys):
    for index in (4, 5):
        write_sound(tmp_path / f"3_c_{index}.wav", tone(440))
    assert main(["speech", "--data", str(tmp_path)]) == 2
    assert "recordings 4 and 5 of two speakers are needed" in capsys.readouterr().err


def test_bands_are_triangles_beside_each_other():
    bands = sound.triangles()
    assert bands.shape == (129, 32)
    assert bands.min() == 0
    assert bands.amax(0).min() > 0.3  # even the narrowest has a frequency near its middle
    within = slice(2, 120)  # each frequency but the lowest and the highest is shared out in full
    torch.testing.assert_close(bands.sum(1)[within], torch.ones(118))
    middles = bands.argmax(0)
    assert (middles.diff() > 0).all()
    assert middles.diff()[-1] > 3 * middles.diff()[0]


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_the_band_of_a_tone(frequency):
    samples = tone(frequency).float()
    power = sound.spectra(samples)
    assert power.shape == (1 + 1200 // sound.HOP, sound.BANDS)
    loudest = power[5].argmax()
    assert sound.triangles()[round(frequency * 256 / 8000), loudest] >= 0.4
    torch.testing.assert_close(sound.spectra(2 * samples), 4 * power)


def test_faster_is_shorter_and_higher():
    fast = sound.at_speed(tone(800).float(), 1.25)
    assert fast.shape == (960,)
    whole = sound.spectra(tone(1000).float())
    assert sound.spectra(fast)[5].argmax() == whole[5].argmax()


def test_what_is_heard_of_digits_in_a_row(tmp_path):
    write_digits(tmp_path)
    found = sound.recordings(tmp_path)
    assert [each[:3] for each in found[:3]] == [(0, "a", 4), (0, "a", 5), (0, "b", 4)]
    voices = sound.voices_of(found)
    for (heard, digit), each in zip(sound.alone(found, voices), found, strict=True):
        assert heard.shape == (16, sound.BANDS)
        assert digit == each.digit
    ((heard, digits),) = sound.played([found[:2] + found[4:5]], voices, Random(0))
    assert digits == [0, 0, 1]
    gaps = Random(0)
    frames = 3 * 16 + sum(gaps.randrange(3, 31) for _ in range(4))
    assert heard.shape == (frames // 3, 3 * sound.BANDS)
    ((learned, _),) = sound.played([found[:1]], voices, Random(0), learn=True)
    assert (learned.reshape(-1, sound.BANDS) == 0).all(0).any()  # a band is hidden


def test_the_voice_is_what_all_has_in_common(tmp_path):
    write_digits(tmp_path)
    found = [each for each in sound.recordings(tmp_path) if each.speaker == "a"]
    voices = sound.voices_of(found)
    heard = torch.cat([(each.powers[0] + sound.NOISE).log() - voices["a"] for each in found])
    torch.testing.assert_close(heard.mean(0), torch.zeros(sound.BANDS), atol=1e-5, rtol=0)


def votes_for(*rows):
    """Votes (T, B, 11) for these at each moment."""
    return 20.0 * nn.functional.one_hot(torch.tensor(rows).T, 11).float()


def test_digits_are_spelled():
    votes = votes_for([10, 1, 1, 10, 1, 2, 2, 10], [3, 3, 10, 0, 9, 9, 9, 9])
    assert speech.spelled(votes, torch.tensor([8, 4])) == [[1, 1, 2], [3, 0]]
    assert speech.spelled(votes, torch.tensor([1, 0])) == [[], []]


def test_the_loss_is_least_for_what_is_spelled():
    votes, lengths = votes_for([10, 1, 1, 10, 1, 2, 2, 10]), torch.tensor([8])

    def loss(digits):
        return speech.loss(lambda _: (votes, lengths), [(None, digits)]).item()

    assert loss([1, 1, 2]) < 1e-4
    assert min(loss([1, 2]), loss([1, 1]), loss([2, 1, 1])) > 1


def test_nothing_held_out_is_learned(tmp_path):
    write_digits(tmp_path)
    found = sound.recordings(tmp_path)
    parts = list(speech.parts_of(found))
    assert [whose for whose, _, _ in parts] == ["recordings 0 to 4", "a", "b"]
    for _, learned, held_out in parts:
        assert len(learned) == len(held_out) == 6
        assert not {each[:3] for each in learned} & {each[:3] for each in held_out}


def test_votes_on_padding_do_not_count():
    votes = torch.zeros(3, 2, 2)
    votes[:, :, 0], votes[2, 1] = 3.0, torch.tensor([0.0, 100.0])
    assert vowels.elected(votes, torch.tensor([3, 2])).tolist() == [[3.0, 0.0], [3.0, 0.0]]


def test_lengths_are_the_same_to_both_libraries():
    x, lengths = torch.randn(5, 3, 2), torch.tensor([4, 5, 2])
    one, other = (of_lengths(seeded(0, lib.LSTM, 2, 3), x, lengths) for lib in (nn, fastrnn))
    torch.testing.assert_close(one, other)


def test_the_nearest():
    learned = [(torch.zeros(9, 2), "low"), (torch.ones(20, 2), "high")]
    held_out = [(torch.full((7, 2), 0.7), "high"), (torch.full((30, 2), 0.8), "low")]
    assert nearest(learned, held_out) == 0.5
    assert share("abcd", "abdd") == 0.75


def write_vowels(folder, name, **_):
    """Vowels as aeon has them, each man with a coefficient of his own; the path of the file."""
    lines = []
    for n in range(90):
        values = [[0.1 * ((n + c + t) % 7) for t in range(7 + n % 23)] for c in range(12)]
        values[n % 9] = [3 + value for value in values[n % 9]]
        lines.append(":".join([*(",".join(map(str, row)) for row in values), str(n % 9 + 1)]))
    path = folder / name
    path.write_text("#About it: all\n@dimensions 12\n@data\n" + "\n".join(lines) + "\n")
    return path


def test_series_of_a_file(tmp_path):
    series = data.series_of(write_vowels(tmp_path, "some.ts"))
    assert len(series) == 90
    x, label = series[10]
    assert (x.shape, label) == ((17, 12), "2")
    expected = [0.1 * ((11 + c) % 7) + 3 * (c == 1) for c in range(12)]
    assert x[1].tolist() == pytest.approx(expected)


def test_vowels(tmp_path, monkeypatch, capsys):
    """They are learned by those who differ so plainly."""
    monkeypatch.setattr(
        vowels, "of_package", lambda _, path, __: write_vowels(tmp_path, path.split("/")[-1])
    )
    plot = tmp_path / "plot.png"
    arguments = ["--threads", "1", "--steps", "40", "--plot", str(plot)]
    assert main(["speech", *arguments]) == 0
    told = capsys.readouterr().out
    assert "90 vowels held out" in told
    assert float(told.split("held out")[1].split("%")[0]) > 90
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_it_is_said_how_to_have_vowels(monkeypatch, capsys):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(data, "distribution", missing)
    assert main(["speech"]) == 2
    assert "pip install --no-deps aeon" in capsys.readouterr().err
