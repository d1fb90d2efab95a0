"""The parent of the worker: it ends one that hangs, sees one that crashes, and starts another."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from fuzz.worker import FAULT, Verdict, serve

PATIENCE = 60.0  # seconds by the clock until a case hangs: it may wait, and others use the machine, too
START = 120.0  # seconds that a worker may take to start, or to make a case


class Watchdog:
    """Judges cases in a worker, which lives as long as it behaves."""

    def __init__(self, seed: int, patience: float = PATIENCE, prepare: Callable[[], object] = dict):
        self.seed, self.patience, self.prepare = seed, patience, prepare
        self._start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()

    def judge(self, kind: str, number: int) -> Verdict:
        """Return what came of a case; the next one finds a worker in any case."""
        try:
            self.pipe.send((kind, number))
            if not self.pipe.poll(START):
                raise TimeoutError(f"no case is made within {START:.0f} seconds")
            self.pipe.recv()  # the reading begins
            if self.pipe.poll(self.patience):
                return Verdict(*self.pipe.recv())
            fault = f"hangs: more than {self.patience:.0f} seconds"
        except (EOFError, ConnectionError):
            fault = "crashes"
        said = Path(self.folder.name, "said").read_text(errors="replace")[-3000:]
        self._end()
        self._start()
        return Verdict(FAULT, f"{fault}\n{said}", self.patience, 0)

    def _start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")  # JAX has threads: no fork
        self.pipe, theirs = context.Pipe()
        self.worker = context.Process(
            target=serve, args=(theirs, self.folder.name, self.seed, self.prepare), daemon=True
        )
        self.worker.start()
        theirs.close()
        if not self.pipe.poll(START):
            raise TimeoutError("the worker does not start")
        self.pipe.recv()

    def _end(self) -> None:
        self.worker.kill()
        self.worker.join()
        self.pipe.close()
        self.folder.cleanup()
