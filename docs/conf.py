"""Sphinx configuration; `make docs` builds the site into build/site.

Sphinx reads pages from docs/ alone, so the notebooks are copied there first. Docstrings are plain text with backticks;
`escape_docstring` makes reStructuredText of them.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import jbid
from jbid import methods

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

project = "jbid"
author = "The jbid developers"
copyright = "the jbid developers"
release = version = jbid.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "myst_nb",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
# single backticks in docstrings: a link if the name is documented, otherwise code
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 4
# notebooks are stored without outputs; each build runs them with the Python that builds the site
nb_execution_mode = os.environ.get("JBID_DOCS_NOTEBOOKS", "force")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
# the next build compiles nothing
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax-docs"))

html_theme = "pydata_sphinx_theme"
html_title = "jbid"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "jbid"},
    "navbar_align": "left",
    "show_prev_next": False,
    "show_nav_level": 1,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def copy_notebooks() -> None:
    """Copy notebooks/ to docs/notebooks/, which git ignores; unchanged files keep their time."""
    folder = ROOT / "docs" / "notebooks"
    folder.mkdir(exist_ok=True)
    sources = {path.name: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    for path in folder.glob("*.ipynb"):
        if path.name not in sources:
            path.unlink()
    for name, path in sources.items():
        copy = folder / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


def results_table() -> str:
    """Markdown table with a row for each committed report on a set of images."""
    lines = ["| set | method | kernel size | protocol | images | PSNR | SSIM | device | |", "|" + "---|" * 9]
    for path in sorted(RESULTS.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        mean = report.get("mean") or {}
        if not isinstance(report.get("protocol"), dict) or "psnr" not in mean:
            continue
        settings = report.get("settings", {})
        method = _method(settings)
        protocol = f"{report['protocol']['name']}, maxshift {report['protocol']['maxshift']}"
        scale = report.get("scale", 1)
        name = report.get("benchmark", "") + (f", scaled by {scale:g}" if scale != 1 else "")
        size = settings.get("kernel_size", "")
        cells = [name, method, size, protocol, len(report["images"]), f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}"]
        cells += [report.get("device", ""), f"[JSON](../../benchmarks/results/{path.name})"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _method(settings: dict) -> str:
    """Method, preset and initial kernel of a report, also of one by an earlier version."""
    if settings.get("preset") == "instant":
        return "edges"
    init = str(settings.get("init", settings.get("start", ""))).replace("encoder", "learned")
    text = f"{settings.get('method', '')}, {settings.get('preset', '')}, initial kernel {init}"
    return text + (", bfloat16" if settings.get("options", {}).get("dtype") == "bfloat16" else "")


def presets_table() -> str:
    """Markdown sections with the settings of each preset of each method."""
    parts = []
    for name in methods.names():
        spec = methods.get(name)
        presets = {preset: spec.presets[preset] for preset in methods.PRESETS if preset in spec.presets}
        settings = list(dict.fromkeys(key for preset in presets.values() for key in preset))
        lines = [f"## {name}", "", f"{spec.summary[0].upper()}{spec.summary[1:]}.", ""]
        lines += ["| setting | " + " | ".join(presets) + " |", "|" + "---|" * (len(presets) + 1)]
        for key in settings:
            values = (preset.get(key) for preset in presets.values())
            lines.append(f"| `{key}` | " + " | ".join("default" if v is None else f"`{v}`" for v in values) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def configs_table() -> str:
    """Markdown table of the files in configs/, with their first comments."""
    lines = ["| file | content |", "|---|---|"]
    for path in sorted((ROOT / "configs").glob("*.toml")):
        comment = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#") or line.startswith("# python -m"):
                break
            comment.append(line.removeprefix("#").strip())
        lines.append(f"| `configs/{path.name}` | {' '.join(comment)} |")
    return "\n".join(lines)


def commands(module: str) -> str:
    """Markdown reference of the command line in a module, from its help texts."""
    text = importlib.import_module(module).app.generate_docs(output_format="markdown", heading_level=2)
    # the site has its own table of contents, and the program that runs here is Sphinx
    text = re.sub(r"#+ Table of Contents\n+(?: *- .*\n)+", "", text)
    # MyST's names of headings: a space is a hyphen, a full stop is dropped
    text = re.sub(r"\(#python-m-jbid\.bench", "(#python--m-jbidbench", text)
    return text.replace(" -m sphinx", "").replace("$", r"\$")


def real_sheet() -> str:
    """The contact sheet of real photos, if it was made before the build: the photos are not committed."""
    sheet = ROOT / "build" / "real_sheet.jpg"
    if not sheet.is_file():
        return (
            "Here the site shows the contact sheet of all 100 (input, answer, kernel, confidence), if "
            "`python -m jbid.bench real --out build/real.json` has made it before `make docs`."
        )
    shutil.copyfile(sheet, ROOT / "docs" / "benchmarks" / sheet.name)
    return f"![Photos, restorations, kernels and confidences]({sheet.name})"


GENERATED = {
    "<!-- jbid -->": partial(commands, "jbid.cli.main"),
    "<!-- jbid.bench -->": partial(commands, "jbid.bench.cli"),
    "<!-- results -->": results_table,
    "<!-- real photos -->": real_sheet,
    "<!-- presets -->": presets_table,
    "<!-- configs -->": configs_table,
}


def fill_page(app, docname, source):
    """Insert generated tables, and point links to notebooks/ to their copies."""
    for mark, generate in GENERATED.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, generate())
    source[0] = re.sub(r"\]\((?:\.\./)+notebooks/", "](/notebooks/", source[0])


def escape_docstring(app, what, name, obj, options, lines):
    """Escape the characters of plain text that have a meaning in reStructuredText."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        # the stars of arguments such as **options belong to napoleon
        start = re.match(r"\s*\**", line).end()
        parts = re.split(r"(`[^`]*`)", line[start:])
        parts[::2] = [re.sub(r"\||\*|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = line[:start] + "".join(parts)


def escape_types(app, what, name, obj, options, lines):
    """Escape the stars of shapes such as Float[Array, "*shape"], which napoleon copies from annotations."""
    lines[:] = [line.replace("*", r"\*") if line.startswith(":vartype") else line for line in lines]


def skip_field(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple, which its docstring describes."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect the functions above."""
    copy_notebooks()
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    app.connect("autodoc-process-docstring", escape_types, priority=900)
    app.connect("autodoc-skip-member", skip_field)
