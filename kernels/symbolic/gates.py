"""Gates side by side."""


class Gates(tuple):
    """A value for each gate, tensors or symbols: ``i, f, g, o = wx + uh``.

    ``+ - *`` go from gate to gate; a slice is Gates again.
    """

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return Gates(found) if isinstance(key, slice) else found

    def __add__(self, other):
        return self._each(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self._each(other, lambda a, b: a - b)

    def __mul__(self, other):
        return self._each(other, lambda a, b: a * b)

    __radd__, __rmul__ = __add__, __mul__

    def _each(self, other, function):
        if isinstance(other, tuple) and len(other) != len(self):
            raise TypeError(f"{len(self)} gates and {len(other)} cannot be computed with together")
        others = other if isinstance(other, tuple) else [other] * len(self)
        return Gates(map(function, self, others))


class Product(Gates):
    """The gates of the recurrent product: W_hh h + b_hh, h the first state.

    Called, it is the product with another value: ``uh(value)`` are all gates of W_hh value + b_hh,
    ``uh(value, (0, 1))`` two of them, ``uh(value, 2)`` is one.
    """

    def __new__(cls, gates, multiply):
        found = super().__new__(cls, gates)
        found.multiply = multiply  # multiply(value, gate) -> that gate
        return found

    def __call__(self, value, gates=None):
        numbers = range(len(self)) if gates is None else gates
        for gate in (numbers,) if isinstance(numbers, int) else numbers:
            if gate not in range(len(self)):
                raise IndexError(f"gate {gate!r} of {len(self)}: they are counted from 0")
        if isinstance(numbers, int):
            return self.multiply(value, numbers)
        return Gates(self.multiply(value, gate) for gate in numbers)
