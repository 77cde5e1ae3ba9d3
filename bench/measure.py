"""One case, every peer: built, checked, timed in turn."""

import time
from dataclasses import asdict

import numpy as np
import torch

from . import ceilings, data, gate, memory, peers, timing


def measure(case, contestants, seconds, rounds):
    """A row for each of ``contestants`` ({name: peer}): a dictionary, JSON as it stands.

    A row without a time says why under "skipped" (the peer has nothing for the case) or "error"
    (it fails, or computes something else than torch.nn does).
    """
    torch.set_num_threads(case.threads)
    rows = {
        name: {**asdict(case), "peer": name, "peer_version": peer.version()}
        for name, peer in contestants.items()
    }
    numbers, calls = data.make(case), {}
    try:
        expected = data.truth(case, numbers)
    except RuntimeError as error:  # such as float16 on CPU
        return [row | {"skipped": f"torch.nn refuses it: {error}"} for row in rows.values()]
    for name, peer in contestants.items():
        try:
            calls[name], found = _build(name, peer, case, numbers, expected)
        except peers.CannotServe as reason:
            found = {"skipped": str(reason)}
        except Exception as error:  # whatever a peer dies of, the others' numbers are wanted
            found = {"error": f"{type(error).__name__}: {error}"}
        rows[name] |= found
    del expected
    times = timing.race({n: call.run for n, call in calls.items()}, seconds, rounds, case)
    for name, found in times.items():
        rows[name] |= _figures(case, found, times.get(peers.BASELINE))
        rows[name]["kept_bytes"] = memory.kept(calls[name], numbers)
        rows[name]["peak_bytes"] = memory.peak(calls[name].run, case.device)
    return list(rows.values())


def _build(name, peer, case, numbers, expected):
    """(the peer's Call, what its row says of it), after the gate."""
    start = time.perf_counter()
    call = peer.build(case, numbers)
    results = call.run()
    seconds = time.perf_counter() - start
    fault = gate.wrong(data.names(case, numbers), results, expected, case.tolerance)
    # autocast costs torch.nn itself up to 0.08 of a gradient: it is what it is
    if fault and not (case.autocast and name == peers.BASELINE):
        raise ArithmeticError(fault)
    return call, {"note": call.note, "setup_s": seconds}


def _figures(case, times, baseline):
    """What a row says of the time.

    The ratio is the median of each round's ratio: what slows the machine for a while slows both
    sides of a round, and a ratio of medians would see it on one side only.
    """
    median, q20, q80 = timing.quantiles(times.seconds)
    found = {"time_s": median, "time_q20_s": q20, "time_q80_s": q80}
    found |= {"rounds": len(times.seconds), "cores": times.cores}
    if baseline is not None:
        ratio = timing.quantiles(baseline.seconds / times.seconds)
        found |= dict(zip(("ratio", "ratio_q20", "ratio_q80"), ratio, strict=True))
    found["gflops"] = case.flops / median / 1e9
    return found | (_of_ceilings(case, median) if case.device == "cpu" else {})


def _of_ceilings(case, seconds):
    """The time, against what the machine would need at its measured best."""
    fma = ceilings.fma_peak("float32" if case.autocast else case.dtype, case.threads)
    read = ceilings.read_bandwidth(case.recurrent_bytes, case.threads)
    copy = ceilings.copy_bandwidth(case.threads)
    passes = case.T * (2 if case.training else 1)  # backward reads the recurrent weights again
    least = {
        "fma_peak": np.nan if fma is None else case.flops / fma,
        "memory_bandwidth": case.traffic / copy,
        "weight_reading": passes * case.recurrent_bytes / read,
    }
    rates = {"fma_peak_gflops": fma and fma / 1e9, "memory_gbs": copy / 1e9, "read_gbs": read / 1e9}
    fractions = {f"of_{k}": None if np.isnan(v) else v / seconds for k, v in least.items()}
    return rates | fractions
