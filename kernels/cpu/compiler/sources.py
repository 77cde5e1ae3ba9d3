"""What modules say, as bytes to tell one version of them from another."""

import marshal
import pkgutil
import sys
from importlib.util import find_spec


def of_code(code):
    """The bytes of a code object, the same in every process."""
    return marshal.dumps(code, 2)  # later formats depend on how often a constant is referred to


def of_packages(packages):
    """The bytes of all modules of these packages.

    None if there is one of which nothing can be known, as in an executable that was compiled.
    """
    parts = []
    for package in packages:
        prefix = package + "."
        names = {
            prefix + module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)
        }
        if not {name for name in sys.modules if name.startswith(prefix)} <= names:
            return None
        parts += map(of_module, sorted(names))
    return None if None in parts else b"".join(parts)


def of_module(name):
    """The bytes of the file that a module is loaded from, else its code; None without either."""
    spec = find_spec(name)
    try:
        return spec.loader.get_data(spec.origin)
    except (AttributeError, OSError):  # frozen: there is no file, or none by that name
        pass
    try:
        code = spec.loader.get_code(name)
    except (AttributeError, ImportError):
        return None
    return None if code is None else of_code(code)
