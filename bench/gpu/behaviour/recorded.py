"""What is recorded, and done again: by CUDA graphs, by torch.compile, by torch.export."""

from dataclasses import replace

import torch

import fastrnn

from ... import data
from .. import oracle
from .common import BASE, same, served


def graph():
    """A training step captured once computes what it computes eagerly; of packed rows a forward."""
    case = replace(BASE, T=40)
    numbers, layer = data.make(case), data.module(fastrnn, case)
    x = numbers.x.detach().clone().requires_grad_()
    wanted = [x, *layer.parameters()]

    def step():
        y, _ = layer(x, numbers.hx)
        return y, *torch.autograd.grad(y, wanted, numbers.grads[0])

    served(layer, numbers)
    _replayed(step, x)
    rows = data.make(replace(case, packed=True, mode="inference"))

    @torch.no_grad()
    def forward():
        y, final = layer(rows.input, rows.hx)
        return y.data, *final

    served(layer, rows)
    _replayed(forward, rows.x)


def _replayed(step, x):
    """A graph of ``step`` gives what ``step`` does, whatever is written to x."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        results = step()
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        captured.replay()
        torch.cuda.synchronize()
        replayed = [r.detach().clone() for r in results]
        for got, want in zip(replayed, step(), strict=True):
            assert torch.equal(got, want), "a replay differs from the eager step"


def compiled():
    """Under torch.compile, in one graph: the same numbers to the bit, and gradients."""
    case = replace(BASE, cell="GRU", directions=2)
    numbers, layer = data.make(case), data.module(fastrnn, case)
    layer.load_state_dict(numbers.state_dict)
    seen = []

    def noted(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)

    fast = torch.compile(layer, fullgraph=True, backend=noted)
    expected = oracle.evaluate(layer, case, numbers)
    found = oracle.evaluate(fast, case, numbers, layer.named_parameters())
    assert any("fastrnn.layer" in target for target in seen), "torch's kernels serve"
    same(expected, found, "compiled")


def exported():
    """With T and B left open: the same numbers at other sizes."""
    layer = data.module(fastrnn, replace(BASE, mode="inference")).eval()
    open_sizes = {"input": {0: torch.export.Dim("T"), 1: torch.export.Dim("B")}}
    x = data.make(BASE).x.detach()
    program = torch.export.export(layer, (x,), dynamic_shapes=open_sizes)
    assert any("fastrnn.layer" in str(node.target) for node in program.graph.nodes)
    other = data.make(replace(BASE, T=33, B=7)).x.detach()
    with torch.no_grad():
        assert torch.equal(program.module()(other)[0], layer(other)[0])
