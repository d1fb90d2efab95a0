"""The studio's folder: jobs and pictures on disk, each found by an id that the studio made.

    FOLDER/studio.lock, token, open.html (while a studio runs that was started with --open)
    FOLDER/pictures/SHA256       the bytes as uploaded, and beside them .json, .view.jpg, .thumb.jpg
    FOLDER/jobs/ID/job.json      the record; beside it losses.jsonl, live.jpg, thumb.jpg, result.png,
                                 report.json, checkpoint/; of a clip result.mp4, result.mp4.frames/

A name that a client chose is data in a record and never part of a path.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from nst_jax import images
from nst_jax.errors import InputError, NotWritten
from nst_jax.files import check_folder, remove_stale, write_whole
from nst_jax.options import renamed
from nst_jax.studio.options import MB
from nst_jax.studio.recipes import CHECKPOINT, CLIP, REFERENCE, RESULT, Recipe

LOG = logging.getLogger(__name__)
ID = re.compile(r"[0-9a-f]{16}")
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
LOCK, TOKEN, RECORD, LOSSES = "studio.lock", "token", "job.json", "losses.jsonl"
LIVE, THUMB = "live.jpg", "thumb.jpg"
LOCK_SECONDS = 4.0  # for which the worker of a killed studio may hold the folder
WAITING = ("queued", "running")
STATES = (*WAITING, "paused", "done", "failed", "cancelled")


@dataclasses.dataclass
class Record:
    """A job: what is asked for, and where it stands."""

    id: str
    title: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    created: float  # seconds since 1970
    order: float = 0.0  # in the queue, the least first
    status: str = "queued"
    error: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)  # by which it was extended
    plan: list[str] = dataclasses.field(default_factory=list)
    iterations: list[int] = dataclasses.field(default_factory=list)  # of each scale
    scales: str = ""
    step: int = 0
    left: float | None = None  # seconds
    pace: float | None = None  # seconds that a pixel of a step took
    memory: int = 0  # bytes, by the plan of the last scale
    pixels: int = 0  # of the picture
    losses: dict[str, float] = dataclasses.field(default_factory=dict)  # weighted, by term
    picture: int = 0  # version of LIVE; 0: there is none
    crashes: int = 0  # of the worker, at this job
    resumable: bool = False
    measures: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # the judge's, of the picture

    @property
    def recipe(self) -> Recipe:
        """What the picture is made of and how."""
        return Recipe(self.title, self.inputs, {**self.options, **self.overrides})


class Store:
    """The files of a folder that this studio alone writes to."""

    def __init__(self, folder: Path, keep_free: int):
        """Open the folder; keep_free: MB that the disk is to have left. Raises InputError."""
        self.folder, self.keep_free = folder, keep_free
        self.jobs, self.pictures = folder / "jobs", folder / "pictures"
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.lock = _lock(folder / LOCK)
            for part in (self.jobs, self.pictures):
                part.mkdir(exist_ok=True, mode=0o700)
                remove_stale(part)
            self.token = _token(folder / TOKEN)
        except OSError as error:
            raise InputError(str(folder), "must be a folder that can be written to", str(error)) from error

    def close(self) -> None:
        """Let another studio have the folder."""
        os.close(self.lock)

    # Jobs

    def create(self, recipe: Recipe, order: float) -> Record:
        """Make a job's folder and its record. Raises InputError, NotWritten where the disk has no room."""
        self.check_space()
        record = Record(
            secrets.token_hex(8), recipe.title, recipe.inputs, recipe.options, time.time(), order=order
        )
        self.place_of(record.id).mkdir(mode=0o700)
        try:
            self._write(record)
        except NotWritten:
            self.remove(record)
            raise
        return record

    def place_of(self, job: str) -> Path:
        """Return the folder of a job."""
        assert ID.fullmatch(job), job
        return self.jobs / job

    def save(self, record: Record) -> None:
        """Write a record; what cannot be written is logged, as the studio goes on without."""
        try:
            self._write(record)
        except NotWritten as error:
            LOG.error("%s", error)

    def _write(self, record: Record) -> None:
        write_whole(self.place_of(record.id) / RECORD, json.dumps(dataclasses.asdict(record)).encode())

    def load(self) -> dict[str, Record]:
        """Return all jobs by id; what cannot be read is told and left alone."""
        found = {}
        for folder in sorted(self.jobs.iterdir()):
            try:
                record = Record(**json.loads((folder / RECORD).read_bytes()))
                if record.id != folder.name or not ID.fullmatch(record.id) or record.status not in STATES:
                    raise ValueError("it is not a record of this job")
                record.options, record.overrides = renamed(record.options), renamed(record.overrides)
                found[record.id] = record
            except (AttributeError, OSError, ValueError, TypeError, RecursionError) as error:
                LOG.warning("%s: not shown (%s)", folder, error)
        return found

    def remove(self, record: Record) -> None:
        """Remove a job's files."""
        shutil.rmtree(self.place_of(record.id), ignore_errors=True)

    def drop_checkpoint(self, record: Record) -> None:
        """Remove what a job would go on from."""
        shutil.rmtree(self.place_of(record.id) / CHECKPOINT, ignore_errors=True)
        record.resumable = False

    def add_losses(self, record: Record) -> None:
        """Add a job's losses to its history."""
        line = json.dumps({"step": record.step, **record.losses})
        with contextlib.suppress(OSError), (self.place_of(record.id) / LOSSES).open("a") as file:
            file.write(line + "\n")

    def set_history(self, record: Record, points: list[dict[str, float]]) -> None:
        """Have a job's history begin with these losses."""
        lines = "".join(json.dumps(point) + "\n" for point in points)
        with contextlib.suppress(NotWritten):
            write_whole(self.place_of(record.id) / LOSSES, lines.encode())

    def history(self, record: Record) -> list[dict[str, float]]:
        """Return a job's losses by step; of steps that were taken twice, the later ones."""
        found: dict[int, dict[str, float]] = {}
        with contextlib.suppress(OSError):
            for line in (self.place_of(record.id) / LOSSES).read_text().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line cut off by a kill
                    point = json.loads(line)
                    found[int(point["step"])] = point
        return [found[step] for step in sorted(found) if step <= record.step]

    def result(self, record: Record) -> Path | None:
        """Return a job's picture or clip, None where there is none."""
        path = self.place_of(record.id) / (CLIP if record.inputs.get("clip") else RESULT)
        return path if path.is_file() else None

    # Pictures

    def picture(self, reference: str) -> Path:
        """Return the file of a reference. Raises InputError where there is none."""
        path = self._file(reference)
        if path is None or not path.is_file():
            raise InputError("picture", "one that was uploaded, or an example", f"got {reference[:20]}")
        return path

    def _file(self, reference: str) -> Path | None:
        if not REFERENCE.fullmatch(reference):
            return None
        try:
            return (
                images.resolve(reference)
                if reference.startswith(images.EXAMPLE)
                else self.pictures / reference
            )
        except InputError:
            return None

    def named(self, reference: str) -> str:
        """Return what a job is given for a reference: an example by its name. Raises InputError."""
        path = self.picture(reference)
        return reference if reference.startswith(images.EXAMPLE) else str(path)

    def readable(self, text: str) -> str:
        """Return a message with pictures by the names that people gave them, and without folders."""
        text = text.replace(f"{self.pictures}/", "").replace(f"{self.jobs}/", "")
        return SHA256.sub(lambda found: str(self.facts(found[0]).get("name") or "a picture"), text)

    def known(self, reference: str) -> bool:
        """Tell whether a reference is known."""
        path = self._file(reference)
        return path is not None and path.is_file()

    def beside(self, reference: str, suffix: str) -> Path:
        """Return the file for what is known of a picture: .json, .view.jpg or .thumb.jpg."""
        self.picture(reference)
        return self.pictures / f"{reference.replace(':', '-')}{suffix}"

    def facts(self, reference: str) -> dict[str, Any]:
        """Return what is known of a picture; nothing where nobody has looked at it."""
        try:
            return dict(json.loads(self.beside(reference, ".json").read_bytes()))
        except (OSError, ValueError):  # InputError, too: there is no such picture
            return {}

    def check_space(self, size: int = 0) -> None:
        """Raise InputError where the disk would have too little room left."""
        free = shutil.disk_usage(self.folder).free // MB
        if free < self.keep_free + size // MB:
            allowed = f"{self.keep_free} MB of it are kept free: delete jobs, or give `keep_free`"
            raise InputError("the disk", allowed, f"{free} MB are left")


def _lock(path: Path) -> int:
    """Take the folder, which the worker of a killed studio may hold a moment longer. Raises InputError."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(number)
                raise InputError(
                    f"`folder={path.parent}`", "of one studio at a time", "another has it"
                ) from None
            time.sleep(0.1)


def _token(path: Path) -> str:
    """Return the folder's token, so that a page that is open outlives a restart; for its owner alone."""
    with contextlib.suppress(OSError):
        text = path.read_text()
        if re.fullmatch(r"[\w-]{43}", text) and path.stat().st_mode & 0o077 == 0:
            return text
    text = secrets.token_urlsafe(32)
    write_private(path, text)
    return text


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
