"""The published files of weights: what weights/sources.toml says of them, their checksums, their download."""

import contextlib
import functools
import hashlib
import http.client
import importlib.metadata
import tempfile
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nst_jax.errors import InputError, did_you_mean

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known

MAX_DOWNLOAD_BYTES = 2**30  # bytes of a download; VGG-19 with its fully connected layers has 575 million
PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Source:
    """A published file of weights: the package that carries it, or its address; its checksum."""

    name: str
    network: str
    normalization: str
    format: str
    license: str
    url: str = ""
    package: str = ""
    file: str = ""  # its path in the package
    sha256: str = ""  # whole, or the first digits where no more is published
    md5: str = ""

    @property
    def checksum(self) -> tuple[str, str]:
        """The algorithm, and the digits that the file's checksum starts with."""
        return ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)

    @property
    def file_name(self) -> str:
        """The name of the published file."""
        return (self.url or self.file).rpartition("/")[2]


@functools.cache
def table() -> dict[str, Any]:
    """Return the content of sources.toml, which a wheel has beside this module, a checkout in weights/."""
    here = Path(__file__).parent
    installed = here / "sources.toml"
    return tomllib.loads(
        (installed if installed.exists() else here.parents[1] / "weights/sources.toml").read_text()
    )


def sources() -> dict[str, Source]:
    """Return the published files by name; the one that is named as a network is its default."""
    return {name: Source(name, **fields) for name, fields in table()["sources"].items()}


def find_source(name: str) -> Source:
    """Return a published file by name. Raises InputError."""
    known = sources()
    if name not in known:
        came = f"got {name}{did_you_mean(name, known)}"
        raise InputError("weights", f"must be one of {', '.join(known)}", came)
    return known[name]


def identify(path: Path) -> Source | None:
    """Return the published file that a file is a copy of, by its checksum."""
    digests: dict[str, str] = {}
    for source in sources().values():
        algorithm, digits = source.checksum
        if algorithm not in digests:
            digests[algorithm] = digest(path, algorithm)
        if digests[algorithm].startswith(digits):
            return source
    return None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's checksum in hexadecimal. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.new(algorithm, usedforsecurity=False)
            ).hexdigest()
    except OSError as error:
        raise InputError(str(path), "must be a file that can be read", str(error.strerror)) from error


def check(source: Source, path: Path) -> None:
    """Raise InputError unless a file has its source's published checksum."""
    algorithm, digits = source.checksum
    if not (found := digest(path, algorithm)).startswith(digits):
        raise InputError(source.file_name, f"its {algorithm} must start with {digits}", f"got {found}")


def locate(source: Source) -> Path:
    """Return where a source's package keeps its file, without importing it. Raises InputError."""
    requirement = f"needs the file {source.file} of the package {source.package}"
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(source.name, requirement, f"pip install {source.package}") from None
    path = Path(str(distribution.locate_file(source.file)))
    if not path.is_file():
        raise InputError(source.name, requirement, "it lacks the file: install it again")
    return path


@contextlib.contextmanager
def downloaded(source: Source, folder: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Yield a checked download, kept in folder until the context ends.

    Args:
        source: What is downloaded.
        folder: Where it is kept.
        progress: Called with the bytes so far and, where known, in all.

    Raises:
        InputError: There is no internet, or the file that came is not the published one.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".download-") as file:
        try:
            _download(source.url, file.write, progress or (lambda done, total: None))
            file.flush()
        except (OSError, ValueError, http.client.HTTPException) as error:
            came = str(error) or type(error).__name__
            raise InputError(f"fetching {source.name}", _by_hand(source), came) from error
        check(source, Path(file.name))
        yield Path(file.name)


def _download(url: str, write: Callable[[bytes], object], progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "nst-jax"})  # some hosts refuse urllib's own
    with urllib.request.urlopen(request, timeout=30) as response:
        total = response.length
        done = 0
        while piece := response.read(PIECE_BYTES):
            write(piece)
            done += len(piece)
            if done > MAX_DOWNLOAD_BYTES:
                raise ValueError("more came than any such file is long")
            progress(done, total)
    if total is not None and done < total:
        raise ValueError(f"the connection broke after {done} of {total} bytes")


def _by_hand(source: Source) -> str:
    command = f"nst-weights --convert={source.file_name} --network={source.network} --output=FILE"
    return f"needs the internet; without it, bring {source.url} from another machine and run {command}"
