"""Recurrent layers of the literature, each written as a step: ``fastrnn.Recurrent`` says how.

They are built and called as torch.nn.LSTM is. A file has one formula; to make a layer of your own,
begin with a copy of the one that is nearest.
"""

from .augru import AUGRU
from .block_gru import BlockGRU
from .cfc import CfC
from .cornn import CoRNN
from .coupled_lstm import CoupledLSTM
from .gru_d import GRUD
from .indrnn import IndRNN
from .janet import JANET
from .layer_norm_gru import LayerNormGRU
from .layer_norm_lstm import LayerNormLSTM
from .lem import LEM
from .ligru import LiGRU
from .mgu import MGU
from .min_gru import MinGRU
from .min_lstm import MinLSTM
from .peephole_lstm import PeepholeLSTM
from .qrnn import QRNN
from .reset_first_gru import ResetFirstGRU
from .slstm import SLSTM
from .sru import SRU
from .ugrnn import UGRNN
from .weight_drop_lstm import WeightDropLSTM
from .zoneout_gru import ZoneoutGRU
from .zoneout_lstm import ZoneoutLSTM

__all__ = [
    "AUGRU",
    "GRUD",
    "JANET",
    "LEM",
    "MGU",
    "QRNN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "BlockGRU",
    "CfC",
    "CoRNN",
    "CoupledLSTM",
    "IndRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LiGRU",
    "MinGRU",
    "MinLSTM",
    "PeepholeLSTM",
    "ResetFirstGRU",
    "WeightDropLSTM",
    "ZoneoutGRU",
    "ZoneoutLSTM",
]
