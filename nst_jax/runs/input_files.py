"""What a job reads: the options that name files, and the pictures and masks in them."""

import dataclasses
import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nst_jax
from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images import label_maps
from nst_jax.images import masks as masking
from nst_jax.images.label_maps import Labels
from nst_jax.images.masks import Masks
from nst_jax.networks import NETWORKS
from nst_jax.networks.base import smallest_side
from nst_jax.options import check_options, option
from nst_jax.reports.report import resolved
from nst_jax.runs.paper import middle, parse_paper
from nst_jax.runs.problem import noise_picture
from nst_jax.weights.sources import digest

LOG = logging.getLogger(__name__)

NO_SETTINGS = "store no settings in pictures: no options, no file names, no checksums"
ASPECT_STEP = 1.04  # of rounded aspects: a picture is at most half of it narrower or wider
GRAYS = 0.02  # share of gray pixels from which a mask is said to be gray: edges of drawn ones have less


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """The files that are read."""

    content: str = option(
        "", "photograph, a file or example:NAME; not needed with --init=noise --content_weight=0"
    )
    style: tuple[str, ...] = option((), "painting, a file or example:NAME", repeated=True)
    content_mask: str = option(
        "", "mask, a file or example:NAME: white where any style may act; with nst-video also a clip"
    )
    style_mask: tuple[str, ...] = option(
        (),
        "mask for each style, in order: white where it acts; empty: everywhere; with nst-video also a clip",
        repeated=True,
    )
    style_source_mask: tuple[str, ...] = option(
        (),
        "mask for each style, in order: white on the part of the painting that is used; empty: all of it",
        repeated=True,
    )
    content_labels: str = option(
        "",
        "label map, a file or example:NAME: one plain color for each region; without --content it alone "
        "defines the layout",
    )
    style_labels: tuple[str, ...] = option(
        (),
        "label map for each style, in order: a region of the picture takes its style from the region of "
        "the same color; empty: from the whole style",
        repeated=True,
    )
    soft_masks: bool = option(
        False, "keep the gray values of masks; otherwise those above 127 of 255 are white, the others black"
    )
    weights: str = option("", "network weights converted by nst-weights; empty: the bundled or fetched ones")
    max_pixels: int = option(
        images.MAX_PIXELS,
        "largest picture that is read, in pixels; less for files that take more memory to read (WebP, "
        "AVIF, JPEG 2000, some of 16 bits)",
        low=1,
        high=2**40,
    )
    round_aspects: bool = option(
        False,
        "optimize at an aspect ratio up to 2 % off, so that pictures of similar aspects share a compiled "
        "program; the result has its own aspect ratio",
    )
    print_size: str = option(
        "",
        "size on paper in place of --size: width x height in cm, mm or in, such as 30x20cm, at --dpi or "
        "300 pixels per inch",
    )
    crop: bool = option(
        False, "cut the photograph and its masks to the aspect ratio of --print_size, around the center"
    )

    def __post_init__(self) -> None:
        check_options(self)


class Pictures(NamedTuple):
    """The pictures of a run at their working sizes."""

    content: np.ndarray | None
    styles: list[np.ndarray]
    init: np.ndarray | None
    masks: Masks


class ImageCache:
    """Picture files, each read once and brought to each size once: equal requests give the same array."""

    def __init__(self, max_pixels: int):
        self.max_pixels = max_pixels
        self.sources: dict[str, images.Source] = {}
        self.resized: dict[tuple[str, int, int], np.ndarray] = {}
        self.labeled: dict[str, Labels] = {}
        self.sums: dict[str, str] = {}
        self.whole: dict[str, tuple[int, int]] = {}  # rows and columns of what is cropped

    def read(self, name: str) -> images.Source:
        """Return what a file holds. Raises InputError."""
        if name not in self.sources:
            self.sources[name] = images.read(name, self.max_pixels)
        return self.sources[name]

    def crop(self, name: str, size: tuple[int, int]) -> None:
        """Cut a file's picture to the aspect of rows and columns, around its middle. Raises InputError."""
        source = self.read(name)
        self.whole[name] = source.size
        colors, opacity = (plane if plane is None else middle(plane, size) for plane in source)
        assert colors is not None
        self.sources[name] = images.Source(colors, opacity)

    def resize(self, name: str, height: int, width: int) -> np.ndarray:
        """Return the colors of a file at a size.

        Args:
            name: A file, or example:NAME.
            height: Rows.
            width: Columns.

        Raises:
            InputError: It cannot be read.
        """
        key = name, height, width
        if key not in self.resized:
            self.resized[key] = self.read(name).rgb(height, width)
        return self.resized[key]

    def labels(self, name: str) -> Labels:
        """Return a file as a label map, and say what is seen in it. Raises InputError."""
        if name not in self.labeled:
            self.labeled[name] = label_maps.find(self.read(name), name)
            LOG.info("%s: %s", name, self.labeled[name].told())
        return self.labeled[name]

    def sha256(self, name: str) -> str:
        """Return the checksum of a file, which may be gone when a picture is written. Raises InputError."""
        if name not in self.sums:
            self.sums[name] = digest(images.resolve(name))
        return self.sums[name]

    def size(self, name: str, longest: int) -> tuple[int, int]:
        """Return the rows and columns of a file's picture with its longest side as given."""
        return images.size_to_fit(*self.read(name).size, longest)


def check_inputs(inputs: InputOptions, config: Config) -> None:
    """Raise InputError where flags that name files do not go together, before any file is read."""
    if not all(inputs.style) or not inputs.style:
        raise InputError("`style`", "a file or example:NAME", "not given")
    if not inputs.content and config.content_weight:
        raise InputError(
            "`content`", "a file or example:NAME; or `init=noise` `content_weight=0`", "not given"
        )
    if not inputs.content and config.init == "content":
        raise InputError("`init`", "noise, style or a file where there is no `content`", "got content")
    config.loss_weights(len(inputs.style))
    if bool(inputs.content_labels) != any(inputs.style_labels):
        came = f"only `{'content' if inputs.content_labels else 'style'}_labels` was given"
        raise InputError("`content_labels`, `style_labels`", "both, or neither", came)
    for name in ("style_mask", "style_source_mask"):
        if inputs.content_labels and any(getattr(inputs, name)):
            raise InputError(f"`{name}`", "not with label maps, which say the same by colors", "got both")
    for name in ("style_mask", "style_source_mask", "style_labels"):
        if (count := len(getattr(inputs, name))) not in (0, len(inputs.style)):
            empty = "the whole style" if name == "style_labels" else "white everywhere"
            allowed = f"one for each `style`, {len(inputs.style)} (empty: {empty})"
            raise InputError(f"`{name}`", allowed, f"got {count}")


def check_different(inputs: InputOptions, config: Config, written: Iterable[str], flags: str) -> None:
    """Refuse to write a file twice, or over one that a run reads.

    Args:
        inputs: Files and their options.
        config: The options.
        written: Names of files.
        flags: What the error calls them.
    """
    check_written(itertools.chain(*files_read(inputs, config).values()), written, flags)


def files_read(inputs: InputOptions, config: Config) -> dict[str, tuple[str, ...]]:
    """Return the names of the files that a run reads, by flag."""
    named = {name: value for name, value in dataclasses.asdict(inputs).items() if name != "print_size"}
    if config.init not in ("content", "noise", "style"):
        named["init"] = config.init
    names = {flag: (value,) if isinstance(value, str) else value for flag, value in named.items()}
    return {flag: value for flag, value in names.items() if isinstance(value, tuple) and any(value)}


def check_written(read: Iterable[str], written: Iterable[str], flags: str) -> None:
    """Refuse to write a file twice, or over one that is read.

    Args:
        read: Names of files.
        written: Names of files.
        flags: What the error calls them.
    """
    taken = {_real_path(images.resolve(name)) for name in read if name}
    for name in filter(None, written):
        path = _real_path(Path(name))
        if path in taken:
            raise InputError(flags, "each a file of its own", f"{name} is named twice")
        taken.add(path)


def _real_path(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return str(path)


def settings(inputs: InputOptions, config: Config, cache: ImageCache, dpi: int = 0) -> str:
    """Return what made a picture, to be stored in it: no folders, as pictures are shown to others.

    Nor its own name, so equal runs give equal bytes. Of files it has the names and the checksums.

    Args:
        inputs: Files and their options.
        config: The options.
        cache: Has the picture files.
        dpi: Pixels per inch. 0: not told.
    """
    options: dict[str, Any] = {name: value for name, value in dataclasses.asdict(inputs).items() if value}
    options |= resolved(config, len(inputs.style))
    if inputs.print_size:  # which gives the size again, at this resolution
        del options["size"]
    if dpi:
        options["dpi"] = dpi
    sums = {}
    for flag, names in files_read(inputs, config).items():
        bare = [name if name.startswith(images.EXAMPLE) else Path(name).name for name in names]
        options[flag] = bare if isinstance(options[flag], tuple) else bare[0]
        sums[flag] = [name and cache.sha256(name) for name in names]
    return json.dumps({"nst_jax": nst_jax.__version__, "config": options, "sha256": sums})


def working_size(inputs: InputOptions, config: Config, cache: ImageCache) -> tuple[int, int]:
    """Return the rows and columns that are optimized.

    Args:
        inputs: Files and their options.
        config: The options.
        cache: Has the picture files.
    """
    if inputs.print_size:
        return parse_paper(inputs.print_size).size(config.size)
    return cache.size(shape_of(inputs)[0], config.size)


def program_size(size: tuple[int, int], inputs: InputOptions) -> tuple[int, int]:
    """Return the rows and columns that the compiled program has for a picture of a working size."""
    if not inputs.round_aspects:
        return size
    longest, shortest = max(size), min(size)
    power = round(math.log(longest / shortest, ASPECT_STEP))
    rounded = max(1, round(longest / ASPECT_STEP**power))
    return (longest, rounded) if size[0] > size[1] else (rounded, longest)


def shape_of(inputs: InputOptions) -> tuple[str, str]:
    """Return the file that gives the picture its aspect, and what it is."""
    if inputs.content:
        return inputs.content, "the content"
    if inputs.content_labels:
        return inputs.content_labels, "`content_labels`"
    return inputs.style[0], "the first style"


def load_pictures(inputs: InputOptions, config: Config, cache: ImageCache, masks: Masks) -> Pictures:
    """Read the pictures and bring them and the masks to their working sizes.

    Args:
        inputs: Files and their options.
        config: The options.
        cache: Has the picture files.
        masks: As they were read.
    """
    size = program_size(working_size(inputs, config, cache), inputs)
    init = None
    if config.init == "noise":
        init = noise_picture(*size, config.seed)
    elif config.init != "content":
        init = cache.resize(inputs.style[0] if config.init == "style" else config.init, *size)
    style_sizes = [program_size(_style_size(name, config, cache), inputs) for name in inputs.style]
    spec = config.spec()
    _check_large(
        shape_of(inputs)[0], size, spec.layers if inputs.content else spec.style_layers, config, cache
    )
    for name, style_size in zip(inputs.style, style_sizes, strict=True):
        _check_large(name, style_size, spec.style_layers, config, cache)
    masks = masking.resize_all(masks, size, style_sizes)
    if inputs.content_labels:
        masks = _label_masks(inputs, cache, size, style_sizes)._replace(content=masks.content)
    return Pictures(
        content=cache.resize(inputs.content, *size) if inputs.content else None,
        styles=[cache.resize(name, *to) for name, to in zip(inputs.style, style_sizes, strict=True)],
        init=init,
        masks=masks,
    )


def _check_large(
    name: str, size: tuple[int, int], layers: Sequence[str], config: Config, cache: ImageCache
) -> None:
    """Raise InputError, with a --size that would do, where a file's picture is too small for the layers."""
    chosen = NETWORKS[config.network].select(layers)
    least, ratio = smallest_side(chosen), config.size / max(size)
    if min(size) >= least:
        return
    longest = next(n for n in itertools.count(max(size)) if min(cache.size(name, n)) >= least)
    enough = f"`size={math.ceil(longest * ratio)}` gives that"
    allowed = f"at least {least} pixels a side for layer {chosen[-1].name}; {enough}"
    raise InputError(name, allowed, f"got {size[1]}x{size[0]} at `size={config.size}`")


def _style_size(name: str, config: Config, cache: ImageCache) -> tuple[int, int]:
    return cache.size(name, max(1, round(config.size * config.stroke_size)))


def load_masks(inputs: InputOptions, cache: ImageCache) -> Masks:
    """Read the masks as they are; say where one is grayer than a mask that is cut at 127 should be."""

    def load(name: str, picture: str, of: str) -> np.ndarray | None:
        if not name:
            return None
        mask, grays = masking.load(name, inputs.soft_masks, inputs.max_pixels)
        whole = cache.whole.get(picture)
        masking.check_aspect(name, mask.shape, whole or cache.read(picture).size, of)
        mask = middle(mask, cache.read(picture).size) if whole else mask
        if grays > GRAYS and not inputs.soft_masks:
            LOG.warning(
                "%s: %.0f%% of it is gray; cut at 127 of 255 (--soft_masks keeps the grays)",
                *(name, 100 * grays),
            )
        return mask

    picture, of = shape_of(inputs)
    sources: Any = zip(inputs.style_source_mask, inputs.style, strict=False)  # their number is checked
    return Masks(
        content=load(inputs.content_mask, picture, of),
        styles=[load(name, picture, of) for name in inputs.style_mask],
        sources=[load(name, style, "its style") for name, style in sources],
    )


def _label_masks(
    inputs: InputOptions, cache: ImageCache, size: tuple[int, int], style_sizes: Sequence[tuple[int, int]]
) -> Masks:
    """Read the label maps, and return the regions they name; say which parts of a style are in none."""

    def read(name: str, picture: str, of: str) -> Labels:
        masking.check_aspect(name, cache.read(name).size, cache.read(picture).size, of, "a label map")
        return cache.labels(name)

    content = read(inputs.content_labels, *shape_of(inputs))
    maps: list[np.ndarray | None] = []
    for name, style in zip(inputs.style_labels, inputs.style, strict=True):
        if not name:
            maps.append(None)
            continue
        own = read(name, style, "its style")
        numbers = label_maps.match(content, own, name, inputs.content_labels)
        maps.append(numbers[own.numbers])
        if unused := np.flatnonzero(numbers == label_maps.LACKING).tolist():
            LOG.warning("%s: not used, as %s lacks it: %s", name, inputs.content_labels, own.told(unused))
    return label_maps.make_masks(
        content.numbers, maps, size=size, style_sizes=style_sizes, names=content.names
    )
