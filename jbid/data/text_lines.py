"""Rendered lines of typewritten text: images for the manifold of `explore` that need no download.

The font is one of Matplotlib's, and the words are those of Python's documentation.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jbid.data.crops import split_indices
from jbid.nets.text_lines import HEIGHT, INK, PAPER, PLACE

SIZE = 20  # pixels per em, with which a letter of DejaVu Sans Mono is `PLACE` pixels wide
TOP = 4  # pixels above the letters


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    try:
        import matplotlib
    except ImportError:
        raise ValueError("text lines need a font of Matplotlib's. Install jbid[pretrain].") from None
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono-Bold.ttf"
    return ImageFont.truetype(str(file), SIZE)


@functools.cache
def _render_letter(letter: str) -> NDArray[np.float32]:
    image = Image.new("L", (PLACE, HEIGHT))
    ImageDraw.Draw(image).text((0, TOP), letter, fill=255, font=_font())
    return np.asarray(image, np.float32) / np.float32(255)


@functools.cache
def words(held_out: bool) -> tuple[str, ...]:
    """Different words of Python's documentation, sorted; one in twenty is held out."""
    from pydoc_data import topics

    all_words = sorted(set(re.findall(r"[A-Za-z][a-z]+|[0-9]+", " ".join(topics.topics.values()))))
    return tuple(all_words[i] for i in split_indices(len(all_words), held_out))


def line(rng: np.random.Generator, width: int, *, held_out: bool = False) -> NDArray[np.float32]:
    """Render a line of random words with random gray levels of paper and ink, (`HEIGHT`, width, 1) in [0, 1].

    Each letter is `PLACE` pixels wide, and the line may begin within a word.

    Args:
        rng: random generator.
        width: in pixels.
        held_out: the words are held-out ones instead of training ones.

    Raises:
        ValueError: if Matplotlib is not installed.
    """
    vocabulary, n_letters = words(held_out), -(-width // PLACE)
    text = " ".join(vocabulary[i] for i in rng.integers(len(vocabulary), size=2 + n_letters // 2))
    first = int(rng.integers(8))
    text = text.ljust(first + n_letters)  # the words may all be short
    mask = np.concatenate([_render_letter(letter) for letter in text[first : first + n_letters]], 1)[:, :width, None]
    paper, ink = rng.uniform(*PAPER), rng.uniform(*INK)
    return (paper + (ink - paper) * mask).astype(np.float32)
