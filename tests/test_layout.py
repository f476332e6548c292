"""The order of the rooms: imports point one way, and compilation and I/O stay where they belong."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "jbid"
# each may import from its own level (but methods never one another) and from those before it
LEVELS = [
    {"types"},
    {"blur", "noise", "locate", "motion", "metrics", "score", "nets", "losses"},
    {"prior", "transforms", "finish", "weights"},
    {"operators", "manifold"},
    {"start"},
    {"methods"},
    {"checkpoint", "run", "scale"},
    {"auto", "tiles", "encoder"},
    {"images", "allocator", "data", "settings"},
    {"pretrain", "transfer"},
    {"deblur", "demo", "cli", "bench", "__main__"},
]
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if name in names)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = level(room(path))
    for name in imports(path):
        parts = name.split(".")
        if (
            parts[0] == "jbid"
            and len(parts) > 1
            and (ROOT / parts[1]).with_suffix(".py").exists() | (ROOT / parts[1]).is_dir()
        ):
            assert level(parts[1]) <= here, f"{path.name} imports {name}"
        if parts[0] == "flax":
            assert room(path) in ("nets", "cli"), "flax is confined to jbid/nets (cli reads its version)"
    if here < level("checkpoint"):
        source = path.read_text()
        for word in ("jax.jit(", "print(", "os.environ", "open("):
            assert word not in source, f"{word} below run"


def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{p.name}" for p in (ROOT.parent / "docs").glob("*.md"))])
def test_links_of_the_pages_lead_somewhere(page):
    """In the repository; `make docs` checks those of the site."""
    source = ROOT.parent / page
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", source.read_text()):
        assert "://" not in link, f"{page}: {link} cannot be checked without a network"
        name, _, anchor = link.partition("#")
        target = source.parent / name if name else source
        # the site alone has the notebooks and the API beside its pages
        if name.endswith(".ipynb"):
            target = ROOT.parent / name
        assert target.exists(), f"{page}: {link}"
        assert not anchor or target.suffix != ".md" or anchor in headings(target), f"{page}: {link}"
