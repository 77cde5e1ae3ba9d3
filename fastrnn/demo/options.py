"""The command's options: what they are, and one clear line for each that cannot be."""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch

from .text import MOST, Corpus, built_in

HIGHEST_RATE = 0.03  # above it training does not settle, and rounding alone parts any two runs
DESCRIPTION = """\
Shows what fastrnn does on this machine:

  1. which engine serves which tensors here, and why;
  2. a check of every output and gradient of LSTM, GRU and RNN against torch.nn;
  3. a character language model, trained from one seed with torch.nn and with
     fastrnn, step by step in turn: both losses, both speeds;
  4. the model trained with torch.nn, switched to fastrnn in one line.

The first run takes longest, since each kind of layer is compiled for this CPU
when it is first used; stderr says so each time. Later runs find the code on
disk and start at once. What takes the rest of the time is training: fewer
--steps make it shorter.
"""
EXAMPLES = """\
examples:
  python -m fastrnn                             everything, with a GRU
  python -m fastrnn --layer lstm --plot a.png   an LSTM, and its loss curves as a picture
  python -m fastrnn --text book.txt --steps 2000 --hidden 512
  python -m fastrnn --only check                the check alone

exit status: 0 if fastrnn agreed with torch.nn, 1 if it did not, 2 for a bad option.
"""


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Lines as written above, and the default of each option."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse would print before it."""
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parse(arguments):
    """The options; ``corpus`` among them is the text, read. SystemExit(2) if something is wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    options.dtype = getattr(torch, options.dtype)
    try:
        text = built_in() if options.text is None else _read(options.text)
        options.corpus = Corpus(text, options.batch, options.length)
    except (OSError, ImportError, ValueError) as error:
        name = "the built-in text" if options.text is None else options.text
        parser.error(f"argument --text: {name}: {_reason(error)}")
    if options.plot:
        try_plot(parser, options.plot)
    return options


def _parser():
    parser = Parser(
        prog="python -m fastrnn",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--layer", choices=["lstm", "gru", "rnn"], default="gru", help="its kind")
    number(model, "--hidden", 1, 2048, 256, "units in a layer")
    number(model, "--layers", 1, 4, 1, "layers on top of each other")
    model.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        default="float32",
        help="of all numbers",
    )
    job = parser.add_argument_group("the training job")
    job.add_argument(
        "--text",
        metavar="FILE",
        help=f"UTF-8 text to learn, the first {MOST // 10**6} million characters of it "
        "(default: the help texts that come with Python)",
    )
    number(job, "--batch", 1, 512, 32, "stretches of the text read side by side")
    number(job, "--length", 1, 1024, 64, "characters of each in a step")
    number(job, "--steps", 1, 1_000_000, 200, "optimiser steps")
    job.add_argument("--lr", metavar="X", type=_rate, default=3e-3, help="learning rate of Adam")
    number(job, "--seed", 0, 2**63 - 1, 0, "what the first weights are drawn with")
    command = parser.add_argument_group("the command")
    number(command, "--threads", 1, 1024, 1, "CPU threads; with 1 a busy machine disturbs least")
    command.add_argument("--only", choices=["check", "training"], help="do one part only")
    command.add_argument("--plot", metavar="FILE", type=Path, help="draw the losses to a PNG file")
    return parser


def number(group, name, low, high, default, help):
    """An option that is a whole number from low to high."""

    def convert(text):
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return number

    group.add_argument(name, metavar="N", type=convert, default=default, help=help)


def _rate(text):
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to {HIGHEST_RATE}")
    return rate


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read(MOST)


def _reason(error):
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    if isinstance(error, OSError):
        return error.strerror
    return str(error)


def try_plot(parser, path):
    """What can be known to fail is better said now than after the training."""
    if find_spec("matplotlib") is None:
        parser.error("argument --plot: needs matplotlib, which is not installed")
    try:
        path.open("ab").close()
    except OSError as error:
        parser.error(f"argument --plot: {path}: {error.strerror}")
