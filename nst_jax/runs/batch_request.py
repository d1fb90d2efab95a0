"""What a batch is asked for: the rows of a manifest or of globs, and the request of each row."""

import csv
import dataclasses
import functools
import io
import itertools
import json
import os
import pickle
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotWritten, did_you_mean
from nst_jax.losses import TERMS
from nst_jax.options import (
    Field,
    check_options,
    describe_range,
    fields_of,
    is_tuple,
    option,
    option_type,
    parse_option,
)
from nst_jax.runs.input_files import InputOptions
from nst_jax.runs.request import OutputOptions, Request
from nst_jax.system import storage
from nst_jax.system.distributed import DeviceOptions

ID = "{id}"
PLACES = ("output", "report", "plot", "mask_preview")  # options that name a file to write
WORKERS = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID")  # variables of Kubernetes and Slurm
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
EXACT = 2**53  # whole numbers below it are floats, too
MAX_LINE_BYTES = 2**20  # of JSONL
BETWEEN = ";"  # in a cell of CSV, between several files


def columns() -> dict[str, Field]:
    """Return the options that a column may name."""
    return _columns(tuple(TERMS))


@functools.cache  # asked for at every cell
def _columns(terms: tuple[str, ...]) -> dict[str, Field]:
    kinds = (InputOptions, OutputOptions, Config)
    return {field.name: field for kind in kinds for field in fields_of(kind) if field.name != "dry_run"}


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """Which pictures are made, and by which worker."""

    manifest: str = option(
        "", "CSV, JSONL or Parquet file with a row for each picture; its columns are options of nst, and id"
    )
    contents: tuple[str, ...] = option(
        (), "pattern of photographs, in place of a manifest: 'photos/*.jpg'", repeated=True
    )
    styles: tuple[str, ...] = option((), "pattern of paintings, with --contents", repeated=True)
    pairs: str = option("all", "how --contents and --styles are paired: all, zip, or random:NUMBER:SEED")
    results: str = option("", "folder for the results; empty: the folder results beside the pictures")
    shard: str = option(
        "",
        "INDEX/COUNT: make this share of the rows, from 0/COUNT; auto/COUNT takes the index from "
        f"{' or '.join(WORKERS)}",
    )
    batch_size: int = option(
        0,
        "rows of one shape that are optimized at once; 0: one on a CPU, on a GPU as many as fit",
        low=0,
        high=10**6,
    )
    retry_failed: bool = option(False, "make rows again that failed before")
    summary: bool = option(
        False,
        "at the end, write sheet.png, losses.png and summary.json of all workers' rows to the results",
    )

    def __post_init__(self) -> None:
        check_options(self)


class Row(NamedTuple):
    """A row of a manifest."""

    id: str
    values: dict[str, Any]  # by column, as read


class Rows:
    """Rows in a file, of which memory has the places alone: there may be millions."""

    def __init__(self, file: Path, starts: Sequence[int]):
        self.file, self.starts = file, starts

    @classmethod
    def kept(cls, rows: Iterable[Row], file: Path) -> "Rows":
        """Write rows to a file. Raises InputError where a value is too deep, and NotWritten."""
        starts = array("Q")
        try:
            with open(file, "wb") as out:
                for row in rows:
                    starts.append(out.tell())
                    pickle.dump(tuple(row), out)  # as they are: Parquet has more types than JSON
        except RecursionError:
            raise InputError("`manifest`", "values, or lists of them", "a list is too deep") from None
        except OSError as error:
            raise NotWritten(str(file), "must be a file that can be written", str(error)) from error
        return cls(file, starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Row]:
        with open(self.file, "rb") as file:
            for start in self.starts:
                file.seek(start)
                yield Row(*pickle.load(file))

    def by(self, keys: Sequence[int]) -> "Rows":
        """Return the rows in the order of a key of each."""
        order = np.argsort(np.asarray(keys), kind="stable")
        return Rows(self.file, array("Q", (self.starts[number] for number in order)))


class BatchRequest(NamedTuple):
    """What a batch is asked for; make_batch_request makes it of options."""

    wanted: BatchOptions
    given: Mapping[str, Any]  # options that all rows have in common
    shard: tuple[int, int]  # index, count

    def rows(self, scratch: Path) -> Rows:
        """Return the rows of this shard, which a folder keeps.

        Raises InputError if a row or its output is there twice.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        copy = str(scratch / "manifest") if storage.is_address(self.wanted.manifest) else ""
        if copy:
            storage.fetch(self.wanted.manifest, Path(copy))
        index, count = self.shard
        ids, written, read = array("q"), array("q"), array("q")  # hashes: a million names take much memory

        def own() -> Iterator[Row]:
            for number, row in enumerate(self._all(copy)):
                self._check_columns(row, number)
                ids.append(hash(row.id))
                written.extend(map(hash, self.written(row)))
                read.extend(map(hash, self._files_read(row)))
                if number % count == index:
                    yield row

        rows = Rows.kept(own(), scratch / "rows")
        if suspects := {*_twice(ids), *_twice(written), *np.intersect1d(written, read).tolist()}:
            self._check_names(copy, suspects)
        return rows

    def request(self, row: Row) -> Request:
        """Return what the job of a row is asked for. Raises InputError."""
        _check_id(row.id)
        known = columns()
        values = {name: parse_value(known[name], value) for name, value in row.values.items()}
        outputs = self._of(OutputOptions, values)
        places = {name: outputs[name].replace(ID, row.id) for name in PLACES if name in outputs}
        return Request(
            inputs=InputOptions(**self._of(InputOptions, values)),
            outputs=OutputOptions(**{**outputs, **places}),
            config=_config(tuple(self._of(Config, values).items())),
            devices=DeviceOptions(devices=1),
        )

    def written(self, row: Row) -> Iterator[str]:
        """Yield the names of the files that a row writes."""
        for name in PLACES:
            if place := str({**self.given, **row.values}.get(name, "")):
                yield os.path.normpath(place.replace(ID, row.id))

    @property
    def results(self) -> str:
        """The folder of the results."""
        folder = os.path.dirname(self.given["output"].partition(ID)[0])
        return self.wanted.results or os.path.join(folder, "results")

    def _all(self, copy: str) -> Iterator[Row]:
        """Yield the rows of all shards; copy: of a manifest at an address."""
        wanted = self.wanted
        if wanted.manifest:
            found = read_manifest(wanted.manifest, copy)
        else:
            found = make_pairs(_matching("contents", wanted.contents), self._styles(), wanted.pairs)
        for number, values in enumerate(found):
            yield Row(str(values.pop("id", f"{number:06d}")), values)

    def _styles(self) -> list[str]:
        return _matching("styles", self.wanted.styles) if self.wanted.styles else []

    def _of(self, kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
        names = {field.name for field in fields_of(kind)} & columns().keys()
        return {name: value for name, value in {**self.given, **values}.items() if name in names}

    def _check_columns(self, row: Row, number: int) -> None:
        """Raise InputError where a column is no option, or one that a picture needs is missing."""
        for name in row.values.keys() - columns().keys():
            came = f"got {name!r} in row {number}{did_you_mean(name, columns())}"
            raise InputError(self.wanted.manifest, "columns that are options of nst, or id", came)
        there = {**self.given, **row.values}
        missing = [name for name in ("style", "output") if name not in there]
        if not there.keys() & {"content", "content_labels", "init", "content_weight"}:
            missing.insert(0, "content")
        if missing:
            allowed = f"a column, or --{missing[0]} for all rows"
            raise InputError(missing[0], allowed, f"row {number} has neither")

    def _check_names(self, copy: str, suspects: set[int]) -> None:
        """Raise InputError where a name that has one of these hashes is there twice."""
        ids, written, read = set[str](), dict[str, str](), set[str]()
        for row in self._all(copy):
            if row.id in ids:
                raise InputError("id", "one for each row", f"{row.id} is there twice")
            if hash(row.id) in suspects:
                ids.add(row.id)
            for path in self.written(row):
                if path in written:
                    came = f"{path} for {written[path]} and {row.id}"
                    raise InputError("`output`", f"a file for each row, such as {ID}.png", came)
                if hash(path) in suspects:
                    written[path] = row.id
            read.update(path for path in self._files_read(row) if hash(path) in suspects)
        if both := sorted(written.keys() & read):
            raise InputError("`output`", "files that no row reads", f"got {both[0]}")

    def _files_read(self, row: Row) -> Iterator[str]:
        for name in ("content", "style"):
            value = row.values.get(name, self.given.get(name, ()))
            for one in value if isinstance(value, list | tuple) else [value]:
                yield os.path.normpath(str(one))


def make_batch_request(
    wanted: BatchOptions, given: Mapping[str, Any], environment: Mapping[str, str]
) -> BatchRequest:
    """Return the request of some options.

    Args:
        wanted: which rows there are.
        given: options of InputOptions, OutputOptions and Config that all rows have in common.
        environment: variables, of which one may have the index of the shard.

    Raises:
        InputError: the options contradict each other.
    """
    if bool(wanted.manifest) == bool(wanted.contents):
        came = "both" if wanted.manifest else "neither"
        raise InputError("`manifest`, `contents`", "one of them", f"got {came}")
    if wanted.styles and not wanted.contents:
        raise InputError("`styles`", "with `contents`", "got `manifest`")
    if wanted.styles and "style" in given:
        raise InputError("`style`, `styles`", "one of them", "got both")
    for name in PLACES:
        for brace in re.findall(r"{[^}]*}?", given.get(name, "")):
            if brace != ID:
                raise InputError(f"`{name}`", f"{ID} in place of the row's id", f"got {brace}")
    if "output" not in given:
        raise InputError("`output`", f"a template such as FOLDER/{ID}.png", "not given")
    return BatchRequest(wanted, given, parse_shard(wanted.shard, environment))


def parse_shard(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return index and count of INDEX/COUNT or auto/COUNT. Raises InputError."""
    if not text:
        return 0, 1
    index, _, count = text.partition("/")
    if index == "auto":
        index = next((environment[name] for name in WORKERS if name in environment), index)
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        allowed = f"INDEX/COUNT, INDEX below COUNT; or auto/COUNT where {' or '.join(WORKERS)} is set"
        came = f"got {text}" if text.startswith(index) else f"got {text} with index {index}"
        raise InputError("`shard`", allowed, came)
    return int(index), int(count)


def read_manifest(name: str, copy: str = "") -> Iterator[dict[str, Any]]:
    """Yield the values of each row of a manifest, or of a copy of it, by column, without empty ones.

    Raises InputError.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in readers:
        raise InputError(name, f"must end in {', '.join(readers)}", f"got {suffix or 'no extension'}")
    with storage.open_file(copy or name) as file:
        for row in readers[suffix](name, file):
            yield {column: value for column, value in row.items() if value not in (None, "", [])}


def _read_csv(name: str, file: Any) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        table = csv.DictReader(text, strict=True)
        try:
            columns = table.fieldnames or []
            if len(set(columns)) < len(columns):
                raise ValueError("a column is there twice")
            for row in table:
                if None in row:
                    raise ValueError("there are more cells than columns")
                yield {column: _split(column, cell) for column, cell in row.items()}
        except (csv.Error, ValueError) as error:  # ValueError: it is no UTF-8, too
            raise InputError(f"{name}, line {table.line_num}", "must be CSV in UTF-8", str(error)) from error


def _split(column: str, cell: str | None) -> str | list[str] | None:
    """Return a cell; of an option that may repeat, its parts."""
    known = columns()
    repeated = column in known and known[column].metadata["repeated"]
    return cell.split(BETWEEN) if cell and repeated and BETWEEN in cell else cell


def _read_jsonl(name: str, file: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"{name}, line {number}", f"at most {MAX_LINE_BYTES} bytes", "it is longer")
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, line {number}", "must be a JSON object", str(error)) from error
        if row is None:
            continue
        if not isinstance(row, dict):
            raise InputError(f"{name}, line {number}", "must be a JSON object", f"got {type(row).__name__}")
        yield row


def _read_parquet(name: str, file: Any) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        allowed = f"pyarrow for Parquet ({storage.EXTRA})"
        raise InputError(name, allowed, "it is not installed") from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(name, "must be a Parquet file", str(error)) from error


def parse_value(field: Field, value: Any) -> Any:
    """Return the value of an option from a cell: a text, or what JSON has in its place. Raises InputError."""
    if isinstance(value, list):
        if not is_tuple(field):
            raise InputError(f"`{field.name}`", "one value", f"got {len(value)}")
        return tuple(_plain(field, one) for one in value)
    value = _plain(field, value)
    if field.metadata["repeated"]:
        return (value,)
    if isinstance(value, str):
        if option_type(field) is not bool:
            return parse_option(field, value)
        return TRUTHS.get(value.lower(), value)  # check_options says what is wrong with others
    return (value,) if is_tuple(field) else value


def _plain(field: Field, value: Any) -> str | int | float:
    """Return a text or a number of JSON; where an option is a float, a whole one as a float."""
    if not isinstance(value, str | int | float):
        raise InputError(f"`{field.name}`", describe_range(field), f"got {value!r}")
    whole = type(value) is int and abs(value) < EXACT
    return float(value) if whole and option_type(field) is float else value


def make_pairs(contents: Sequence[str], styles: Sequence[str], pairs: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each pair of a content and a style; without styles, for each content.

    Args:
        contents: names of files.
        styles: names of files.
        pairs: all; zip, the first with the first; or random:NUMBER:SEED, so many different ones.

    Raises:
        InputError: there are no such pairs.
    """
    if not styles:
        yield from ({"id": _stem(content), "content": content} for content in contents)
        return
    found: Iterable[tuple[str, str]]
    if pairs == "zip" and len(contents) != len(styles):
        came = f"got {len(contents)} and {len(styles)}"
        raise InputError("`pairs=zip`", "as many contents as styles", came)
    if pairs == "zip":
        found = zip(contents, styles, strict=True)
    elif pairs == "all":
        found = itertools.product(contents, styles)
    else:
        found = _random_pairs(contents, styles, pairs)
    for content, style in found:
        yield {"id": f"{_stem(content)}-{_stem(style)}", "content": content, "style": style}


def _random_pairs(contents: Sequence[str], styles: Sequence[str], pairs: str) -> Iterator[tuple[str, str]]:
    there = len(contents) * len(styles)
    match = re.fullmatch(r"random:(\d{1,18}):(\d{1,18})", pairs)
    if not match or int(match[1]) > there:
        allowed = f"all, zip or random:NUMBER:SEED, with at most the {there} pairs that there are"
        raise InputError("`pairs`", allowed, f"got {pairs}")
    for number in sorted(random.Random(int(match[2])).sample(range(there), int(match[1]))):
        yield contents[number // len(styles)], styles[number % len(styles)]


def _matching(option_name: str, patterns: Sequence[str]) -> list[str]:
    """Return the files that match some patterns, each once. Raises InputError."""
    found = [
        [pattern] if pattern.startswith(images.EXAMPLE) else storage.glob(pattern) for pattern in patterns
    ]
    for pattern, names in zip(patterns, found, strict=True):
        if not names:
            raise InputError(f"`{option_name}={pattern}`", "a pattern that files match", "none does")
    return list(dict.fromkeys(itertools.chain(*found)))


def _stem(name: str) -> str:
    return PurePosixPath(name.removeprefix(images.EXAMPLE)).stem


def _twice(hashes: Sequence[int]) -> list[int]:
    """Return what is there more than once."""
    values, counts = np.unique(np.asarray(hashes), return_counts=True)
    return values[counts > 1].tolist()


def _check_id(text: str) -> None:
    """Raise InputError unless an id can be part of a file's name; it may name folders."""
    if not text.isprintable() or any(part in ("", ".", "..") for part in text.split("/")):
        raise InputError("id", "a name of a file, which may have folders before it", f"got {text!r}")


@functools.lru_cache(256)
def _config(given: tuple[tuple[str, Any], ...]) -> Config:
    """Return the config of some options: most rows have the same."""
    return Config.from_preset(**dict(given))
