"""Rows of a batch as lanes of one program, against the same rows one after the other."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from nst_jax.config import Config
from nst_jax.errors import NotEnoughMemory
from nst_jax.runs import batch_lanes
from nst_jax.runs import sweep as sweeping
from nst_jax.runs.batch_job import RowFinished, RowSkipped, _in_advance, prepare_batch
from nst_jax.runs.batch_lanes import Lanes, run_lanes
from nst_jax.runs.batch_request import BatchOptions, make_batch_request
from nst_jax.runs.pyramid import make_problems
from nst_jax.runs.sweep import BYTES_PER_PIXEL
from nst_jax.runs.transfer import run

pytestmark = pytest.mark.usefixtures("optax_promotion")

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_1",)}  # quick to compile
GIVEN = {"preset": "gatys", "size": 32, "scales": "20,32", "iterations": (3, 2), **LAYERS}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        draw(f"c{number}.png", 24, 32, number)
    draw("s.png", 32, 28, 17)
    draw("s2.png", 32, 28, 18)


def draw(path, height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def rows_of(*rows):
    """Write a manifest; rows are of s.png unless they say otherwise."""
    rows = [{"id": f"r{k}", "content": f"c{k}.png", "style": "s.png"} | row for k, row in enumerate(rows)]
    with open("m.csv", "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        table.writeheader()
        table.writerows(rows)


def batch_of(output, batch_size, **given):
    given = GIVEN | {"output": f"{output}/{{id}}.png"} | given
    request = make_batch_request(BatchOptions(manifest="m.csv", batch_size=batch_size), given, {})
    return prepare_batch(request, Path("scratch", output))


def make(output, batch_size, **given):
    return list(batch_of(output, batch_size, **given).run())


def lines(output):
    parts = Path(output, "results").glob("part-*.jsonl")
    return {line["id"]: line for part in parts for line in map(json.loads, part.read_text().splitlines())}


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def check_alike(one, other):
    """Compare the pictures and lines of two folders, that of lanes first."""
    here, there = lines(one), lines(other)
    assert here.keys() == there.keys()
    for name in here:
        assert here[name]["key"] == there[name]["key"]
        assert here[name]["error"] == there[name]["error"]
        assert here[name].keys() == there[name].keys()
        if there[name]["error"]:
            assert not Path(one, f"{name}.png").exists()
            continue
        difference = np.abs(pixels(f"{one}/{name}.png") - pixels(f"{other}/{name}.png"))
        assert difference.mean() < 0.1
        assert difference.max() <= 3
        check_close(here[name]["losses"], there[name]["losses"])


def check_close(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, float):
            np.testing.assert_allclose(a, b, rtol=2e-3)
        else:
            assert a == b


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("strength", [{}, {"strength": 0.6}])
def test_each_lane_is_the_run_of_its_scales(params, optimizer, strength):
    pictures = [
        np.random.default_rng(seed).random((4, 6, 3), np.float32).repeat(8, 0).repeat(8, 1)
        for seed in range(4)
    ]
    scales = {"size": 48, "scales": "36,48", "iterations": (7, 6)}
    common = {"preset": "gatys", "optimizer": optimizer, **scales, **strength, **LAYERS}
    configs = [Config.from_preset(**common, tv_weight=weight) for weight in (0.0, 1e-3, 3e38)]
    problems = [make_problems(params, pictures[k], [pictures[3]], configs[k]) for k in range(3)]
    told = list(run_lanes(problems, 3, 5))
    for number, own in enumerate(problems):
        lane = [now[number] for now in told if number in now]
        alone = list(run(own, 5))
        for name in ("step", "evaluations", "scale", "scales", "ends", "finite", "converged"):
            assert [getattr(now, name) for now in lane] == [getattr(now, name) for now in alone], name
        for here, there in zip(lane, alone, strict=True):
            check_close(here.losses, there.losses)
        assert np.abs(lane[-1].image - alone[-1].image).mean() < 1e-3
        assert (lane[-1].lpips is None) == (not strength)
        assert lane[-1].finite == (number < 2)


def test_groups_give_what_single_rows_give_and_compile_once_for_each_scale(compilations):
    rows_of(*({"style": "s2.png" if k == 1 else "s.png", "style_weight": 10.0 ** (4 + k)} for k in range(7)))
    jax.clear_caches()
    assert [event.id for event in make("lanes", 3, report="lanes/{id}.json")] == [f"r{k}" for k in range(7)]
    assert compilations("_advance") == 2  # of 7 rows, 3 at a time: the last has 2 beside it that nobody sees
    assert compilations("run_steps") == 0
    make("alone", 1, report="alone/{id}.json")
    assert compilations("_advance") == compilations("run_steps") == 2
    check_alike("lanes", "alone")
    for name in lines("alone"):
        here, there = (json.loads(Path(way, f"{name}.json").read_text()) for way in ("lanes", "alone"))
        for key in ("losses", "scales", "history", "ended", "evaluations"):
            check_close(here[key], there[key])
        assert here.keys() == there.keys()
        assert here["seconds"].keys() == there["seconds"].keys()


def test_rows_of_groups_are_skipped_alone():
    rows_of(*[{}] * 4)
    assert {type(event) for event in make("o", 4)} == {RowFinished}
    assert {type(event) for event in make("o", 1)} == {RowSkipped}


def test_a_style_is_put_through_the_network_once_for_all_rows_of_a_group(monkeypatch):
    calls = []
    for name in ("content_targets", "style_targets"):
        real = getattr(sweeping, name)
        monkeypatch.setattr(
            sweeping, name, lambda *given, name=name, real=real: calls.append(name) or real(*given)
        )
    rows_of(*[{}] * 4)
    make("o", 4)
    assert sorted(calls) == ["content_targets"] * 8 + ["style_targets"] * 2  # two scales


def test_bad_rows_and_rows_that_are_not_finite_leave_the_others_alone():
    rows_of({}, {"content": "no.png"}, {}, {"tv_weight": 3e38}, {}, {"size": "big"}, {})
    events = make("lanes", 3)
    assert {event.id for event in events if event.error} == {"r1", "r3", "r5"}
    make("alone", 1)
    check_alike("lanes", "alone")
    assert lines("lanes")["r3"]["error"].startswith("loss: finite numbers")


def test_rows_that_cannot_be_lanes_are_made_alone(monkeypatch):
    made = []
    real = batch_lanes.optimize
    monkeypatch.setattr(
        batch_lanes,
        "optimize",
        lambda jobs, lanes: made.append([job.request.inputs.content for job in jobs]) or real(jobs, lanes),
    )
    Image.new("L", (32, 24), 255).save("mask.png")
    adam = {"optimizer": "adam", "iterations": "4", "scales": "20,32"}
    rows_of({}, {}, {"content_mask": "mask.png"}, {**adam, "ema_decay": 0.5}, {"tile": "24"}, {}, adam, adam)
    draw("c7.png", 24, 32, 7)
    make("lanes", 4)
    assert made == [["c0.png", "c1.png", "c5.png"], ["c6.png", "c7.png"]]
    make("alone", 1)
    check_alike("lanes", "alone")
    for name in ("r2", "r3", "r4"):
        assert Path("lanes", f"{name}.png").read_bytes() == Path("alone", f"{name}.png").read_bytes()


@pytest.mark.parametrize(("most", "tried"), [(2, [4, 2, 2, 2]), (1, [4, 2])])
def test_a_group_that_does_not_fit_is_made_in_parts_and_then_alone(monkeypatch, most, tried):
    sizes, real = [], batch_lanes.run_lanes

    def fitting(problems, lanes, report_every):
        sizes.append(lanes)
        if lanes > most:
            raise NotEnoughMemory("memory: too many")
        return real(problems, lanes, report_every)

    monkeypatch.setattr(batch_lanes, "run_lanes", fitting)
    rows_of(*[{}] * 6)
    assert [event.id for event in make("lanes", 4)] == [f"r{k}" for k in range(6)]
    assert sizes == tried
    make("alone", 1)
    check_alike("lanes", "alone")
    if most == 1:
        assert Path("lanes/r0.png").read_bytes() == Path("alone/r0.png").read_bytes()


def test_what_nobody_foresaw_costs_no_row(monkeypatch):
    def broken(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(batch_lanes, "run_lanes", broken)
    rows_of(*[{}] * 3)
    assert [event.error for event in make("o", 3)] == [""] * 3


def test_a_stop_lets_the_group_in_hand_finish():
    rows_of(*[{}] * 7)
    asked = []
    batch = batch_of("o", 3)
    events = list(batch.run(stop=lambda: asked.append(0) or len(asked) > 1))
    assert [event.id for event in events] == ["r0", "r1", "r2"]
    assert sorted(path.name for path in Path("o").glob("*.png")) == ["r0.png", "r1.png", "r2.png"]


def test_as_many_rows_are_read_ahead_as_the_program_in_hand_makes():
    begun, ahead = [], 1
    rows = (begun.append(k) or k for k in range(9))
    with ThreadPoolExecutor(1) as pool:
        found = _in_advance(pool, lambda row: row, rows, lambda: ahead)
        assert (next(found), len(begun)) == (0, 2)
        ahead = 4
        assert (next(found), len(begun)) == (1, 6)
        ahead = 1
        assert list(found) == [*range(2, 9)]


@pytest.mark.parametrize(("lanes_of_room", "at_a_time"), [(2.5, 2), (0.5, 1), (1e6, 5), (None, 1)])
def test_on_a_gpu_lanes_come_from_the_memory_that_is_free(monkeypatch, lanes_of_room, at_a_time):
    free = lanes_of_room and int(lanes_of_room * BYTES_PER_PIXEL * 24 * 32)
    rows_of(*[{}] * 7)
    batch = batch_of("o", 0)
    jobs = [batch._prepare(row).job for row in batch.rows]

    def sizes(lanes):
        return [len(group) for group in lanes.groups(jobs, lambda job: job)]

    assert sizes(Lanes(0)) == [1] * 7  # on a CPU
    monkeypatch.setattr(batch_lanes.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(batch_lanes.device, "free_memory", lambda: free)
    monkeypatch.setattr(batch_lanes, "MAX_LANES", 5)
    assert max(sizes(Lanes(0))) == at_a_time
    assert sum(sizes(Lanes(0))) == 7
    assert sizes(Lanes(3)) == [3, 3, 1]
