"""The arguments of a call that torch.nn's layers do not have: lengths, resets, every state."""

import inspect
from functools import partial, wraps

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from . import masked, states
from .kernels.untraced import untraced
from .ragged import Batch, mapped
from .tracing import tracing

ARGUMENTS = {"lengths", "resets", "reset_to", "return_states"}


def accepting(forward):
    """``forward``, of a layer, that takes these, too."""

    @wraps(forward)
    def with_lengths(
        self, input, hx=None, *, lengths=None, resets=None, reset_to=None, return_states=False,
        **inputs,
    ):  # fmt: skip
        go = states.forward if return_states else forward
        if states.recorders:
            go = states.recorded(go, return_states)
        if lengths is None and resets is None and reset_to is None:
            return go(self, input, hx, **inputs)
        given = self, input, hx, lengths, resets, reset_to, inputs
        if not (tracing(input) or mapped(lengths) or mapped(resets)):
            return _in_pieces(go, *given)
        if masked.serves(self):
            return masked.call(*given, return_states)
        return _uncompiled(go, *given)

    return with_lengths


def accepting_derived(forward):
    """``forward``, of a class derived from a layer's, that takes these too, whatever else it takes:
    it sees the pieces, packed, and hands ``return_states`` on. One that names any of these itself
    takes care of them.
    """
    if ARGUMENTS & set(inspect.signature(forward).parameters):
        return forward

    @wraps(forward)
    def with_lengths(
        self, *given, lengths=None, resets=None, reset_to=None, return_states=False, **inputs
    ):
        go = partial(forward, return_states=True) if return_states else forward
        if lengths is None and resets is None and reset_to is None:
            return go(self, *given, **inputs)
        return ragged(go, self, *given, lengths=(lengths, resets, reset_to), **inputs)

    def ragged(go, self, input, hx=None, *, lengths, **inputs):
        run = _uncompiled if tracing(input) else _in_pieces
        return run(go, self, input, hx, *lengths, inputs)

    return with_lengths


def _in_pieces(forward, module, input, hx, lengths, resets, reset_to, inputs):
    states.only_whole(module)
    batch, initial = Batch(module, input, lengths, resets, reset_to), hx
    if not batch.whole:
        input, hx, inputs = batch.packed(hx, inputs)
    result = forward(module, input, *(() if hx is None else (hx,)), **inputs)
    if batch.whole:
        return result
    if not (isinstance(result, tuple) and isinstance(result[0], PackedSequence)):
        raise TypeError(
            f"{batch.name}.forward should return (output, final states), as super().forward does, "
            f"where it is given lengths or resets"
        )
    result = batch.padded(*result)
    if isinstance(module, nn.RNNBase) and torch.is_autocast_enabled(batch.x.device.type):
        return _as_padded(module, batch.input, initial, *result)
    return result


def _as_padded(module, input, hx, *results):
    """Results of packed rows, in the dtypes that torch gives them under autocast if all is dense:
    these do not depend on the lengths.
    """
    call, cell, *_ = states.of(module, input, hx, {})
    y, *finals = call.dtypes(cell)[1]
    found = [results[0].to(y)]
    for each in results[1:]:
        one = isinstance(each, torch.Tensor)
        found.append(each.to(finals[0]) if one else tuple(map(torch.Tensor.to, each, finals)))
    return tuple(found)


@untraced
def _uncompiled(*given):
    """``_in_pieces``: a graph of torch.compile ends here."""
    return _in_pieces(*given)


_uncompiled._torchdynamo_disable_msg = "lengths or resets of a layer that cannot be masked"
