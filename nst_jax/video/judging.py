"""How a finished clip is judged: how steady it is beside its content, and how far from the paintings."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images.masks import check_aspect
from nst_jax.metrics import judge
from nst_jax.runs.input_files import ImageCache
from nst_jax.runs.judging import References
from nst_jax.video import clips, measures
from nst_jax.video.clips import Clip

STILLS = 5

# What is measured of clips, and what it tells.
METRICS = {
    "warping_error": "how much a frame differs from the one before, warped to it, in 255ths",
    "flicker": "how much a frame differs from the mean of its neighbors, warped to it, in 255ths",
    "style_distance": f"nst-judge's of pictures, the mean of {STILLS} frames at most",
}


def check(name: str, against: References) -> None:
    """Raise InputError where a clip is not of the content's frames."""
    if not clips.is_clip(against.content):
        raise InputError("`content`", "a clip, as the results are", f"got {against.content or 'none'}")
    found, content = clips.probe(name), clips.probe(against.content)
    if found.frames != content.frames:
        allowed = f"{content.frames} frames, as {against.content} has"
        raise InputError(name, allowed, f"it has {found.frames}")
    check_aspect(name, found.size, content.size, "the content", "a result")


def verdict(network: judge.Network, name: str, against: References, cache: ImageCache) -> dict[str, Any]:
    """Return the METRICS of a clip by name; of the content itself they tell what it has of its own.

    Args:
        network: From judge.load().
        name: The file.
        against: The content, a clip of as many frames (check), and paintings.
        cache: Has the paintings.

    Raises:
        InputError: A file cannot be decoded.
    """
    found, content = clips.probe(name), clips.probe(against.content)
    longest = min(max(found.size), int(against.size / max(1, against.stroke_size)))
    size = images.size_to_fit(*found.size, longest)

    def frames(clip: Clip) -> Iterator[np.ndarray]:
        return (images.resize(frame.image, *size) for frame in clips.read(clip, clips.ALL))

    steady = measures.measure(frames(found), frames(content))
    stylized = max(1, round(longest * against.stroke_size))
    styles = [cache.resize(style, *cache.size(style, stylized)) for style in against.styles]
    stills = itertools.islice(frames(found), 0, None, -(-found.frames // STILLS))
    distances = [
        judge.measure(network, still, None, styles, against.style_mix)["style_distance"] for still in stills
    ]
    return {
        **steady._asdict(),
        "style_distance": float(np.mean(distances)),
        "frames": found.frames,
        "image": {"height": size[0], "width": size[1]},
    }
