"""The process that uses the GPU: it takes items and gives rows, and may hang or die."""

import os

from .. import machine, tree


def serve(descriptor, log):
    """As fastrnn.gpu.process.serve, of this tree; what is printed goes to the file ``log``."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tree.use(machine.ROOT)
    from fastrnn.gpu import process

    process.serve(descriptor)


_ceilings = {}  # as this process has measured them, or was told


def environment(item):
    """What this machine is, and what it can do at most."""
    from . import environment

    yield environment.describe()
    _ceilings.update(environment.ceilings())
    yield dict(_ceilings)


def ceilings_are(item):
    """Tells a new process what another one has measured."""
    _ceilings.update(item)
    yield from ()


def check(item):
    from . import checks

    yield item | checks.check(item)


def prove(item):
    """The verdict that the engine itself would find on such a call: what it ships with."""
    import torch

    from fastrnn.gpu import trial
    from fastrnn.kernels.cells import key_of
    from fastrnn.kernels.gpu import choice

    from . import oracle

    case, cell = oracle.case_of(item), key_of(oracle.cell_of(item))
    device, dtype = torch.device("cuda", 0), getattr(torch, case.dtype)
    sizes = case.B, case.H, case.directions, case.packed, (case.layers, case.projection)
    with oracle.arithmetic(item["arithmetic"]):
        key = choice.key_of(dtype, device, case.training, cell, *sizes)
        if isinstance(key, str):
            yield item | {"skipped": key}
            return
        call = {"cell": cell, "key": key._asdict()}
        for row in trial.tried(call, device):
            if "none" in row:
                yield item | {"skipped": row["none"]}
            elif "verdict" in row:
                why = {} if row["verdict"]["right"] else {"failed": row["verdict"]["why"]}
                yield item | why | {"proof": row, "facts": choice.facts(device)}


def behave(item):
    from . import behaviour, checks

    with checks.strict():
        yield item | behaviour.run(item["what"])


def measure(item):
    from . import speed

    yield from _by_triton(item, speed.measure(item, _ceilings))


def tune(item):
    from . import speed

    yield from _by_triton(item, speed.tune(item))


def _by_triton(item, rows):
    """The rows, from our engine alone, whatever an earlier measurement says."""
    from fastrnn.kernels.gpu import tiles
    from fastrnn.kernels.refused import Failed, Refused

    from . import checks

    try:
        with tiles.using(), checks.by_ours():
            yield from rows
    except Failed:
        raise
    except Refused as refusal:
        yield item | {"skipped": str(refusal)}
