"""Rendered lines of typewritten text: a domain of images that needs no download, for the manifold of `explore`.

The font comes with Matplotlib, the words are those of Python's own documentation.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jbid.data.crops import apart
from jbid.nets.text_lines import HEIGHT, INK, PAPER, PLACE

SIZE = 20  # pixels to an em; DejaVu Sans Mono then takes `PLACE` pixels for each letter
TOP = 4  # pixels above the letters' line box


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    try:
        import matplotlib
    except ImportError:
        raise ValueError("rendering text needs a font of Matplotlib's: install jbid[pretrain]") from None
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono-Bold.ttf"
    return ImageFont.truetype(str(file), SIZE)


@functools.cache
def _letter(letter: str) -> NDArray[np.float32]:
    image = Image.new("L", (PLACE, HEIGHT))
    ImageDraw.Draw(image).text((0, TOP), letter, fill=255, font=_font())
    return np.asarray(image, np.float32) / np.float32(255)


@functools.cache
def words(held_out: bool) -> tuple[str, ...]:
    """The different words of Python's documentation, in order; every twentieth is kept apart."""
    from pydoc_data import topics

    known = sorted(set(re.findall(r"[A-Za-z][a-z]+|[0-9]+", " ".join(topics.topics.values()))))
    return tuple(known[i] for i in apart(len(known), held_out))


def line(rng: np.random.Generator, width: int, *, held_out: bool = False) -> NDArray[np.float32]:
    """A line of words (`HEIGHT`, width, 1) in [0, 1], whose words and levels of gray are drawn at random.

    It begins with any of a text's first letters, each of which has `PLACE` pixels. Raises ValueError where Matplotlib,
    with its font, is missing.
    """
    known, letters = words(held_out), -(-width // PLACE)
    text = " ".join(known[i] for i in rng.integers(len(known), size=2 + letters // 2))
    first = int(rng.integers(8))
    text = text.ljust(first + letters)  # words may all be short
    mask = np.concatenate([_letter(letter) for letter in text[first : first + letters]], 1)[:, :width, None]
    paper, ink = rng.uniform(*PAPER), rng.uniform(*INK)
    return (paper + (ink - paper) * mask).astype(np.float32)
