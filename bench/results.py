"""Result files: one JSON object a line, one line for each thing measured on each machine.

python -m bench.results NEW FILE   put the rows of NEW into FILE, in the place of older ones

Of what was measured more than once on one machine the last row counts, and only that one is kept.
Rows of other machines stay as they are.
"""

import argparse
import json
import sys
from pathlib import Path

from .cases import Case


class Sink:
    """Appends rows to a file, each at once, so that what is finished survives whatever follows."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a+", encoding="utf-8")
        if self.file.tell() and not self.path.read_text(encoding="utf-8").endswith("\n"):
            self.file.write("\n")  # behind a line that was cut off

    def write(self, row):
        row = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()

    def close(self):
        self.file.close()


def what(row):
    """What a row of ``python -m bench`` is about, the machine aside."""
    return Case.of_row(row), row["peer"]


def load(path, what=what):
    """The rows of a file. Of those with the same ``what(row)`` and machine the last counts."""
    found = {}
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            found[what(row), row["cpu"], row["gpu"]] = row
        except (ValueError, TypeError, KeyError):
            print(f"{path}:{number}: not a whole row, left out", file=sys.stderr)
    return list(found.values())


def committed(name, what=what):
    """The rows of the file ``name`` beside this one; none where nobody has measured it yet."""
    path = Path(__file__).with_name(name)
    return load(path, what) if path.exists() else []


def add(path, rows, what=what):
    """Put ``rows`` into the file at ``path``, which need not exist yet, in place of older ones."""
    sink = Sink(path)
    for row in rows:
        sink.write(row)
    sink.close()
    kept = load(path, what)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    Path(path).write_text(text, encoding="utf-8")


def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m bench.results",
        description="Put what python -m bench has measured anew into a committed file: it takes "
        "the place of the same cases on the same machine; all other rows stay.",
    )
    p.add_argument("new", type=Path, metavar="NEW", help="such as bench.jsonl")
    p.add_argument("file", type=Path, metavar="FILE", help="such as bench/results.jsonl")
    args = p.parse_args(argv)
    try:
        add(args.file, load(args.new))
    except OSError as error:
        p.error(f"{error.filename}: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
