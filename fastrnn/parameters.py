"""Parameters that a recurrent cell has of its own, declared in its class."""


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
