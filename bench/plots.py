"""Results as pictures: ratios over B x H, time per step beside the roofline, memory against T."""

import re
from collections import Counter, defaultdict

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from .groups import side_by_side
from .groups import times_faster as ratio_of
from .peers import BASELINE, OURS
from .tables import by, name

COLOURS = {OURS: "C0", BASELINE: "C1", "torch_compile": "C2", "onnxruntime": "C3"}


def draw(rows, folder):
    """Draw into ``folder`` what the rows have enough points for; the paths written.

    A picture a machine: plain layers, at the least number of threads that was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        path
        for machine, mine in by(rows, "gpu", "cpu").items()
        for path in _of_machine(machine, mine, folder)
    ]


def _plain(rows):
    """(the cases of plain layers at the least number of threads, that number)."""
    threads = min(row["threads"] for row in rows)
    cases = {
        case: found
        for case, found in side_by_side(rows).items()
        if case.threads == threads and not case.variant and not case.step
    }
    return cases, threads


def _of_machine(machine, rows, folder):
    cases, threads = _plain(rows)
    ending = re.sub(r"\W+", "_", machine.lower()).strip("_")
    written = []
    for plot in (ratio_over_sizes, time_per_step, memory_against_length):
        figure = plot(cases)
        if figure is not None:
            what = plot.__name__.replace("_", " ")
            figure.suptitle(f"{what} ({machine}; threads: {threads}; torch {rows[0]['torch']})")
            written.append(_saved(figure, folder / f"{plot.__name__}_{ending}.png"))
    return written


def _saved(figure, path):
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
    return path


def times_faster(rows, path):
    """The picture of the first page: times faster than torch.nn at each size, a row of two panels
    (training, inference) for each machine; the path written."""
    machines = by(rows, "gpu", "cpu")
    figure, axes = plt.subplots(
        len(machines), 2, figsize=(11, 3.4 * len(machines)), squeeze=False, layout="constrained"
    )
    for (machine, mine), pair in zip(machines.items(), axes, strict=True):
        cases, threads = _plain(mine)
        for mode, ax in zip(("training", "inference"), pair, strict=True):
            _bars(ax, {c: found for c, found in cases.items() if c.mode == mode})
            ax.set_title(f"{mode}, {machine}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        pair[0].set_ylabel("times faster than torch.nn")
        pair[0].legend(fontsize=8)
    return _saved(figure, path)


def _bars(ax, cases):
    """A group of bars for each size, one for each cell; the line is torch.nn."""
    sizes = sorted(dict.fromkeys(case.size for case in cases), key=_work)
    cells = list(dict.fromkeys(case.cell for case in cases))
    for place, cell in enumerate(cells):
        mine = {case.size: ratio_of(f, BASELINE) for case, f in cases.items() if case.cell == cell}
        xs = [x + 0.27 * (place - 1) for x in range(len(sizes))]
        heights = [(mine.get(size) or np.nan) - 1 for size in sizes]
        ax.bar(xs, heights, 0.27, bottom=1, label=cell)  # below the line where it is slower
    ax.axhline(1, color="black", linewidth=1)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    ax.set_xticks(range(len(sizes)), sizes, rotation=40, ha="right", fontsize=8)
    ax.set_xlabel("steps x batch x units")


def _work(size):
    """Small batches first, then narrow layers."""
    T, B, H = map(int, size.split("x"))
    return B, H, T


def _panels(groups):
    """A figure and {(cell, mode): axes}: a column a cell, a row a mode."""
    cells, modes = (sorted({group[i] for group in groups}) for i in (0, 1))
    figure, axes = plt.subplots(
        len(modes),
        len(cells),
        figsize=(max(7, 4 * len(cells)), 0.8 + 2.8 * len(modes)),
        squeeze=False,
        layout="constrained",
    )
    places = {(c, m): axes[i][j] for i, m in enumerate(modes) for j, c in enumerate(cells)}
    for place, ax in places.items():
        ax.set_title(" ".join(place))
        ax.set_visible(place in groups)
    return figure, places


def ratio_over_sizes(cases):
    """A heat map for each cell and mode: times faster than torch.nn at each B and H.

    At one T, which most cases have; without the sizes that few have.
    """
    groups = defaultdict(dict)
    T, _ = Counter(case.T for case in cases).most_common(1)[0]
    for case, found in cases.items():
        ratio = ratio_of(found, BASELINE)
        if ratio is not None and case.T == T:
            groups[case.cell, case.mode][case.B, case.H] = ratio
    if not groups:
        return None
    figure, places = _panels(groups)
    for group, found in groups.items():
        widths = _common(H for _, H in found)
        batches = _common(B for B, H in found if H in widths)
        image = np.full((len(batches), len(widths)), np.nan)
        ax = places[group]
        for (B, H), ratio in found.items():
            if B not in batches or H not in widths:
                continue
            i, j = batches.index(B), widths.index(H)
            image[i, j] = ratio
            ax.text(j, i, f"{image[i, j]:.1f}x", ha="center", va="center", fontsize=8)
        ax.imshow(np.log2(image), cmap="PiYG", vmin=-2.5, vmax=2.5, aspect="auto")
        ax.set(xlabel=f"H (T = {T})", ylabel="B")
        ax.set_xticks(range(len(widths)), widths)
        ax.set_yticks(range(len(batches)), batches)
    return figure


def _common(sizes):
    """The sizes, in order, without those that are there less than half as often as others."""
    count = Counter(sizes)
    return sorted(size for size in count if 2 * count[size] >= max(count.values()))


def _curves(cases, x, fixed):
    """{(cell, mode): {peer: [(x, row, case)]}}, sorted by x, the sizes in ``fixed`` the same along
    a curve: of the curves that a cell and mode have, the one with the most points."""
    found = defaultdict(lambda: defaultdict(list))
    for case, peers in sorted(cases.items(), key=lambda item: getattr(item[0], x)):
        key = tuple(getattr(case, size) for size in fixed)
        for peer, row in peers.items():
            if "time_s" in row:
                found[case.cell, case.mode, key][peer].append((getattr(case, x), row, case))
    longest = {}
    for (cell, mode, _), curves in found.items():
        best = longest.get((cell, mode), {OURS: ()})
        if len(curves[OURS]) > max(1, len(best[OURS])):
            longest[cell, mode] = curves
    return longest


def _draw_curves(curves, value, labels, unit):
    """Log-log panels of ``value(row, case)`` for each peer; ``labels`` names the fixed sizes."""
    figure, places = _panels(curves)
    for group, peers in curves.items():
        ax = places[group]
        for peer, points in peers.items():
            xs, ys = zip(*((x, value(row, case)) for x, row, case in points), strict=True)
            ax.loglog(xs, ys, "o-", markersize=4, color=COLOURS.get(peer), label=name(peer))
        case = peers[OURS][0][2]
        same = ", ".join(f"{size} = {getattr(case, size)}" for size in labels[1:])
        ax.set_xlabel(f"{labels[0]} ({same})")
        ax.set_ylabel(unit)
        xs = [x for x, *_ in peers[OURS]]
        ax.set_xticks(xs, [f"{x:,}" for x in xs], fontsize=8)
        ax.minorticks_off()
    return figure, places


def time_per_step(cases):
    """Time per step against H for each cell and mode, beside what the machine's ceilings allow."""
    curves = _curves(cases, "H", ("T", "B"))
    if not curves:
        return None

    def per_step(row, case):
        return row["time_s"] / case.T * 1e6

    figure, places = _draw_curves(curves, per_step, ("H", "B"), "µs")
    for group, peers in curves.items():
        bound = [
            (H, per_step(row, case) * max(row["of_fma_peak"], row["of_weight_reading"]))
            for H, row, case in peers[OURS]
            if row.get("of_fma_peak")
        ]
        if bound:
            places[group].plot(*zip(*bound, strict=True), "k--", label="the machine's ceiling")
        places[group].legend(fontsize=8)
    return figure


def memory_against_length(cases):
    """Bytes kept for backward against T, for each cell."""
    training = {case: found for case, found in cases.items() if case.training}
    curves = _curves(training, "T", ("B", "H"))
    if not curves:
        return None
    figure, places = _draw_curves(
        curves, lambda row, case: row["kept_bytes"] / 2**20, ("T", "B", "H"), "MiB for backward"
    )
    for group in curves:
        places[group].legend(fontsize=8)
    return figure
