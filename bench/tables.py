"""Results as Markdown."""

from pathlib import Path

from .cases import Case
from .groups import cliffs, groups, limit, rivals, side_by_side, times_faster
from .peers import BASELINE, OURS

NAMES = {"torch_nn": "torch.nn", "torch_compile": "torch.compile", "onnxruntime": "ONNX Runtime"}
UNITS = [("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)]


def name(peer):
    """A peer's name; what follows its first word says which way of it."""
    first, *way = peer.split(" ", 1)
    return " ".join((NAMES.get(first, first), *way))


def table(header, lines):
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def duration(seconds):
    unit, size = next((u for u in UNITS if seconds >= 0.9995 * u[1]), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def amount(count):
    """Bytes, in words."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def percent(fraction):
    return "" if fraction is None else f"{fraction:.0%}"


def of_limit(nearest):
    """How much of which limit, such as "72% of multiply-adds"; "" where it is not known."""
    return "" if nearest is None else f"{nearest[0]:.0%} of {nearest[1]}"


def threads(count):
    return f"{count} thread{'s' if count > 1 else ''}"


def by(rows, *fields):
    """The rows under the first of ``fields`` that they have a value of."""
    found = {}
    for row in rows:
        found.setdefault(next(row[field] for field in fields if row[field]), []).append(row)
    return found


def provenance(machine, rows):
    """Which machine, versions, commit and command the rows come from."""

    def each(field):
        return ", ".join(dict.fromkeys(str(row[field]) for row in rows if row[field] is not None))

    versions = dict.fromkeys((row["peer"], row["peer_version"]) for row in rows)
    others = "".join(f", {name(p)} {v}" for p, v in versions if p not in (OURS, "torch_nn"))
    dates = sorted(row["date"][:10] for row in rows)
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    commands = dict.fromkeys(row["command"] for row in rows)
    return "\n".join(
        [
            f"Measured on {machine}; torch {each('torch')}, numba {each('numba')}, "
            f"Python {each('python')}{others}; commit {each('commit')}, {days}, by",
            "",
            *(f"    {command}" for command in commands),
        ]
    )


def summary(rows, rival):
    """One line a kind and mode; for each number of threads the geometric mean, the geometric mean
    of the fractions of the limit that binds, and the worst, with the limit that binds there."""
    found = groups(rows, rival)
    counts = sorted({group.threads for group in found})
    lines = {}
    for group in found:
        lines.setdefault((group.kind, group.mode), {})[group.threads] = group
    header = [f"against {name(rival)}"]
    for count in counts:
        header += [threads(count), "of the limit", "worst"]
    body = []
    for (kind, mode), by_threads in lines.items():
        cells = [f"{kind} {mode}"]
        for count in counts:
            group = by_threads.get(count)
            cells += _mean_and_worst(group) if group else [""] * 3
        body.append(cells)
    return table(header, body)


def _mean_and_worst(group):
    ratio, case = group.worst
    binding = of_limit(group.limits.get(case))
    worst = f"{ratio:.2f}x at {case.size}" + f" ({binding})" * bool(binding)
    return [f"{group.mean:.2f}x", percent(group.of_limit), worst]


def sizes(rows, count):
    """Times faster than torch.nn, and the limit that binds: plain layers on ``count`` threads, a
    line a size and a column a cell and mode."""
    found = {}
    columns = []
    for case, peers in side_by_side(rows).items():
        ratio = times_faster(peers, BASELINE)
        if ratio is None or case.variant or case.step or case.threads != count:
            continue
        column = f"{case.cell} {case.mode}"
        columns.append(column)
        nearest = limit(peers[OURS])
        binding = f" ({nearest[0]:.0%} {nearest[1].split()[0]})" if nearest else ""
        found.setdefault(case.size, {})[column] = f"{ratio:.2f}x{binding}"
    columns = sorted(dict.fromkeys(columns), key=lambda column: column.split()[0])
    header = [f"T x B x H, {threads(count)}", *columns]
    return table(header, [[size, *(c.get(n, "") for n in columns)] for size, c in found.items()])


def kept(rows):
    """A sentence: what is kept for backward, against torch.nn; "" where nothing is."""
    ratios = [
        found[OURS]["kept_bytes"] / found[BASELINE]["kept_bytes"]
        for case, found in side_by_side(rows).items()
        if case.training and all(found.get(peer, {}).get("kept_bytes") for peer in (OURS, BASELINE))
    ]
    if not ratios:
        return ""
    return f"Kept for backward: {min(ratios):.0%} to {max(ratios):.0%} of what torch.nn keeps."


def block(rows, pictures):
    """The block of RESULTS.md. ``pictures``: paths of plots, as links from there."""
    parts = []
    for machine, mine in by(rows, "gpu", "cpu").items():
        parts += [f"### {machine}", provenance(machine, mine)]
        against = [rival for rival in rivals(mine) if groups(mine, rival)]
        parts += [summary(mine, rival) for rival in against]
        parts += [sizes(mine, n) for n in sorted({row["threads"] for row in mine})]
        parts += filter(None, [kept(mine)])
    parts += [f"![{Path(picture).stem.replace('_', ' ')}]({picture})" for picture in pictures]
    return "\n\n".join(parts)


def details(rows):
    """Everything: each group's cases with times, rates and memory."""
    parts = []
    for machine, mine in by(rows, "gpu", "cpu").items():
        parts += [f"# {machine}", provenance(machine, mine)]
        parts += [summary(mine, rival) for rival in rivals(mine) if groups(mine, rival)]
        sections = {}
        for case, peers in side_by_side(mine).items():
            title = f"## {case.kind} {case.mode}, {case.threads} thread"
            sections.setdefault(title + "s" * (case.threads > 1), {})[case] = peers
        for title, cases in sections.items():
            parts += [title, _section(cases)]
        parts += _neighbours(mine)
        faults = [f"- {_label(r)}: {r['error']}" for r in mine if "error" in r]
        if faults:
            parts += ["## Failed", "\n".join(faults)]
    return "\n\n".join(parts)


def _label(row):
    return f"{Case.of_row(row).label}, {name(row['peer'])}"


def _section(cases):
    peers = list(dict.fromkeys(peer for found in cases.values() for peer in found if peer != OURS))
    timed = [p for p in peers if any("time_s" in found.get(p, {}) for found in cases.values())]
    header = ["size", *map(name, timed), "fastrnn", "times faster (20-80 %)", "GFLOP/s"]
    header += ["of FMA peak", "of weight reading", "kept: fastrnn", "kept: torch.nn", "peak growth"]
    lines = []
    for case, found in cases.items():
        times = [
            duration(f["time_s"]) if "time_s" in (f := found.get(p, {})) else "" for p in timed
        ]
        lines.append([case.size, *times, *_ours(found)])
    return table(header, lines)


def _ours(found):
    ours, theirs = found.get(OURS, {}), found.get(BASELINE, {})
    if "time_s" not in ours:
        return [ours.get("error") or ours.get("skipped") or "", *[""] * 7]
    ratio = ""
    if "ratio" in ours:
        ratio = f"{ours['ratio']:.2f}x ({ours['ratio_q20']:.2f}-{ours['ratio_q80']:.2f})"
    kept = [amount(row["kept_bytes"]) if "kept_bytes" in row else "" for row in (ours, theirs)]
    rates = [percent(ours.get(f"of_{what}")) for what in ("fma_peak", "weight_reading")]
    grown = ours.get("peak_bytes")
    growth = "" if grown is None else amount(grown)
    return [duration(ours["time_s"]), ratio, f"{ours['gflops']:.1f}", *rates, *kept, growth]


def _neighbours(rows):
    """What a scan by ones shows of cliffs; nothing where there was none."""
    parts = []
    for size in ("H", "B"):
        found, pairs = cliffs(rows, size)
        if pairs:
            parts.append(f"## {size} by ones: {len(found)} of {pairs} steps slower than 1.35x")
            parts += ["\n".join(f"- {case.label}: {ratio:.2f}x" for case, ratio in found)]
    return parts
