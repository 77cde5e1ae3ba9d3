"""A team of Python threads that each run one compiled, GIL-free function for a whole sequence.

One call at a time has the team; a call that finds it busy works alone. The compiled function ends
with its members' own synchronisation, so nobody waits for a thread to come back to Python.
"""

import os
import threading
from contextlib import contextmanager
from queue import SimpleQueue


class Team:
    def __init__(self):
        self.busy = threading.Lock()
        self.inboxes = []

    @contextmanager
    def members(self, wanted):
        """How many threads, up to ``wanted``, the caller may use, itself included."""
        if wanted <= 1 or not self.busy.acquire(blocking=False):
            yield 1
            return
        try:
            while len(self.inboxes) < wanted - 1:
                self._hire()
            yield wanted
        finally:
            self.busy.release()

    def run(self, size, function, *arguments):
        """function(*arguments, rank) for every rank below ``size``; rank 0 is the caller."""
        for rank in range(1, size):
            self.inboxes[rank - 1].put((function, (*arguments, rank)))
        function(*arguments, 0)

    def _hire(self):
        inbox = SimpleQueue()
        thread = threading.Thread(target=_work, args=(inbox,), name="fastrnn", daemon=True)
        thread.start()
        self.inboxes.append(inbox)


def _work(inbox):
    while True:
        function, arguments = inbox.get()
        function(*arguments)


TEAM = Team()
# threads do not survive a fork, and the lock may have been held: the child starts with a new team
os.register_at_fork(after_in_child=TEAM.__init__)
