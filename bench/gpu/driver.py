"""Runs the plan in a process of its own, within the time; what hangs there is killed and noted."""

import time
from collections import Counter
from pathlib import Path

from fastrnn.gpu.process import Worker

from . import prepare

MANY = 2  # items of a family that may be killed before the rest of it is left out


class Run:
    """The plan under way. ``note(row)`` is called with each row."""

    def __init__(self, sections, seconds, note, log):
        self.sections, self.note, self.log = sections, note, log
        self.start = time.monotonic()
        self.seconds, self.end = seconds, self.start + seconds
        self.killed, self.worker, self.ceilings = Counter(), None, {}
        self.compilers, self.uncompiled = None, 0

    def all(self):
        """Each section within its share; then, while there is time, what was left undone."""
        rest = []
        try:
            for section in self.sections:
                end = min(self.end, time.monotonic() + section.share * self.seconds)
                rest.append((section, self._some(section, section.items, end)))
                self._tell_uncompiled()
            for section, items in rest:
                for item in self._some(section, items, self.end):
                    self.note(item | {"section": section.name, "undone": "no time was left"})
            self._tell_uncompiled()
        finally:
            if self.compilers:
                self.compilers.stop()
            if self.worker:
                self.worker.stop()

    def _tell_uncompiled(self):
        """A row if more calls were not compiled beforehand than is known: items wait for them."""
        failed = self.compilers.failed() if self.compilers else []
        if len(failed) > self.uncompiled:
            self.uncompiled = len(failed)
            said = f"{len(failed)} calls were not; the first: {failed[0]}"
            self.note({"what": "compiling beforehand", "section": "environment", "failed": said})

    def _some(self, section, items, end):
        """Does items until ``end``; returns those not begun."""
        for number, item in enumerate(items):
            left = end - time.monotonic()
            if left <= 0:
                return items[number:]
            if self.killed[_family(section, item)] >= MANY:
                self.note(item | {"section": section.name, "undone": "others like it were killed"})
                continue
            self._one(section, item)
        return []

    def _one(self, section, item):
        worker = self._worker()
        start = time.monotonic()
        for row in worker.rows(section.run, item, section.limit, self.end):
            if "copy_bytes" in row:
                self.ceilings = row
                failures = Path(self.log).with_name("uncompiled.txt")
                self.compilers = prepare.Compilers(self.sections, self.device, failures)
            if "shared_total" in row:
                self.device = prepare.device_of(row)
            if row.get("killed") and time.monotonic() >= self.end:
                row = item | {"undone": "the time was up"}
            self.killed[_family(section, item)] += row.get("killed", False)
            row = row | {"section": section.name, "took_s": time.monotonic() - start}
            self.note(row)

    def _worker(self):
        """The running process, or a new one where the last has ended."""
        if not (self.worker and self.worker.process):
            environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FASTRNN_GPU": "force"}
            self.worker = Worker(environment, "bench.gpu.worker:serve", [self.log])
            if self.ceilings:
                name = "bench.gpu.worker:ceilings_are"
                list(self.worker.rows(name, self.ceilings, 5, self.end))
        return self.worker


def _family(section, item):
    case = item.get("case", {})
    return section.run, case.get("cell"), item.get("arithmetic"), item.get("what")
