"""The text to learn, cut into windows to train on and windows held out."""

import torch

MOST = 10_000_000  # characters read of a file
MOST_HELD_OUT = 50_000


def built_in():
    """The English text that ships inside Python: the help on its topics."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())


class Corpus:
    """A text as numbers: the first nine tenths to train on, the rest held out.

    Each part is cut into ``batch`` columns that are read side by side, ``length`` rows at a time.
    ValueError if the text is too short for a single window.
    """

    def __init__(self, text, batch, length):
        self.characters = sorted(set(text))
        number = {character: n for n, character in enumerate(self.characters)}
        held_out = min(len(text) // 10, MOST_HELD_OUT)
        if len(text) - held_out < batch * (length + 1) or held_out < 2 * batch:
            need = max(20 * batch, -(-batch * (length + 1) * 10 // 9))
            raise ValueError(
                f"{len(text):,} characters are too few: batches of {batch} x {length} need {need:,}"
            )
        numbers = torch.tensor([number[character] for character in text])
        self.size, self.length = len(text), length
        self.text_held_out = text[len(text) - held_out :]
        self._train = _columns(numbers[: len(text) - held_out], batch)
        self._held_out = _columns(numbers[len(text) - held_out :], batch)

    def train(self):
        """(inputs, targets, fresh) without end; fresh: the text begins anew."""
        rows = len(self._train) - 1
        while True:
            for first in range(0, rows - self.length + 1, self.length):
                yield *_window(self._train, first, self.length), first == 0

    def held_out(self):
        """(inputs, targets, fresh), once over the text held out."""
        for first in range(0, len(self._held_out) - 1, self.length):
            yield *_window(self._held_out, first, self.length), first == 0

    def decode(self, numbers):
        return "".join(self.characters[n] for n in numbers)


def _columns(numbers, batch):
    """(rows, batch): each column is one stretch of the text."""
    rows = len(numbers) // batch
    return numbers[: rows * batch].view(batch, rows).t().contiguous()


def _window(columns, first, length):
    """Characters, and for each the one that follows."""
    last = min(first + length, len(columns) - 1)
    return columns[first:last], columns[first + 1 : last + 1]
