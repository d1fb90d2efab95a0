"""Sizes on paper, in pixels, and the middle of an array that has a paper's aspect."""

import re
from typing import NamedTuple

import numpy as np

from nst_jax.errors import InputError

INCHES = {"cm": 1 / 2.54, "mm": 1 / 25.4, "in": 1.0}


class Paper(NamedTuple):
    """A size on paper."""

    width: float
    height: float
    unit: str

    def __str__(self) -> str:
        return f"{self.width:.4g}x{self.height:.4g}{self.unit}"

    def longest(self, dpi: int) -> int:
        """Return the pixels of the longest side, at so many pixels per inch."""
        return round(max(self.width, self.height) * INCHES[self.unit] * dpi)

    def size(self, longest: int) -> tuple[int, int]:
        """Return the rows and columns of which the longest side has so many pixels."""
        share = longest / max(self.width, self.height)
        return max(1, round(self.height * share)), max(1, round(self.width * share))

    def within(self, size: tuple[int, int]) -> "Paper":
        """Return the largest paper within this one that has the aspect of rows and columns."""
        scale = min(self.height / size[0], self.width / size[1])
        return Paper(size[1] * scale, size[0] * scale, self.unit)


def parse_paper(text: str) -> Paper:
    """Return the size that a text such as 30x20cm names, width first. Raises InputError."""
    side = r"(\d{1,6}(?:\.\d{1,6})?)"
    found = re.fullmatch(f"{side}x{side}(cm|mm|in)", text, re.ASCII)
    if not found or not float(found[1]) or not float(found[2]):
        raise InputError("`print_size`", "WIDTHxHEIGHT in cm, mm or in, such as 30x20cm", f"got {text!r}")
    return Paper(float(found[1]), float(found[2]), found[3])


def middle(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the largest part around the middle of an array that has the aspect of rows and columns."""
    height, width, share = *array.shape[:2], size[0] / size[1]
    rows, columns = min(height, max(1, round(width * share))), min(width, max(1, round(height / share)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return array[top : top + rows, left : left + columns]
