"""What the name of compiled code is made of, and what is not kept for want of a sure name."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numba
import pytest

from fastrnn.kernels.cells import CELLS
from fastrnn.kernels.cpu.compiled import machine, of_cell
from fastrnn.kernels.cpu.compiler import build, cache, sources
from fastrnn.kernels.refused import Refused


def fingerprint(cell=CELLS["gru"]):
    return build._fingerprint("label", of_cell.depends_on(cell), 8)


SETTINGS = {"OPT": 0, "SLP_VECTORIZE": 1, "BOUNDSCHECK": 1, "CPU_FEATURES": "+avx2"}


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_what_changes_code_changes_its_name(name, value, monkeypatch):
    before = fingerprint()
    monkeypatch.setattr(numba.config, name, value)
    assert fingerprint() != before


def test_what_a_cell_computes_is_part_of_it(monkeypatch):
    """Not its name, and not where its step stands."""
    gru = CELLS["gru"]
    assert fingerprint(replace(gru, name="another")) == fingerprint()

    def step(*given):
        return gru.step(*given)

    def otherwise(*given):
        (h,) = gru.step(*given)
        return (-h,)

    assert fingerprint(replace(gru, step=step)) == fingerprint()
    assert fingerprint(replace(gru, step=otherwise)) != fingerprint()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/elsewhere")
    assert fingerprint() == fingerprint(gru)


CODE = fingerprint.__code__


@pytest.mark.parametrize(
    ("loader", "known"),
    [
        (SimpleNamespace(get_code=lambda name: CODE), True),
        (SimpleNamespace(get_code=lambda name: None), False),
        (SimpleNamespace(), False),
    ],
    ids=["frozen", "frozen-without-code", "compiled"],
)
def test_modules_without_files(loader, known, monkeypatch):
    spec = SimpleNamespace(loader=loader, origin="frozen")
    monkeypatch.setattr(sources, "find_spec", lambda name: spec)
    found = sources.of_packages(machine.ROOMS)
    assert (found is not None) is known
    assert not known or sources.of_code(CODE) in found


def test_a_module_that_cannot_be_listed(monkeypatch):
    assert sources.of_packages(machine.ROOMS) == machine.SOURCES
    monkeypatch.setitem(sys.modules, f"{machine.ROOMS[0]}.unlisted", machine)
    assert sources.of_packages(machine.ROOMS) is None


def test_what_is_not_known_is_not_kept(monkeypatch):
    """In an executable that was compiled, say, nothing tells one version from another."""
    roots = []
    monkeypatch.setattr(build, "_made", {})
    monkeypatch.setattr(build, "_load", lambda root, key: None)
    monkeypatch.setattr(build, "_compile", lambda emit, root, *rest: roots.append(root))
    build.code("label", [b"known", None], 8, None)
    build.code("label", [b"known", b"too"], 8, None)
    assert roots == [None, cache.default_root()]


def test_numba_told_later_not_to_compile(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(Refused, match="NUMBA_DISABLE_JIT"):
        build.code("never compiled", [b"sources"], 8, None)
