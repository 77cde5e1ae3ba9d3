"""What is to happen as soon as a module is loaded, by whom and whenever that may be.

So parts of torch that take long to load, and that few need, are loaded by those who need them.
"""

import sys


def when_loaded(name, act):
    """Call ``act`` with the module of that name: now, or when it has been loaded."""
    if name in sys.modules:
        act(sys.modules[name])
    else:
        WATCH.awaited.setdefault(name, []).append(act)


class _Watch:
    """A finder of modules that finds none itself, but waits for some."""

    def __init__(self):
        self.awaited = {}  # name: what to call with the module

    def find_spec(self, name, path=None, target=None):
        acts = self.awaited.pop(name, None)
        if acts is None:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                for act in acts:
                    act(module)

            spec.loader.exec_module = exec_module
        return spec


WATCH = _Watch()
sys.meta_path.insert(0, WATCH)
