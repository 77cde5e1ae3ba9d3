"""What is right: how far a result may be from the truth, which is float64's."""

from contextlib import contextmanager

import torch

# How far a tensor may be from the truth, by the norms. Or twice as far as torch in the same
# arithmetic is, where that is more: a long sequence loses digits whoever computes it.
ALLOWED = {
    "float64": 1e-12,
    "float32": 1e-5,  # a rounding is 6e-8; sums of 1e3 terms, tens of steps
    "tf32": 1e-3,  # 10 bits of each factor: 5e-4 in a product
    "float16": 3e-3,  # 11 bits, of h at every step and of each gate that is kept
    "bfloat16": 2e-2,  # and 8 bits
}


@contextmanager
def arithmetic(name):
    """torch's own flags say how float32 is multiplied."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with _allowing(cudnn, cudnn.rnn, name), _allowing(matmul, matmul, name):
        yield


@contextmanager
def _allowing(flag, precise, name):
    """flag: by its older name, which torch refuses to read where the newer ones disagree."""
    precision = precise.fp32_precision
    try:
        before = flag.allow_tf32
    except RuntimeError:
        before = None
    if before is None:
        precise.fp32_precision = "tf32" if name == "tf32" else "ieee"
    else:
        flag.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        if before is not None:
            flag.allow_tf32 = before
        precise.fp32_precision = precision  # which may be "none": the older flag leaves "ieee"


def evaluate(call, leaves, grads, parameters=None):
    """{name: tensor}: what ``call(*leaves)`` gives, and in training every gradient.

    leaves: {name: tensor}; grads: of what it gives, in that order; parameters: {name: tensor},
    whose gradients are wanted beside those of the leaves; None where there is no training.
    """
    training = parameters is not None
    leaves = {n: t.detach().clone().requires_grad_(training) for n, t in leaves.items()}
    with torch.set_grad_enabled(training):
        found = call(*leaves.values())
    if training:
        named = leaves | dict(parameters)
        given = list(found.values()), list(named.values()), grads
        computed = torch.autograd.grad(*given, materialize_grads=True)  # zeros of what is unused
        found |= {f"d {n}": g for n, g in zip(named, computed, strict=True)}
    return {name: tensor.detach() for name, tensor in found.items()}


def distance(value, truth):
    """|value - truth| / |truth|; infinite where a value is not finite."""
    scale = truth.norm().item() or 1.0
    error = (value.double() - truth).norm().item() / scale
    return error if error == error else float("inf")


def allowed(name, jumps, what):
    """How far ``what`` may be from the truth, however exact torch is.

    jumps: whether a derivative of the cell does, as relu's: a rounding that flips the sign of a
    fraction f of what comes in takes f of the terms out of a gradient, or puts them in, and these
    weigh sqrt(f) by the norms.
    """
    return ALLOWED[name] ** (0.5 if jumps and what.startswith("d ") else 1)


def worst(truth, found, yardstick, name, jumps):
    """{"error", "of", "allowed", "torch_error", "right"}: the tensor that is furthest off.

    yardstick: what torch makes of the same numbers in the same arithmetic, which is ``name``.
    """
    rows = []
    for what, exact in truth.items():
        error, usual = distance(found[what], exact), distance(yardstick[what], exact)
        most = max(allowed(name, jumps, what), 2 * usual)
        rows.append({"error": error, "of": what, "allowed": most, "torch_error": usual})
    row = max(rows, key=lambda row: row["error"] / row["allowed"])
    return row | {"right": row["error"] <= row["allowed"]}
