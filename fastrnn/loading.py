"""What is to happen as soon as a module is loaded, by whom and whenever that may be.

So parts of torch that take long to load, and that few need, are loaded by those who need them.
"""

import sys


def when_loaded(name, act):
    """Call ``act`` with the module of that name: now, or when it has been loaded."""
    if name in sys.modules:
        act(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watch(name, act))


class _Watch:
    """A finder of modules that waits for one of them."""

    def __init__(self, awaited, act):
        self.awaited, self.act = awaited, act

    def find_spec(self, name, path=None, target=None):
        if name != self.awaited:
            return None
        sys.meta_path.remove(self)
        # of those that are left, among which another may wait for the same module
        found = (finder.find_spec(name, path, target) for finder in list(sys.meta_path))
        spec = next(filter(None, found), None)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                self.act(module)

            spec.loader.exec_module = exec_module
        return spec
