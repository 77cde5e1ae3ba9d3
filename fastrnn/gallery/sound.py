"""Sound as numbers: recordings of spoken digits, and their spectra."""

import re
import tarfile
import wave
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .data import Missing

RATE, WINDOW, HOP = 8000, 256, 80  # samples a second, of a spectrum, and from one to the next
BANDS, TOGETHER = 32, 3  # bands of a spectrum; spectra that a model reads at once
SPEEDS = (1.0, 0.84, 0.92, 1.08, 1.16)  # faster is also higher, as with a tape
NOISE = 0.02  # the power of noise in a band, where a recording's is 1 or so
NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")


class Recording(NamedTuple):
    digit: int
    speaker: str
    index: int
    powers: list  # spectra (frames, BANDS), at each of SPEEDS


def samples_of(file):
    """What is in a .wav file, at a mean power of 1 (N,). ValueError for other than 16 bits, mono,
    8000 Hz, and for less than a spectrum needs.
    """
    with wave.open(file) as sound:
        bits, channels, rate = 8 * sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
        if (bits, channels, rate) != (16, 1, RATE):
            has = f"{bits} bits, {channels} channels, {rate} Hz"
            raise ValueError(f"it has {has}, and 16, 1, {RATE} are needed")
        content = bytearray(sound.readframes(sound.getnframes()))
    if len(content) < 2 * WINDOW:
        raise ValueError(f"it is shorter than {WINDOW} samples")
    samples = torch.frombuffer(content, dtype=torch.int16).float()
    samples -= samples.mean()
    return samples / samples.square().mean().sqrt().clamp(min=1.0)


@cache
def triangles():
    """How much of each frequency is in each band (WINDOW / 2 + 1, BANDS): bands are of one width in
    mel, and each rises to where the one before ends.
    """
    most = 2595 * torch.log10(torch.tensor(1 + RATE / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, 1, BANDS + 2) * most / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def spectra(samples):
    """The power in each band every 10 ms (1 + N // HOP, BANDS), of samples (N,)."""
    window = torch.hann_window(WINDOW)
    parts = torch.stft(
        samples, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
    )
    return parts.abs().square().T @ triangles() / window.square().sum()


def at_speed(samples, speed):
    """The same as if a tape ran so many times as fast."""
    length = int(len(samples) / speed)
    return nn.functional.interpolate(samples[None, None], length, mode="linear")[0, 0]


def files(path):
    """(name, open file) of what is in a folder or in a .tar.gz file."""
    if path.is_dir():
        for each in sorted(path.rglob("*.wav")):
            with each.open("rb") as file:
                yield each.name, file
        return
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isfile():
                yield Path(member.name).name, archive.extractfile(member)


def recordings(path):
    """Those of a folder or an archive whose names say digit_speaker_index.wav. Raises Missing."""
    found, where = [], ""
    try:
        for name, file in files(path):
            where = f"{name}: "
            if told := NAME.fullmatch(name):
                samples = samples_of(file)
                powers = [spectra(at_speed(samples, speed)) for speed in SPEEDS]
                found.append(Recording(int(told[1]), told[2], int(told[3]), powers))
    except (OSError, EOFError, ValueError, tarfile.TarError, wave.Error) as error:
        raise Missing(f"--data {path}: {where}{str(error) or 'it ends early'}") from error
    if not found:
        raise Missing(f"--data {path}: there is no digit_speaker_index.wav in it")
    return found


def by_speaker(found):
    """{speaker: recordings}."""
    speakers = {each.speaker: [] for each in found}
    for each in found:
        speakers[each.speaker].append(each)
    return speakers


def voices_of(found):
    """{speaker: the mean of all spectra (BANDS,), as logarithms}: what a voice and a microphone do
    to whatever is said.
    """
    return {
        speaker: torch.cat([(each.powers[0] + NOISE).log() for each in those]).mean(0)
        for speaker, those in by_speaker(found).items()
    }


def said(those, voice, random, learn=False):
    """What is heard where recordings are played in a row (frames / TOGETHER, TOGETHER * BANDS): the
    logarithms of spectra, as far as they are not the voice's.

    random: draws the gaps between them, of 30 to 300 ms. To learn from, also how fast and how loud
    each is, how much noise there is, and what is hidden, as by SpecAugment (arXiv 1904.08779).
    """
    parts = [_gap(random)]
    for each in those:
        power = each.powers[0]
        if learn:
            power = random.choice(each.powers) * 10 ** random.uniform(-0.5, 0.5)
        parts += [power, _gap(random)]
    power = torch.cat(parts)
    noise = NOISE * (10 ** random.uniform(-1.3, 1.5) if learn else 1)
    heard = (power + noise * (0.3 + 0.7 * torch.empty_like(power).exponential_())).log() - voice
    heard = heard[: len(heard) // TOGETHER * TOGETHER] / heard.std()
    if learn:
        _hide(heard, 2, BANDS // 6, random)
        _hide(heard.T, len(those), 10, random)
    return heard.reshape(-1, TOGETHER * BANDS)


def rows_of(found, random, fewest, most):
    """Recordings in a row, of one speaker each time, without end."""
    speakers = list(by_speaker(found).values())
    while True:
        yield random.choices(random.choice(speakers), k=random.randint(fewest, most))


def played(rows, voices, random, learn=False):
    """(what is heard, the digits that are said) of each row of recordings."""
    return [
        (said(row, voices[row[0].speaker], random, learn), [each.digit for each in row])
        for row in rows
    ]


def alone(found, voices):
    """(its spectra, its digit) of each recording, without noise and gaps."""
    heard = [(each.powers[0] + NOISE).log() - voices[each.speaker] for each in found]
    return [(x / x.std(), each.digit) for x, each in zip(heard, found, strict=True)]


def _gap(random):
    return torch.zeros(random.randrange(3, 31), BANDS)


def _hide(heard, times, most, random):
    """Up to so many columns, at several places."""
    for _ in range(times):
        width = random.randrange(min(most, heard.shape[1]))
        first = random.randrange(heard.shape[1] - width)
        heard[:, first : first + width] = 0
