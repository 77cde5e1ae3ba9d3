"""The rows of the programs, as a table."""

from collections import Counter
from pathlib import Path

from bench import results, tables

FILE = Path(__file__).parent.parent / "programs.jsonl"


def load():
    return results.committed(FILE.name, what)


def what(row):
    """What a row is about, the machine aside."""
    return row["program"]


def block(rows):
    """What the pages say of it."""
    return "\n\n".join(_table(mine) for mine in tables.by(rows, "cpu").values())


def _table(rows):
    """The programs as measured on one machine."""
    first, commits = rows[0], ", ".join(dict.fromkeys(row["commit"] for row in rows))
    lines = [
        f"Measured on {first['cpu']}, {first['threads']} thread; torch {first['torch']}, commit "
        f"{commits}, by `python -m bench.programs`: each trained from one seed with "
        "torch.nn's layers and, after `accelerate`, with ours, in turn. Apart: the largest "
        "difference of their losses, relative to the first loss. Times are of the whole training, "
        "and of a phase of it where the row names one.",
        "",
        "| program | modules changed | losses, first and last | apart | times faster |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first, last = row["losses"]["fastrnn"]
        faster = _faster(row["seconds"])
        for phase, seconds in row.get("phases", {}).items():
            faster += f"; {phase} alone {_faster(seconds)}"
        kinds = Counter(row["changed"].values())
        changed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(
            f"| {row['package']} {row['version']}: {row['what']} | {changed} | {first:.4f} to "
            f"{last:.4f} | {row['apart']:.0e} | {faster} |"
        )
    return "\n".join(lines)


def _faster(seconds):
    return f"{seconds['torch_nn'] / seconds['fastrnn']:.2f}x"
