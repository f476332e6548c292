"""Structure of the package: sizes of modules and functions, places of compilation and files, links of the pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "jbid"
FILES = sorted(PACKAGE.rglob("*.py"))
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
# modules that are pure, so that they can be compiled and tested without a machine around them
PURE = ("ops", "nets", "engine", "methods", "losses.py", "types.py", "deconvolution", "kernel_estimation")


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_modules_and_functions_are_short(path):
    source = path.read_text()
    assert source.count("\n") <= 300
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.end_lineno - f.lineno + 1 > 60]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_compilation_files_and_prints_have_their_places(path):
    source = path.read_text()
    if name(path) != "runtime/compile.py":
        assert "jax.jit(" not in source, "compile with jbid.runtime.compile.jit"
    if name(path).startswith(PURE) and name(path) != "engine/checkpoint.py":
        for word in ("print(", "os.environ", " open("):
            is_file_access = word in source and not name(path).startswith("methods/explore/transfer")
            assert not is_file_access, word


@pytest.mark.parametrize("path", FILES, ids=name)
def test_networks_are_defined_in_one_place(path):
    is_flax = re.search(r"^(import|from) flax", path.read_text(), re.MULTILINE)
    assert not is_flax or name(path).startswith("nets/") or name(path) == "engine/generators.py"


def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_resolve(page):
    """In the repository; `make docs` checks those of the site."""
    source = ROOT / page
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", source.read_text()):
        assert "://" not in link, f"{page}: {link} cannot be checked without a network"
        path, _, anchor = link.partition("#")
        target = source.parent / path if path else source
        # the site has the notebooks beside its pages
        if path.endswith(".ipynb"):
            target = ROOT / "notebooks" / Path(path).name
        assert target.exists(), f"{page}: {link}"
        assert not anchor or target.suffix != ".md" or anchor in headings(target), f"{page}: {link}"
