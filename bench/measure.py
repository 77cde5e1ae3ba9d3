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
    numbers = data.make(case)
    try:
        check = _agreement(case, numbers)
    except RuntimeError as error:  # such as float16 on CPU
        why = {"skipped": f"torch.nn refuses it: {error}"}
        return [_about(case, *named) | why for named in contestants.items()]
    rows, calls = built(case, contestants, numbers, check)
    del check  # and with it the results of torch.nn
    race(case, rows, calls, seconds, rounds)
    for name, call in calls.items():
        rows[name] |= _rates(case, rows[name]["time_s"])
        rows[name]["kept_bytes"] = memory.kept(call, numbers)
        rows[name]["peak_bytes"] = memory.peak(call.run, case.device)
    return list(rows.values())


def _agreement(case, numbers):
    """What ``built`` asks: whether results are those of torch.nn."""
    expected = data.truth(case, numbers)

    def check(name, call, results):
        fault = gate.wrong(data.names(case, numbers), results, expected, case.tolerance)
        # autocast costs torch.nn itself up to 0.08 of a gradient: it is what it is
        if fault and not (case.autocast and name == peers.BASELINE):
            raise ArithmeticError(fault)
        return {}

    return check


def _about(case, name, peer):
    return {**asdict(case), "peer": name, "peer_version": peer.version()}


def built(case, contestants, numbers, check):
    """({name: its row}, {name: its Call}): all are built, and those without a fault have a Call.

    check(name, its Call, its results): more fields of the row; raises ArithmeticError for a fault.
    """
    rows, calls = {named[0]: _about(case, *named) for named in contestants.items()}, {}
    for name, peer in contestants.items():
        try:
            start = time.perf_counter()
            call = peer.build(case, numbers)
            results = call.run()
            seconds = time.perf_counter() - start
            rows[name] |= {"note": call.note, "setup_s": seconds, **check(name, call, results)}
            calls[name] = call
        except peers.CannotServe as reason:
            rows[name]["skipped"] = str(reason)
        except Exception as error:  # whatever a peer dies of, the others' numbers are wanted
            rows[name]["error"] = f"{type(error).__name__}: {error}"
    return rows, calls


def race(case, rows, calls, seconds, rounds):
    """Time the calls against each other; their rows say what was found."""
    times = timing.race({n: call.run for n, call in calls.items()}, seconds, rounds, case)
    for name, found in times.items():
        rows[name] |= _figures(found, times.get(peers.BASELINE))


def _figures(times, baseline):
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
    return found


def _rates(case, seconds):
    """What a row says of the work that was done in that time."""
    found = {"gflops": case.flops / seconds / 1e9}
    return found | (_of_ceilings(case, seconds) if case.device == "cpu" else {})


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
