"""python -m bench.ragged: sequences of several lengths, and with resets, against the ways around.

Lengths are uniform in 1..T; of the resets one step in 32 has one. Against lengths= stand the same
batch packed by hand, ours and torch.nn's, and all steps of it as if every sequence were T long.
Outputs and gradients are those of torch.nn, which is checked first. A row of bench/ragged.jsonl for
each layer, mode and number of threads takes the place of an older one of the same machine.
"""

import argparse
import sys
from functools import partial

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from . import kinds, machine, tables, tree
from .cases import TOLERANCE
from .gate import wrong
from .options import MODES, counts, some_of

FILE = machine.ROOT / "bench" / "ragged.jsonl"
LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
SIZES = ((128, 8, 128), (100, 32, 256), (100, 64, 512), (1000, 16, 64))  # T, B, H
# Whose time ours is measured against; of dense, the fraction of it.
PEERS = ("torch packed", "packed", "dense", "resets")


def what(row):
    """What a row is about, the machine aside."""
    return row["layer"], row["mode"], row["threads"]


def row_of(name, mode, threads, seconds):
    """{peer: {size: its time by ours}}, {size: seconds of ours}, {size: a fault}."""
    name = LAYERS[name]
    about = {"layer": name, "mode": mode, "threads": threads}
    ratios = {peer: (peer, "lengths") for peer in PEERS} | {"resets": ("dense", "resets")}
    contestants = partial(_contestants, name, mode == "training")
    return kinds.row(about, ("ours_s", "lengths"), ratios, SIZES, contestants, seconds)


def _contestants(name, training, T, B, H):
    """({name: call}, None or what differs from torch.nn)."""
    import fastrnn  # only now: a user says first which fastrnn that is

    torch.manual_seed(0)
    theirs = getattr(nn, name)(H, H)
    ours = getattr(fastrnn, name)(H, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, H, requires_grad=training)
    lengths, resets = torch.randint(1, T + 1, (B,)), torch.rand(T, B) < 1 / 32

    def packed(layer, x):
        rows = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(rows)[0], total_length=T)[0]

    def run(function, layer):
        if not training:
            with torch.no_grad():
                return [function(layer, x)]
        y = function(layer, x)
        return [y, *torch.autograd.grad(y.sum(), [x, *layer.parameters()])]

    calls = {
        "lengths": partial(run, lambda layer, x: layer(x, lengths=lengths)[0], ours),
        "torch packed": partial(run, packed, theirs),
        "packed": partial(run, packed, ours),
        "dense": partial(run, lambda layer, x: layer(x)[0], ours),
        "resets": partial(run, lambda layer, x: layer(x, resets=resets)[0], ours),
    }
    named = ["the output", "x's gradient", *(f"{n}'s" for n, _ in ours.named_parameters())]
    mine, right = calls["lengths"](), calls["torch packed"]()
    return calls, wrong(named[: len(mine)], mine, right, TOLERANCE["float32"])


def block(rows):
    """What the pages say of them."""
    words = (
        "Times faster than torch.nn / than ours, both with the same batch packed by hand; in "
        "brackets, the fraction of the time of as many full sequences. Last: with resets, times "
        "faster than without."
    )
    return kinds.by_machine(rows, "Not measured yet: `python -m bench.ragged`.", words, _table)


def _table(rows):
    sizes = dict.fromkeys(size for row in rows for size in row["dense"])
    lines = []
    for row in rows:
        cells = [_cell(row, size) for size in sizes]
        lines.append([f"{row['layer']} {row['mode']}, {tables.threads(row['threads'])}", *cells])
    return tables.table(["T x B x H", *sizes], lines)


def _cell(row, size):
    if size not in row["dense"]:
        return ""
    packed = " / ".join(f"{row[peer][size]:.2f}x" for peer in PEERS[:2])
    return f"{packed} ({1 / row['dense'][size]:.2f}), {row['resets'][size]:.2f}x"


def main(argv=None):
    """The exit status: 0, 1 where something was wrong, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    p = argparse.ArgumentParser(prog="python -m bench.ragged", description=__doc__)
    p.add_argument("--layers", type=some_of(LAYERS), default=[*LAYERS], metavar="NAME[,..]")
    p.add_argument("--modes", type=some_of(MODES), default=MODES, metavar="MODE[,MODE]")
    p.add_argument("--threads", type=counts, default=[1], metavar="N[,N]", help="default: 1")
    p.add_argument("--seconds", type=float, default=1.0, help="of each size; default: 1")
    p.add_argument("--out", default=FILE, metavar="FILE", help="default: bench/ragged.jsonl")
    args = p.parse_args(argv)
    wanted = [(n, m, t) for n in args.layers for t in args.threads for m in args.modes]
    command = " ".join(["python -m bench.ragged", *argv])
    measure = partial(row_of, seconds=args.seconds)
    return kinds.run(wanted, measure, what, PEERS, args.out, command)


if __name__ == "__main__":
    tree.use(machine.ROOT)  # this checkout's, whichever is installed
    sys.exit(main())
