"""Rows gathered for reading: a case's peers side by side, and groups of cases with one figure."""

from dataclasses import dataclass, replace
from math import exp, log

from .cases import Case
from .peers import BASELINE, OURS


def side_by_side(rows):
    """{case: {peer: row}}, in the order of the rows."""
    found = {}
    for row in rows:
        found.setdefault(Case.of_row(row), {})[row["peer"]] = row
    return found


def times_faster(found, rival, ours=OURS):
    """How many times faster than ``rival`` fastrnn was on one case; None where one has no time."""
    ours, theirs = found.get(ours, {}), found.get(rival, {})
    if "time_s" not in ours or "time_s" not in theirs:
        return None
    if "ratio" in ours:  # both to torch.nn, round by round
        return ours["ratio"] / theirs["ratio"]
    return theirs["time_s"] / ours["time_s"]


def geometric_mean(values):
    return exp(sum(map(log, values)) / len(values))


LIMITS = {"of_fma_peak": "multiply-adds", "of_weight_reading": "reading weights"}


def limit(row):
    """(fraction, name) of the limit of its machine that a row came nearest to, which binds there.

    None where a limit is not known: of autocast, whose products are bfloat16's, and of half
    precision.
    """
    if row["autocast"] or any(row.get(field) is None for field in LIMITS):
        return None
    return max((row[field], name) for field, name in LIMITS.items())


@dataclass
class Group:
    """Cases of one kind, mode and number of threads, against one rival."""

    kind: str
    mode: str
    threads: int
    rival: str
    ratios: dict  # {case: times faster}
    limits: dict  # {case: (fraction, name) of the limit that binds}, of fastrnn

    @property
    def mean(self):
        return geometric_mean(self.ratios.values())

    @property
    def of_limit(self):
        """The geometric mean of the fractions of the limit; None where they are not known."""
        return geometric_mean([f for f, _ in self.limits.values()]) if self.limits else None

    @property
    def worst(self):
        """(times faster, the case) where that is least."""
        case = min(self.ratios, key=self.ratios.get)
        return self.ratios[case], case


def groups(rows, rival=BASELINE):
    """The Groups of ``rows``, in their order."""
    found = {}
    for case, peers in side_by_side(rows).items():
        ratio = times_faster(peers, rival)
        if ratio is not None:
            key = case.kind, case.mode, case.threads, rival
            group = found.setdefault(key, Group(*key, {}, {}))
            group.ratios[case] = ratio
            if nearest := limit(peers[OURS]):
                group.limits[case] = nearest
    return list(found.values())


def rivals(rows):
    """The peers that fastrnn was measured against, torch.nn first."""
    return list(dict.fromkeys(row["peer"] for row in rows if row["peer"] != OURS))


def cliffs(rows, size, limit=1.35):
    """[(case, ratio)] where a case took over ``limit`` times longer per useful operation than its
    neighbour, whose ``size`` ("H" or "B") is one less; and how many neighbours were looked at."""
    cost = {}
    for case, peers in side_by_side(rows).items():
        if "time_s" in peers.get(OURS, {}):
            cost[case] = peers[OURS]["time_s"] / case.flops
    found, pairs = [], 0
    for case, value in cost.items():
        below = replace(case, **{size: getattr(case, size) - 1})
        if size == "H" and case.I == case.H:
            below = replace(below, I=below.H)
        if below in cost:
            pairs += 1
            if value > limit * cost[below]:
                found.append((case, value / cost[below]))
    return found, pairs
