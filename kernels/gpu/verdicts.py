"""Verdicts: of which calls the GPU engine was proven right, and how fast it was beside torch.

A verdict belongs to a GPU with its software (facts, as choice.py finds them), and there to a Key.
All here are plain values, and functions of them; the files that they are kept in are kept.py's.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

GAIN = 1.05  # times faster than torch, at least, for ours to serve
SHARE = 0.8  # of the rounds of a race in which that has to be so
ENDLESS = 2**14  # steps: of a trace, whose length nobody knows
MOST = 4096  # sequences; with more, a step of either takes longer in proportion
FORMAT = 1  # of the files
DIED = "the process that tried it died"
SLOW = "it took too long: "
# The facts that decide how our compiled code behaves. The others (driver, torch, CUDA, cuDNN) may
# differ between machines that share a table.
OF_CODE = ("gpu", "capability", "processors", "shared", "triton", "kernels")


class Key(NamedTuple):
    """A kind of call: what is compiled for it, and so what a proof is about."""

    cell: str  # its name, and of one that torch has not a digest of its program, too
    arithmetic: str  # float16, bfloat16, tf32, float32
    H: int  # of which a kernel is compiled anew, as it masks what is beyond
    D: int
    packed: bool
    training: bool
    forward: tuple  # tiles
    backward: tuple | None  # in training
    B: int  # a batch_class
    layers: int = 1  # of a stack: they run one after another, and torch's run side by side
    projection: int = 0  # proj_size, if there is one: torch multiplies less then, and we do not

    @property
    def name(self):
        """Of its file."""
        return sha256(json.dumps(self).encode()).hexdigest()[:24]

    @property
    def label(self):
        """In words."""
        words = ["packed" * self.packed, "bidirectional" * (self.D > 1)]
        words += [self.cell.partition(" ")[0], self.arithmetic]
        words += [f"B={self.B} H={self.H}"]
        words += [f"proj_size={self.projection}" * bool(self.projection)]
        words += [f"layers={self.layers}" * (self.layers > 1)]
        words += ["training" if self.training else "inference"]
        return " ".join(word for word in words if word)


class Timed(NamedTuple):
    """A race at one length."""

    T: int
    ours: float  # seconds of a call, the median
    torch: float
    won: float  # share of the rounds in which ours was GAIN times faster, or more


class Verdict(NamedTuple):
    right: bool
    why: str  # if it is not right
    speed: tuple  # of a right one: a Timed of few steps, and one of many
    date: str  # year-month-day

    @property
    def unseen(self):
        """Whether nobody has seen what is wrong: who asks by name has it tried anew."""
        return self.why == DIED or self.why.startswith(SLOW)

    def serves(self, T):
        """(whether ours shall serve T steps, why). T: None for any number, in a trace."""
        if not self.right:
            again = "; python -m fastrnn gpu, or fastrnn.tune, tries it anew" * self.unseen
            return False, f"no: {self.why} (tried {self.date}{again})"
        lengths = [each.T for each in self.speed] + [ENDLESS] if T is None else [T]
        ratio = min(map(self.ratio, lengths))
        told = f"{ratio:.2f}x as fast as otherwise"
        if ratio >= GAIN and all(map(self._surely, lengths)):
            return True, f"{told}, proven {self.date}"
        return False, f"right, but not surely faster: {told} (tried {self.date})"

    def ratio(self, T):
        """How many times faster ours is at T steps: either takes a + b T seconds.

        Of fewer steps than were timed nothing is known but that they are no better for us.
        """
        few, many = self.speed
        T = max(T, few.T)

        def seconds(first, last):
            return max(first + (last - first) * (T - few.T) / (many.T - few.T), 1e-9)

        return seconds(few.torch, many.torch) / seconds(few.ours, many.ours)

    def _surely(self, T):
        """Whether the races that T lies between were won often enough."""
        few, many = self.speed
        near = [many] if many.T <= T else [few] if few.T >= T else self.speed
        return all(each.won >= SHARE for each in near)


def wrong(why):
    """The Verdict, of today, on what is not right."""
    return Verdict(False, why, (), today())


def today():
    return datetime.now(UTC).date().isoformat()


def batch_class(B):
    """The power of two that stands for B sequences."""
    return min(MOST, 1 << (B - 1).bit_length())


def digest(facts):
    """Of all facts: the name of the folder of such a GPU."""
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def alike(facts, others):
    """Whether the same compiled code runs there on the same chip."""
    return all(facts.get(name) == others.get(name) for name in OF_CODE)


def written(key, verdict):
    """As JSON has it."""
    speed = [each._asdict() for each in verdict.speed]
    return {"key": key._asdict(), "verdict": verdict._asdict() | {"speed": speed}}


def key_of(fields):
    """The Key of its fields, as JSON has them."""
    tiles = {n: fields[n] and tuple(map(int, fields[n])) for n in ("forward", "backward")}
    return Key(**(fields | tiles))


def read(entry):
    """(Key, Verdict) of what ``written`` made. Raises ValueError for anything else."""
    try:
        verdict = dict(entry["verdict"])
        speed = tuple([Timed(**each) for each in verdict["speed"]])
        key, verdict = key_of(entry["key"]), Verdict(**(verdict | {"speed": speed}))
        if verdict.right is not True and verdict.right is not False:
            raise ValueError(f"right is {verdict.right!r}")
        if verdict.right:
            verdict.serves(None)  # which wants two times, of different lengths
    except (TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return key, verdict


def table(gpus):
    """The text of a table of verdicts. gpus: (facts, {Key: Verdict}) of each."""
    found = [
        {"made_on": facts, "verdicts": [written(*each) for each in known.items() if each[1]]}
        for facts, known in gpus
    ]
    text = json.dumps({"fastrnn": FORMAT, "gpus": found})
    return text.replace('{"key"', '\n{"key"').replace('{"made_on"', '\n{"made_on"') + "\n"


def of_table(text, facts):
    """{Key: Verdict} that a table's text has for GPUs like this one. Raises ValueError."""
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("fastrnn") != FORMAT:
        raise ValueError("this is no table of verdicts")
    gpus = [gpu for gpu in found["gpus"] if alike(gpu["made_on"], facts)]
    return dict([read(entry) for gpu in gpus for entry in gpu["verdicts"]])
