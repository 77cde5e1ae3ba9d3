"""All that is asked of one configuration."""

import torch

import fastrnn

from .judge import LIMIT, Judge
from .running import Problem, guarded, on_threads, ours, run
from .tensors import Tensors, build


def check(case):
    """(what is wrong, as lines; {kind of result: its error in units of torch.nn's own})."""
    errors, faults = {}, []
    try:
        module = build(case, torch.nn, case.dtype)
    except Exception as error:
        return _same_error(error, lambda: build(case, fastrnn, case.dtype)), errors
    tensors = Tensors(case, module)
    problem = Problem(
        case, tensors.inputs, tensors.weights, tensors.grads, tensors.frozen, tensors.used
    )
    with torch.backends.mkldnn.flags(enabled=case.dtype != torch.float16):
        try:
            run(problem, torch.nn, case.dtype)
        except Exception as error:
            return _same_error(error, lambda: ours(problem)), errors
    judge = Judge(problem)
    with on_threads(1), guarded() as guards:
        found = ours(problem)
    if not guards.intact():
        faults.append("writes outside of its memory")
    if found.keys() != judge.exact.keys():
        faults.append(f"returns {[*found]} and not {[*judge.exact]}")
    for name, value in found.items():
        units = judge.units(name, value)
        errors["gradient" if name.startswith("d ") else "output"] = max(
            units, errors.get("gradient" if name.startswith("d ") else "output", 0.0)
        )
        if not units <= LIMIT:
            faults.append(f"{name}: {units:.3g} times the error of torch.nn")
    # what is empty, and what should have been refused and was not, goes to torch's kernels
    if case.I and case.H and not case.mistake:
        faults += [f"{how}: other bits in {name}" for how, name in _other_bits(problem, found)]
    return faults, errors


def _same_error(theirs, call):
    """Nothing if ``call`` raises what torch raised; else a line that says so."""
    try:
        call()
    except Exception as mine:
        if type(mine) is type(theirs) and str(mine) == str(theirs):
            return []
        return [f"torch.nn raises {theirs!r}, ours {mine!r}"]
    return [f"torch.nn raises {theirs!r}, ours nothing"]


def same_bits(a, b):
    """Whether two tensors are the same to the bit, but for which NaN a NaN is."""
    if a is None or b is None:
        return a is b
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.itemsize]
    if a.shape != b.shape:
        return False
    a, b = a.contiguous(), b.contiguous()
    return bool(((a.view(kind) == b.view(kind)) | (a.isnan() & b.isnan())).all())


def _other_bits(problem, found):
    """(way of running, name) for each result that is not ``found``'s to the bit."""
    case = problem.case
    ways = {"again": {}, "without gradients": {"grad": "no_grad"}}
    if not case.cell:
        ways["recompute"] = {"recompute": not case.options["recompute"]}
    for way, options in ways.items():
        with on_threads(1):
            other = ours(problem, **options)
        yield from ((way, n) for n in other if not same_bits(other[n], found[n]))
    with on_threads(2):
        other = ours(problem)
    yield from (("on two threads", n) for n in other if not same_bits(other[n], found[n]))
    if case.B and case.B > 1:
        for name, mine, rows in _one_alone(problem, found):
            if not same_bits(mine, rows):
                yield "a sequence alone", name


def _one_alone(problem, found):
    """(name, result of one sequence alone, the same out of the batch's)."""
    case = problem.case
    place = sum(map(ord, case.seed)) % case.B  # among those in order of length
    alone = _alone(case, place)

    def mine(name, tensor):
        if tensor is None:
            return None
        name = name.removeprefix("d ")
        if name in ("x", "output"):
            if case.lengths:
                return tensor[_rows(case, place)]
            dim = 0 if case.cell or case.options["batch_first"] else 1
            return tensor.narrow(dim, place, 1)
        which = case.order[place] if case.order is not None else place
        return tensor.narrow(0 if case.cell else 1, which, 1)

    inputs = {n: mine(n, t) for n, t in problem.inputs.items()}
    grads = {n: mine(n, t) for n, t in problem.grads.items()}
    with on_threads(1):
        other = ours(Problem(alone, inputs, problem.weights, grads, problem.frozen, problem.used))
    for name, value in other.items():
        if name.removeprefix("d ") not in problem.weights:
            yield name, value, mine(name, found[name])


def _alone(case, place):
    """The configuration with the one sequence only."""
    lengths = [case.lengths[place]] if case.lengths else None
    return type(case)(**{**vars(case), "B": 1, "lengths": lengths, "order": None})


def _rows(case, place):
    """The rows of packed data that are those of one sequence."""
    rows, first = [], 0
    for t in range(case.lengths[place]):
        rows.append(first + place)
        first += sum(n > t for n in case.lengths)
    return torch.tensor(rows)
