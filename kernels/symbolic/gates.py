"""Gates side by side."""


class Gates(tuple):
    """A value for each gate, tensors or symbols: ``i, f, g, o = wx + uh``.

    ``+ - *`` go from gate to gate; a slice is Gates again.
    """

    __slots__ = ()

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
