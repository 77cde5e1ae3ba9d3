"""Items for the driver of bench.gpu, in a process of its own: some are well, others are not."""

import os
import time


def well(item):
    yield item | {"right": True, "limit": os.environ["FASTRNN_SPIN_LIMIT"]}


def process(item):
    yield item | {"process": os.getpid()}


def raising(item):
    yield item | {"right": True}
    raise ArithmeticError("no such number")


def hanging(item):
    yield item | {"right": True}
    time.sleep(1000)


def dying(item):
    os._exit(3)
    yield
