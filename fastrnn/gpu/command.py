"""``python -m fastrnn gpu``: have kernels tried on this GPU, and see what is known of them."""

import argparse
import runpy
import sys
from itertools import product
from pathlib import Path

import torch
from rich.console import Console

from ..demo.options import Parser
from ..demo.style import FAILED, INTERRUPTED, PASSED, UNABLE
from ..kernels.cells import CELLS
from ..kernels.gpu import verdicts
from . import shown, tune
from .tune import Result

SIZES = (64, 512), (16, 256), (64, 128)
DTYPES = ("bfloat16", "float16", "float32")
DESCRIPTION = """\
Tries fastrnn's kernels on this GPU, in a process of its own: whether every
output and gradient is right, beside torch.nn in float64, and how fast each kind
of call is beside torch. What is right and faster serves from then on, in every
process of this user; all else is torch's. Without options common sizes of LSTM
and GRU are tried, and what took too long when a call wanted it.
"""
EXAMPLES = """\
examples:
  python -m fastrnn gpu                       common sizes
  python -m fastrnn gpu --sizes 32x768 --cells lstm --dtypes bfloat16
  python -m fastrnn gpu --model train.py      what the model in that file needs
  python -m fastrnn gpu --show                what is known, trying nothing
  python -m fastrnn gpu --save verdicts.json  for FASTRNN_GPU_VERDICTS on other machines

exit status: 0; 1 if a kernel was wrong, ended its process, or took too long; 2
for a bad option, or where there is no GPU.
"""


def parser():
    p = Parser(
        prog="python -m fastrnn gpu",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = p.add_argument_group("what to try")
    what.add_argument(
        "--model",
        metavar="FILE",
        type=Path,
        help="what a call needs: a Python file that defines model, and example, the tuple of its "
        "arguments; it is run",
    )
    what.add_argument(
        "--sizes", metavar="BxH", nargs="+", type=_size, help="sequences and units: 64x512"
    )
    for name, known, default in (("cells", CELLS, ["lstm", "gru"]), ("dtypes", DTYPES, DTYPES)):
        told = f"of {', '.join(known)} (default: {' '.join(default)})"
        what.add_argument(
            f"--{name}", metavar="NAME", nargs="+", choices=known, default=default, help=told
        )
    what.add_argument("--packed", action="store_true", help="packed rows, not dense batches")
    what.add_argument("--bidirectional", action="store_true", help="two directions")
    what.add_argument("--inference", action="store_true", help="no training")
    what.add_argument("--again", action="store_true", help="also what there are verdicts on")
    known = p.add_argument_group("what is known")
    known.add_argument("--show", action="store_true", help="show it, and try nothing")
    known.add_argument("--forget", action="store_true", help="forget it, and try nothing")
    known.add_argument("--save", metavar="FILE", type=Path, help="write it to a table in the end")
    return p


def _size(text):
    B, x, H = text.partition("x")
    if not (x and B.isdecimal() and H.isdecimal() and int(B) and int(H)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64x512")
    return int(B), int(H)


def main(arguments=None, device=None, worker=None):
    """Run the command. Returns the exit status; a bad option leaves by SystemExit(2).

    device: in the place of the first GPU; worker: as tune.tried takes it.
    """
    p = parser()
    options = p.parse_args(arguments)
    device = device or _first_gpu()
    if device is None:
        print("python -m fastrnn gpu: there is no GPU that torch can use here", file=sys.stderr)
        return UNABLE
    try:
        return _run(options, device, worker, Console(highlight=False))
    except KeyboardInterrupt:
        print("interrupted; what was found is kept", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError) as error:  # a file, or a variable, that cannot be
        p.error(str(error))


def _first_gpu():
    return torch.device("cuda", 0) if torch.cuda.is_available() else None


def _run(options, device, worker, console):
    from ..kernels.gpu import choice

    if why := choice.obstacle(device.type) or choice.not_of_itself(device):
        print(f"python -m fastrnn gpu: no kernel of ours serves here: {why}", file=sys.stderr)
        return UNABLE
    known, results = choice.table(device), []
    if options.forget:
        console.print(f"{known.forget()} verdicts are forgotten")
    elif options.show:
        results = [Result(key, verdict, "") for key, verdict in known.known.items()]
        shown.show(results, console)
    elif options.model:
        results = _of_model(options, console)
    else:
        wanted, refused = _wanted(options, device, known)
        for line in refused:
            console.print(line, markup=False)
        results = shown.follow(wanted, console, again=options.again, worker=worker)
    if options.save:
        options.save.write_text(verdicts.table([(known.facts, known.known)]), encoding="utf-8")
        console.print(f"\nThe verdicts on this GPU are in {options.save}", markup=False)
    wrong = any(result.verdict and not result.verdict.right for result in results)
    return FAILED if wrong and not options.show else PASSED


def _of_model(options, console):
    """The Results of what a file's model needs."""
    found = runpy.run_path(str(options.model), run_name="fastrnn_gpu_model")
    missing = [name for name in ("model", "example") if name not in found]
    if missing:
        raise ValueError(f"{options.model} does not define {' and '.join(missing)}")
    example = found["example"]
    example = example if isinstance(example, tuple) else (example,)
    return tune.tune(found["model"], *example, again=options.again, console=console)


def _wanted(options, device, known):
    """({key: (table, item)} of what the options name, a line for each that does not fit)."""
    from ..kernels.gpu import choice

    wanted, refused, D = {}, [], 1 + options.bidirectional
    modes = (False,) if options.inference else (False, True)
    sizes = options.sizes or SIZES
    for (B, H), cell, dtype, training in product(sizes, options.cells, options.dtypes, modes):
        given = getattr(torch, dtype), device, training, cell, B, H, D, options.packed
        key = choice.key_of(*given)
        if isinstance(key, str):
            refused.append(f"{cell} {dtype} {B}x{H}: torch serves: {key}")
        else:
            wanted[key] = known, {"cell": cell, "device": device.index or 0}
    if not options.sizes:
        wanted |= _unseen(device, known)
    return wanted, list(dict.fromkeys(refused))


def _unseen(device, known):
    """What the trials of calls had too little time for, or died of; other cells have a --model."""
    found = [key for key, verdict in known.known.items() if verdict and verdict.unseen]
    item = {"device": device.index or 0}
    return {key: (known, item | {"cell": key.cell}) for key in found if key.cell in CELLS}
