"""A GPU that is not there: its facts, a key of it, and a worker that says what it is told."""

import pytest

from fastrnn.kernels import private
from fastrnn.kernels.gpu import verdicts
from fastrnn.kernels.gpu.kept import Table
from fastrnn.kernels.gpu.verdicts import Timed, Verdict

FACTS = {
    "gpu": "NVIDIA H200", "capability": [9, 0], "arch": 90, "processors": 132, "shared": 232448,
    "shared_total": 233472, "driver": "12080", "torch": "2.11.0", "cuda": "12.8", "cudnn": 91002,
    "triton": "3.7.1", "kernels": "0123456789abcdef",
}  # fmt: skip
KEY = verdicts.Key("lstm", "bfloat16", 512, 1, False, True, (16, 16, 512, 4, 0), (128, 16, 8), 64)
ITEM = {"cell": "lstm", "device": 0}


def speed(few=2.0, many=2.0, won=1.0):
    """Races that ours wins by these factors, at 32 and 256 steps of a microsecond."""
    return Timed(32, 32e-6, few * 32e-6, won), Timed(256, 256e-6, many * 256e-6, won)


def right(few=2.0, many=2.0, won=1.0):
    return Verdict(True, "", speed(few, many, won), "2026-01-02")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Worker:
    """In the place of a process.Worker: gives ``rows``, and takes ``seconds`` by the clock.

    A row that is an exception is raised, one that is a function is called, and one that is a
    number is waited for.
    """

    def __init__(self, *rows, clock=None, seconds=1.0):
        self.told, self.clock, self.seconds = rows, clock or Clock(), seconds
        self.asked, self.stopped = [], 0

    def __call__(self, index):
        self.index = index
        return self

    def rows(self, name, item, limit, latest=None, phases=None):
        self.asked.append((name, item, limit, latest, phases))
        self.clock.now += self.seconds
        for row in self.told:
            if isinstance(row, BaseException):
                raise row
            row = row() if callable(row) else row
            if isinstance(row, float):
                self.clock.now += row
            elif row is not None:
                yield row

    def stop(self):
        self.stopped += 1


PHASES = {"phase": "compiling"}, {"phase": "proving"}, {"phase": "timing"}


def found(verdict=None, key=KEY, **options):
    """A Worker whose trial comes to a verdict."""
    return Worker(*PHASES, verdicts.written(key, verdict or right()), **options)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """That of a GPU of which nothing is known."""
    from fastrnn.kernels.gpu import choice

    table = Table.of(FACTS, True, root=tmp_path, shipped=tmp_path / "none")
    monkeypatch.setattr(choice, "obstacle", lambda device_type: None)
    monkeypatch.setattr(choice, "table", lambda device: table)
    monkeypatch.delenv("FASTRNN_GPU", raising=False)
    monkeypatch.setenv("COLUMNS", "200")  # of the table
    choice.mode.cache_clear()
    private.say.cache_clear()
    return table


class Tries(Worker):
    """Finds what ``judge`` says of a key."""

    def __init__(self, judge=lambda key: right()):
        super().__init__()
        self.judge = judge

    def rows(self, name, item, limit, latest=None, phases=None):
        key = verdicts.key_of(item["key"])
        self.asked.append(key)
        found = self.judge(key)
        if isinstance(found, verdicts.Verdict):
            found = verdicts.written(key, found)
        yield from (*PHASES[:2], found)
