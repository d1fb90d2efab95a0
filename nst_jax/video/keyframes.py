"""Styles and strengths that change over time: as given at some seconds of a clip, and linear between them."""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from nst_jax.config import Config
from nst_jax.errors import InputError

Value = TypeVar("Value", str, float)
LEAST_STRENGTH = 0.01  # from 0, the photograph itself, no weights lead on


class Keyframes(NamedTuple):
    """A style or a strength at a time; before the first one and after the last one they stay as these are."""

    styles: tuple[tuple[float, str], ...] = ()  # seconds, file
    strengths: tuple[tuple[float, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.styles or self.strengths)

    @property
    def files(self) -> tuple[str, ...]:
        """The styles, each once."""
        return tuple(dict.fromkeys(file for _, file in self.styles))

    def config_at(self, config: Config, seconds: float) -> Config:
        """Return a config with the shares of `files` and the strength that hold at a time."""
        given: dict[str, Any] = {}
        if self.styles:
            times, acting = zip(*self.styles, strict=True)
            mix = [np.interp(seconds, times, [file == one for one in acting]) for file in self.files]
            given["style_mix"] = tuple(map(float, mix))
        if self.strengths:
            times, strengths = zip(*self.strengths, strict=True)
            given["strength"] = float(np.interp(seconds, times, strengths))
        return dataclasses.replace(config, **given) if given else config

    def check_length(self, seconds: float) -> None:
        """Raise InputError where a keyframe lies beyond a clip of so many seconds."""
        for name, frames in (("style_at", self.styles), ("strength_at", self.strengths)):
            if frames and frames[-1][0] > seconds:
                allowed = f"at most {seconds:.4g} seconds, where the clip ends"
                raise InputError(f"`{name}`", allowed, f"got {frames[-1][0]:g}")


def parse(style_at: Sequence[str], strength_at: Sequence[str]) -> Keyframes:
    """Return the keyframes of texts SECONDS:FILE and SECONDS:STRENGTH. Raises InputError."""
    return Keyframes(
        _parsed("style_at", style_at, "SECONDS:FILE", _file),
        _parsed("strength_at", strength_at, f"SECONDS:STRENGTH, from {LEAST_STRENGTH} to 1", _strength),
    )


def _parsed(
    name: str, texts: Sequence[str], form: str, read: Callable[[str], Value]
) -> tuple[tuple[float, Value], ...]:
    found = []
    for text in texts:
        seconds, _, value = text.partition(":")
        try:
            found.append((float(seconds), read(value)))
            if not 0 <= found[-1][0] < math.inf:
                raise ValueError
        except ValueError:
            raise InputError(f"`{name}`", f"{form}, such as 2.5:{value or '...'}", f"got {text!r}") from None
    for (before, _), (after, _) in itertools.pairwise(found):
        if before >= after:
            raise InputError(f"`{name}`", "each later than the one before", f"got {after:g} after {before:g}")
    return tuple(found)


def _file(text: str) -> str:
    if not text:
        raise ValueError
    return os.path.expanduser(text)


def _strength(text: str) -> float:
    if not LEAST_STRENGTH <= float(text) <= 1:
        raise ValueError
    return float(text)
