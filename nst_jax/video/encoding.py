"""Encoding in a thread, behind the optimization: a frame that is kept is encoded while others are made."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from nst_jax.video.store import Store


class GivenUp(Exception):
    """No more frames come, and what was encoded is not wanted."""


class Encoding:
    """A thread that writes frames as they are told of; as a context, it gives up where it is not finished.

    Only numbers of frames wait for it, not pictures: it reads these from the store.
    """

    def __init__(self, write: Callable[[Iterator[tuple[Store, int]]], Any]):
        """Begin. write: takes where each frame is kept and its number, until they end."""
        self.coming: SimpleQueue[tuple[Store, int] | None] = SimpleQueue()
        self.given_up = False
        self.pool = ThreadPoolExecutor(1)
        self.written = self.pool.submit(write, self._frames())

    def add(self, store: Store, number: int) -> None:
        """Tell of a frame that is kept. Raises what the thread failed of."""
        if self.written.done():
            self.written.result()
        self.coming.put((store, number))

    def finish(self) -> Any:
        """Return what write returns, once all frames are written. Raises what the thread failed of."""
        self.coming.put(None)
        return self.written.result()

    def __enter__(self) -> "Encoding":
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self.given_up = True
        self.coming.put(None)
        self.pool.shutdown()

    def _frames(self) -> Iterator[tuple[Store, int]]:
        while (item := self.coming.get()) is not None and not self.given_up:
            yield item
        if self.given_up:
            raise GivenUp
