"""States as the loops have them, and as a caller has."""

import torch


def together(extras):
    """The states beside the hidden one as the loops have them, (count, B, number, H); None if there
    are none.
    """
    if len(extras) < 2:
        return extras[0] if extras else None
    return torch.stack(extras, 2)


def apart(together, number):
    """``together`` undone; of several states none is a view of another."""
    if number < 2:
        return [together] * number
    return [state.clone() for state in together.unbind(2)]


def to_begin_with(dfinal, state, spare):
    """The gradient of a final state, zeros for None: memory of its own, ``spare`` zeros a row."""
    if dfinal is None:
        count, B, width = state.shape
        return state.new_zeros(count, B, width + spare)
    return torch.constant_pad_nd(dfinal, (0, spare)) if spare else dfinal.clone()


def as_read(hidden, dtype):
    """The hidden state in the dtype of the sequence: as each step reads it."""
    return hidden if hidden.dtype == dtype else hidden.to(dtype)
