"""fastrnn itself, with the engine that it chooses by default."""

import torch

import fastrnn

from ..data import call_module


def available():
    return None


def version():
    return fastrnn.__version__


def build(case, data):
    with torch.autocast(case.device, torch.bfloat16, enabled=case.autocast):
        weights = (weight.to(case.device) for weight in data.state_dict.values())
        engine = fastrnn.backends.explain(data.x, *data.states, *weights, step=case.step)
    return call_module(fastrnn, case, data, f"engine {engine.name}: {engine.reason}")
