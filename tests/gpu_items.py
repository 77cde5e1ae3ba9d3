"""Items for the driver of bench.gpu, in a process of its own: some are well, others are not."""

import os
import time


def well(item):
    yield item | {"right": True}


def machine(item):
    """As bench.gpu.worker.environment, of an H200."""
    from gpu_cases import H200

    yield H200._asdict()
    yield {"copy_bytes": 1e12}


def until(item):
    """Waits for something in a file."""
    while not (os.path.exists(item["file"]) and os.path.getsize(item["file"])):
        time.sleep(0.1)
    yield item | {"right": True}


def environment(item):
    yield item | {"value": os.environ[item["name"]]}


def process(item):
    yield item | {"process": os.getpid()}


def trial(item):
    """As fastrnn.gpu.trial.rows, on tensors of the CPU."""
    from gpu_tried import tried

    yield from tried(item["cell"], training=False)


def raising(item):
    yield item | {"right": True}
    raise ArithmeticError("no such number")


def hanging(item):
    yield item | {"right": True}
    time.sleep(1000)


def dying(item):
    os._exit(3)
    yield


def phases(item):
    yield {"phase": "running"}
    time.sleep(10)
    yield {"phase": "idle"}
    time.sleep(60)


def sleeps(item):
    yield {"ready": True}
    time.sleep(60)
