"""torch.func, and vmap over backward: the reference engine serves what no kernel does."""

import torch
from against_torch import CELL_OR_LAYER, EVERY_KIND, build, twins
from torch.func import functional_call

import fastrnn


@EVERY_KIND
def test_torch_func(kind, calls):
    """grad, jvp, vmap and Jacobians go through the reference engine, and equal torch's own."""
    ours, theirs = twins(kind, 2, 3, dtype=torch.float64)
    x, v = torch.randn(2, 4, 2, 2).double()
    single = lambda module: lambda x: module(x)[0]  # noqa: E731
    scalar = lambda module: lambda x: module(x)[0].square().sum()  # noqa: E731
    transforms = {
        "grad": lambda m: torch.func.grad(scalar(m))(x),
        "jvp": lambda m: torch.func.jvp(single(m), (x,), (v,)),
        "jacrev": lambda m: torch.func.jacrev(single(m))(x),
        "jacfwd": lambda m: torch.func.jacfwd(single(m))(x),
        "hessian": lambda m: torch.func.hessian(scalar(m))(x),
        "vjp": lambda m: torch.func.vjp(single(m), x)[1](v.new_ones(4, 2, 3)),
    }
    for transform in transforms.values():
        calls.clear()
        torch.testing.assert_close(transform(ours), transform(theirs), rtol=1e-10, atol=1e-12)
        assert calls.keys() == {"reference"}
    batched = torch.randn(5, 4, 2, 2).double()
    expected = torch.stack([theirs(x)[0] for x in batched])
    torch.testing.assert_close(torch.vmap(single(ours))(batched), expected)


@EVERY_KIND
def test_ensemble_of_weights(kind):
    """vmap over stacked weights: torch's recipe for an ensemble of models."""
    members = [build(fastrnn, kind, 2, 3, dtype=torch.float64) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(members)
    x = torch.randn(4, 2, 2).double()
    found = torch.vmap(lambda w: functional_call(members[0], w, (x,))[0])(stacked)
    for member, result in zip(members, found, strict=True):
        torch.testing.assert_close(result, member(x)[0])


@EVERY_KIND
@CELL_OR_LAYER
def test_gradients_of_each_sample(kind, cell):
    """vmap over grad: torch's recipe for per-sample gradients."""
    ours, theirs = twins(kind, 2, 3, dtype=torch.float64, cell=cell)
    x = torch.randn(5, *(() if cell else (4,)), 1, 2).double()

    def loss(weights, x):
        leaves = torch.utils._pytree.tree_leaves(functional_call(ours, weights, (x,)))
        return leaves[0].square().sum()

    weights = {name: w.detach() for name, w in ours.named_parameters()}
    found = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for i, sample in enumerate(x):
        score = torch.utils._pytree.tree_leaves(theirs(sample))[0].square().sum()
        expected = torch.autograd.grad(score, list(theirs.parameters()))
        torch.testing.assert_close([g[i] for g in found.values()], list(expected))


@EVERY_KIND
def test_many_gradients_at_once(kind):
    """vectorize=True runs one backward under vmap over all the rows of a Jacobian."""
    ours, theirs = twins(kind, 2, 3, dtype=torch.float64)
    x = torch.randn(3, 2, 2).double()
    found, expected = (
        torch.autograd.functional.jacobian(lambda x, m=m: m(x)[0], x, vectorize=True)
        for m in (ours, theirs)
    )
    torch.testing.assert_close(found, expected)
