"""torch.nn.RNN, LSTM and GRU as fused kernels: replace ``torch.nn.`` by ``fastrnn.``"""

from . import backends, lowering, tools
from .conversion import accelerate, restore
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

tools.meet()

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "accelerate",
    "backends",
    "lowering",
    "restore",
]
