"""List, verify, fetch and convert the weights of the networks.

Examples: nst-weights --list
          nst-weights --fetch=vgg19
          nst-weights --convert=imagenet-vgg-verydeep-19.mat --network=vgg19 --output=vgg19.safetensors
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from absl import logging
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from nst_jax.errors import InputError
from nst_jax.launchers.console import DONE, WRONG_REQUEST, tell
from nst_jax.launchers.flags import ParsedFlags, Program, launch
from nst_jax.networks import NETWORKS
from nst_jax.options import check_options, option
from nst_jax.weights import convert, fetch, verify
from nst_jax.weights.layout import NORMALIZATIONS
from nst_jax.weights.sources import sources


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be done: one of list, verify, fetch and convert."""

    list: bool = option(False, "list every known source: network, normalization, license, origin")
    verify: bool = option(False, "check the files of every source on this machine")
    fetch: str = option("", "name of a source to download, check and convert", choices=("", *sources()))
    convert: str = option("", "file to convert: .pth, .h5, .mat or .ckpt; no code in it is executed")
    network: str = option("", "network of the file to convert", choices=("", *NETWORKS))
    normalization: str = option(
        "",
        "normalization of the file to convert, if the file does not show it",
        choices=("", *NORMALIZATIONS),
    )
    output: str = option("", "converted file to write; with --fetch and empty: the cache, where nst looks")

    def __post_init__(self) -> None:
        check_options(self)
        if sum(map(bool, (self.list, self.verify, self.fetch, self.convert))) != 1:
            raise InputError(
                "nst-weights", "one of --list, --verify, --fetch, --convert", "got none or several"
            )
        if self.convert and not (self.network and self.output):
            raise InputError("--convert", "goes with --network and --output", "one is missing")
        if (self.network or self.normalization) and not self.convert:
            raise InputError("--network, --normalization", "go with --convert", "it is not given")
        if self.output and not (self.convert or self.fetch):
            raise InputError("--output", "goes with --convert or --fetch", "neither is given")


def main(given: ParsedFlags) -> int:
    """Run `nst-weights` with the options given."""
    task = Task(**given)
    if task.list:
        return _list()
    if task.verify:
        return _verify()
    if task.fetch:
        with _bar() as progress:
            tell(fetch(task.fetch, task.output or None, progress))
    else:
        convert(task.convert, task.network, task.output, task.normalization or None)
        tell(task.output)
    return DONE


def _list() -> int:
    for name, source in sources().items():
        where = source.url or f"package {source.package}"
        tell(f"{name}: {source.network}, {source.normalization}, {source.license}\n  {where}")
    return DONE


def _verify() -> int:
    """Print a line per file; a damaged one is a wrong request's exit code."""
    verdicts = verify()
    for verdict in verdicts:
        tell(f"{verdict.name}: {verdict.state} {verdict.path or ''} {verdict.detail}".rstrip())
    return WRONG_REQUEST if any(verdict.state == "damaged" for verdict in verdicts) else DONE


@contextmanager
def _bar() -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield what shows a download on a terminal: bytes so far, and in all where known."""
    console = Console(stderr=True)
    if not console.is_terminal or not logging.level_info():
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("download", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


PROGRAM = Program("nst-weights", __doc__, (Task,), main)


def console() -> None:
    """Run the program `nst-weights` on the command line."""
    launch(PROGRAM)
