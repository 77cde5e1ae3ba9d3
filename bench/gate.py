"""No number from a wrong result: what a peer computes, held against torch.nn."""


def wrong(names, found, expected, tolerance):
    """None, or which of the tensors ``found`` is not what it should be, in words.

    ``tolerance`` is relative to the largest element of the expected tensor: an element near zero
    is a sum whose terms were that large.
    """
    if len(found) != len(names):
        return f"{len(found)} results instead of {len(names)}"
    for name, mine, right in zip(names, found, expected, strict=True):
        if mine.shape != right.shape:
            return f"{name} has shape {tuple(mine.shape)} instead of {tuple(right.shape)}"
        error = (mine.double() - right.double()).abs().max() / right.double().abs().max()
        if not error <= tolerance:  # so that NaN is caught too
            return f"{name} is off by {error:.1e} of its largest element; {tolerance:.0e} allowed"
    return None
