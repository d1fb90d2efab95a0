"""Files at addresses, as jobs need them: inputs are fetched before a job, outputs are delivered after it."""

import collections
import dataclasses
import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from nst_jax.errors import InputError
from nst_jax.runs.batch_request import PLACES
from nst_jax.runs.request import Request
from nst_jax.system import storage

MAX_FILES = 256  # local copies that are kept: styles are used by many rows


class Staged(NamedTuple):
    """A request with local files in place of those at addresses."""

    request: Request
    addresses: dict[str, str]  # of the files that are written, by their local names
    folder: Path

    def deliver(self, name: str) -> str:
        """Bring a file to its address, if it has one; return where it is. Raises NotWritten."""
        if name not in self.addresses:
            return name
        storage.write(self.addresses[name], Path(name).read_bytes())
        return self.addresses[name]

    def close(self) -> None:
        """Remove the local files that were written."""
        if self.addresses:
            shutil.rmtree(self.folder, ignore_errors=True)


class Staging:
    """Makes local copies in a folder; what was not used for long is removed."""

    def __init__(self, folder: Path):
        self.folder, self.numbers = folder, itertools.count()
        self.copies: collections.OrderedDict[str, Path] = collections.OrderedDict()

    def stage(self, request: Request) -> Staged:
        """Fetch what a request reads from addresses, and name local files to write. Raises InputError."""
        outputs, config = request.outputs, request.config
        folder = self.folder / f"row-{next(self.numbers)}"
        addresses: dict[str, str] = {}
        local: dict[str, Any] = {}
        for name in PLACES:
            if storage.is_address(place := getattr(outputs, name)):
                local[name] = str(folder / name / place.rpartition("/")[2])
                addresses[local[name]] = place
        if outputs.save_every and "output" in local:
            raise InputError("`save_every`", "0 where `output` is an address", f"got {outputs.save_every}")
        read = {name: self.local(value) for name, value in dataclasses.asdict(request.inputs).items()}
        staged = dataclasses.replace(
            request,
            inputs=dataclasses.replace(request.inputs, **read),
            outputs=dataclasses.replace(outputs, **local),
            config=dataclasses.replace(config, init=self.local(config.init)),
        )
        return Staged(staged, addresses, folder)

    def local(self, value: Any) -> Any:
        """Return the value of an option with local copies in place of addresses."""
        if isinstance(value, tuple):
            return tuple(map(self.local, value))
        return self._copy(value) if isinstance(value, str) and storage.is_address(value) else value

    def _copy(self, address: str) -> str:
        if address in self.copies:
            self.copies.move_to_end(address)
            return str(self.copies[address])
        folder = self.folder / "read" / hashlib.sha256(address.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / address.rpartition("/")[2]  # its own name, as pictures tell it
        storage.fetch(address, path)
        self.copies[address] = path
        if len(self.copies) > MAX_FILES:
            _, oldest = self.copies.popitem(last=False)
            shutil.rmtree(oldest.parent, ignore_errors=True)
        return str(path)
