"""Jobs without absl and without a terminal: events, stops, resumes, what they share, what they refuse."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory, NotWritten
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.runs import (
    Advanced,
    CheckpointOptions,
    DeviceOptions,
    Finished,
    InputOptions,
    Optimized,
    OutputOptions,
    Planned,
    Previewed,
    Request,
    Resumed,
    Saved,
    Started,
    Written,
    prepare,
)
from nst_jax.runs.checkpoint import newest
from nst_jax.runs.sweep_job import SweepAdvanced, prepare_sweep
from nst_jax.runs.sweep_request import SweepOptions, make_sweep_request
from nst_jax.system import device

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_1",)}  # quick to compile
FLAGS = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1", "--preset=gatys", "--size=32"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder of small pictures."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("c.png", 1), ("s.png", 2), ("c2.png", 3), ("s2.png", 4)):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(name)
    return tmp_path


@pytest.fixture
def one_device(monkeypatch):
    """Have a sweep take one lane at a time."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)


def request(content="c.png", style="s.png", output="a.png", checkpoint=None, **options):
    files = {field.name for field in dataclasses.fields(OutputOptions)}
    given = {"preset": "gatys", "size": 32, "iterations": (6,), **LAYERS, **options}
    return Request(
        inputs=InputOptions(content=content, style=(style,)),
        outputs=OutputOptions(output=output, **{name: given.pop(name) for name in files & given.keys()}),
        config=Config.from_preset(**given),
        devices=DeviceOptions(devices=1),
        checkpoint=checkpoint or CheckpointOptions(),
    )


def kinds(events):
    return [type(event).__name__ for event in events]


def at_step(step):
    """Return what asks for a stop once a run has come to a step, and what is to be shown its events."""
    come = [0]

    def see(events):
        for event in events:
            come[0] = event.progress.step if isinstance(event, Advanced) else come[0]
            yield event

    return lambda: come[0] >= step, see


def test_preparing_writes_nothing_and_events_come_in_order(folder):
    before = sorted(os.listdir())
    keep = CheckpointOptions(checkpoint="k", checkpoint_every=0.0)
    job = prepare(request(report="r.json", plot="p.svg", save_every=3, checkpoint=keep, iterations=(4,)))
    assert sorted(os.listdir()) == before
    events = list(job.run())
    assert [name for name in kinds(events) if name != "Saved"] == [
        *("Planned", "Started", "Advanced", "Advanced", "Advanced", "Advanced", "Previewed", "Advanced"),
        *("Optimized", "Written", "Written", "Written", "Finished"),
    ]
    assert [event.progress.step for event in events if isinstance(event, Advanced)] == [0, 1, 2, 3, 4]
    assert [event.step for event in events if isinstance(event, Saved)] == [0, 1, 2, 3, 4]
    assert kinds(events).index("Optimized") > max(
        n for n, kind in enumerate(kinds(events)) if kind == "Saved"
    )
    told = [event.path for event in events if isinstance(event, Previewed | Written)]
    assert told == ["a.png.step000003.png", "a.png", "r.json", "p.svg"]
    assert all(os.path.getsize(path) for path in told)
    planned, result = events[0], events[-1].result
    assert isinstance(planned, Planned)
    assert len(planned.plans) == 1
    assert (result.progress.step, result.stopped, result.untouched, result.resumable) == (
        4,
        False,
        False,
        True,
    )
    assert all(
        event.progress.resume_state is None for event in events if isinstance(event, Started | Optimized)
    )


def test_a_job_makes_the_picture_of_nst():
    list(prepare(request()).run())
    arguments = ["--quiet", "--devices=1", *FLAGS, "--iterations=6", "--content=c.png", "--style=s.png"]
    assert run(nst.PROGRAM, [*arguments, "--output=b.png"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.mark.parametrize("options", [{}, {"scales": "20,32", "iterations": (4, 3)}])
def test_a_job_that_is_stopped_resumes_to_the_same_bytes(options):
    list(prepare(request(**options)).run())
    whole = Path("a.png").read_bytes()
    keep = CheckpointOptions(checkpoint="k")
    stop, see = at_step(3)
    *_, finished = see(prepare(request(checkpoint=keep, **options)).run(stop))
    assert isinstance(finished, Finished)
    assert (finished.result.stopped, finished.result.resumable) == (True, True)
    assert finished.result.progress.step == 3
    assert Path("a.png").read_bytes() != whole
    events = list(prepare(request(checkpoint=keep, **options)).run())
    assert kinds(events)[:4] == ["Planned", "Resumed", "Started", "Advanced"]
    assert events[1] == Resumed(3, finished="")
    assert Path("a.png").read_bytes() == whole
    again = list(prepare(request(checkpoint=keep, **options)).run())
    assert again[1] == Resumed(again[-1].result.progress.step, finished="iterations")
    with pytest.raises(InputError, match="--tv_weight: as in the run in k"):
        prepare(request(checkpoint=keep, **options, tv_weight=7.0))


def test_a_second_job_of_the_same_shape_compiles_nothing():
    options = {"save_every": 2, "report": "r.json"}
    list(prepare(request(**options)).run())
    with device.CompileTime() as compiling:
        other = request(content="c2.png", style="s2.png", output="b.png", style_weight=3e7, **options)
        list(prepare(other).run())
    assert compiling.programs == 0
    with device.CompileTime() as compiling:
        list(prepare(request(size=30, output="b.png")).run())
    assert compiling.programs > 0
    assert Path("a.png").read_bytes() != Path("b.png").read_bytes()


REFUSED = {
    "an output without its folder": ({"output": "no/a.png"}, "no/a.png: must be a file that can be written"),
    "an output that is a folder": ({"output": "k.png"}, "k.png: must be a file that can be written"),
    "a report without its folder": ({"report": "no/r.json"}, "no/r.json: must be a file that can be written"),
    "an output that is read": ({"output": "c.png"}, "each a file of its own; c.png is named twice"),
    "a content that is not there": ({"content": "no.png"}, "no.png: must be a whole picture file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_it_runs(case):
    Path("k.png").mkdir()
    before = sorted(os.listdir())
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        prepare(request(**options))
    assert sorted(os.listdir()) == before


def test_a_plan_that_does_not_fit_raises_before_anything_is_written(monkeypatch):
    job = prepare(request())
    before = sorted(os.listdir())
    monkeypatch.setattr(device, "free_memory", lambda *_: 2**20)
    with pytest.raises(NotEnoughMemory, match="would fit|no size would"):
        list(job.run())
    assert sorted(os.listdir()) == before


def test_a_job_that_is_left_writes_no_picture_and_frees_its_folder():
    keep = CheckpointOptions(checkpoint="k", checkpoint_every=0.0)
    events = prepare(request(checkpoint=keep)).run()
    for event in events:
        if isinstance(event, Saved):
            break
    events.close()
    assert not Path("a.png").exists()
    step = newest(Path("k")).step
    resumed = list(prepare(request(checkpoint=keep)).run())
    assert resumed[1] == Resumed(step, finished="")
    assert Path("a.png").exists()


def test_a_picture_that_cannot_be_written_lies_elsewhere_and_the_next_job_runs(monkeypatch):
    save, seen = images.save, []

    def refused(path, *rest, **named):
        if path == "a.png":
            raise NotWritten(path, "must be a file that can be written", "No space left on device")
        save(path, *rest, **named)

    monkeypatch.setattr(images, "save", refused)
    with pytest.raises(NotWritten, match="No space left on device; it was written to"):
        seen.extend(
            event.path for event in prepare(request(report="r.json")).run() if isinstance(event, Written)
        )
    rescued, report = seen
    assert report == "r.json"
    with Image.open(rescued) as picture:
        assert picture.size == (32, 24)
    assert kinds(prepare(request(output="b.png")).run())[-1] == "Finished"


def test_a_forecast_tells_each_scale_and_writes_nothing():
    before = sorted(os.listdir())
    found = prepare(request(scales="20,32", iterations=(4, 3))).forecast()
    assert [(each.number, each.steps) for each in found] == [(1, 4), (2, 3)]
    assert all(each.seconds >= 0 and "pixels at once" in str(each.plan) for each in found)
    assert sorted(os.listdir()) == before


def sweep_request(**options):
    wanted = SweepOptions(sweep=("style_weight=1e6,1e8",), output_dir="o", **options)
    given = {"preset": "gatys", "size": 32, "iterations": (3,), **LAYERS}
    return make_sweep_request(InputOptions(content="c.png", style=("s.png",)), wanted, given)


def test_a_sweep_is_a_job_that_stops_and_resumes_to_the_same_bytes(one_device):
    before = sorted(os.listdir())
    job = prepare_sweep(sweep_request())
    assert sorted(os.listdir()) == before
    events = list(job.run())
    assert kinds(events) == [*(["SweepAdvanced"] * 4 + ["Written"]) * 2, *["Written"] * 3, "SweepFinished"]
    chunks = [event for event in events if isinstance(event, SweepAdvanced)]
    assert [(event.first, event.last, event.step) for event in chunks[3:5]] == [(1, 1, 3), (2, 2, 0)]
    whole = [Path("o", f"{number:04d}.png").read_bytes() for number in range(2)]
    shutil.rmtree("o")
    come = []
    *_, finished = (
        come.append(event) or event for event in prepare_sweep(sweep_request()).run(lambda: len(come) > 6)
    )
    assert finished.result.stopped
    assert list(finished.result.entries) == [0]
    again = list(prepare_sweep(sweep_request(resume=True)).run())
    assert (again[0].first, again[0].step) == (2, 1)
    assert list(again[-1].result.entries) == [0, 1]
    assert [Path("o", f"{number:04d}.png").read_bytes() for number in range(2)] == whole
    with pytest.raises(InputError, match="an empty folder, or `resume`"):
        prepare_sweep(sweep_request())


ALONE = """
import sys
class Nowhere:
    def find_spec(self, name, *_):
        if name.startswith(("absl.app", "nst_jax.launchers")):  # rich is there, as flax imports it
            raise ImportError(f"{name} is not for jobs")
sys.meta_path.insert(0, Nowhere())
from nst_jax.runs import Config, InputOptions, OutputOptions, Request, prepare
config = Config.from_preset("gatys", size=32, iterations=1, style_layers="conv1_1", content_layers="conv1_1")
inputs, outputs = InputOptions(content="c.png", style=("s.png",)), OutputOptions(output="a.png")
for event in prepare(Request(inputs=inputs, outputs=outputs, config=config)).run():
    print(type(event).__name__)
"""


def test_a_job_runs_where_there_is_no_absl_and_no_terminal():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-2:] == ["Written", "Finished"]
    assert Path("a.png").exists()
