"""python -m bench.gpu_report FILE: what a GPU said, as the tables that the engine chooses by.

The file that it was made from is committed as bench/gpu.jsonl, from which ``python -m bench.pages``
takes what RESULTS.md says of GPUs.
"""

import argparse
import json
import sys
from math import inf
from pathlib import Path
from statistics import geometric_mean

from fastrnn.kernels.gpu import kept, measured, verdicts

from . import tables
from .cases import GATES
from .gpu import summary

UNTIMED = (
    "Proved by Triton's interpreter, against the reference engine, and by compiling ahead of time "
    "(`python -m bench.aot`); not yet timed on a GPU. There torch serves until the engine has "
    "proven itself on that very GPU; `python -m bench.gpu` checks and measures it."
)
GAIN = 1.03  # a tile has to be so many times faster than the one chosen so far to replace it
CLASSES = {
    "standard": "cuDNN's standard algorithm",
    "small H": "its algorithm for small H",
    "persistent": "its persistent kernel (float16)",
    "small H, standard": "its algorithm for small H, standard in backward",
    "small H, persistent": "its algorithm for small H, persistent in backward (float16)",
    "packed": "packed rows",
}


def parser():
    p = argparse.ArgumentParser(
        prog="python -m bench.gpu_report",
        description="From a result file of python -m bench.gpu make the table that the engine "
        "chooses by.",
    )
    p.add_argument("files", nargs="*", type=Path, metavar="FILE", help="gpu.jsonl, one or more")
    p.add_argument(
        "--table", type=Path, default=measured.FILE, metavar="FILE", help="default: %(default)s"
    )
    p.add_argument(
        "--verdicts", type=Path, default=kept.SHIPPED, metavar="FILE", help="default: %(default)s"
    )
    p.add_argument("--check", action="store_true", help="change nothing; exit 1 if it would")
    return p


def load(paths):
    """The rows of the files; a line that was cut off is left out, and a row of an unknown GPU."""
    found = []
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                print(f"{path}: a line is not whole, left out", file=sys.stderr)
    known = [row for row in found if "gpu" in row]
    if len(known) < len(found):
        count = len(found) - len(known)
        print(f"{count} rows do not say of which GPU they are, left out", file=sys.stderr)
    return known


def engine_table(rows):
    """What kernels/gpu/measured.py reads: an entry for each GPU."""
    found = []
    for gpu, mine in tables.by(rows, "gpu").items():
        of = {"gpu": gpu, "processors": mine[0]["processors"]}
        found.append(of | {"speed": _speeds(mine), "tiles": _tiles(mine)})
    return found


def verdict_table(rows):
    """What kernels/gpu/kept.py reads: of each GPU with its software the last verdict on a call."""
    found = {}
    for row in rows:
        if "proof" in row:
            name = verdicts.digest(row["facts"])
            key, verdict = verdicts.read(row["proof"])
            found.setdefault(name, (row["facts"], {}))[1][key] = verdict
    return verdicts.table(found.values())


def _key(row):
    case = row["case"]
    return {
        "gates": GATES[case["cell"]],
        "arithmetic": row["arithmetic"],
        "D": case["directions"],
        "H": case["H"],
        "B": case["B"],
        "T": min(case["T"], measured.LONG),
    }


def _timed(rows):
    """The rows with a ratio, of the plain cells; of one measured more than once, the last."""
    found = {}
    for row in rows:
        if "ratio" in row and not row["relu"]:
            found[json.dumps([row["case"], row["arithmetic"], row["mode"]])] = row
    return list(found.values())


def _speeds(rows):
    found = {}
    for row in _timed(rows):
        if not row["case"]["packed"] and not row["case"]["projection"]:
            key = _key(row)
            entry = found.setdefault(str(key), key | {"inference": None, "training": None})
            entry[row["mode"]] = round(row["ratio"], 3)
    return list(found.values())


def _tiles(rows):
    """The tile that was fastest, where it was not the one that is chosen anyway (the first).

    Also where the first was wrong or failed, and so has no time.
    """
    tried = {}
    for row in rows:
        if "tile" in row:
            key = str(_key(row))
            tried.setdefault(key, (_key(row), {}))[1].setdefault(row["direction"], []).append(row)
    found = []
    for key, directions in tried.values():
        best = {"forward": None, "backward": None}
        for direction, mine in directions.items():
            right = [row for row in mine if "ours_us" in row]
            fastest = min(right, key=lambda row: row["ours_us"], default={"ours_us": inf})
            if mine[0].get("ours_us", inf) > GAIN * fastest["ours_us"]:
                best[direction] = fastest["tile"]
        if any(best.values()):
            found.append(key | best)
    return found


def block(rows):
    """What RESULTS.md says of GPUs."""
    timed = _timed(rows)
    if not timed:
        return UNTIMED
    return "\n\n".join(_of_gpu(g, mine, rows) for g, mine in tables.by(timed, "gpu").items())


def _of_gpu(gpu, rows, everything):
    last, mine = rows[-1], [row for row in everything if row.get("gpu") == gpu]
    checks = [r for r in mine if r["section"].endswith("checks") and r.get("engine") == "triton"]
    right, bad = sum(row["right"] for row in checks), sum(map(summary.bad, mine))
    commit = f"commit {last['commit']}" if last["commit"] else "an unknown commit"
    parts = [
        f"Measured on {gpu}; torch {last['torch']}, triton {last['triton']}, cuDNN "
        f"{last['cudnn']}; {commit}, {last['date'][:10]}, by `python -m bench.gpu`. "
        f"Of {len(checks)} checks against torch.nn in float64 {right} were right; of all that was "
        f"done {bad} were wrong or failed.",
        _by_class(rows),
        _sizes(rows),
    ]
    return "\n\n".join(parts)


def _by_class(rows):
    """Times faster than torch.nn, by the algorithm that PyTorch asks cuDNN for."""
    rows = [row for row in rows if row["section"] != "short"]  # which the table hands over
    found = tables.by([row for row in rows if not row["case"]["packed"]], "class")
    if packed := [row for row in rows if row["case"]["packed"]]:
        found["packed"] = packed
    lines = []
    for name, mine in found.items():
        cells = [CLASSES[name]]
        for mode in ("inference", "training"):
            these = [row for row in mine if row["mode"] == mode]
            if these:
                worst = min(these, key=lambda row: row["ratio"])
                cells.append(f"{geometric_mean(row['ratio'] for row in these):.2f}x")
                cells.append(f"{worst['ratio']:.2f}x at {_name(worst)}")
            else:
                cells += ["", ""]
        lines.append(cells)
    header = ["against torch.nn on", "inference", "worst", "training", "worst"]
    return tables.table(header, lines)


def _name(row):
    case = row["case"]
    size = f"{case['T']}x{case['B']}x{case['H']}"
    words = (
        "packed " * case["packed"],
        "bidirectional " * (case["directions"] > 1),
        "projected " * bool(case["projection"]),
    )
    return f"{''.join(words)}{case['cell']} {row['arithmetic']} {size}"


def _sizes(rows):
    """The sizes that the issue names: µs a step of both."""
    found = {}
    for row in rows:
        if row["section"] == "headlines":
            times = f"{row['ours_us']:.2f} against {row['torch_us']:.2f} ({row['ratio']:.2f}x)"
            found.setdefault(_name(row), {})[row["mode"]] = times
    lines = [[name, t.get("inference", ""), t.get("training", "")] for name, t in found.items()]
    header = ["µs a step, ours against torch.nn's", "forward", "forward and backward"]
    return tables.table(header, lines)


def main(argv=None):
    """The exit status: 0; with --check 1 where something is not up to date."""
    p = parser()
    args = p.parse_args(argv)
    try:
        rows = load(args.files)
    except OSError as error:
        p.error(str(error))
    table = json.dumps(engine_table(rows), indent=None)
    table = table.replace("}, {", "},\n{") + "\n"
    files = {args.table: (table, "[]\n"), args.verdicts: (verdict_table(rows), verdict_table([]))}
    changed = {path: new for path, (new, old) in files.items() if new != _text(path, old)}
    if args.check:
        return int(bool(changed))
    for path, text in changed.items() if args.files else ():
        path.write_text(text, encoding="utf-8")
    return 0


def _text(path, otherwise):
    return path.read_text(encoding="utf-8") if path.exists() else otherwise


if __name__ == "__main__":
    sys.exit(main())
