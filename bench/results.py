"""The result file: one JSON object a line, one line a measured (case, peer)."""

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


def load(path):
    """The rows of a file. Of a case measured more than once on one machine, the last counts."""
    found = {}
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            found[Case.of_row(row), row["peer"], row["cpu"], row["gpu"]] = row
        except (ValueError, TypeError, KeyError):
            print(f"{path}:{number}: not a whole row, left out", file=sys.stderr)
    return list(found.values())
