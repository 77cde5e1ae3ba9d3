"""A soak: threads that call layers and cells at once, forks, signals, hogs, changing thread counts.

    python -m tests.soak --minutes 5

Every result is compared to the bit with what the same call gave alone on one thread. A call that
hangs, a child that dies and a result that differs end the soak with exit status 1. The seed decides
what is drawn; what meets what in time is up to the machine.
"""

import argparse
import copy
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn

ROUND = 3  # seconds that callers work under the same conditions
PATIENCE = 120  # seconds after which a round is said to hang
COUNTS = (1, 2, 2, 2, 3, 4)  # of threads, for torch.set_num_threads
SIZES = {"T": (1, 2, 30, 60), "B": (1, 3, 20, 33), "I": (1, 8, 40), "H": (1, 17, 48, 100)}


class Wrong(Exception):
    """A result that is not what it was."""


class Interrupt(Exception):
    """What the signal handler raises."""


class Case:
    """A module with its input, and what a training step on it yields."""

    def __init__(self, draw):
        T, B, I, H = (draw.choice(sizes) for sizes in SIZES.values())
        name = draw.choice(("LSTM", "GRU", "RNN"))
        torch.manual_seed(draw.randrange(2**32))
        if draw.random() < 0.5:
            self.module, self.x = getattr(fastrnn, f"{name}Cell")(I, H), torch.randn(B, I)
        else:
            layers, both = draw.choice((1, 2)), draw.random() < 0.5
            self.module = getattr(fastrnn, name)(I, H, layers, bidirectional=both)
            self.x = torch.randn(T, B, I)
            if draw.random() < 0.3:
                lengths = sorted((draw.randint(1, T) for _ in range(B)), reverse=True)
                self.x = pack_padded_sequence(self.x, lengths)
        self.label = f"{self.module} on T {T}, B {B}"
        torch.set_num_threads(1)
        self.expected = self.step()

    def step(self):
        """The outputs, the gradients of all weights, and the outputs without grad."""
        torch.set_grad_enabled(True)  # an interrupted step may have left it off
        trained = self.outputs()
        weights = list(self.module.parameters())
        gradients = torch.autograd.grad(trained, weights, [t.cos().detach() for t in trained])
        torch.set_grad_enabled(False)
        untrained = self.outputs()
        torch.set_grad_enabled(True)
        return *(t.detach() for t in trained), *gradients, *untrained

    def outputs(self):
        found, tensors = [self.module(self.x)], []
        while found:
            value = found.pop()
            if isinstance(value, torch.Tensor):
                tensors.append(value)
            else:
                found += [part for part in value if part is not None]
        return [t for t in tensors if t.is_floating_point()]

    def check(self, threads):
        torch.set_num_threads(threads)
        found = self.step()
        for number, (value, expected) in enumerate(zip(found, self.expected, strict=True)):
            if not value.equal(expected):
                raise Wrong(f"{self.label}: result {number} on {threads} threads differs")


class Alarm:
    """A signal handler that raises, once after each time that it was armed."""

    def __init__(self):
        self.armed = False

    def __call__(self, number, frame):
        if self.armed:
            self.armed = False
            raise Interrupt

    def interrupts(self, work):
        """Whether a signal broke off ``work()``."""
        try:
            self.armed = True
            work()
            self.armed = False
            return False
        except Interrupt:
            return True
        finally:  # where work() itself raised
            self.armed = False


class Round:
    """Some seconds under one set of conditions."""

    def __init__(self, cases, draw, alarm):
        self.alarm, self.draw, self.counts = alarm, draw, Counter()
        self.wrong, self.end = [], time.monotonic() + ROUND
        self.callers, self.hogged = draw.choice((1, 2, 4)), draw.random() < 0.5
        self.forks, self.gc = draw.choice((0.0, 0.02, 0.1)), draw.choice((1, 10, 700))
        # modules of its own for each: a lock of torch's in a shared one may be held at a fork
        self.jobs = [(copy.deepcopy(cases), draw.randrange(2**32)) for _ in range(self.callers)]

    def run(self):
        gc.set_threshold(self.gc)
        first, *others = self.jobs
        threads = [threading.Thread(target=self.calls, args=job) for job in others]
        threads.append(threading.Thread(target=self.signals))
        with hogs(self.hogged):
            for thread in threads:
                thread.start()
            self.calls(*first, interrupted=True)
            for thread in threads:
                thread.join()

    def signals(self):
        """SIGINT to the process, now and then."""
        while time.monotonic() < self.end:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(random.expovariate(100))

    def calls(self, cases, seed, interrupted=False):
        draw = random.Random(seed)
        while time.monotonic() < self.end and not self.wrong:
            case, threads, fork = draw.choice(cases), draw.choice(COUNTS), draw.random()
            try:
                if fork < self.forks:
                    self.fork(cases, draw)
                elif not interrupted:
                    case.check(threads)
                elif self.alarm.interrupts(lambda: case.check(threads)):  # noqa: B023
                    self.counts["interrupted"] += 1
                self.counts["forks" if fork < self.forks else "calls"] += 1
                litter = [case.expected]
                litter.append(litter)  # for the garbage collector
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    def fork(self, cases, draw):
        """A child that calls a few cases while an alarm clock rings."""
        jobs = [(draw.choice(cases), draw.choice(COUNTS)) for _ in range(4)]
        child = os.fork()
        if not child:
            os._exit(in_child(jobs, Alarm()))  # another thread may have armed ours
        if status := ended(child):
            raise Wrong(f"a forked child ended with status {status}")


def ended(child):
    """The status with which a child ends; if it hangs, it says where before it is killed."""
    end = time.monotonic() + PATIENCE / 2
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGUSR1)
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def in_child(jobs, alarm):
    """The exit status of a forked child."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.003)
    try:
        for case, threads in jobs:
            alarm.interrupts(lambda: case.check(threads))  # noqa: B023
    except Exception as error:
        os.write(2, f"in a child: {type(error).__name__}: {error}\n".encode())
        return 1
    return 0


@contextmanager
def hogs(wanted):
    """A process on every core that only wastes time."""
    command = [sys.executable, "-c", "import os\nwhile os.getppid() == " + f"{os.getpid()}: pass"]
    count = os.cpu_count() if wanted else 0
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def soak(seconds, seed):
    """(what was wrong, a list; how often what was done)."""
    draw = random.Random(seed)
    cases = [Case(draw) for _ in range(24)]
    alarm, total, end = Alarm(), Counter(), time.monotonic() + seconds
    before, thresholds = signal.signal(signal.SIGINT, alarm), gc.get_threshold()
    faulthandler.register(signal.SIGUSR1)
    try:
        while time.monotonic() < end:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            now = Round(cases, draw, alarm)
            now.run()
            total += now.counts
            print(f"{now.callers} callers, hogs {now.hogged}: {dict(total)}", flush=True)
            if now.wrong:
                return now.wrong, total
    finally:
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR1)
        signal.signal(signal.SIGINT, before)
        gc.set_threshold(*thresholds)
    return [], total


def main():
    p = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    p.add_argument("--minutes", type=float, default=5)
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    wrong, total = soak(options.minutes * 60, options.seed)
    done = ", ".join(f"{total[what]} {what}" for what in sorted(total))
    print("\n".join(wrong) or f"nothing wrong in {done}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
