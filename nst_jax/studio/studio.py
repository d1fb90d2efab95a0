"""The studio itself: its jobs, their queue, the processes that do the work, and who watches."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nst_jax.errors import InputError
from nst_jax.studio.child import Child
from nst_jax.studio.lines import GRACE_SECONDS
from nst_jax.studio.options import StudioOptions
from nst_jax.studio.recipes import Recipe, check_recipe
from nst_jax.studio.store import WAITING, Record, Store

LOG = logging.getLogger(__name__)
MAX_CRASHES = 3  # of the worker, at one job
MAX_NOTES = 20
KEPT_CHECKPOINTS = 10  # of finished jobs, the newest: they are many times a picture's size
READ_SECONDS = 60.0  # that a picture may take to be read
ANSWER_SECONDS = 600.0  # that the worker may take to answer a question
HEARTBEAT_SECONDS = 15.0
PAUSE_SECONDS = 0.1  # between what is told to one who watches
# What the worker tells of a job and its record keeps.
SHOWN = {
    "step",
    "left",
    "pace",
    "memory",
    "pixels",
    "losses",
    "plan",
    "iterations",
    "scales",
    "resumable",
    "status",
    "error",
}
STOPS = ("pause", "keep", "cancel")


class Refused(ValueError):
    """What a process of the studio says, in one line, of something that it could not do."""


class Watcher:
    """One who watches: of what changed while he was slow he is told the newest state."""

    def __init__(self) -> None:
        self.changed: dict[str, None] = {}
        self.woken = asyncio.Event()

    def tell(self, job: str) -> None:
        """Take note of a job that changed."""
        self.changed[job] = None
        self.woken.set()

    async def wait(self) -> list[str]:
        """Return the jobs that changed, none after HEARTBEAT_SECONDS."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.woken.wait(), HEARTBEAT_SECONDS)
        self.woken.clear()
        jobs, self.changed = list(self.changed), {}
        return jobs


class Studio:
    """All that the server's routes work on. Its methods run in the event loop's thread."""

    def __init__(self, store: Store, options: StudioOptions):
        self.store, self.options = store, options
        self.jobs = store.load()
        self.running = ""  # the job that the worker was given
        self.started = False  # from then on a stop is heard, and leaves a picture
        self.device: dict[str, Any] = {}
        self.broken = ""  # why the worker cannot work
        self.watchers: set[Watcher] = set()
        self.asked: dict[int, asyncio.Future[dict[str, Any]]] = {}  # of the reader
        self.questions: dict[str, asyncio.Future[dict[str, Any]]] = {}  # of the worker
        self.number = 0
        self.reading = asyncio.Lock()
        self.worker = Child("worker", self.heard, self.worker_ended, store.lock)
        self.reader = Child("reader", self.answered, self.reader_ended, store.lock)
        for record in self.jobs.values():
            if record.status == "running":  # when the studio was ended
                record.status = "queued"

    def start(self) -> None:
        """Start the processes."""
        self.worker.start()
        self.reader.start()

    async def stop(self) -> None:
        """End the processes; the job in hand keeps its checkpoint."""
        await asyncio.gather(self.worker.stop(GRACE_SECONDS + 1), self.reader.stop(0.1))
        if self.running in self.jobs:
            self.jobs[self.running].status = "queued"
            self.store.save(self.jobs[self.running])

    # Jobs

    def create(self, recipe: Recipe) -> Record:
        """Queue a job. Raises InputError."""
        waiting = sum(record.status in WAITING for record in self.jobs.values())
        if waiting >= self.options.max_jobs:
            raise InputError("the queue", f"at most {self.options.max_jobs} jobs", "it is full")
        check_recipe(recipe, self.store.named, self.store.jobs)
        record = self.store.create(recipe, self._last() + 1)
        self.jobs[record.id] = record
        self.changed(record)
        self.next()
        return record

    def _last(self) -> float:
        return max((record.order for record in self.jobs.values()), default=0.0)

    def get(self, job: str) -> Record:
        """Return a job. Raises InputError where there is none."""
        if job not in self.jobs:
            raise InputError("job", "one of this studio", "there is none of this name")
        return self.jobs[job]

    def end(self, record: Record, how: str) -> None:
        """Pause, keep or cancel a job that waits or runs. Raises InputError."""
        if record.status not in WAITING:
            raise InputError("job", "one that waits or runs", f"it is {record.status}")
        if record.id == self.running and self.started:
            self.worker.send(do="stop", job=record.id, how=how)
            return
        if record.id == self.running:  # it compiles, and there is nothing to keep
            self.running = ""
            self.worker.kill()
        record.status = "cancelled" if how == "cancel" else "paused"
        self.changed(record)

    def carry_on(self, record: Record, steps: int = 0) -> None:
        """Queue a job again that stopped, with so many steps more. Raises InputError."""
        if record.status in WAITING:
            raise InputError("job", "one that has stopped", f"it is {record.status}")
        if steps:
            if not record.iterations:
                raise InputError("job", "one that has begun", "it has not")
            if not record.resumable:
                kept = f"one of the last {KEPT_CHECKPOINTS}, whose checkpoints are kept"
                raise InputError("job", kept, "there is no checkpoint to go on from")
            *before, last = record.iterations
            record.overrides = {"iterations": [*before, last + steps], "scales": record.scales}
            record.iterations = [*before, last + steps]
        record.status, record.error, record.crashes = "queued", "", 0
        record.order = self._last() + 1
        self.changed(record)
        self.next()

    def to_front(self, record: Record) -> None:
        """Have a job that waits be the next. Raises InputError where it does not wait."""
        if record.status != "queued":
            raise InputError("job", "one that waits", f"it is {record.status}")
        record.order = min(one.order for one in self.jobs.values()) - 1
        self.changed(record)

    def delete(self, record: Record) -> None:
        """Remove a job and all its files; the worker is ended where it has it in hand."""
        del self.jobs[record.id]
        if record.id == self.running:
            self.running = ""
            self.worker.kill()
        self.store.remove(record)
        self._tell(record.id)

    def changed(self, record: Record) -> None:
        """Keep a record, and tell who watches."""
        self.store.save(record)
        self._tell(record.id)

    def _tell(self, job: str) -> None:
        for watcher in self.watchers:
            watcher.tell(job)

    def next(self) -> None:
        """Give the worker the next job, if it has none."""
        waiting = [record for record in self.jobs.values() if record.status == "queued"]
        if self.running or self.questions or not self.device or not waiting:
            return
        record = min(waiting, key=lambda one: one.order)
        self.running, self.started = record.id, False
        record.status, record.error = "running", ""
        record.plan, record.left, record.notes = [], None, []
        self.changed(record)
        self.worker.send(do="run", job=record.id, overrides=record.overrides, **self._asked(record))

    def _asked(self, record: Record) -> dict[str, Any]:
        return {
            "inputs": record.inputs,
            "options": record.options,
            "folder": str(self.store.place_of(record.id)),
            "pictures": str(self.store.pictures),
            "every": self.options.checkpoint_every,
            "max_pixels": self.options.max_pixels,
        }

    # The worker

    def heard(self, message: dict[str, Any]) -> None:
        """Take note of what the worker says."""
        event, job = message.pop("event"), message.pop("job", "")
        if event == "ready":
            self.device, self.broken = message["device"], ""
            self.next()
        elif event == "broken":
            self.broken = message["error"]
        elif job in self.questions:
            if event == "answer":
                self.questions.pop(job).set_result(message)
                self.next()
        elif job in self.jobs:
            self._take(self.jobs[job], event, message)

    def _take(self, record: Record, event: str, message: dict[str, Any]) -> None:
        """Take note of what happened to a job."""
        for name in {"text", "error"} & message.keys():
            message[name] = self.store.readable(message[name])
        if event == "note":
            if message["text"] not in record.notes:
                record.notes = [*record.notes, message["text"]][-MAX_NOTES:]
        elif event == "preview":
            record.picture = int(1000 * time.time())  # no browser has kept a picture of this number
        else:
            for name in SHOWN & message.keys():
                setattr(record, name, message[name])
        self.started = self.started or event == "started"
        if event == "advanced":
            self.store.add_losses(record)
        if event == "resumed":  # some may have been on their way when the studio was killed
            self.store.set_history(record, message["history"])
        if event in ("advanced", "preview"):
            self._tell(record.id)  # the record is kept when something but a number changes
        else:
            self.changed(record)
        if event == "ended":
            self.running = ""
            record.left, record.measures = None, []  # they were of an earlier picture
            self._drop_checkpoints()
            self.next()

    def _drop_checkpoints(self) -> None:
        """Keep the checkpoints of the newest of the jobs that ended: of one that was paused always."""
        ended = [one for one in self.jobs.values() if one.resumable and one.status in ("done", "cancelled")]
        for record in sorted(ended, key=lambda one: -one.order)[KEPT_CHECKPOINTS:]:
            self.store.drop_checkpoint(record)
            self.changed(record)

    def worker_ended(self, code: int) -> None:
        """Have the job in hand go on from its checkpoint, unless the worker ended there again and again."""
        self.device = {}
        for future in self.questions.values():
            future.set_result({"error": "the process that owns the device has ended"})
        self.questions.clear()
        record, self.running = self.jobs.get(self.running), ""
        if record is None:
            return
        record.crashes += 1
        record.status = "queued"
        if record.crashes >= MAX_CRASHES:
            record.status = "failed"
            record.error = (
                f"the worker ended {record.crashes} times at this job (code {code}): too little memory?"
            )
        self.changed(record)

    async def forecast(self, recipe: Recipe) -> dict[str, Any]:
        """Return what a job would take. Raises InputError, also where the device is busy, and Refused."""
        check_recipe(recipe, self.store.named, self.store.jobs)
        record = Record("0" * 16, "", recipe.inputs, recipe.options, time.time())
        return await self._ask("forecast", record, self.store.jobs)  # where nothing will be written

    async def judge(self, record: Record) -> None:
        """Measure a job's picture. Raises InputError where it has none or the device is busy, and Refused."""
        if record.inputs.get("clip") or not self.store.result(record):
            raise InputError("job", "one that has a picture", "it has none")
        answer = await self._ask("judge", record, self.store.place_of(record.id))
        if error := answer.get("error"):
            raise Refused(error)
        record.measures = answer["measures"]
        if record.id in self.jobs:
            self.changed(record)

    async def _ask(self, do: str, record: Record, folder: Path) -> dict[str, Any]:
        """Return the worker's answer to a question about a job.

        Args:
            do: What the worker is to do.
            record: The job.
            folder: Where its files are.

        Raises:
            InputError: The device is busy.
            Refused: It takes too long.
        """
        if self.running or self.questions or not self.device:
            got = "the device is busy" if self.device else "the device is not ready yet"
            raise InputError(do, "while no picture is made", got)
        self.number += 1
        name = f"{do}-{self.number}"
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.questions[name] = future
        asked = self._asked(record) | {"folder": str(folder)}
        self.worker.send(do=do, job=name, overrides=record.overrides, **asked)
        try:
            return await asyncio.wait_for(asyncio.shield(future), ANSWER_SECONDS)
        except TimeoutError:
            raise Refused(f"{do}: an answer within {ANSWER_SECONDS:.0f} s; it takes longer") from None

    # The reader

    def answered(self, message: dict[str, Any]) -> None:
        """Take an answer of the reader."""
        future = self.asked.pop(message.pop("id"), None)
        if future and not future.done():
            future.set_result(message)

    def reader_ended(self, code: int) -> None:
        """Tell those who wait that the reader ended: what it read has broken it."""
        for future in self.asked.values():
            if not future.done():
                future.set_result(
                    {"error": f"this file: a whole picture; reading it ended the reader ({code})"}
                )
        self.asked.clear()

    async def read(self, do: str, file: Path, **more: Any) -> dict[str, Any]:
        """Have the reader do something with a file, and return its answer. Raises Refused."""
        async with self.reading:  # the time of one file is not another's
            self.number += 1
            number, future = self.number, asyncio.get_running_loop().create_future()
            self.asked[number] = future
            self.reader.send(id=number, do=do, file=str(file), **more)
            try:
                answer = await asyncio.wait_for(asyncio.shield(future), READ_SECONDS)
            except TimeoutError:
                self.reader.kill()
                answer = {"error": "this file: one that is read within a minute; it took longer"}
        if error := answer.get("error"):
            raise Refused(error)
        return dict(answer)

    # Who watches

    async def watch(self) -> AsyncIterator[list[str]]:
        """Yield the ids of jobs that changed, none of them as a sign of life."""
        watcher = Watcher()
        self.watchers.add(watcher)
        try:
            while True:
                yield await watcher.wait()
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self.watchers.discard(watcher)
