"""What is called as it is: the same each time, side by side, at any size, at any setting."""

from dataclasses import replace
from types import SimpleNamespace

import torch

import fastrnn

from ... import data
from .. import oracle
from .common import BASE, Skip, ours, same, served

GIB = 2**30
PIECE = 2**15  # steps


def deterministic():
    """To the bit, forward and backward, alone and in two directions."""
    for case in (BASE, replace(BASE, directions=2), replace(BASE, cell="GRU", H=500)):
        numbers = data.make(case)
        first = ours(case, numbers)
        for _ in range(5):
            same(first, ours(case, numbers), "another run")


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
    for name, tensor in oracle.results(fastrnn, case, numbers).items():
        assert oracle.distance(tensor, expected[name].double()) < 1e-2, name
    return {"reason": refusal}


class InPieces(torch.nn.GRU):
    """cuDNN does not take 65,536 steps (pytorch's issue 133751): these are as many as it does."""

    def forward(self, x, hx):
        outputs = []
        for piece in x.split(PIECE):
            y, hx = super().forward(piece, hx)
            outputs.append(y)
        return torch.cat(outputs), hx


def very_long():
    """T > 65,536, in one piece."""
    for H in (64, 256):
        case = replace(BASE, cell="GRU", T=70_000, B=2, I=8, H=H, dtype="float32")
        served(data.module(fastrnn, case), data.make(case))
        report = oracle.judge(case, "tf32", False, against=SimpleNamespace(GRU=InPieces))
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


def default_flags():
    """torch lets its layers round to TF32, and its products not: ours are as where both may."""
    case = replace(BASE, dtype="float32")
    numbers = data.make(case)
    assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    found = ours(case, numbers)
    with oracle.arithmetic("tf32"):
        same(ours(case, numbers), found, "where products are allowed it, too")


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
                    served(layer, numbers)
        for name, tensor in found[0].items():
            assert tensor.dtype == found[1][name].dtype, name
            errors[f"{name} {to}"] = oracle.distance(tensor, found[1][name].double())
    worst = max(errors, key=errors.get)
    assert errors[worst] < oracle.ALLOWED["bfloat16"], (worst, errors[worst])
    return {"error": errors[worst], "of": worst}


def another_device():
    if torch.cuda.device_count() < 2:
        raise Skip("there is one GPU")
    numbers = data.make(BASE)
    expected = ours(BASE, numbers)
    moved = replace(BASE, device="cuda:1")
    same({n: t.to("cuda:1") for n, t in expected.items()}, ours(moved, data.make(moved)), "there")
