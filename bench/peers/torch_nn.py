"""The baseline: torch.nn, eager (oneDNN or ATen on CPU, cuDNN on GPU)."""

import torch

from ..data import call_module


def available():
    return None


def version():
    return torch.__version__


def build(case, data):
    return call_module(torch.nn, case, data)
