"""What torch's functions are to the columns of a state: products, runs of columns, or pointwise."""

from operator import getitem
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.symbolic.symbol import FUNCTIONS, METHODS
from .node import FIXED, STATE, Like, Node


class Product(NamedTuple):
    """value @ weight.T + bias, as torch.nn.functional.linear has it."""

    value: Node
    weight: Node
    bias: Node | None


def _linear(input, weight, bias=None):
    return input, weight, bias, False


def _matmul(input, other):
    return input, other, None, True


def _addmm(bias, input, other, *, beta=1, alpha=1):
    return input if beta == alpha == 1 else None, other, bias, True


PRODUCTS = {F.linear: _linear, torch.addmm: _addmm, Tensor.addmm: _addmm}
PRODUCTS |= dict.fromkeys(
    (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _matmul
)
# What changes neither the numbers nor their order.
SAME = {
    "contiguous", "clone", "to", "float", "double", "half", "bfloat16", "type_as", "expand_as",
    "view", "view_as", "reshape", "expand", "broadcast_to",
}  # fmt: skip
CELLS = {
    "lstm_cell": "lstm", "gru_cell": "gru", "rnn_tanh_cell": "rnn_tanh",
    "rnn_relu_cell": "rnn_relu",
}  # fmt: skip
OVER_UNITS = {"mean", "layer_norm"}  # which need all of a step's units at once
POINTWISE = {
    **FUNCTIONS, Tensor.__pow__: METHODS["pow"], Tensor.__eq__: METHODS["eq"],
    Tensor.__and__: METHODS["logical_and"], Tensor.__or__: METHODS["logical_or"],
    Tensor.__invert__: METHODS["logical_not"],
    Tensor.__rsub__: lambda self, other: other - self,
    Tensor.__rdiv__: lambda self, other: other / self,
    **dict.fromkeys(
        (Tensor.masked_fill, torch.masked_fill),
        lambda input, mask, value: METHODS["where"](value, mask, input),
    ),
    # of a condition; of what is a value already they are SAME
    **dict.fromkeys((Tensor.double, Tensor.to), lambda input, *to, **more: METHODS["float"](input)),
}  # fmt: skip
CHUNKS = {"chunk", "split", "tensor_split", "split_with_sizes", "unsafe_chunk", "unsafe_split"}


def call(func, *args, kind, shape, like):
    """A node that the step did not make itself."""
    if isinstance(shape, list):
        shape = [Like(s, None) for s in shape]
        return Node(func, args, {}, kind, shape, like.place)
    return Node(func, args, {}, kind, Like(shape, like.dtype), like.place)


def product_of(node):
    """The Product that a node is, or None."""
    form = PRODUCTS.get(node.func)
    if form is None:
        return None
    value, weight, bias, transposed = form(*node.args, **node.kwargs)
    if not (isinstance(value, Node) and isinstance(weight, Node) and weight.kind == FIXED):
        return None
    if len(value.shape) != 2 or len(weight.shape) != 2:
        return None
    if bias is not None:
        rows = weight.shape[1 if transposed else 0]
        if not isinstance(bias, Node) or bias.kind != FIXED or bias.shape[-1:] != (rows,):
            return None
        if len(bias.shape) != 1:
            return None
    if transposed:
        weight = call(Tensor.t, weight, kind=FIXED, shape=weight.shape[::-1], like=weight)
    return Product(value, weight, bias)


def parts_of(node):
    """The nodes whose columns stand side by side in it: itself, if it is no torch.cat."""
    if node.name not in ("cat", "concat", "concatenate") or len(node.shape) != 2:
        return [node]
    tensors = node.args[0]
    if sum(t.shape[-1] for t in tensors) != node.shape[1]:  # one below the other
        return [node]
    return [part for t in tensors for part in parts_of(t)]


def columns_of(node):
    """(another node, the first of its columns that are the columns of this one), or None."""
    if node.func is getitem:  # one of several results
        source, number = node.args
        if source.name not in CHUNKS:
            return None
        whole, widths = source.args[0], [shape[-1] for shape in source.shape]
        along = len(whole.shape) == 2 and sum(widths) == whole.shape[1]
        return (whole, sum(widths[:number])) if along else None
    if node.name == "__getitem__":
        whole, key = node.args
        if isinstance(key, tuple) and len(key) == 2 and len(node.shape) == len(whole.shape) == 2:
            rows, columns = key
            if rows in (Ellipsis, slice(None)) and isinstance(columns, slice):
                start, _, step = columns.indices(whole.shape[1])
                return (whole, start) if step == 1 else None
    if node.name == "narrow" and len(node.args) == 4 and node.args[1] in (1, -1):
        return node.args[0], node.args[2] % node.args[0].shape[1]
    if node.name in SAME and node.args[0].shape == node.shape:
        floating = all(n.dtype.is_floating_point for n in (node, node.args[0]))
        return (node.args[0], 0) if floating else None
    return None


def pieces(weight, widths):
    """A node for each run of the weight's columns that is so wide."""
    shapes = [(weight.shape[0], width) for width in widths]
    split = call(torch.split, weight, list(widths), 1, kind=FIXED, shape=shapes, like=weight)
    return [
        call(getitem, split, i, kind=FIXED, shape=shape, like=weight)
        for i, shape in enumerate(shapes)
    ]


def parts_of_product(node, product, cats):
    """Products whose sum a product is, each with one value: of x all in one, with the bias if any.

    cats: {nodes: them side by side}, so that what is the same stays one node.
    """
    parts = parts_of(product.value)
    if len(parts) == 1 or node.kind != STATE:
        return [node]
    mine = list(zip(parts, pieces(product.weight, [p.shape[1] for p in parts]), strict=True))
    others = [(p, w) for p, w in mine if p.kind != STATE]
    if others:
        values, weights = zip(*others, strict=True)
        if values not in cats:
            cats[values] = _together(values)
        others = [(cats[values], _together(weights))]
    bias, found = product.bias, []
    for value, weight in others + [(p, w) for p, w in mine if p.kind == STATE]:
        found.append(linear(value, weight, bias, node))
        bias = None
    return found


def linear(value, weight, bias, like):
    """The node of a product that a step made within another operation."""
    shape = value.shape[0], weight.shape[0]
    return call(F.linear, value, weight, bias, kind=value.kind, shape=shape, like=like)


def _together(nodes):
    if len(nodes) == 1:
        return nodes[0]
    shape = nodes[0].shape[0], sum(n.shape[1] for n in nodes)
    kind = max(n.kind for n in nodes)
    return call(torch.cat, list(nodes), 1, kind=kind, shape=shape, like=nodes[0])


def mask(x, width, dtype, p):
    """What dropout multiplies rows by."""
    return F.dropout(torch.ones(x.shape[0], width, dtype=dtype, device=x.device), p)
