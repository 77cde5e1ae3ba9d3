"""The rows of a run as plain text."""

from collections import Counter

from fastrnn.kernels.gpu import verdicts


def bad(row):
    """Whether a row tells of something wrong."""
    return "failed" in row or row.get("right") is False or bool(row.get("obstacle"))


def kind(row):
    """What the row is counted as."""
    if bad(row):
        return "bad"
    if row.get("engine") == "torch":
        return "by torch's kernels"
    return next((word for word in ("undone", "skipped") if word in row), "good")


def label(row):
    """What a row is about, in a few words."""
    case = row.get("case")
    if not case:
        return row.get("what", row["section"])
    words = [
        "relu" * row["relu"],
        "packed" * case["packed"],
        "bidirectional" * (case["directions"] > 1),
        f"{case['layers']} layers" * (case["layers"] > 1),
        "projected" * bool(case["projection"]),
        case["cell"],
        row["arithmetic"],
        f"{case['T']}x{case['B']}x{case['H']}",
        row.get("mode") or row.get("direction", ""),
        str(row.get("tile", "")),
    ]
    return " ".join(word for word in words if word)


def line(row):
    """A row as it comes; "" for what need not be said."""
    if "undone" in row:
        return ""
    if row.get("obstacle"):
        return f"FAILED no kernel of ours runs here: {row['obstacle']}"
    if "failed" in row:
        return f"FAILED {label(row)}: {row['failed']}"
    if row.get("right") is False:
        much = f"{row['error']:.1e}, {row['allowed']:.1e} allowed"
        return f"WRONG {label(row)}: {row.get('of', 'a tensor')} off by {much}"
    if "ratio" in row:
        times = f"{row['ours_us']:.2f} us, torch {row['torch_us']:.2f}"
        return f"{label(row)}: {times}, {row['ratio']:.2f}x"
    if "ours_us" in row:
        return f"{label(row)}: {row['ours_us']:.2f} us"
    if "skipped" in row:
        return f"{label(row)}: {row['skipped']}"
    if row.get("engine") == "torch":
        return f"by torch's kernels: {label(row)}: {row['why']}"
    if "proof" in row:
        _, verdict = verdicts.read(row["proof"])
        return f"{label(row)}: {verdict.serves(None)[1]}"
    return f"right: {label(row)}" if "right" in row else ""


def table(rows):
    """What is to be remembered: counts, what was wrong, and the times."""
    lines = [""]
    for section in dict.fromkeys(row["section"] for row in rows):
        mine = [row for row in rows if row["section"] == section]
        counts = Counter(map(kind, mine))
        lines.append(f"{section}: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    lines += ["", *(line(row) for row in rows if bad(row)), ""]
    timed = [row for row in rows if "ratio" in row and row["section"] == "headlines"]
    head = f"{'us a step':52}{'ours':>9}{'torch':>9}{'ratio':>8}{'floor':>7}{'kept':>7}  class"
    lines += [head] * bool(timed)
    for row in timed:
        kept = row["ours_kept"] / row["torch_kept"] if row.get("torch_kept") else None
        lines.append(
            f"{label(row):52}{row['ours_us']:9.2f}{row['torch_us']:9.2f}{row['ratio']:7.2f}x"
            f"{row['of_floor']:7.0%}" + (f"{kept:7.0%}" if kept else " " * 7) + f"  {row['class']}"
        )
    return "\n".join(lines)
