"""The pages for people: their programs run, their links and their commands lead somewhere."""

import re

import pytest

from bench.machine import ROOT

PAGES = [*sorted(p.name for p in ROOT.glob("*.md")), "bench/RESULTS.md"]
PAGES += sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES)


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def test_all_pages_are_looked_at():
    assert {"README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/limits.md"} <= set(PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in text(page)])
def test_programs_run(page, capsys):
    for program in re.findall(r"```python\n(.*?)```", text(page), re.DOTALL):
        exec(compile(program, page, "exec"), {})
    if page == "README.md":
        assert "1 of 1 recurrent modules changed" in capsys.readouterr().out


@EVERY_PAGE
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


@EVERY_PAGE
def test_commands_are_there(page):
    """Each ``python -m`` that a page names is a module of this repository or of Python's."""
    known = {"pytest", "venv", "fastrnn"}
    for name in set(re.findall(r"python3? -m ([\w.]+)", text(page))) - known:
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_two_commands_are_marked(name):
    """As .ci/run reads them."""
    (command,) = re.findall(rf"<!-- command: {name} -->\n```\n(.*)\n```", text("README.md"))
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install torch==2.13.0 -e ")


@EVERY_PAGE
def test_files_that_are_named_exist(page):
    for name in re.findall(
        r"^((?:fastrnn|kernels|tests|bench)/[\w/.]*)  ", text(page), re.MULTILINE
    ):
        assert (ROOT / name).exists(), name
