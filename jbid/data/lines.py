"""Rendered lines of text: a domain of pictures that needs no download, for the manifold of `jbid.methods.explore`.

The fonts are those that come with Pillow and Matplotlib, the words those of Python's own documentation. Two fonts and
sizes that are near to one another, as the generator is small.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jbid.data.crops import apart
from jbid.nets.lines import HEIGHT

SIZES = (18, 20)  # of the letters, in pixels to an em


@functools.cache
def fonts() -> tuple[str, ...]:
    """Files of the fonts: "" stands for Pillow's own, the other is Matplotlib's bold sans serif.

    Raises ValueError where Matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("rendering text needs Matplotlib's fonts: install jbid[demo]") from None
    return ("", str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"))


@functools.cache
def words(held_out: bool) -> tuple[str, ...]:
    """The different words of Python's documentation, in order; every twentieth is kept apart."""
    from pydoc_data import topics

    known = sorted(set(re.findall(r"[A-Za-z][a-z]+|[0-9]+", " ".join(topics.topics.values()))))
    return tuple(known[i] for i in apart(len(known), held_out))


@functools.lru_cache(maxsize=256)
def _font(file: str, size: int):
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def line(rng: np.random.Generator, width: int, *, held_out: bool = False) -> NDArray[np.float32]:
    """A line of words (`HEIGHT`, width, 1) in [0, 1]: font, size, place and both gray levels are drawn at random."""
    font = _font(str(rng.choice(fonts())), int(rng.integers(SIZES[0], SIZES[1] + 1)))
    known = words(held_out)
    text = " ".join(known[i] for i in rng.integers(len(known), size=2 + width // 24))
    top, bottom = font.getbbox("Ag")[1::2]
    down = int(rng.integers(0, max(1, HEIGHT - (bottom - top) + 1)))
    picture = Image.new("L", (width, HEIGHT), 0)
    ImageDraw.Draw(picture).text((-rng.uniform(0, 12), down - top), text, fill=255, font=font)
    ink = np.asarray(picture, np.float32)[..., None] / 255
    paper, letters = rng.uniform(0.75, 1), rng.uniform(0, 0.25)
    if rng.random() < 0.25:
        paper, letters = letters, paper
    return (paper + (letters - paper) * ink).astype(np.float32)
