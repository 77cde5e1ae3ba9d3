"""python -m bench --cells zoo: fastrnn.zoo's layers against the same step as a loop in PyTorch.

The loop has the product with the input made at once, for all steps: a user who is in a hurry would
write that. A second loop has the step compiled by torch.compile. All compute the same outputs and
gradients, which is checked first, for the first steps. All sizes of one layer make one row of
bench/zoo.jsonl, in the place of an older one of the same machine.
"""

import argparse
import inspect
import sys
from functools import partial

import torch

from . import kinds, machine, tables, tree
from .cases import TOLERANCE
from .gate import wrong
from .options import MODES, counts, some_of

FILE = machine.ROOT / "bench" / "zoo.jsonl"
SIZES = ((100, 16, 128), (300, 1, 128))  # T, B, H
PEERS = ("loop", "compiled")
CHECKED = 20  # first steps; layer norm makes a rounding error ten times as large every ten steps


def what(row):
    """What a row is about, the machine aside."""
    return row["layer"], row["mode"], row["threads"]


def layers():
    """{name in small letters: class} of the zoo."""
    from fastrnn import zoo  # only now: a user says first which fastrnn that is

    return {name.lower(): getattr(zoo, name) for name in zoo.__all__}


def row_of(name, mode, threads, seconds):
    """{size: seconds of the loop}, {size: times faster}, {size: a fault}."""
    cls = layers()[name]
    about = {"layer": cls.__name__, "mode": mode, "threads": threads}
    ratios = {peer: (peer, "ours") for peer in PEERS}
    contestants = partial(_contestants, cls, mode == "training")
    return kinds.row(about, ("loop_s", "loop"), ratios, SIZES, contestants, seconds)


def _contestants(cls, training, T, B, H):
    """({name: call}, None or what differs between their results)."""
    from fastrnn import backends
    from fastrnn.step import cell_of_module

    torch.manual_seed(0)
    layer = cls(H, H)
    if not training:
        layer.eval()
    x = torch.randn(T, B, H, requires_grad=training)
    inputs = _inputs(cls, T, B, H)

    def call(steps=T):
        torch.manual_seed(1)  # the same masks for both
        given = {name: value[:steps] for name, value in inputs.items()}
        if not training:
            with torch.no_grad():
                return [layer(x[:steps], **given)[0]]
        y, _ = layer(x[:steps], **given)
        return [y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()], allow_unused=True)]

    def loop(steps=T):
        with backends.use("reference"):
            return call(steps)

    cell = cell_of_module(layer, training, layer._edition)
    plain = cell.whole  # what the reference engine calls for each step
    quick = torch.compile(plain, dynamic=False)

    def compiled(steps=T):
        vars(cell)["whole"] = quick
        try:
            return loop(steps)
        finally:
            vars(cell)["whole"] = plain

    calls = {"ours": call, "loop": loop, "compiled": compiled}
    named = ["the output", "x's gradient", *(f"{n}'s" for n, _ in layer.named_parameters())]
    mine, faults = call(CHECKED), []
    for peer in PEERS:
        pairs = [
            t for t in zip(named, mine, calls[peer](CHECKED), strict=False) if t[2] is not None
        ]
        faults.append(wrong(*map(list, zip(*pairs, strict=True)), TOLERANCE["float32"]))
    return calls, next(filter(None, faults), None)


def _inputs(cls, T, B, I):
    """What a layer is given beside x, at random."""
    arguments = inspect.signature(cls.forward).parameters.values()
    named = [a.name for a in arguments if a.kind is a.KEYWORD_ONLY]
    if named:  # those of a forward of its own, in x's form
        return {name: torch.rand(T, B, I).round() for name in named}
    drawn = "inputs_for" in vars(cls)
    return {} if drawn else {name: torch.rand(T, B) for name in cls.signature.inputs}


def block(rows):
    """What the pages say of the zoo."""
    words = (
        "Times faster than the loop / than the loop of a compiled step; in brackets: microseconds "
        "of a step."
    )
    return kinds.by_machine(rows, "Not measured yet: `python -m bench --cells zoo`.", words, _table)


def _table(rows):
    sizes = dict.fromkeys(size for row in rows for size in row["loop"])
    columns = [(mode, n, size) for mode in MODES for n in _threads(rows) for size in sizes]
    known = {what(row): row for row in rows}
    lines = []
    for name in dict.fromkeys(row["layer"] for row in rows):
        cells = [_cell(known.get((name, mode, n)), size) for mode, n, size in columns]
        lines.append([name, *cells])
    header = [f"{mode}, {tables.threads(n)}, {size}" for mode, n, size in columns]
    return tables.table(["times faster", *header], lines)


def _threads(rows):
    return sorted({row["threads"] for row in rows})


def _cell(row, size):
    if row is None or size not in row["loop"]:
        return ""
    step = row["loop_s"][size] / row["loop"][size] / int(size.partition("x")[0])
    return f"{' / '.join(f'{row[peer][size]:.1f}x' for peer in PEERS)} ({step * 1e6:.1f})"


def main(argv=None):
    """The exit status: 0, 1 where something was wrong, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    p = argparse.ArgumentParser(prog="python -m bench --cells zoo", description=__doc__)
    p.add_argument("--cells", help=argparse.SUPPRESS)
    known = list(layers())
    p.add_argument("--layers", type=some_of(known), default=known, metavar="NAME[,..]")
    p.add_argument("--modes", type=some_of(MODES), default=MODES, metavar="MODE[,MODE]")
    p.add_argument("--threads", type=counts, default=[1], metavar="N[,N]", help="default: 1")
    p.add_argument("--seconds", type=float, default=0.3, help="of each size; default: 0.3")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/zoo.jsonl")
    args = p.parse_args(argv)
    command = " ".join(["python -m bench", *(argv or ["--cells zoo"])])
    wanted = [(n, m, t) for n in args.layers for t in args.threads for m in args.modes]
    measure = partial(row_of, seconds=args.seconds)
    return kinds.run(wanted, measure, what, PEERS, args.out, command)


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
