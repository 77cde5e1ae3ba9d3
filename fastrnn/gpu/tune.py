"""Kernels tried before they are needed: ``fastrnn.tune``, and what the command does."""

from typing import NamedTuple

import torch

from ..kernels import private
from ..kernels.gpu.verdicts import Verdict
from . import process, when

LIMITS = when.Limits(300, 120)
NOTHING = (
    "no layer of this call is one that our kernels might serve on a GPU: "
    "fastrnn.backends.explain says why"
)


class Result(NamedTuple):
    """What came of a kind of call: its verdicts.Key, the Verdict, or why there is none."""

    key: NamedTuple
    verdict: Verdict | None
    why: str


class Wanted:
    """In the place of a prover: notes what calls ask, and has nothing tried."""

    def __init__(self):
        self.found = {}

    def __call__(self, table, key, item):
        self.found[key] = table, item
        return table.known.get(key)


def tune(module, *example, again=False, console=None, **more):
    """Have the kernels tried that ``module(*example, **more)`` needs on its GPU, beforehand.

    The module is called once as it is, and once without gradients. What there are verdicts on
    already is not tried again, unless ``again``. Verdicts are kept in the user's cache, and hold in
    this process for calls that it has not made yet. Shows a table, on a rich.console.Console if
    that is given; returns a list of Result(key, verdict, why), empty where nothing is for our
    kernels.
    """
    wanted = Wanted()
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    with when.asking(wanted), torch.random.fork_rng(devices):
        if torch.is_grad_enabled():
            module(*example, **more)
        with torch.no_grad():
            module(*example, **more)
    if not wanted.found:
        private.say(f"tune: {NOTHING}")
        return []
    from .shown import follow  # which takes rich

    return follow(wanted.found, console, again=again)


def tried(wanted, again=False, note=None, worker=None):
    """A Result for each of ``wanted``, {key: (table, item)}, as they come.

    What has a verdict is not tried, unless ``again``, or it died or took too long: who asks by name
    asks for that.
    note(key, phase) is called meanwhile; worker: makes a Worker for a GPU's index.
    """
    worker, workers = worker or process.on_gpu, {}
    try:
        for key, (table, item) in wanted.items():
            known = table.known.get(key)
            if known is not None and not again and not known.unseen:
                yield Result(key, known, "")
                continue
            if table.others_try(key):
                yield Result(key, None, "another process is trying it")
                continue
            index = item["device"]
            if index not in workers:
                workers[index] = worker(index)
            told = note and (lambda phase, key=key: note(key, phase))
            verdict, why = when.trial(workers[index], table, key, item, LIMITS, note=told)
            if verdict is not None:
                table.add(key, verdict)
            yield Result(key, verdict, why)
    finally:
        for each in workers.values():
            each.stop()
