"""The process that uses the GPU: it takes items and gives rows, and may hang or die."""

import os
import sys
import traceback
from pkgutil import resolve_name

from .. import machine, tree


def serve(connection, log):
    """Items come as (module:function, item); rows go back, and None after the last."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tree.use(machine.ROOT)
    import torch  # noqa: F401  the slow part of the start

    connection.send("ready")
    while (request := connection.recv()) is not None:
        name, item = request
        try:
            for row in resolve_name(name)(item):
                connection.send(row)
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            row = item | {"failed": f"{type(error).__name__}: {error}"[:500]}
            if not _alive():
                connection.send(row | {"killed": True})
                break
            connection.send(row)
        connection.send(None)


def _alive():
    """Whether the GPU still works for this process: after a bad access it does not."""
    import torch

    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


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
