"""A batch is many jobs, one after the other: while one computes, the next is read and the last is written.

    request = make_batch_request(BatchOptions(manifest="rows.csv"), {"output": "out/{id}.png"}, os.environ)
    for event in prepare_batch(request, Path("scratch")).run(stop=lambda: False):
        match event:
            case RowFinished(id, paths, error):
                print(id, error or paths)
            case RowSkipped(id, error):
                print(id, error or "was made before")

A row that fails is recorded, and the next one is made.
"""

import collections
import contextlib
import functools
import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from PIL import ExifTags, Image

import nst_jax
from nst_jax import images
from nst_jax.errors import InputError, NotEnoughMemory, as_flags
from nst_jax.files import check_folder, remove_stale
from nst_jax.networks.base import Params
from nst_jax.runs.batch_lanes import Lanes
from nst_jax.runs.batch_request import PLACES, BatchRequest, Row, Rows
from nst_jax.runs.batch_results import Results, key_of
from nst_jax.runs.batch_staging import Staged, Staging
from nst_jax.runs.events import Event, Optimized, Written
from nst_jax.runs.input_files import program_size
from nst_jax.runs.job import Job, load_network, prepare
from nst_jax.runs.request import Request
from nst_jax.runs.transfer import Progress
from nst_jax.system import device, storage
from nst_jax.weights import Weights

LOG = logging.getLogger(__name__)
ROWS_AHEAD = 2  # rows, at least, that are read before their turn
MAX_PROGRAMS = 500  # that are kept: thousands take all memory maps of a process, which ends in a crash
HEADER_THREADS = 16  # that read headers, for files at addresses answer slowly
HEADERS_AHEAD = 64  # that are asked for at a time
TURNED = 5  # Exif's orientations from here on have rows for columns
UNKNOWN_SIZE = (1, 1)  # of a file whose header cannot be read: its job says why


class RowFinished(NamedTuple):
    """A row was made, or has failed; its line is in the results."""

    id: str
    paths: tuple[str, ...]
    error: str  # empty: the row is good


class RowSkipped(NamedTuple):
    """A row was made before of the same files and options, or failed before."""

    id: str
    error: str  # empty: the row is good


BatchEvent = RowFinished | RowSkipped


class BatchForecast(NamedTuple):
    """What a batch will take."""

    rows: int
    made: int  # rows that an earlier run has made or found to fail, if nothing has changed
    shapes: int  # sizes of pictures
    programs: int  # that are compiled: one for each shape, scale and set of options


class Shape(NamedTuple):
    """What the compiled programs of a row depend on."""

    size: tuple[int, int]  # rows, columns
    options: tuple[Any, ...]
    scales: tuple[int, ...]
    style_sizes: tuple[tuple[int, int], ...]


class _Ready(NamedTuple):
    row: Row
    key: str
    staged: Staged
    job: Job


class _Optimized(NamedTuple):
    ready: _Ready
    losses: dict[str, Any]
    seconds: float
    events: Iterator[Event]  # the rest of them, which write the files


class Batch:
    """The rows of a batch, in the order in which they are made; see the module."""

    def __init__(
        self,
        request: BatchRequest,
        rows: Rows,
        results: Results,
        staging: Staging,
        forecast: BatchForecast,
    ):
        self.request, self.rows, self.results, self.forecast = request, rows, results, forecast
        self.staging = staging
        self.lanes = Lanes(request.wanted.batch_size)
        self.networks: dict[tuple[str, str], tuple[Weights, Params]] = {}

    def run(self, stop: Callable[[], Any] = lambda: False) -> Iterator[BatchEvent]:
        """Make the rows that are not made yet, and yield what comes of each.

        Args:
            stop: asked before each row whether to end; the rows in hand are then made and written.

        Raises:
            NotWritten: the results cannot be written.
        """
        folders = {os.path.dirname(place) for row in self.rows for place in self.request.written(row)}
        for folder in folders:
            if not storage.is_address(folder):
                remove_stale(Path(folder))
        writing: collections.deque[Future[BatchEvent]] = collections.deque()
        with (
            contextlib.closing(self.results),
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
        ):
            for made in self._made(reader, stop):
                while writing:  # of one group at a time, so that few pictures are in memory
                    yield writing.popleft().result()
                for one in made:
                    if isinstance(one, _Optimized):
                        writing.append(writer.submit(self._write, one))
                    else:
                        yield one
            while writing:
                yield writing.popleft().result()

    def _made(
        self, reader: ThreadPoolExecutor, stop: Callable[[], Any]
    ) -> Iterator[Sequence[_Optimized | BatchEvent]]:
        """Compute the pictures of the rows, those of a group at a time; yield what comes of them."""
        found = _in_advance(reader, self._prepare, self.rows, lambda: max(ROWS_AHEAD, self.lanes.in_hand))
        with device.CompileTime() as compiling:
            for group in self.lanes.groups(found, lambda one: getattr(one, "job", None)):
                if stop():
                    return
                if compiling.programs > MAX_PROGRAMS:  # rows are in the order of theirs: few come back
                    jax.clear_caches()
                    compiling.programs = 0
                rows = [one for one in group if isinstance(one, _Ready)]
                if not rows:
                    yield group
                    continue
                alone = yield from self._optimize_together(rows)
                for ready in alone:
                    if stop():
                        return
                    yield [self._optimize(ready)]

    def _prepare(self, row: Row) -> _Ready | BatchEvent:
        """Read a row's files, unless the row is made already."""
        key = ""
        try:
            request = self.request.request(row)
            staged = self.staging.stage(request)
            network = self._network(staged.request)
            key = key_of(staged.request, network[0])
            if self._is_made(row, key, request):
                return RowSkipped(row.id, self.results.last[row.id].error)
            for path in _places(staged.request):
                storage.make_folder(os.path.dirname(path))
            return _Ready(row, key, staged, prepare(staged.request, network=network))
        except Exception as error:  # whatever it is, the next row is made
            return self._failed(row, key, error)

    def _network(self, request: Request) -> tuple[Weights, Params]:
        name = request.config.network, request.inputs.weights
        if name not in self.networks:
            self.networks[name] = load_network(request)
        return self.networks[name]

    def _is_made(self, row: Row, key: str, request: Request) -> bool:
        """Tell whether a row was made of the same, or has failed and is not to be tried again."""
        last = self.results.last.get(row.id)
        if not last or last.key != key:
            return False
        if last.error:
            return not self.request.wanted.retry_failed
        return all(map(storage.exists, _places(request)))

    def _optimize_together(
        self, rows: Sequence[_Ready]
    ) -> Generator[Sequence[_Optimized | BatchEvent], None, list[_Ready]]:
        """Compute the pictures of a group; return the rows that are to be made by themselves."""
        began = time.monotonic()
        outcomes = self.lanes.optimize([ready.job for ready in rows])
        pairs = list(zip(rows, outcomes, strict=True))
        seconds = (time.monotonic() - began) / len(rows)
        if any(outcomes):
            yield [
                self._optimized(ready, outcome.last, seconds, ready.job.write(outcome))
                for ready, outcome in pairs
                if outcome
            ]
        return [ready for ready, outcome in pairs if not outcome]

    def _optimize(self, ready: _Ready) -> _Optimized | BatchEvent:
        """Compute a row's picture; nothing is written yet."""
        began = time.monotonic()
        try:
            events = ready.job.run()
            last = next(event for event in events if isinstance(event, Optimized)).progress
            return self._optimized(ready, last, time.monotonic() - began, events)
        except Exception as error:  # whatever it is, the next row is made
            ready.staged.close()
            return self._failed(ready.row, ready.key, error)

    def _optimized(
        self, ready: _Ready, last: Progress, seconds: float, events: Iterator[Event]
    ) -> _Optimized | BatchEvent:
        """Return a row whose picture is computed.

        Args:
            ready: The row.
            last: Where the run ended.
            seconds: That it took.
            events: Those that follow, which write the files.
        """
        if last.finite:
            return _Optimized(ready, last.losses, seconds, events)
        ready.staged.close()
        came = f"not finite after step {last.step}"
        error = InputError("loss", "finite numbers (smaller weights?)", came)
        return self._failed(ready.row, ready.key, error)

    def _write(self, made: _Optimized) -> BatchEvent:
        """Write a row's files and its line."""
        row, key, staged, job = made.ready
        try:
            written = [event.path for event in made.events if isinstance(event, Written)]
            told: dict[str, Any] = {"losses": made.losses, "seconds": round(made.seconds, 3)}
            if job.request.outputs.judge:
                told["judge"] = json.loads(storage.read(job.request.outputs.report))["judge"]
            paths = tuple(map(staged.deliver, written))
        except Exception as error:  # whatever it is, the next row is made
            return self._failed(row, key, error)
        finally:
            staged.close()
        self._record(row, key, paths, "", told)
        return RowFinished(row.id, paths, "")

    def _failed(self, row: Row, key: str, error: Exception) -> BatchEvent:
        message, last = _reason(error, row.id), self.results.last.get(row.id)
        if not key and last and (last.key, last.error) == (key, message):
            return RowSkipped(row.id, message)  # its line is there
        self._record(row, key, (), message, {})
        return RowFinished(row.id, (), message)

    def _record(self, row: Row, key: str, paths: tuple[str, ...], error: str, told: dict[str, Any]) -> None:
        entry = {"id": row.id, "key": key, "paths": paths, "error": error or None, **told}
        self.results.add(entry | {"ended": time.time(), "nst_jax": nst_jax.__version__})


def prepare_batch(request: BatchRequest, scratch: Path) -> Batch:
    """Read the manifest, the results and the headers of the pictures; write nothing. Raises InputError.

    scratch: a folder for the rows, and for local copies of what lies at addresses.
    """
    rows = request.rows(scratch)
    for name in PLACES:
        if storage.is_address(place := request.given.get(name, "")):
            storage.check_driver(place)
    if not storage.is_address(request.results):
        check_folder(Path(request.results))
    results = Results(request.results, request.shard)
    results.load()
    sizes = functools.lru_cache(4096)(_size_of)
    order: dict[Shape | None, int] = {}  # numbers of the shapes, as they come
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        shapes = _in_advance(pool, lambda row: _shape_of(request, row, sizes), rows, lambda: HEADERS_AHEAD)
        numbers = array("q", (order.setdefault(shape, len(order)) for shape in shapes))
    known = [shape for shape in order if shape]
    programs = {shape._replace(style_sizes=()) for shape in known}
    forecast = BatchForecast(
        rows=len(rows),
        made=sum(row.id in results.last for row in rows),
        shapes=len({shape.size for shape in known}),
        programs=sum(len(program.scales) for program in programs),
    )
    return Batch(request, rows.by(numbers), results, Staging(scratch), forecast)


def _shape_of(request: BatchRequest, row: Row, size_of: Callable[[str], tuple[int, int]]) -> Shape | None:
    """Return what the programs of a row depend on; None if its options are wrong, which its job says."""
    try:
        inputs, config = (asked := request.request(row)).inputs, asked.config
        spec, scales = config.spec(), config.pyramid()
    except InputError:
        return None
    names = (inputs.content, inputs.content_labels, *inputs.style)
    style_side = max(1, round(config.size * config.stroke_size))

    def fitted(name: str, longest: int) -> tuple[int, int]:
        return program_size(images.size_to_fit(*size_of(name), longest), inputs)

    masks = (bool(inputs.content_mask), tuple(map(bool, inputs.style_mask)), inputs.content_labels)
    return Shape(
        size=fitted(next(filter(None, names)), config.size),
        options=(spec, len(inputs.style), masks, tuple(map(bool, inputs.style_source_mask))),
        scales=tuple(scale.size for scale in scales),
        style_sizes=tuple(fitted(name, style_side) for name in inputs.style),
    )


def _size_of(name: str) -> tuple[int, int]:
    """Return the rows and columns of a picture as its header tells them."""
    try:
        path = name if storage.is_address(name) else str(images.resolve(name))
        with storage.open_file(path) as file, Image.open(file, formats=images.READABLE) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # of a hostile file pillow raises anything
        return UNKNOWN_SIZE


def _places(request: Request) -> list[str]:
    """Return the files that a row writes."""
    return [place for name in PLACES if (place := getattr(request.outputs, name))]


def _reason(error: Exception, id: str) -> str:
    """Return an error in one line."""
    if isinstance(error, InputError | NotEnoughMemory):
        return as_flags(error)
    LOG.warning("%s: unexpected", id, exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _in_advance(
    pool: ThreadPoolExecutor,
    function: Callable[[Row], Any],
    rows: Iterable[Row],
    ahead: Callable[[], int],
) -> Iterator[Any]:
    """Yield what a function gives for each row, computed while those before are used.

    Args:
        pool: Computes it.
        function: Of a row.
        rows: In order.
        ahead: Tells for how many rows at a time.
    """
    futures: collections.deque[Future[Any]] = collections.deque()
    try:
        for row in rows:
            futures.append(pool.submit(function, row))
            while len(futures) > ahead():
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
