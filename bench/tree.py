"""Another checkout's fastrnn, without installing it."""

import sys
from importlib.util import spec_from_file_location
from pathlib import Path


class _Finder:
    """Finds the two packages where setup.py's package_dir says they are."""

    def __init__(self, tree):
        self.folders = {"fastrnn": Path(tree, "fastrnn"), "fastrnn.kernels": Path(tree, "kernels")}

    def find_spec(self, name, path=None, target=None):
        folder = self.folders.get(name)
        return folder and spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def use(tree):
    """From here on ``import fastrnn`` means the one in ``tree``, whatever is installed."""
    if "fastrnn" in sys.modules:
        raise RuntimeError("fastrnn is imported already")
    sys.meta_path.insert(0, _Finder(tree))
