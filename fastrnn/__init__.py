"""torch.nn.RNN, LSTM and GRU as fused kernels: replace ``torch.nn.`` by ``fastrnn.``"""

from importlib import import_module

from . import backends, lowering, tools
from .conversion import accelerate, restore
from .flow import GradientFlow, gradient_flow
from .keras import accelerate_keras, restore_keras
from .kernels.symbolic.tensors import clip_gradient
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .parameters import PerUnit, Scalar
from .quantization import dequantize, quantize
from .recurrent import Recurrent
from .scan import scan

tools.meet()

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "GradientFlow",
    "LSTMCell",
    "PerUnit",
    "RNNCell",
    "Recurrent",
    "Scalar",
    "accelerate",
    "accelerate_keras",
    "backends",
    "clip_gradient",
    "dequantize",
    "gradient_flow",
    "lowering",
    "quantize",
    "restore",
    "restore_keras",
    "scan",
    "tune",
]


def __getattr__(name):
    """What few programs need is loaded when it is asked for: ``fastrnn.zoo``'s cells, and what
    tries kernels on GPUs, ``fastrnn.tune``.
    """
    if name == "zoo":
        return import_module(".zoo", __name__)
    if name == "tune":
        return import_module(".gpu.tune", __name__).tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
