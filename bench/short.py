"""What the first page says of speed: one table, and a sentence for what the table leaves out."""

from . import calls, cold, tables
from .groups import geometric_mean, groups, side_by_side
from .peers import BASELINE, OURS

LARGE_B, LARGE_H = 32, 256  # from these on the arithmetic is nearly all of the time
FRAME = 0.01  # seconds of sound


def block(rows, short_calls, first_calls):
    """The README's block: of the rows of results.jsonl, calls.jsonl and cold.jsonl."""
    machines = tables.by(rows, "gpu", "cpu")
    parts = [
        "Times faster than torch.nn on one thread: the geometric mean over ten sizes, the worst of "
        "them, and how much of the limit of the machine fastrnn reaches (see below).",
        _table(machines),
        *(_peaks(machine, mine) for machine, mine in machines.items()),
        *(_streams(machine, mine) for machine, mine in machines.items()),
        *(_steps(cpu, mine) for cpu, mine in tables.by(short_calls, "cpu").items()),
        cold.sentence(first_calls),
    ]
    return "\n\n".join(filter(None, parts))


def _table(machines):
    """A line a cell and mode, a column a machine."""
    lines = {}
    for machine, rows in machines.items():
        for group in groups([row for row in rows if row["threads"] == 1]):
            if group.kind in ("LSTM", "GRU", "RNN"):
                lines.setdefault(f"{group.kind} {group.mode}", {})[machine] = _cell(group)
    body = [[name, *(cells.get(m, "") for m in machines)] for name, cells in lines.items()]
    return tables.table(["", *machines], body)


def _cell(group):
    reached = f"; {group.of_limit:.0%} of the limit" if group.of_limit else ""
    return f"**{group.mean:.2f}x** (worst {group.worst[0]:.2f}x{reached})"


def _peaks(machine, rows):
    """How near both come to the peak where the arithmetic counts; "" where that is not known."""
    found = {}
    for case, peers in side_by_side(rows).items():
        known = all(peers.get(p, {}).get("of_fma_peak") for p in (BASELINE, OURS))
        large = case.B >= LARGE_B and case.H >= LARGE_H
        plain = case.threads == 1 and not case.variant and not case.step
        if known and large and plain and case.training:
            found.setdefault(case.cell, []).append(peers)

    def of_peak(cases, peer):
        return f"{geometric_mean([peers[peer]['of_fma_peak'] for peers in cases]):.0%}"

    parts = [
        f"{cell} {of_peak(cases, OURS)} (torch.nn {of_peak(cases, BASELINE)})"
        for cell, cases in found.items()
    ]
    return parts and (
        f"In training at large sizes (B of {LARGE_B} or more, H of {LARGE_H} or more) fastrnn "
        f"reaches, of all the multiply-adds that the {machine.split(',')[0]} can do: "
        f"{', '.join(parts)}."
    )


def _streams(machine, rows):
    """Sound, a frame at a time; "" where it was not measured."""
    parts = []
    for case, peers in side_by_side(rows).items():
        times = [peers.get(peer, {}).get("time_s") for peer in (OURS, BASELINE)]
        if case.streamed and case.threads == 1 and all(times):
            ours, theirs = (time / case.T for time in times)
            parts.append(
                f"{case.cell} of {case.H} {ours * 1e6:.0f} µs (torch.nn {theirs * 1e6:.0f} µs, "
                f"real time {ours / FRAME:.1%})"
            )
    return parts and (
        f"A stream of sound, one call for each frame of 10 ms, the state carried on: "
        f"{', '.join(parts)} ({machine})."
    )


def _steps(cpu, rows):
    """One step of one sequence; "" where no row has any."""
    found = {}
    for row in rows:
        if row["threads"] == 1:
            found.setdefault(row["mode"], []).extend(calls.single(row))
    parts = [f"{mode} {geometric_mean(ratios):.2f}x" for mode, ratios in found.items() if ratios]
    return parts and (
        "One step of one sequence, four cells, one layer and stacks, one and both directions: "
        f"{', '.join(parts)} torch.nn's speed ({cpu})."
    )
