"""What the pages say of bench/quantized.jsonl: the ways against each other, and every size."""

from . import kinds, tables
from .groups import geometric_mean, side_by_side, times_faster
from .machine import ROOT
from .peers import BASELINE, OURS

FILE = ROOT / "bench" / "quantized.jsonl"
NARROW = f"{OURS} int8 x int8"  # the way that quantize takes if not told otherwise
GROUPS = {  # {what a group of cases is called: whether a case is in it}
    "B = 1, H 256 to 1024": lambda c: not c.streamed and c.B == 1 and 256 <= c.H <= 1024,
    "B 16 to 256, H 256 or more": lambda c: not c.streamed and 16 <= c.B <= 256 <= c.H,
    "one step a call": lambda c: c.streamed,
}
RIVALS = {  # {what is said of some ways: how their names begin}; the fastest of each size counts
    "torch.nn": BASELINE,
    "fastrnn, float32": OURS,
    "quantize_dynamic, its faster engine": "quantize_dynamic",
    "ONNX Runtime, float32": "onnxruntime",
    "ONNX Runtime, int8 (LSTM)": "onnxruntime int8",
}
COLUMNS = (
    "what its weights take in a file; and its errors against torch.nn in float64, in percent of "
    "the RMS of the output: the largest RMS error of any size, and of any element. ONNX Runtime "
    "has int8 for the LSTM alone."
)
UNKNOWN = "Not measured yet: `python -m bench.quantized --threads 1,2`."


def block(rows):
    """The block of RESULTS.md."""
    words = (
        f"The first table: how many times faster {NARROW} is than other ways, as the geometric "
        "mean over the sizes, and the worst. The second: every way, in times faster than torch.nn "
        f"in float32; {COLUMNS} Then every size; in brackets the RMS error."
    )
    return kinds.by_machine(rows, UNKNOWN, words, _tables)


def short(rows):
    """The block of the first page: int8 on one thread, against every way."""
    words = (
        f"How many times faster {NARROW} is than each way on one thread, LSTM and GRU: geometric "
        f"means, and the worst of the sizes. Of each way, {COLUMNS}"
    )
    return kinds.by_machine(rows, UNKNOWN, words, _short)


def _tables(rows):
    counts = sorted({row["threads"] for row in rows})
    by_way = _by_way(rows, lambda way: (way, BASELINE))
    return "\n\n".join([_by_rival(rows), by_way, *(_by_size(rows, n) for n in counts)])


def _short(rows):
    single = [row for row in rows if row["threads"] == 1]
    return _by_way(single, lambda way: (NARROW, way))


def _ways(rows, start=""):
    """The names of ways; those of one of RIVALS."""
    names = dict.fromkeys(row["peer"] for row in rows)
    return [n for n in names if n == start] or [n for n in names if n.startswith(start)]


def _ratios(rows, way, rivals):
    """{(group, threads): {case: how many times faster than the fastest of the rivals}}."""
    found = {(name, n): {} for name in GROUPS for n in sorted({row["threads"] for row in rows})}
    for case, peers in side_by_side(rows).items():
        ratios = [times_faster(peers, rival, way) for rival in rivals]
        if ratios := [ratio for ratio in ratios if ratio is not None]:
            for name in [name for name, has in GROUPS.items() if has(case)]:
                found[name, case.threads][case] = min(ratios)
    return found


def _figure(ratios):
    """The mean and the worst of {case: ratio}; "" of none."""
    if not ratios:
        return ""
    worst = min(ratios, key=ratios.get)
    mean = geometric_mean(ratios.values())
    return f"{mean:.2f}x (worst {ratios[worst]:.2f}x, {worst.cell} {worst.size})"


def _header(found):
    return [f"{name}, {tables.threads(n)}" for name, n in found]


def _by_rival(rows):
    lines = []
    for rival, start in RIVALS.items():
        found = _ratios(rows, NARROW, _ways(rows, start))
        lines.append([rival, *map(_figure, found.values())])
    return tables.table([f"{NARROW} against", *_header(found)], lines)


def _by_way(rows, pair):
    """A line for each way; pair(way): (who, against whom) in its figures: none against itself."""
    full = {_size(row): row["weight_bytes"] for row in rows if row["peer"] == BASELINE}
    lines = []
    for way in _ways(rows):
        mine = [row for row in rows if row["peer"] == way and "time_s" in row]
        who, rival = pair(way)
        if mine:
            found = _ratios(rows, who, [rival] if rival != who else [])
            share = geometric_mean([row["weight_bytes"] / full[_size(row)] for row in mine])
            errors = [f"{max(row[e] for row in mine):.1%}" for e in ("error_rms", "error_max")]
            lines.append([tables.name(way), f"{share:.0%}", *errors, *map(_figure, found.values())])
    header = [
        "float32 where none is said",
        "weights",
        "RMS error",
        "largest error",
        *_header(_ratios(rows, "", [])),
    ]
    return tables.table(header, lines)


def _size(row):
    return row["cell"], row["I"], row["H"]


def _by_size(rows, count):
    ways = [way for way in _ways(rows) if way != BASELINE]
    lines = []
    for case, peers in side_by_side(rows).items():
        if case.threads == count and "time_s" in peers.get(BASELINE, {}):
            time = tables.duration(peers[BASELINE]["time_s"])
            cells = [_cell(peers.get(way, {})) for way in ways]
            lines.append([f"{case.kind} {case.size}", time, *cells])
    header = [f"T x B x H, {tables.threads(count)}", tables.name(BASELINE), *map(tables.name, ways)]
    return tables.table(header, lines)


def _cell(row):
    if "time_s" not in row:
        return row.get("skipped", row.get("error", ""))
    return f"{row['ratio']:.2f}x ({row['error_rms']:.1%})"
