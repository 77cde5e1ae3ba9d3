"""Triton's interpreter, in a process of its own: it is chosen when Triton is imported.

It runs the programs of a launch one after another. So the engine launches step by step in it;
``in_processes`` runs whole sequences, each program a process, and they do wait for each other.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from itertools import product

import pytest
import torch

SECONDS = 200  # for one call, and for the programs of one launch


@pytest.fixture(scope="module")
def interpreted():
    """A call, with its arguments, is made in a process where Triton interprets kernels."""
    if version("triton").startswith("3.6."):
        pytest.skip("the interpreter of Triton 3.6 does not work with NumPy 2.4")
    spawn = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_prepare)
        pool.submit(os.getpid).result(SECONDS)
    with pool:
        yield lambda function, *args, **kwargs: pool.submit(_seeded, function, args, kwargs).result(
            SECONDS
        )


def _prepare():
    from fastrnn.kernels.gpu import launch

    launch._patience.append(200_000)  # a deadlock shall fail, not hang
    # Where nothing else is said float32 is exact here, on any machine; test_gpu_tf32.py is of TF32.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def _seeded(function, args, kwargs):
    torch.manual_seed(0)
    function(*args, **kwargs)


@contextmanager
def in_processes(slow=None, pause=0.002):
    """Within this context each program of a launch is a process, and each launch a whole sequence.

    slow: the index of a program that pauses after every look at a counter, and every arrival.
    """
    from triton.runtime import interpreter

    from fastrnn.kernels.gpu import launch

    def run(kernel, *, grid, warmup, **arguments):
        shared = {
            name: value.clone().share_memory_()
            for name, value in arguments.items()
            if isinstance(value, torch.Tensor)
        }
        fork, grid = multiprocessing.get_context("fork"), (*grid, 1, 1)[:3]
        processes = [
            fork.Process(target=program, args=(kernel, grid, index, arguments | shared))
            for index in product(*map(range, grid))
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        for process in processes:
            process.kill()
        assert all(process.exitcode == 0 for process in processes)
        for name, value in shared.items():
            arguments[name].copy_(value)

    def program(kernel, grid, index, arguments):
        builder = interpreter.interpreter_builder
        dims, place, atomic = builder.set_grid_dim, builder.set_grid_idx, builder.create_atomic_rmw
        builder.set_grid_dim = lambda *ones: dims(*grid)
        builder.set_grid_idx = lambda *zeros: place(*index)

        def slowly(*args):
            result = atomic(*args)
            time.sleep(pause)
            return result

        if index == slow:
            builder.create_atomic_rmw = slowly
        executor = interpreter.GridExecutor
        executor._init_args_hst = lambda self, args, kwargs: (args, kwargs)  # no copies
        executor._restore_args_dev = lambda self, *args: None
        original(kernel, grid=(1, 1, 1), warmup=False, **arguments)

    original = interpreter.InterpretedFunction.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "run", run)
        patch.setattr(launch, "STEPWISE", False)
        yield
