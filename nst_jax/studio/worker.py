"""The process that owns the device: one job at a time, each from its checkpoint if it has one.

A job is a picture or a clip. Messages in are {"do": "run" | "forecast" | "judge", "job": ID, ...} and
{"do": "stop", "job": ID, "how": ...}. Messages out have the job and an `event`; see PictureRun, ClipRun.
The studio may kill this process at any moment.
"""

import contextlib
import logging
import math
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nst_jax import images
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.metrics import judge
from nst_jax.runs import (
    Advanced,
    Finished,
    Optimized,
    Planned,
    Request,
    Resumed,
    Started,
    prepare,
)
from nst_jax.runs.input_files import ImageCache
from nst_jax.runs.job import Job
from nst_jax.runs.judging import verdict
from nst_jax.runs.transfer import Progress
from nst_jax.studio.lines import Lines, end_soon
from nst_jax.studio.reader import write_views
from nst_jax.studio.recipes import RESULT, Recipe, make_request
from nst_jax.studio.store import LIVE, THUMB
from nst_jax.system import device
from nst_jax.video import job as video
from nst_jax.video.job import VideoJob, prepare_video
from nst_jax.video.request import VideoRequest
from nst_jax.video.sequence import Made

PREVIEW_SECONDS = 0.25  # between previews, at least
PREVIEW_SHARE = 10  # a preview waits so many times as long as the last one took
PREVIEW_SIZE = 1024  # longest side, in pixels
ENDS = {"pause": "paused", "keep": "done", "cancel": "cancelled", "quit": "queued"}  # how: the job's status


class Notes(logging.Handler):
    """Sends what the library logs to whoever looks at the job."""

    def __init__(self, lines: Lines):
        super().__init__(logging.WARNING)
        self.lines, self.job = lines, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        if self.job:
            self.lines.send(job=self.job, event="note", text=record.getMessage())


class Running:
    """A job as it runs: messages of it, and pictures beside the result."""

    def __init__(self, name: str, folder: Path, lines: Lines, asked: dict[str, str]):
        self.name, self.folder, self.lines, self.asked = name, folder, lines, asked
        self.due = 0.0

    def send(self, event: str, **message: Any) -> None:
        """Send a message of this job."""
        self.lines.send(job=self.name, event=event, **message)

    def stop(self) -> str:
        """Return how the job is to stop, empty: not yet."""
        return self.asked.get(self.name, "")

    def show(self, step: int, picture: Callable[[], np.ndarray]) -> None:
        """Write a preview if one is due; a failure costs the preview and no more."""
        began = time.monotonic()
        if began < self.due:
            return
        image = picture()
        size = images.size_to_fit(image.shape[0], image.shape[1], min(PREVIEW_SIZE, max(image.shape)))
        with contextlib.suppress(InputError):
            images.save(self.folder / LIVE, images.resize(image, *size))
            self.send("preview", step=step)
        took = time.monotonic() - began
        self.due = began + max(PREVIEW_SECONDS, PREVIEW_SHARE * took)


class ClipRun(Running):
    """A clip as it runs: a step of the page is a frame."""

    def go(self, job: VideoJob) -> None:
        """Make the clip."""
        total = job.total * job.passes
        self.send("planned", plan=[f"{total} frames"], iterations=[total], scales="")
        began, made, last = time.monotonic(), 0, 0
        newest: Made | None = None
        for event in job.run(stop=self.stop):
            match event:
                case video.Resumed(frames):
                    last += frames
                    self.send("started", step=last)
                case video.FrameMade():
                    if not made:
                        self.send("started", step=last)
                    made, last = made + 1, event.number
                    left = (time.monotonic() - began) / made * (total - last)
                    self.send("advanced", step=last, left=left, losses=weighted(event.made.losses))
                    newest = event.made
                    self.show(last, partial(video.shown, newest))
                case video.Finished(frames, how):
                    self.end(frames, newest, str(how or ""))

    def end(self, frames: int, newest: Made | None, how: str) -> None:
        """Show the last frame, and say how the job ended.

        Args:
            frames: That are made.
            newest: The last one, None where this run has made none.
            how: It was stopped; empty: the clip is written.
        """
        if newest is not None:
            with contextlib.suppress(InputError):
                source = images.Source(video.shown(newest), None)
                write_views(source, str(self.folder / LIVE), str(self.folder / THUMB))
                self.send("preview", step=frames)
        status = "done" if not how else "paused" if how == "keep" else ENDS[how]  # part of a clip is no file
        self.send("ended", status=status, error="", step=frames, resumable=False)


class PictureRun(Running):
    """A picture as it runs: events of the library become messages."""

    def __init__(self, job: Job, name: str, folder: Path, lines: Lines, asked: dict[str, str]):
        super().__init__(name, folder, lines, asked)
        self.job = job
        self.began = 0.0
        self.first = 0.0  # work that was done before this run

    def go(self) -> None:
        """Make the picture."""
        for event in self.job.run(stop=self.stop):
            match event:
                case Planned(plans):
                    config = self.job.request.config
                    iterations = [scale.iterations for scale in config.pyramid()]
                    self.send(
                        "planned",
                        plan=[*map(str, plans)],
                        iterations=iterations,
                        scales=config.scales,
                        memory=plans[-1].needed if plans else 0,
                        pixels=math.prod(self.job.canvas.size),
                    )
                case Resumed(step):
                    points = self.job.resume.history if self.job.resume else []
                    history = [{"step": point.step, **weighted(point.losses)} for point in points]
                    self.send("resumed", step=step, history=history)
                case Started(progress):
                    self.began, self.first = time.monotonic(), self.work(progress)
                    self.send("started", step=progress.step)
                    self.show(progress.step, lambda: progress.image)
                case Advanced(progress):
                    self.send(
                        "advanced",
                        step=progress.step,
                        left=self.left(progress),
                        losses=weighted(progress.losses),
                    )
                    self.show(progress.step, lambda: progress.image)
                case Optimized(progress):
                    self.send("writing", step=progress.step, pace=self.pace(progress))
                case Finished(result):
                    self.end(result.progress, str(result.stopped or ""), result.resumable)

    def work(self, progress: Progress) -> float:
        """Return the pixels of steps that were computed by now."""
        done, steps = 0.0, progress.step
        for scale in self.job.request.config.pyramid():
            taken = min(steps, scale.iterations)
            done, steps = done + taken * self.area(scale.size), steps - taken
        return done

    def area(self, size: int) -> float:
        """Return the pixels of the picture at the size of a scale."""
        height, width = self.job.canvas.size
        return size**2 * min(height, width) / max(height, width)

    def pace(self, progress: Progress) -> float | None:
        """Return the seconds that a pixel of a step has taken."""
        done = self.work(progress) - self.first
        return (time.monotonic() - self.began) / done if done > 0 else None

    def left(self, progress: Progress) -> float | None:
        """Return the seconds that the rest will take at the pace so far."""
        scales, pace = self.job.request.config.pyramid(), self.pace(progress)
        rest = sum(scale.iterations * self.area(scale.size) for scale in scales) - self.work(progress)
        return None if pace is None else pace * rest

    def end(self, last: Progress, how: str, resumable: bool) -> None:
        """Show the picture that was written, and say how the job ended.

        Args:
            last: Where the run stands.
            how: It ended.
            resumable: Whether it can go on.
        """
        with contextlib.suppress(InputError):
            source = images.read(str(self.folder / RESULT), 2**40)
            write_views(source, str(self.folder / LIVE), str(self.folder / THUMB))
            self.send("preview", step=last.step)
        if not last.finite:
            error = f"the loss is not finite after step {last.step}; smaller weights may help"
            self.send("ended", status="failed", error=error, step=last.step, resumable=False)
            return
        complete = last.converged or last.step >= self.job.request.config.steps
        status = "done" if complete else ENDS.get(how, "done")
        self.send("ended", status=status, error="", step=last.step, resumable=resumable)


def weighted(losses: dict[str, Any]) -> dict[str, float]:
    """Return the total loss and each term's share of it."""
    parts = {
        name: float(weight * losses[name]) for name, weight in losses["weights"].items() if name in losses
    }
    return {"total": float(losses["total"]), **parts}


class Worker:
    """Takes messages by a thread, so that a stop is heard while a job runs."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.notes = Notes(self.lines)
        self.asked: dict[str, str] = {}  # by job, how it is to stop
        self.waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen(self) -> None:
        """Take messages until the studio is gone; then have the job in hand keep its checkpoint, and end."""
        for message in self.lines:
            if message["do"] == "stop":
                self.asked[message["job"]] = message["how"]
            else:
                self.waiting.put(message)
        end_soon(self.quit)

    def quit(self) -> None:
        """Have the job in hand stop."""
        if not self.notes.job:
            os._exit(0)
        self.asked[self.notes.job] = "quit"
        self.waiting.put({"do": "quit"})

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what is to be done."""
        while (message := self.waiting.get())["do"] != "quit":
            yield message

    def work(self) -> None:
        """Set up the device, and do what comes."""
        try:
            device.be_deterministic()  # a job that goes on comes to the same bytes on a GPU, too
            device.set_up()
            self.lines.send(event="ready", device=device.describe())
        except InputError as error:
            self.lines.send(event="broken", error=str(error))
            return
        for message in self.messages():
            self.notes.job = message["job"]
            try:
                self.do(message)
            except (InputError, NotEnoughMemory) as error:
                self.fail(message, str(error))
            except MemoryError:
                self.fail(message, "memory: the machine has too little for this; a smaller size needs less")
            finally:
                self.notes.job = ""
                self.asked.pop(message["job"], None)

    def do(self, message: dict[str, Any]) -> None:
        """Run a job, forecast it or judge its picture. Raises InputError and NotEnoughMemory."""
        request = request_of(message)
        watched = message["job"], Path(message["folder"]), self.lines, self.asked
        if isinstance(request, VideoRequest):
            clip = prepare_video(request)
            if message["do"] == "run":
                ClipRun(*watched).go(clip)
            else:
                self.answer(message, plan=[], memory=0, seconds=clip.forecast().seconds)
        elif message["do"] == "judge":
            self.answer(message, measures=measures(request))
        elif message["do"] == "run":
            PictureRun(prepare(request), *watched).go()
        else:
            found = prepare(request).forecast()
            self.answer(
                message,
                plan=[str(scale.plan) for scale in found],
                memory=max((scale.plan.needed for scale in found), default=0),
                seconds=sum(scale.seconds for scale in found),
            )

    def answer(self, message: dict[str, Any], **found: Any) -> None:
        """Answer a question about a job."""
        self.lines.send(job=message["job"], event="answer", **found)

    def fail(self, message: dict[str, Any], text: str) -> None:
        """Say why something could not be done."""
        kind = "ended" if message["do"] == "run" else "answer"
        self.lines.send(job=message["job"], event=kind, status="failed", error=text)


def measures(request: Request) -> list[dict[str, Any]]:
    """Return the judge's measures of what a request has made. Raises InputError and NotEnoughMemory."""
    cache = ImageCache(request.inputs.max_pixels)
    found = verdict(judge.load(), request.outputs.output, request.references, cache)
    return [
        {"name": name, "value": found[name], "to": metric.to, "tells": metric.tells}
        for name, metric in judge.METRICS.items()
        if found[name] is not None
    ]


def request_of(message: dict[str, Any]) -> Request | VideoRequest:
    """Return the request of a message. Raises InputError."""

    def place(reference: str) -> str:
        if reference.startswith(images.EXAMPLE):
            return reference
        return str(Path(message["pictures"]) / reference)

    return make_request(
        Recipe("", message["inputs"], message["options"]),
        place,
        Path(message["folder"]),
        overrides=message["overrides"],
        every=message["every"],
        max_pixels=message["max_pixels"],
    )


def main() -> None:
    """Work until the studio is gone."""
    worker = Worker()
    logging.getLogger("nst_jax").addHandler(worker.notes)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(worker.notes)
    warnings.simplefilter("default")
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.work()


if __name__ == "__main__":
    main()
