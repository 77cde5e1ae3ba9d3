"""What is recorded, and done again: by CUDA graphs, by torch.compile, by torch.export."""

from dataclasses import replace

import torch
from torch._dynamo.utils import counters

import fastrnn

from ... import data
from .. import oracle
from .common import BASE, same, served


def renewed(numbers, seed):
    """Other numbers in the same shapes."""
    torch.manual_seed(seed)
    states, grads = (tuple(map(torch.randn_like, old)) for old in (numbers.states, numbers.grads))
    return replace(numbers, x=torch.randn_like(numbers.x), states=states, grads=grads)


def packed(case, lengths):
    """Numbers for sequences of these lengths, which fall from case.T."""
    numbers, N = data.make(replace(case, packed=False)), sum(lengths)
    sizes = torch.tensor([sum(t < length for length in lengths) for t in range(case.T)])
    x, dy = (t.detach().flatten(0, 1)[:N] for t in (numbers.x, numbers.grads[0]))
    return replace(numbers, x=x, batch_sizes=sizes, grads=(dy, *numbers.grads[1:]))


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


def reduced_overhead():
    """torch.compile's own CUDA graphs: recorded in the second call, replayed in the third."""
    for mode in ("training", "inference"):
        case = replace(BASE, T=40, mode=mode)
        numbers = data.make(case)
        before = counters["inductor"]["cudagraph_skips"]
        _reduced(case, [renewed(numbers, seed) for seed in range(3)])
        skipped = counters["inductor"]["cudagraph_skips"] - before
        assert not skipped, f"{mode} is in no CUDA graph"


def reduced_overhead_packed():
    """Likewise of packed rows, which no CUDA graph may hold: their lengths may change."""
    for mode in ("training", "inference"):
        case = replace(BASE, T=40, B=3, packed=True, mode=mode)
        alike = [packed(case, lengths) for lengths in ((40, 20, 10), (40, 15, 15), (40, 29, 1))]
        _reduced(case, [renewed(numbers, seed) for seed, numbers in enumerate(alike)])


def _reduced(case, given):
    """Results of a layer compiled in that mode, for all that is ``given``: the eager ones."""
    layer = data.module(fastrnn, case)
    fast = torch.compile(layer, mode="reduce-overhead")
    for numbers in given:
        served(layer, numbers)
        expected = oracle.evaluate(layer, case, numbers)
        torch.compiler.cudagraph_mark_step_begin()
        found = oracle.evaluate(fast, case, numbers, layer.named_parameters())
        same(expected, {name: t.clone() for name, t in found.items()}, case.mode)


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
