"""What the engine must do besides being right: a function each, that returns what to report.

Each asserts what it is about. ``skip`` says that this machine cannot tell.
"""

from dataclasses import replace

import torch

import fastrnn

from .. import data
from ..cases import Case
from . import oracle

BASE = Case("LSTM", 60, 32, 256, 256, device="cuda", dtype="bfloat16")
GIB = 2**30


class Skip(Exception):
    """This machine cannot tell; the message says why."""


def run(what):
    """{"right": True, ...} of the behaviour called ``what``."""
    try:
        return {"right": True, **(globals()[what]() or {})}
    except Skip as reason:
        return {"skipped": str(reason)}


def same(first, second, what):
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name} differs: {what}"


def ours(case, numbers, **options):
    return oracle.results(fastrnn, case, numbers, **options)


def deterministic():
    """To the bit, forward and backward, alone and in two directions."""
    for case in (BASE, replace(BASE, directions=2), replace(BASE, cell="GRU", H=500)):
        numbers = data.make(case)
        first = ours(case, numbers)
        for _ in range(5):
            same(first, ours(case, numbers), "another run")


def graph():
    """A training step captured once computes what it computes eagerly, on new numbers too."""
    case = replace(BASE, T=40)
    numbers = data.make(case)
    layer = data.module(fastrnn, case)
    x = numbers.x.detach().clone().requires_grad_()
    wanted = [x, *layer.parameters()]

    def step():
        y, _ = layer(x, numbers.hx)
        return y, *torch.autograd.grad(y, wanted, numbers.grads[0])

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


def streams():
    """Layers that fill the GPU, on two streams at once: neither starves the other."""
    case = replace(BASE, B=32, I=1024, H=1024, T=100)
    numbers = data.make(case)
    expected = ours(case, numbers)
    torch.cuda.synchronize()
    found = []
    for stream in [torch.cuda.Stream(), torch.cuda.Stream()] * 4:
        with torch.cuda.stream(stream):
            found.append(ours(case, numbers))
    torch.cuda.synchronize()
    for results in found:
        same(expected, results, "on a stream of its own")


def oversize():
    """What does not fit is torch's, and says so."""
    case = replace(BASE, T=8, B=4, I=64, H=4096)
    numbers = data.make(case)
    refusal = "it was served"
    try:
        with fastrnn.backends.use("triton"):
            ours(case, numbers)
    except fastrnn.backends.Refused as error:
        refusal = str(error)
    assert refusal != "it was served"
    expected = oracle.results(torch.nn, case, numbers)
    for name, tensor in ours(case, numbers).items():
        assert oracle.distance(tensor, expected[name].double()) < 1e-2, name
    return {"reason": refusal}


def very_long():
    """T > 65,536."""
    for H in (64, 256):
        case = replace(BASE, cell="GRU", T=70_000, B=2, I=8, H=H, dtype="float32")
        report = oracle.judge(case, "tf32", False)
        assert report["error"] < 10 * report["allowed"], report  # 70,000 steps of rounding
    return {"error": report["error"]}


def beyond_2_31():
    """More elements than an int32 counts: the last rows are what they are by themselves."""
    case = replace(BASE, T=4500, B=512, I=16, H=256, mode="inference")
    if torch.cuda.mem_get_info()[0] < 40 * GIB:
        raise Skip("needs 40 GiB of GPU memory")
    layer = data.module(fastrnn, case)
    x = torch.randn(case.T, case.B, case.I, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        y, _ = layer(x)
        part, _ = layer(x[:, -128:].contiguous())
    error = oracle.distance(y[:, -128:], part.double())
    assert error < 1e-2, error
    return {"error": error, "elements": 4 * y.numel()}


def recompute():
    """The gradients are those of recompute=False."""
    for cell in ("LSTM", "GRU"):
        case = replace(BASE, cell=cell)
        numbers = data.make(case)
        plain, again = ours(case, numbers), ours(case, numbers, recompute=True)
        worst = max(oracle.distance(again[name], plain[name].double()) for name in plain)
        assert worst < oracle.ALLOWED["bfloat16"], f"{cell}: {worst}"
    return {"error": worst}


def inference_keeps_nothing():
    """Afterwards there is the output and no more; in the meantime little besides the gates."""
    case = replace(BASE, T=1000, mode="inference")
    numbers, layer = data.make(case), data.module(fastrnn, case)
    with torch.no_grad():
        layer(numbers.x)
        before = torch.cuda.memory_allocated()
        results = layer(numbers.x)
        kept = torch.cuda.memory_allocated() - before
    output = results[0].numel() * 2
    assert kept < 1.1 * output + 2**20, f"{kept} bytes for an output of {output}"
    return {"kept_bytes": kept}


def tf32_as_told():
    """float32 is multiplied in 10 bits where torch's flags allow it, and in 23 where not."""
    case = replace(BASE, dtype="float32")
    numbers = data.make(case)
    truth = oracle.results(torch.nn, *oracle.in_double(case, numbers))["output"]
    errors = {}
    for name in ("tf32", "float32"):
        with oracle.arithmetic(name):
            errors[name] = oracle.distance(ours(case, numbers)["output"], truth)
    assert errors["float32"] < oracle.ALLOWED["float32"] < errors["tf32"], errors
    return errors


def second_derivative():
    case = replace(BASE, T=5, B=3, I=4, H=8, dtype="float32")
    found = []
    for namespace, dtype in ((fastrnn, torch.float32), (torch.nn, torch.float64)):
        torch.manual_seed(0)
        layer = data.module(namespace, case).to(dtype)
        x = torch.randn(5, 3, 4, device="cuda").to(dtype).requires_grad_()
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no second derivative
            (dx,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
            found.append(torch.autograd.grad(dx.square().sum(), x)[0].double())
    error = oracle.distance(found[0], found[1])
    assert error < 1e-4, error
    return {"error": error}


def autocast():
    """The dtypes are torch's, and the numbers, whichever dtype autocast has."""
    case = replace(BASE, dtype="float32")
    numbers, errors = data.make(case), {}
    for to in (torch.float16, torch.bfloat16):
        found = []
        for namespace in (fastrnn, torch.nn):
            layer = data.module(namespace, case)
            layer.load_state_dict(numbers.state_dict)
            with torch.autocast("cuda", to):
                found.append(oracle.evaluate(layer, case, numbers))
                if namespace is fastrnn:
                    choice = fastrnn.backends.explain(layer, numbers.x)
        assert choice.name == "triton", choice
        for name, tensor in found[0].items():
            assert tensor.dtype == found[1][name].dtype, name
            errors[f"{name} {to}"] = oracle.distance(tensor, found[1][name].double())
    worst = max(errors, key=errors.get)
    assert errors[worst] < oracle.ALLOWED["bfloat16"], (worst, errors[worst])
    return {"error": errors[worst], "of": worst}


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


def another_device():
    if torch.cuda.device_count() < 2:
        raise Skip("there is one GPU")
    numbers = data.make(BASE)
    expected = ours(BASE, numbers)
    moved = replace(BASE, device="cuda:1")
    same({n: t.to("cuda:1") for n, t in expected.items()}, ours(moved, data.make(moved)), "there")
