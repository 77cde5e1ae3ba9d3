"""torch.nn.RNN, LSTM and GRU as fused kernels: replace ``torch.nn.`` by ``fastrnn.``"""

from . import backends, lowering, tools
from .conversion import accelerate, restore
from .kernels.symbolic.tensors import clip_gradient
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .parameters import PerUnit, Scalar
from .recurrent import Recurrent
from .scan import scan

tools.meet()

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "PerUnit",
    "RNNCell",
    "Recurrent",
    "Scalar",
    "accelerate",
    "backends",
    "clip_gradient",
    "lowering",
    "restore",
    "scan",
]
