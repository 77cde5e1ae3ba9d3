"""A small layer, as the parts of bench.gpu take it, and the GPU it might run on."""

from dataclasses import asdict

from bench.cases import Case
from fastrnn.kernels.gpu import sizes

SMALL = Case("LSTM", T=5, B=3, I=4, H=8)
ITEM = {"case": asdict(SMALL), "arithmetic": "float32", "relu": False}
H200 = sizes.Device(90, 132, 232448, 233472)
