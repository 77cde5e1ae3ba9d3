"""python -m bench.quantized: layers with weights of eight and sixteen bits, against other ways.

The ways are torch.nn and fastrnn in float32, fastrnn.quantize, torch.ao's quantize_dynamic, and
ONNX Runtime in float32 and int8. All take turns on the same trained layers, in inference. Results
are held against torch.nn in float64 first, and ours must be the same bits on one thread and on two.
Rows of bench/quantized.jsonl take the place of older ones of the same machine.
"""

import argparse
import shlex
import sys
from functools import partial

import torch
from rich.console import Console

from . import data, gate, machine, progress, quantized_table, results, tree
from .cases import SUITES
from .options import cases_of, counts

FILE = quantized_table.FILE
SECONDS, QUICK_SECONDS = 1.0, 0.1
ROUNDS = 5
QUICK = ("100x1x64", "100x1x256", "100x16x256")


def measure(case, ways, seconds):
    """A row for each of ``ways`` ({name: Way}), as bench.measure has them.

    Errors are those of the output, against the RMS of what torch.nn computes in float64:
    ``error_max`` of the worst element, ``error_rms`` of all. weight_bytes: of weights, scales and
    biases, as a file holds them.
    """
    from .measure import built, race  # brings Numba along: not for --help

    torch.set_num_threads(case.threads)
    numbers = data.make(case)
    right = data.truth_in_float64(case, numbers)

    def check(name, call, found):
        way, named = ways[name], data.names(case, numbers)
        fault = gate.wrong(named, found, right, way.bound)
        if fault or (way.repeats and (fault := _other_bits(call, found, case.threads))):
            raise ArithmeticError(fault)
        size = sum(tensor.nbytes for tensor in call.weights)
        return {**_errors(found[0], right[0]), "weight_bytes": size}

    rows, calls = built(case, ways, numbers, check)
    race(case, rows, calls, seconds, ROUNDS)
    return list(rows.values())


def _errors(found, right):
    errors, scale = found.double() - right, right.square().mean().sqrt()
    worst, rms = errors.abs().max(), errors.square().mean().sqrt()
    return {"error_max": (worst / scale).item(), "error_rms": (rms / scale).item()}


def _other_bits(call, found, threads):
    """None, or on how many threads the results are not the same bits, in words."""
    try:
        for count in {1, 2} - {threads}:
            torch.set_num_threads(count)
            if not all(map(torch.equal, call.run(), found)):
                return f"other bits on {count} threads than on {threads}"
    finally:
        torch.set_num_threads(threads)
    return None


def chosen(quick, threads):
    """The cases to measure; a few of them for a first look."""
    cases = cases_of(SUITES["quantized"], ["inference"], threads)
    return [case for case in cases if not quick or case.size in QUICK]


def main(argv=None):
    """The exit status: 0, 1 where something was wrong, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    p = argparse.ArgumentParser(prog="python -m bench.quantized", description=__doc__)
    p.add_argument("--threads", type=counts, default=[1], metavar="N[,N]", help="default: 1")
    p.add_argument("--quick", action="store_true", help="a first look, less than a minute")
    p.add_argument("--seconds", type=float, metavar="S", help="for each case; default: 1")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/quantized.jsonl")
    args = p.parse_args(argv)
    from .quantized_ways import all_of_them  # not before a user has said which fastrnn that is

    console, rows = Console(highlight=False), []
    ways = progress.present(all_of_them(), console)
    fields = machine.describe("cpu")
    fields["command"] = shlex.join(["python", "-m", "bench.quantized", *argv])
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    one = partial(measure, ways=ways, seconds=seconds)
    try:
        for found in progress.measured(chosen(args.quick, args.threads), one, console):
            found = [row | fields for row in found]
            results.add(args.out, found)
            rows += found
    except KeyboardInterrupt:
        return 130
    if shared := progress.shared(rows):
        console.print(f"{shared} rows had less than a core to themselves: measure them again")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
