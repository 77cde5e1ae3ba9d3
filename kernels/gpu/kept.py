"""Where verdicts are kept: <cache>/gpu/<digest of the facts>/<key>.json, a file for each.

So two processes that write never undo each other's work. A file that is torn or another's is as
good as none. While kernels are tried there is <key>.running beside it, which says who tries: if
that process is gone, a trial has killed it, and is not repeated by itself.

FASTRNN_GPU_VERDICTS names a table instead: all machines that have it then decide alike, and nothing
is tried.
"""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

from .. import private
from . import verdicts
from .verdicts import DIED, Verdict

SHIPPED = Path(__file__).with_name("verdicts.json")
LATE = 300  # seconds after which no trial can be under way any more
BAD = "FASTRNN_GPU_VERDICTS: {} cannot be read: {}"


class Table:
    """The verdicts on one GPU, as this process has them: read once, and then only added to.

    known: {Key: Verdict}; None for what is torch's in this process, as there was no verdict when a
    call wanted one. decided, traced: what choice.py has made of them, for calls and for traces.
    folder: where they are kept, None if they are not. tries: whether calls may have kernels tried.
    """

    def __init__(self, facts, known=(), folder=None, tries=False):
        self.facts, self.known, self.folder, self.tries = facts, dict(known), folder, tries
        self.decided, self.traced = {}, {}

    @classmethod
    def of(cls, facts, tries, pinned=None, root=None, shipped=SHIPPED):
        """pinned: the file of FASTRNN_GPU_VERDICTS, if that is set; root: of the cache, if any.

        Raises ValueError for a pinned file that cannot be read.
        """
        if pinned:
            known = _of_file(Path(pinned), facts)
            if not known:
                private.say(f"FASTRNN_GPU_VERDICTS: {pinned} has nothing of this GPU and software")
            return cls(facts, known)
        if facts["kernels"] is None:  # nobody could tell one version of them from another
            return cls(facts, tries=tries)
        known = _of_file(shipped, facts) if shipped.exists() else {}
        folder = root and root / "gpu" / verdicts.digest(facts)
        return cls(facts, known | (_of_folder(folder) if folder else {}), folder, tries)

    def add(self, key, verdict):
        """Hold a verdict, and keep it where that can be done; None holds for this process.

        What is held already stays: the next process takes what is kept.
        """
        self.known.setdefault(key, verdict)
        if verdict is not None and self.folder:
            text = json.dumps(verdicts.written(key, verdict) | {"made_on": self.facts})
            with _told(self.folder):
                private.write(self.folder, f"{key.name}.json", text.encode())

    def begin(self, key):
        """Leave word that kernels are being tried."""
        if self.folder:
            mine = {"pid": os.getpid(), "boot": here(), "time": time.time()}
            text = json.dumps(mine | {"key": key._asdict()})
            with _told(self.folder):
                private.write(self.folder, f"{key.name}.running", text.encode())

    def end(self, key):
        if self.folder:
            with _told(self.folder):
                private.remove(self.folder, f"{key.name}.running")

    def others_try(self, key):
        """Whether another process is at it."""
        try:
            found = _mark(self.folder, f"{key.name}.running") if self.folder else None
        except OSError:
            return False  # which is said when it is written to
        return found is not None and not _stale(found)

    def forget(self):
        """Remove all files. Returns how many there were."""
        names = _names(self.folder) if self.folder else []
        for name in names:
            private.remove(self.folder, name)
        for found in (self.known, self.decided, self.traced):
            found.clear()
        return len(names)


def here():
    """This run of this machine, and the space in which its processes have numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


@contextmanager
def _told(folder):
    """Files that cannot be read or written are told of, once: no more comes of it."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        private.say(f"warning: verdicts on this GPU are not kept in {folder}: {why}")


def _of_file(path, facts):
    try:
        return verdicts.of_table(path.read_text(encoding="utf-8"), facts)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(BAD.format(path, error)) from error


def _names(folder):
    try:
        return private.names(folder)
    except FileNotFoundError:
        return []


def _of_folder(folder):
    """What is kept there; what cannot be read is left out."""
    found, names = {}, []
    with _told(folder):
        names = _names(folder)
    for name in sorted(names, key=lambda name: name.endswith(".json")):  # which count for more
        with _told(folder):
            if entry := _entry(folder, name):
                found |= entry
    return found


def _entry(folder, name):
    """{Key: Verdict} of a file, None where it says nothing."""
    if name.endswith(".running"):
        found = _mark(folder, name)
        if found is None or not _stale(found):
            return None
        date = time.strftime("%Y-%m-%d", time.gmtime(found["time"]))
        entry = found | {"verdict": Verdict(False, DIED, (), date)._asdict()}
    elif name.endswith(".json"):
        entry = _parsed(folder, name)
    else:
        return None
    try:
        key, verdict = verdicts.read(entry)
    except ValueError:
        return None
    return {key: verdict} if name.startswith(f"{key.name}.") else None


def _parsed(folder, name):
    try:
        found = json.loads(private.read(folder, name))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _mark(folder, name):
    """What a .running file says, None if nothing."""
    try:
        found = _parsed(folder, name)
    except FileNotFoundError:
        return None
    numbers = [type(found.get(name)) in (int, float) for name in ("pid", "time")]
    return found if all(numbers) else None


def _stale(mark):
    """Whether who has left it is gone."""
    if abs(time.time() - mark["time"]) > LATE:
        return True
    if mark.get("boot") != here():
        return False  # another machine, or another container
    try:
        os.kill(int(mark["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
