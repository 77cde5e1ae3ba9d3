"""Sounds as .wav files have them."""

import wave
from itertools import product
from math import pi

import torch


def tone(frequency, samples=1200):
    """One of so many hertz, in 16 bits, 8000 samples a second."""
    return (9000 * torch.sin(2 * pi * frequency / 8000 * torch.arange(samples))).short()


def write_sound(path, samples, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, samples.element_size(), rate, 0, "NONE", ""))
        file.writeframes(samples.numpy().tobytes())


def write_digits(folder):
    """What passes for three digits of two speakers, twice each, by the names of the data set."""
    for digit, speaker, index in product(range(3), "ab", (4, 5)):
        sound = tone(500 * digit + 20 * index + 300)
        write_sound(folder / f"{digit}_{speaker}_{index}.wav", sound)
