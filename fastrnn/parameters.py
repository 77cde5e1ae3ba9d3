"""The parameters of a Recurrent: torch's, and those that its class declares as the cell's own."""

import torch

from .kernels.weights import Weights


class PerUnit:
    """A learnable number of each hidden unit: ``p_i = fastrnn.PerUnit()`` in the class of a cell.

    In its ``step``, ``self.p_i`` is that number, of the layer and direction that is computed. The
    module has a parameter of shape (hidden_size,) for each layer and direction, called ``p_i_l0``,
    ``p_i_l0_reverse``, ``p_i_l1`` ... init: what it begins with, a number, or a function that fills
    the tensor, as those of torch.nn.init do.
    """

    def __init__(self, init=0.0):
        if not (callable(init) or isinstance(init, (int, float))):
            raise TypeError(f"init should be a number or a function, not {init!r}")
        self.init = init

    def shape(self, hidden_size):
        return (hidden_size,)

    def fill(self, tensor):
        """Give a tensor the numbers to begin with."""
        if callable(self.init):
            self.init(tensor)
        else:
            tensor.fill_(self.init)


class Scalar(PerUnit):
    """A learnable number that all hidden units share: as PerUnit, of shape ()."""

    def shape(self, hidden_size):
        return ()


def places_of(module, number):
    """(name, shape) of each parameter of a direction: those of Weights, None for an absent one; and
    the cell's own.
    """
    H, D, says = module.hidden_size, 1 + module.bidirectional, type(module).signature
    tail = f"_l{number // D}" + "_reverse" * (number % D)
    rows, columns = module.gates * H, module.input_size if number < D else D * H
    fields = [
        (f"weight_ih{tail}", (rows, columns)),
        (f"weight_hh{tail}", (rows, H // module.heads)) if says.recurrent else None,
        (f"bias_ih{tail}", (rows,)) if module.bias else None,
        (f"bias_hh{tail}", (rows,)) if module.bias and says.recurrent else None,
    ]
    return fields, [(name + tail, declared.shape(H)) for name, declared in says.own.items()]


def weights_of(module):
    """A Weights for each layer and direction. Raises RuntimeError for a shape that does not fit."""
    found = []
    for fields, own in module._places:
        ih, hh, b_ih, b_hh = [place and _parameter(module, *place) for place in fields]
        each = [_parameter(module, *place) for place in own]
        each = [p if p.dim() else p.expand(module.hidden_size) for p in each]
        found.append(Weights(ih, hh, b_ih, b_hh, None, torch.stack(each) if each else None))
    return found


def _parameter(module, name, shape):
    parameter = module._parameters.get(name)
    if parameter is None:
        parameter = getattr(module, name)  # one that torch.nn.utils.parametrize computes
    if parameter.shape != shape:
        raise RuntimeError(
            f"{type(module).__name__}.{name} should be of shape {shape}, "
            f"not {tuple(parameter.shape)}"
        )
    return parameter
