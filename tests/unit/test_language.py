"""Language of code and documentation: plain English, the field's terms, American spelling."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.helpers import ROOT

SOURCES = [p for folder in ("jbid", "tests", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# openings of a docstring that do not name the thing
OPENINGS = ("What", "Where", "How", "Whether", "Which", "So ", "As ", "That ", "From a ")
# words of a dialect that readers from the field do not know
BANNED = (
    r"\btold\b|\btells? (of|what|how|the|them|it|which|nothing|so)\b|\bis said\b|\bsaid so\b|\bsays so\b",
    r"\bis taken\b|\bare taken\b|\bis named\b|\bare named\b|\bis led\b|\bsets? out from\b|\bsetting out\b",
    r"\bgives? back\b|\bspeaks? against\b|\bof old\b|\bwhat is there\b|\bgone? on with\b|\bgoes on with\b",
    r"\bmaniest?h\b|\bis asked for\b|\basked for otherwise\b|\bmade ready\b|\bmakes do\b|\bdoes without\b",
    r"\bwhat (was|is|it|they|he|one) \w+ (from|of|by|with)\b|\bno numbers?\b|\bnot a matter of\b|\bas told\b",
    r"\bunits know\b|\brooms\b|\bladder\b|\bencoder start\b|\bthe start\b|\bedge start\b|\bfinish(es|ed)? with\b",
)
BRITISH = (
    r"\b\w*(colour|centre[ds]?\b|centring|neighbour|behaviour|favour|licence|grey\b|labelled|modelled|artefact)\w*",
    r"\b\w*(normalis|optimis(e|ing|ation)|initialis|regularis|parametris|synthesis(e|ing)|minimis(e|ing)|standardis)\w*",
    r"\b\w*(recognis|summaris|randomis|generalis|characteris(e|ing)|quantis(e|ing|ation))\w*",
)
# names and terms that contain a banned spelling
ALLOWED = re.compile(r"kernel_sise|synthesis\b|JPEG|GRAY|\bcentred_at\b")


def prose(path: Path) -> list[tuple[int, str]]:
    """Comments, docstrings and other strings of a module, with their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [(t.start[0], t.string) for t in tokens if t.type in (tokenize.COMMENT, tokenize.STRING)]


def docstrings(path: Path) -> list[tuple[str, str]]:
    """Names and docstrings of the module and of everything in it."""
    tree = ast.parse(path.read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    pairs = [(getattr(node, "name", path.stem), ast.get_docstring(node)) for node in nodes]
    return [(name, text) for name, text in pairs if text]


def text_of(page: Path) -> list[tuple[int, str]]:
    """Lines of a page without code."""
    lines, is_code = [], False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            lines.append((number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)))
    return lines


def findings(lines: list[tuple[int, str]], patterns: tuple[str, ...]) -> list[str]:
    return [
        f"{number}: {match[0]!r} in {' '.join(text.split())[:120]}"
        for number, text in lines
        for pattern in patterns
        for match in re.finditer(pattern, text)
        if not ALLOWED.search(match[0])
    ]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_docstrings_name_the_thing(path):
    assert not [f"{n}: {text.splitlines()[0]}" for n, text in docstrings(path) if text.startswith(OPENINGS)]


# this list, and the places that accept names of earlier versions
EXEMPT = ("tests/unit/test_language.py", "jbid/pipeline/renamed.py", "jbid/runtime/commandline.py")


@pytest.mark.parametrize("path", [p for p in SOURCES if name(p) not in EXEMPT], ids=name)
def test_sources_use_plain_american_english(path):
    assert not findings(prose(path), (*BANNED, *BRITISH))


@pytest.mark.parametrize("page", [p for p in PAGES if p.exists()], ids=name)
def test_pages_use_plain_american_english(page):
    assert not findings(text_of(page), (*BANNED, *BRITISH))
