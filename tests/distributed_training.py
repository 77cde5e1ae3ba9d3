"""Run by torchrun: each process trains on its part of the batch. Rank 0 prints what came of it.

    python -m torch.distributed.run --nproc-per-node 2 distributed_training.py

Prints a JSON object for each way to wrap a model and each kind of layer: the largest differences
of losses and weights from a run of torch.nn's layer on the whole batch in a single process, and how
far the losses went.
"""

import json
from itertools import product

import torch
import torch.distributed as dist
from against_torch import KINDS
from practice import Model, data, loss_of
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import fastrnn

STEPS = 5


def whole_batch(seed):
    """(input, goal) of four parts like ``data``'s: side by side, along the batch."""
    parts = [data(10 * seed + part) for part in range(4)]
    return [
        torch.cat(tensors, dim)
        for tensors, dim in zip(zip(*parts, strict=True), (1, 0), strict=True)
    ]


def my_part(seed):
    x, goal = whole_batch(seed)
    rank, count = dist.get_rank(), dist.get_world_size()
    return x.chunk(count, 1)[rank], goal.chunk(count, 0)[rank]


def model_of(library, kind):
    torch.manual_seed(4)
    return Model(library, kind).double()


def train(model, part):
    """The losses and the weights, whole."""
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for seed in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of(model, *part(seed))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.detach())
    weights = [w.full_tensor() if isinstance(w, DTensor) else w for w in model.parameters()]
    return torch.stack(losses), [w.detach() for w in weights]


def sharded(model):
    for part in (model.rnn, model.head, model):
        fully_shard(part)
    return model


WRAPPED = {
    "ddp": lambda kind: DistributedDataParallel(model_of(fastrnn, kind)),
    "ddp-static": lambda kind: DistributedDataParallel(
        model_of(fastrnn, kind), static_graph=True, gradient_as_bucket_view=True
    ),
    "fsdp": lambda kind: sharded(model_of(fastrnn, kind)),
    "ddp-accelerated": lambda kind: accelerated(DistributedDataParallel(model_of(nn, kind))),
    "fsdp-accelerated": lambda kind: accelerated(sharded(model_of(nn, kind))),
}


def accelerated(model):
    """What was wrapped already may still be accelerated."""
    assert len(fastrnn.accelerate(model).changed) == 1
    return model


def compare(how, kind):
    """How far the processes together are from the one."""
    losses, weights = train(WRAPPED[how](kind), my_part)
    dist.all_reduce(losses)
    losses /= dist.get_world_size()
    expected, expected_weights = train(model_of(nn, kind), whole_batch)
    differences = [(a - b).abs().max() for a, b in zip(weights, expected_weights, strict=True)]
    return {
        "how": how,
        "kind": kind,
        "losses": (losses - expected).abs().max().item(),
        "weights": max(differences).item(),
        "range": (expected.max() - expected.min()).item(),
    }


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        for how, kind in product(WRAPPED, KINDS):
            found = compare(how, kind)
            if dist.get_rank() == 0:
                print(json.dumps(found), flush=True)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
