"""The process that opens what people upload: a file that breaks a decoder breaks nothing else.

Messages are {"id": 1, "do": "look", "file", "view", "thumb", "max_pixels"}, {"do": "convert", "file",
"to", "max_pixels"}, and of clips {"do": "look_at_clip", "file", "view", "thumb"} and {"do": "frame", "file",
"number", "to"}. The answer has the id, and `error` in one line where it went wrong.
"""

import contextlib
import json
import resource
import warnings
from typing import Any

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.studio.lines import Lines
from nst_jax.video import clips
from nst_jax.video.clips import Selection

VIEW, THUMB = 1600, 320  # longest sides, in pixels
MAX_BYTES = 6 * 2**30  # of address space: reading takes 1 GiB at most, the libraries their share
MAX_SETTINGS_LETTERS = 2**20  # letters


def look(message: dict[str, Any]) -> dict[str, Any]:
    """Return the size, settings and warnings of a picture, and write what the page shows of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = images.read(message["file"], message["max_pixels"])
        write_views(source, message["view"], message["thumb"])
    settings = None
    with contextlib.suppress(InputError, UnicodeError):
        settings = images.read_settings(message["file"])
    height, width = source.size
    notes = [str(one.message).replace(message["file"], "the picture") for one in caught]
    return {
        "width": width,
        "height": height,
        "settings": settings if settings and len(settings) <= MAX_SETTINGS_LETTERS else None,
        "notes": notes,
    }


def write_views(source: images.Source, view: str, thumb: str) -> None:
    """Write a picture as the page shows it, large and small.

    Args:
        source: The picture.
        view: The large file.
        thumb: The small file.

    Raises:
        NotWritten: It could not be written.
    """
    for path, longest in ((view, VIEW), (thumb, THUMB)):
        size = images.size_to_fit(*source.size, min(longest, max(source.size)))
        images.save(path, source.rgb(*size))


def convert(message: dict[str, Any]) -> dict[str, Any]:
    """Write a job's picture in another format, with its settings: as deep as the format allows."""
    picture = images.load(message["file"], message["max_pixels"])
    bit_depth = 16 if message["to"].endswith((".png", ".tif")) else 8
    settings = images.read_settings(message["file"])
    images.save(message["to"], picture.rgb, alpha=picture.alpha, settings=settings, bit_depth=bit_depth)
    return {}


def look_at_clip(message: dict[str, Any]) -> dict[str, Any]:
    """Return the size and length of a clip, and write what the page shows of its first frame."""
    clip = clips.probe(message["file"])
    first = next(clips.read(clip, Selection(last=1)))
    write_views(images.Source(first.image, None), message["view"], message["thumb"])
    height, width = clip.size
    return {"width": width, "height": height, "frames": clip.frames, "rate": float(clip.rate)}


def frame(message: dict[str, Any]) -> dict[str, Any]:
    """Write a frame of a clip as a picture."""
    number, clip = message["number"], clips.probe(message["file"])
    found = next(clips.read(clip, Selection(number, number)), None)
    if found is None:
        raise InputError("frame", f"from 1 to {clip.frames}", f"got {number}")
    images.save(message["to"], found.image)
    return {}


DO = {"look": look, "convert": convert, "look_at_clip": look_at_clip, "frame": frame}


def main() -> None:
    """Answer messages until the studio is gone."""
    lines = Lines()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    for message in lines:
        try:
            answer = DO[message["do"]](message)
        except InputError as error:
            text = str(error).replace(message["file"], "this file")
            answer = {"error": text}
        except MemoryError:
            answer = {"error": "this file: takes more memory to read than the studio gives it"}
        lines.send(id=message["id"], **json.loads(json.dumps(answer)))


if __name__ == "__main__":
    main()
