"""A process of the studio, as the server sees it: started again whenever it ends, messages as they come."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nst_jax

MAX_LINE_BYTES = 2**24  # of a message: plans, notes and the settings of a picture
RESTART_SECONDS = 0.5  # before it is started again; twice as long after each that has ended soon
SOON_SECONDS, LONGEST_SECONDS = 10.0, 60.0


class Child:
    """A process that is kept running."""

    def __init__(
        self, module: str, heard: Callable[[dict[str, Any]], None], ended: Callable[[int], None], lock: int
    ):
        """Prepare it.

        Args:
            module: of this package, with a main.
            heard: called with each message.
            ended: called with the exit code before it is started again.
            lock: a file that stays locked as long as the process lives.
        """
        self.module, self.heard, self.ended, self.lock = module, heard, ended, lock
        self.process: asyncio.subprocess.Process | None = None
        self.backlog: list[dict[str, Any]] = []  # for the next one
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it, and again when it ends."""
        self.task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        wait = RESTART_SECONDS
        while True:
            began = time.monotonic()
            self.process = await self._spawn()
            assert self.process.stdout is not None
            backlog, self.backlog = self.backlog, []
            for message in backlog:
                self.send(**message)
            with contextlib.suppress(ValueError):  # a line that is too long
                async for line in self.process.stdout:
                    self.heard(json.loads(line))
                    await asyncio.sleep(0)
            self.kill()
            self.ended(await self.process.wait())
            soon = time.monotonic() - began < SOON_SECONDS
            wait = min(LONGEST_SECONDS, 2 * wait) if soon else RESTART_SECONDS
            await asyncio.sleep(wait)

    async def _spawn(self) -> asyncio.subprocess.Process:
        path = os.pathsep.join(
            [str(Path(nst_jax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        )
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"nst_jax.studio.{self.module}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            limit=MAX_LINE_BYTES,
            pass_fds=(self.lock,),
            start_new_session=True,  # Ctrl-C is the server's
        )

    def send(self, **message: Any) -> None:
        """Send a message, to the next process where there is none; whoever asked is told when one ends."""
        stdin = self.process and self.process.returncode is None and self.process.stdin
        if stdin and not stdin.is_closing():
            stdin.write(json.dumps(message).encode() + b"\n")
        else:
            self.backlog.append(message)

    def kill(self) -> None:
        """End the process now; it is started again."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def stop(self, seconds: float) -> None:
        """End the process for good: let it end by itself, and after some seconds kill it."""
        if self.task:
            self.task.cancel()
        if self.process and self.process.stdin:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), seconds)
            except TimeoutError:
                self.kill()
