"""Modules that are to be seen to as soon as they are loaded, and that nobody need load for it."""

import sys
from importlib.machinery import PathFinder


def when_loaded(name, patch):
    """Call ``patch`` with the module ``name``: now if it is loaded, else once it is."""
    if name in sys.modules:
        patch(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watch(name, patch))


class _Watch:
    """A finder of modules that waits for one of them, and has it patched once it is loaded."""

    def __init__(self, name, patch):
        self.name, self.patch = name, patch

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                self.patch(module)

            spec.loader.exec_module = exec_module
        return spec
