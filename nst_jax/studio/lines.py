"""Messages between the studio and its processes: a JSON object in each line."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

GRACE_SECONDS = 3.0  # seconds that a process has to end once the studio is gone


class Lines:
    """A process's end: messages come by standard input, and go by what was standard output."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a library prints is no message
        self.lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message; a studio that is gone hears nothing, and ends this process."""
        with self.lock:
            try:
                self.out.write(json.dumps(message) + "\n")
                self.out.flush()
            except OSError:
                os._exit(1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the messages until the studio is gone."""
        for line in sys.stdin:
            yield json.loads(line)


def end_soon(ask: Callable[[], object]) -> None:
    """End this process: ask it to, and end it where that takes longer than GRACE_SECONDS."""
    timer = threading.Timer(GRACE_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()
    ask()
