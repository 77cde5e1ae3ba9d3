"""Trained models with weights of eight or sixteen bits, and back."""

import math
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn

from . import forwards
from .conversion import (
    ORIGINALS,
    RECURRENT,
    TWINS,
    Conversion,
    made_by_torch,
    represented,
    stands_in,
)
from .exchange import SCALE, State, convert, names_of
from .kernels.form import FORMS, WIDEST, Form, Matrix
from .quantized import Quantized
from .recurrent import Recurrent
from .step import Plain, cell_of_module


class Quantization(NamedTuple):
    """What ``quantize`` did, by the modules' names in the model."""

    model: nn.Module
    form: Form  # what weights are of, and what multiplies them
    changed: dict  # name: class name
    left: dict  # name: why
    noise: dict  # name: {matrix: signal to noise of each gate, in decibels}

    def __str__(self):
        to = f"weights of {self.form.weights}, multiplied by {self.form.activations}"
        kinds = {}
        for name, kind in self.changed.items():
            worst = min(min(gates) for gates in self.noise[name].values())
            kinds[name] = f"{kind}, signal to noise of its gates {worst:.0f} dB or more"
        return str(Conversion(to, kinds, self.left))

    __repr__ = __str__


def quantize(model, weights="int8", activations=None, *, percentile=100.0, inplace=True):
    """Give every recurrent layer and cell of a trained model weights of eight or sixteen bits.

    For inference on a CPU: LSTM, GRU, RNN and their cells, torch.nn's and ours, and layers of a
    fastrnn.Recurrent. The rest of the model is not touched. A matrix W (M, K) becomes int8, with a
    scale for each of its rows. Rows of x and h that it multiplies become int8 as well, with a scale
    each that is found in every call; products are summed in 32 bits, exactly. Gates, cells and
    states stay float32. Results do not depend on the batch or the number of threads.

    A layer takes and returns the dtype that it had, and computes in float32; its backward is an
    error. ``state_dict`` has
    the integers, ``weight_ih_l0``, and the scales, ``weight_ih_l0_scale``. It can be pickled,
    copied, compiled and exported.

    Args:
        model: a torch.nn.Module, which may itself be such a layer.
        weights: "int8", or "bfloat16": half the memory, and nearly no loss.
        activations: what weights are multiplied by: "int8" (the default for int8), or "float32",
            where accuracy matters most: a quarter of the memory, and less speed at large batches.
        percentile: which of a row's magnitudes becomes 127; larger ones are cut off. Default: 100,
            the largest.
        inplace: change ``model`` itself; if not, a copy. Default: ``True``.

    Returns:
        A ``Quantization``: the ``model``, the modules ``changed``, those ``left`` as they are and
        why, and the signal-to-noise ratio of each gate's weights, ``noise``. Print it.

    Raises:
        ValueError: there is no such form, or a weight is infinite or NaN; nothing is changed then.
        TypeError: ``model`` is no module.

    Example::

        >>> model = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.LSTM(4, 8))
        >>> fastrnn.quantize(model)
        1 of 1 recurrent modules changed to weights of int8, multiplied by int8
          1  LSTM, signal to noise of its gates 43 dB or more
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    form = _form(weights, activations)
    if not isinstance(percentile, (int, float)) or not 0 < percentile <= 100:
        raise ValueError(f"percentile should be above 0, and 100 at most, not {percentile!r}")
    model = model if inplace else deepcopy(model)
    planned, left = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, (*RECURRENT, Recurrent)):
            if why := _obstacle(module):
                left[name] = why
            else:
                pairs = _matrices(name, module, form, percentile)
                dtype = next(matrix.dtype for _, matrix in pairs.values())
                planned[name] = module, State(module, form, pairs, dtype), pairs
    changed, noise = {}, {}
    for name, (module, state, pairs) in planned.items():  # from here on nothing can fail
        changed[name], gates = type(module).__name__, _gates(module)
        noise[name] = {key: _noise(*pair, gates) for key, pair in pairs.items()}
        convert(module, state, {key: matrix for key, (_, matrix) in pairs.items()})
    return Quantization(model, form, changed, left, noise)


def dequantize(model):
    """Undo ``quantize``, in place: weights are float32 again, those that were computed with.

    Modules get the class that they had. Returns the model.
    """
    for module in list(model.modules()):
        if isinstance(module, Quantized):
            module.dequantize()
    return model


def _form(weights, activations):
    form = Form(weights, activations or ("float32" if weights == "bfloat16" else "int8"))
    if form not in FORMS:
        known = ", ".join(f"{w} weights times {a}" for w, a in FORMS)
        raise ValueError(f"there is no quantization of {form.weights} times {form.activations}: "
                         f"there are {known}")  # fmt: skip
    return form


def _obstacle(module):
    """Why ``module`` cannot be quantized; None if it can."""
    cls = type(module)
    if isinstance(module, Quantized):
        return "it is quantized already"
    if "forward" in vars(module):
        return "its forward was replaced"
    if why := _obstacle_of_weights(module):
        return why
    if isinstance(module, Recurrent):
        return _obstacle_of_step(module)
    cls = represented(cls) if stands_in(cls) else cls
    base = next((base for base in (*ORIGINALS, *TWINS) if issubclass(cls, base)), None)
    return forwards.obstacle(cls, base) if base else f"{cls.__name__} has a forward of its own"


def _obstacle_of_weights(module):
    """Why its weights cannot be exchanged; None if they can."""
    matrices, others = names_of(module)
    parameters = module._parameters
    if made_by_torch(type(module)) or any(n not in parameters for n in matrices + others):
        return "its weights are computed: remove parametrizations, weight_norm or pruning first"
    for name in matrices:
        weight = parameters[name]
        if not weight.is_floating_point() or weight.device.type != "cpu":
            return f"{name} is {weight.dtype} on {weight.device}: it should be a float on a CPU"
        if not 0 < weight.shape[1] <= WIDEST:
            return f"{name} has {weight.shape[1]:,} columns; there may be 1 to {WIDEST:,}"
        if hasattr(module, name + SCALE):
            return f"it has an attribute {name}{SCALE} of its own"
    return None


def _obstacle_of_step(module):
    """Why a layer of a cell of one's own cannot be quantized; None if it can."""
    cell = cell_of_module(module, False, module._edition)
    if isinstance(cell, Plain):
        return f"a step that no kernel can run: {cell.why}"
    training, module.training = module.training, False  # as a class of its own may ask
    try:
        directions = module.directions()
    finally:
        module.training = training
    for (fields, _), weights in zip(module._places, directions, strict=True):
        for place, weight in zip(fields[:2], weights[:2], strict=True):
            if place and not torch.equal(weight, module._parameters[place[0]]):
                return f"its directions() computes another {place[0]}"
    return None


def _matrices(name, module, form, percentile):
    """{name of a parameter: (the weight, its Matrix)}."""
    found = {}
    for key in names_of(module)[0]:
        weight = module._parameters[key]
        try:
            found[key] = weight, Matrix.of(weight, form, percentile)
        except ValueError as error:
            full = f"{name}.{key}".lstrip(".")
            raise ValueError(f"{full} cannot be quantized: {error}") from None
    return found


def _gates(module):
    if isinstance(module, Recurrent):
        return module.gates
    kind = type(module)
    return 4 if issubclass(kind, (nn.LSTM, nn.LSTMCell)) else 3 if issubclass(kind, GRUS) else 1


GRUS = nn.GRU, nn.GRUCell


def _quantize(self, weights="int8", activations=None, *, percentile=100.0):
    """``fastrnn.quantize`` of this layer alone, in place; returns it. Raises ValueError where that
    leaves it as it is.
    """
    found = quantize(self, weights, activations, percentile=percentile)
    if "" in found.left:
        raise ValueError(f"{type(self).__name__} cannot be quantized: {found.left['']}")
    return self


for _cls in (*ORIGINALS, Recurrent):  # which know nothing of what is built on them
    _cls.quantize = _quantize


def _noise(weight, matrix, gates):
    """The signal-to-noise ratio of each gate in decibels; of a projection, of all."""
    weight = weight.detach().double()
    parts = gates if weight.shape[0] % gates == 0 else 1
    errors = weight - matrix.float().double()
    return [
        10 * torch.log10(w.square().sum() / e.square().sum()).item() if e.any() else math.inf
        for w, e in zip(weight.chunk(parts), errors.chunk(parts), strict=True)
    ]
