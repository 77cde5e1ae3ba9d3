"""How fast is it? Ours and torch.nn's in turn, timed by the GPU's own events."""

from dataclasses import replace
from statistics import median

import torch

import fastrnn
from fastrnn.kernels.gpu import launch, sizes, tiles

from .. import data
from . import oracle

ROUNDS, FEWEST, SECONDS = 25, 5, 0.25  # of a mode of a case
# Seconds: shorter calls are repeated within a turn. Each turn begins on an idle GPU, so that 50 to
# 100 us of the host's time count in it.
TURN = 5e-3
GATE_STEPS = 48  # of a sequence that is checked before it is timed


def algorithm(case):
    """What PyTorch asks cuDNN for, forward and then backward where that is something else.

    As get_algo in its aten/src/ATen/native/cudnn/RNN.cpp, for GPUs of 98 multiprocessors or more.
    """
    rnn = case.cell == "RNN"
    forward, backward = (_algorithm(case, rnn, H) for H in ((384, 256) if rnn else (192, 128)))
    return f"{forward}, {backward}" if case.training and forward != backward else forward


def _algorithm(case, rnn, small):
    """small: the widest H of the algorithm for small H."""
    if case.packed or case.projection or case.dtype == "float64":
        return "standard"
    if small >= case.H:
        return "small H"
    plain = case.layers == case.directions == 1 and case.cell != "GRU"
    aligned = case.H % 128 == case.I % 128 == case.B % 8 == 0
    slow = rnn and case.B >= 96 and case.H >= 896
    fits = case.H <= 1024 and case.B <= 128 and plain and aligned and not slow
    return "persistent" if fits and case.dtype == "float16" else "standard"


def seconds_of(run, calls):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def race(runs):
    """{name: seconds of a call in each round}, the functions taking turns."""
    calls, spent, found = {}, 0.0, {name: [] for name in runs}
    for name, run in runs.items():
        run()  # compiles, and fills caches
        calls[name] = max(1, round(TURN / seconds_of(run, 1)))
    for done in range(ROUNDS):
        if done >= FEWEST and spent > SECONDS:
            break
        for name, run in runs.items() if done % 2 else reversed(runs.items()):
            found[name].append(seconds_of(run, calls[name]))
            spent += found[name][-1] * calls[name]
    return found


def measure(item, ceilings):
    """A row for each mode: µs a step of both, the ratio of each round's, bytes kept, the floor."""
    base, name = oracle.case_of(item), item["arithmetic"]
    gate = oracle.judge(replace(base, T=min(base.T, GATE_STEPS)), name, item["relu"])
    if not gate["right"]:
        yield item | gate
        return
    for mode in ("inference", "training"):
        case = replace(base, mode=mode)
        with oracle.arithmetic(name):
            yield item | _timed(case, name, ceilings) | {"mode": mode, "error": gate["error"]}


def _timed(case, name, ceilings):
    numbers = data.make(case)
    whose = {"ours": fastrnn, "torch": torch.nn}
    times = race({who: data.call_module(n, case, numbers).run for who, n in whose.items()})
    rounds = zip(times["torch"], times["ours"], strict=True)
    row = {f"{who}_us": median(t) * 1e6 / case.T for who, t in times.items()}
    row |= {"ratio": median(theirs / ours for theirs, ours in rounds), "class": algorithm(case)}
    row["rounds"] = len(times["ours"])
    if case.training:
        row |= {f"{who}_kept": kept(n, case, numbers) for who, n in whose.items()}
    row["floor_us"] = floor(case, name, ceilings) * 1e6 / case.T
    return row | {"of_floor": row["floor_us"] / row["ours_us"]}


def kept(namespace, case, numbers):
    """Bytes that are allocated between forward and backward, results included."""
    layer = data.module(namespace, case)
    before = torch.cuda.memory_allocated()
    results = layer(numbers.input, numbers.hx)
    found = torch.cuda.memory_allocated() - before
    del results
    return found


def floor(case, name, ceilings):
    """Seconds below which no implementation gets: its products, or its bytes, at measured rates."""
    if not ceilings:
        return float("nan")
    return max(case.flops / ceilings[f"{name}_flops"], case.traffic / ceilings["copy_bytes"])


def tune(item):
    """A row for each tile that fits, with the time of forward or of forward and backward."""
    base, direction = oracle.case_of(item), item["direction"]
    name, device = item["arithmetic"], launch.describe(torch.device("cuda", 0))
    case = replace(base, mode="training" if direction == "backward" else "inference")
    kind = sizes.precision(case.dtype, name == "tf32")
    gates, numbers = oracle.cell_of(item).gates, data.make(case)
    with oracle.arithmetic(name):
        for tile in sizes.fitting(direction, gates, kind, case.B, case.H, 1, device):
            with tiles.using(**{direction: tile}):
                try:
                    gate = oracle.judge(replace(case, T=min(case.T, 24)), name, item["relu"])
                    run = data.call_module(fastrnn, case, numbers).run
                    row = {n: gate[n] for n in ("error", "allowed", "right")}
                    if gate["right"]:
                        row["ours_us"] = median(race({"ours": run})["ours"]) * 1e6 / case.T
                except Exception as error:  # Triton's are not all RuntimeErrors
                    if type(error) is fastrnn.backends.Refused:  # and not Failed
                        raise
                    torch.cuda.synchronize()  # does it still work? else this raises, too
                    row = {"failed": f"{type(error).__name__}: {error}"[:300]}
            yield item | {"tile": list(tile)} | row
