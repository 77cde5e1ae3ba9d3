"""python -m bench.keras_layers: Keras's layers on its own loop and on our kernels, one thread.

The two take turns in one process; what is told is the median time of each, and the median of the
ratios of neighbours.
"""

import argparse
import os
import time

import numpy as np
import torch

import fastrnn

os.environ["KERAS_BACKEND"] = "torch"
import keras  # which reads that


def ratios(run, rounds):
    """(seconds on Keras's own loop, seconds on our kernels, how many times faster)."""
    times = []
    for _ in range(rounds + 1):  # the first one warms up
        for switch in (fastrnn.restore_keras, fastrnn.accelerate_keras):
            switch()
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    fastrnn.restore_keras()
    theirs, ours = np.array(times).reshape(-1, 2)[1:].T
    return np.median(theirs), np.median(ours), np.median(theirs / ours)


def call(layer, x, mask, training):
    def run():
        with torch.set_grad_enabled(training):
            y = layer(x, mask=mask)
        if training:
            torch.autograd.backward(y.sum())
            layer.zero_grad()

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="100x16x128", help="steps x batch x units")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    T, B, H = map(int, options.size.split("x"))
    x, lengths = torch.randn(B, T, H), torch.randint(1, T + 1, (B, 1))
    print(f"Keras {keras.__version__}, torch {torch.__version__}, {options.size}")
    for kind in ("LSTM", "GRU", "SimpleRNN"):
        for mask in (None, torch.arange(T) >= T - lengths):
            for training in (False, True):
                layer = getattr(keras.layers, kind)(H, return_sequences=True)
                layer.build(x.shape)
                theirs, ours, ratio = ratios(call(layer, x, mask, training), options.rounds)
                print(
                    f"{kind:9} {'training' if training else 'inference':9} "
                    f"{'padded' if mask is not None else 'full':6} "
                    f"Keras {theirs * 1e3:6.1f} ms, ours {ours * 1e3:5.1f} ms: {ratio:4.1f}x",
                    flush=True,
                )


if __name__ == "__main__":
    main()
