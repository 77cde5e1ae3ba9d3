"""The ways to run a trained layer that bench.quantized sets against each other."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import fastrnn
from fastrnn.kernels.form import FORMS

from . import peers
from .cases import TOLERANCE
from .data import call_layer, loaded

ENGINES = "x86", "onednn"  # of torch; fbgemm computes the products of x86, and qnnpack is for Arm
# How far the worst of all results may be from float64, against the largest. A gate or a scale that
# is mistaken puts it off by a half or more.
EXACT = TOLERANCE["float32"]
# Rounded to bfloat16 a weight is off by up to 0.4 % of itself, to int8 by up to 0.4 % of the
# largest of its row; x and h in int8 by as much of theirs. In a sum of many products most of it
# cancels, which leaves less than 1 %; of a million results the worst is five times as far off.
BOUNDS = {"bfloat16 x float32": 0.02, "int8 x float32": 0.03, "int8 x int8": 0.06}
COARSER = 0.15  # torch takes 7 bits of x and h, and it and ONNX Runtime one scale for a matrix


@dataclass(frozen=True)
class Way:
    """A contestant: what a peer is, and how far off its results may be."""

    available: Callable
    version: Callable
    build: Callable
    bound: float = EXACT
    repeats: bool = False  # whether its bits must not depend on the number of threads


def all_of_them():
    """{name: Way}, torch.nn first."""
    found = peers.load([peers.BASELINE, peers.OURS, "onnxruntime"])
    theirs, ours, onnx = (Way(p.available, p.version, p.build) for p in found.values())
    ways = {peers.BASELINE: theirs, peers.OURS: ours}
    for form in FORMS:
        name = " x ".join(form)
        build, bound = partial(_ours, form), BOUNDS[name]
        ways[f"{peers.OURS} {name}"] = replace(ours, build=build, bound=bound, repeats=True)
    for engine in ENGINES:
        if engine in torch.backends.quantized.supported_engines:
            build = partial(_torchs, engine)
            ways[f"quantize_dynamic {engine}"] = replace(theirs, build=build, bound=COARSER)
    ways["onnxruntime"] = onnx
    ways["onnxruntime int8"] = replace(onnx, build=_onnx, bound=COARSER)
    return ways


def _ours(form, case, numbers):
    layer = loaded(fastrnn, case, numbers).quantize(*form)
    choice = fastrnn.backends.explain(layer, numbers.x, numbers.hx)
    return call_layer(layer, case, numbers, f"engine {choice.name}: {choice.reason}")


def _torchs(engine, case, numbers):
    """torch.ao.quantization.quantize_dynamic, with the products of one of torch's engines."""
    layers, before = nn.ModuleList([loaded(nn, case, numbers)]), torch.backends.quantized.engine
    with warnings.catch_warnings():
        for category in (DeprecationWarning, UserWarning):  # it and what it calls will be removed
            warnings.filterwarnings("ignore", ".*(deprecated|removed)", category)
        torch.backends.quantized.engine = engine
        try:
            (layer,) = torch.ao.quantization.quantize_dynamic(layers, {type(layers[0])})
        finally:
            torch.backends.quantized.engine = before
    weights = (*layer.get_weight().values(), *layer.get_bias().values())
    return replace(call_layer(layer, case, numbers), weights=weights)


def _onnx(case, numbers):
    """onnxruntime.quantization.quantize_dynamic of the graph that its float32 way runs."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    peer = peers.load(["onnxruntime"])["onnxruntime"]
    graph = peer.model(case, numbers)
    add_pre_process_metadata(graph)  # of one node there is nothing to simplify before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quantized.onnx")
        quantize_dynamic(graph, path)
        graph = onnx.load(path)
    if "DynamicQuantizeLSTM" not in {node.op_type for node in graph.graph.node}:
        raise peers.CannotServe(f"ONNX Runtime has no {case.cell} of eight bits")
    return peer.call(case, numbers, graph, "DynamicQuantizeLSTM")
