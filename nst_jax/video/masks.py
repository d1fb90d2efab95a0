"""The masks of a clip's frames: pictures, which hold for all of them, and clips, with one for each."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from nst_jax.errors import InputError
from nst_jax.images import masks as masking
from nst_jax.images.masks import Mask, Masks
from nst_jax.runs.input_files import InputOptions
from nst_jax.video import clips
from nst_jax.video.clips import Clip, Selection


class FrameMasks(NamedTuple):
    """The masks of one frame."""

    masks: Masks  # of the working size
    styled: Bool[np.ndarray, "h w"] | None  # where the losses see only what is made; None: everywhere


class MaskClip(NamedTuple):
    """A mask that is a clip."""

    clip: Clip
    selection: Selection  # of its frames
    soft: bool  # whether grays are kept

    def frames(self, size: tuple[int, int]) -> Iterator[Mask]:
        """Yield the mask of each frame, of so many rows and columns. Raises InputError."""
        number = 0
        for number, frame in enumerate(clips.read(self.clip, self.selection), 1):
            image = frame.image
            if frame.alpha is not None:  # what is see-through is no part of the mask: on black, not on white
                image = (image - (1 - frame.alpha[..., None])).clip(0, 1)
            mask = masking.of_frame(image, f"{self.clip.path}, frame {number}", self.soft)
            yield masking.resize(mask, *size)
        raise InputError(self.clip.path, "a mask for each frame", f"it ends after {number}")


class MaskClips(NamedTuple):
    """The masks that are clips. None: a picture, or white everywhere."""

    content: MaskClip | None = None
    styles: tuple[MaskClip | None, ...] = ()

    def by_flag(self) -> dict[str, Clip]:
        """Return the clips by flag."""
        flags = ["--content_mask", *(f"--style_mask {k}" for k, _ in enumerate(self.styles, 1))]
        pairs = zip(flags, (self.content, *self.styles), strict=True)
        return {flag: mask.clip for flag, mask in pairs if mask}

    def others(self, inputs: InputOptions) -> InputOptions:
        """Return the inputs without the masks that are clips."""
        names = zip(inputs.style_mask, self.styles, strict=True)
        return dataclasses.replace(
            inputs,
            content_mask="" if self.content else inputs.content_mask,
            style_mask=tuple("" if mask else name for name, mask in names),
        )

    def frames(self, pictures: Masks, size: tuple[int, int]) -> Iterator[FrameMasks]:
        """Yield the masks of each frame, without end where none is a clip.

        Args:
            pictures: The masks that are pictures, of the working size.
            size: Rows and columns of the frames.

        Raises:
            InputError: A clip ends too early, cannot be decoded, or is colored.
        """
        if not self.by_flag():
            yield from itertools.repeat(_of_frame(pictures))
        content = self.content and self.content.frames(size)
        styles = [mask and mask.frames(size) for mask in self.styles]
        while True:
            own = [next(clip) if clip else mask for mask, clip in zip(pictures.styles, styles, strict=True)]
            yield _of_frame(
                pictures._replace(content=next(content) if content else pictures.content, styles=own)
            )


def _of_frame(masks: Masks) -> FrameMasks:
    parts = masking.regions(masks)
    return FrameMasks(masks, None if parts is None else masking.optimized(parts) == 1)


def find(inputs: InputOptions, clip: Clip, chosen: Selection, used: Selection) -> MaskClips:
    """Return the masks that are clips. Each has as many frames as the clip, or as are chosen of it.

    Args:
        inputs: Names the masks.
        clip: Whose masks they are.
        chosen: Of its frames.
        used: Of those, all or, for a preview, fewer.

    Raises:
        InputError: One cannot be read, or has another aspect or number of frames.
    """

    def of(name: str) -> MaskClip | None:
        if not clips.is_clip(name):
            return None
        mask, count = clips.probe(name), chosen.count(clip.frames)
        masking.check_aspect(name, mask.size, clip.size, "the content")
        if mask.frames == clip.frames:
            return MaskClip(mask, used, inputs.soft_masks)
        if mask.frames == count:
            return MaskClip(mask, used.within(chosen), inputs.soft_masks)
        fewer = f", or {count}, as are chosen" if count != clip.frames else ""
        raise InputError(name, f"{clip.frames} frames, as the content has{fewer}", f"it has {mask.frames}")

    return MaskClips(of(inputs.content_mask), tuple(map(of, inputs.style_mask)))
