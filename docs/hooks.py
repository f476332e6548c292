"""What the site shows from outside of docs/: notebooks, figures of benchmarks, and a table made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


# before the plugin that takes notebooks for pages
@event_priority(100)
def on_files(files, config):
    """Notebooks and committed results take part as if they lay in docs/."""
    outside = [*sorted((ROOT / "notebooks").glob("*.ipynb"))]
    results = ROOT / "benchmarks" / "results"
    outside += sorted(path for path in results.rglob("*") if path.suffix in (".json", ".csv"))
    for path in outside:
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config["site_dir"], config["use_directory_urls"]))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to results, written for readers of the repository, point to the site's copies."""
    markdown = re.sub(r"\]\(\s*\.\./(benchmarks/results/)", r"](\1", markdown)
    return markdown.replace("<!-- results -->", results_table())


def results_table() -> str:
    """A line for each committed report on a set of images."""
    lines = ["| set | method | kernel size | protocol | images | PSNR | SSIM | device | |", "|" + "---|" * 9]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        mean = told.get("mean") or {}
        if not isinstance(told.get("protocol"), dict) or "psnr" not in mean:
            continue
        settings = told.get("settings", {})
        method = f"{settings.get('method', '')} {settings.get('preset', '')}, start {settings.get('start', '')}"
        method += ", bfloat16" if settings.get("options", {}).get("dtype") == "bfloat16" else ""
        by = f"{told['protocol']['name']}, maxshift {told['protocol']['maxshift']}"
        scale = told.get("scale", 1)
        name = told.get("benchmark", "") + (f" at {scale:g} of its size" if scale != 1 else "")
        cells = [name, method, settings.get("kernel_size", ""), by, len(told["images"]), f"{mean['psnr']:.2f}"]
        cells += [f"{mean['ssim']:.4f}", told.get("device", ""), f"[JSON](benchmarks/results/{path.name})"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
