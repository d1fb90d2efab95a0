"""The program nst-batch, end to end, in process: its pictures against those of nst, what it skips and survives."""

import collections
import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import batch_kill
import jax
import numpy as np
import pytest
from PIL import Image

import nst_jax
from nst_jax.launchers import batch, nst
from nst_jax.launchers.flags import run
from nst_jax.options import fields_of
from nst_jax.runs import batch_job, batch_request, batch_summary
from nst_jax.runs.batch_request import (
    BatchOptions,
    columns,
    make_batch_request,
    make_pairs,
    parse_shard,
    parse_value,
    read_manifest,
)
from nst_jax.runs.input_files import InputOptions, program_size
from nst_jax.system import storage

LAYERS = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # quick to compile
SMALL = ["--preset=gatys", "--size=32", "--iterations=2", *LAYERS]
OUTPUT = "--output=o/{id}.png"
STYLE = "--style=s.png"


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs a program in a folder of small pictures: exit code, lines of both outputs."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        draw(f"c{number}.png", 24, 32, number)
    draw("s.png", 32, 28, 7)
    draw("s2.png", 20, 32, 8)

    def call(*arguments, program=batch.PROGRAM, quiet=True):
        code = run(program, [*["--quiet"] * quiet, *SMALL, *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def draw(path, height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def write_csv(path, *rows):
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        table.writeheader()
        table.writerows(rows)
    return f"--manifest={path}"


def entries(folder="o/results"):
    parts = sorted(Path(folder).glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def whole(path):
    with Image.open(path) as picture:
        picture.load()
    return True


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def made(folder="o"):
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file() and whole(path))


def test_a_row_is_a_run_of_nst(call):
    manifest = write_csv(
        "m.csv",
        {"id": "one", "content": "c0.png", "style": "s.png"},
        {"id": "two", "content": "c1.png", "style": "s.png;s2.png", "style_weight": "1e7", "size": "30"},
    )
    code, out, err = call(manifest, OUTPUT, "--report=o/{id}.json", "--judge")
    assert (code, err) == (0, [])
    assert sorted(out) == ["o/one.json", "o/one.png", "o/two.json", "o/two.png"]
    flags = ["--devices=1", "--content=c0.png", "--style=s.png", "--output=one.png"]
    assert call(*flags, program=nst.PROGRAM)[0] == 0
    flags = ["--content=c1.png", "--style=s.png", "--style=s2.png", "--style_weight=1e7", "--size=30"]
    assert call("--devices=1", *flags, "--output=two.png", program=nst.PROGRAM)[0] == 0
    lines = {entry["id"]: entry for entry in entries()}
    for name in ("one", "two"):
        assert Path("o", f"{name}.png").read_bytes() == Path(f"{name}.png").read_bytes()
        report = json.loads(Path("o", f"{name}.json").read_text())
        assert lines[name]["losses"] == report["losses"]["final"]
        assert lines[name]["judge"] == report["judge"]
        assert lines[name]["paths"] == [f"o/{name}.png", f"o/{name}.json"]
        assert lines[name]["error"] is None
        assert lines[name]["seconds"] > 0
        assert lines[name]["nst_jax"] == nst_jax.__version__


BAD = {
    "a file that is not there": ({"content": "no.png"}, "no.png: must be a file that can be read"),
    "no picture": ({"content": "text.png"}, "text.png: must be a whole picture file"),
    "half a picture": ({"content": "half.png"}, "half.png: must be a whole picture file"),
    "a value that is no number": ({"size": "big"}, "--size: a whole number"),
    "a value out of bounds": ({"size": "1"}, "--size: a whole number"),
    "an unknown choice": ({"pooling": "most"}, "--pooling: max or average; got 'most'"),
    "options that contradict": ({"learning_rate": "0.1"}, "--learning_rate: for --optimizer=adam"),
    "an id that leaves the folder": ({"id": "../x"}, "id: a name of a file"),
    "masks without styles": ({"style_mask": "s.png;s.png"}, "--style_mask: one for each --style"),
    "a loss that is not finite": ({"tv_weight": "3e38"}, "loss: finite numbers"),
    "a format that is not written": ({"output": "o/x.bmp"}, "o/x.bmp: must end in one of"),
}


def test_a_bad_row_is_recorded_and_the_others_are_made(call):
    Path("text.png").write_text("no picture")
    Path("half.png").write_bytes(Path("c0.png").read_bytes()[:300])
    rows = [
        {"id": f"bad{k}", "content": "c0.png", "style": "s.png"} | row
        for k, (row, _) in enumerate(BAD.values())
    ]
    good = [{"id": f"good{k}", "content": f"c{k}.png", "style": "s.png"} for k in range(2)]
    code, out, (*_, err) = call(write_csv("m.csv", good[0], *rows, good[1]), OUTPUT)
    assert code == 3
    assert err.startswith(f"error: {len(BAD)} of {len(BAD) + 2} rows failed, first ")
    assert out == ["o/good0.png", "o/good1.png"]
    assert made() == ["good0.png", "good1.png"]
    failed = {entry["id"]: entry["error"] for entry in entries() if entry["error"]}
    for row, (_, message) in zip(rows, BAD.values(), strict=True):
        assert failed[row["id"]].startswith(message)
        assert "\n" not in failed[row["id"]]
    count = len(entries())
    assert call(write_csv("m.csv", good[0], *rows, good[1]), OUTPUT)[0] == 3
    assert len(entries()) == count  # nothing is new


def test_done_rows_are_skipped_and_changed_ones_made_again(call, monkeypatch):
    made_now = []
    optimize = batch_job.Batch._optimize
    monkeypatch.setattr(
        batch_job.Batch,
        "_optimize",
        lambda self, ready: made_now.append(ready.row.id) or optimize(self, ready),
    )

    def again(*flags):
        made_now.clear()
        code, _, _ = call("--contents=c?.png", STYLE, OUTPUT, *flags)
        return code, sorted(made_now)

    assert again() == (0, ["c0", "c1", "c2", "c3"])
    assert again() == (0, [])
    draw("c1.png", 24, 32, 11)
    assert again() == (0, ["c1"])
    os.unlink("o/c2.png")
    assert again() == (0, ["c2"])
    assert again("--style_weight=1e7") == (0, ["c0", "c1", "c2", "c3"])
    assert again() == (0, ["c0", "c1", "c2", "c3"])  # the pictures are of the other weight
    for part in Path("o/results").iterdir():  # as if its worker was killed in the middle of a line
        part.write_text(part.read_text()[:-9])
    assert again()[1]
    assert again() == (0, [])
    shutil.rmtree("o/results")
    assert again() == (0, ["c0", "c1", "c2", "c3"])


def test_failed_rows_are_made_again_where_asked_for_or_where_their_file_has_changed(call):
    flags = ["--contents=c0.png", STYLE, OUTPUT]
    Path("c0.png").write_text("no picture")
    assert call(*flags)[0] == 3
    assert len(entries()) == 1
    assert call(*flags)[0] == 3
    assert len(entries()) == 1
    assert call(*flags, "--retry_failed")[0] == 3
    assert len(entries()) == 2
    draw("c0.png", 24, 32, 1)
    assert call(*flags)[0] == 0
    assert made() == ["c0.png"]


def test_shards_share_the_rows(call, monkeypatch):
    flags = ["--contents=c?.png", STYLE, OUTPUT]
    assert call(*flags, "--shard=0/3")[1] == ["o/c0.png", "o/c3.png"]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert call(*flags, "--shard=auto/3")[1] == ["o/c2.png"]
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    assert parse_shard("auto/5", {"SLURM_ARRAY_TASK_ID": "4"}) == (4, 5)
    assert call(*flags)[1] == ["o/c1.png"]  # what the shards have left
    assert made() == ["c0.png", "c1.png", "c2.png", "c3.png"]


def test_rows_of_one_shape_compile_once(call, compilations):
    draw("p.png", 32, 24, 3)
    draw("p2.png", 32, 24, 4)
    rows = [{"content": name, "style": "s.png"} for name in ("c0.png", "p.png", "c1.png", "p2.png", "c2.png")]
    manifest = write_csv("m.csv", *rows)
    assert call(manifest, OUTPUT, "--dry_run")[1] == [
        "5 rows, 0 of them in the results; 2 shapes; 2 programs to compile"
    ]
    assert not Path("o").exists()
    jax.clear_caches()
    code, out, _ = call(manifest, OUTPUT)
    assert code == 0
    assert [Path(name).stem for name in out] == ["000000", "000002", "000004", "000001", "000003"]
    assert compilations("run_steps") == 2


def test_programs_are_dropped_where_there_are_many(call, compilations, monkeypatch):
    monkeypatch.setattr(batch_job, "MAX_PROGRAMS", 0)
    jax.clear_caches()
    assert call("--contents=c[01].png", STYLE, OUTPUT)[0] == 0
    assert compilations("run_steps") == 2


VALUES = {
    "content": "c0.png",
    "style": ["s.png", "s2.png"],
    "iterations": 3,
    "style_mix": [3, 1.0],
    "soft_masks": False,
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_manifests_of_every_kind_say_the_same(call, kind):
    if kind == "csv":
        row = {**VALUES, "style": "s.png;s2.png", "style_mix": "3,1.0", "soft_masks": "false", "seed": ""}
        manifest = write_csv("m.csv", row)
    elif kind == "jsonl":
        Path("m.jsonl").write_text("\n" + json.dumps({**VALUES, "seed": None}) + "\n")
        manifest = "--manifest=m.jsonl"
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        row = {**VALUES, "style_mix": [3.0, 1.0], "seed": None}
        parquet.write_table(pyarrow.Table.from_pylist([row]), "m.parquet")
        manifest = "--manifest=m.parquet"
    assert call(manifest, OUTPUT)[0] == 0
    flags = ["--content=c0.png", "--style=s.png", "--style=s2.png", "--iterations=3", "--style_mix=3,1"]
    assert call(*flags, "--devices=1", "--output=x.png", program=nst.PROGRAM)[0] == 0
    assert Path("o/000000.png").read_bytes() == Path("x.png").read_bytes()


def test_pairs():
    def named(pairs):
        return [row["id"] for row in make_pairs(["a/1.png", "2.jpg"], ["example:ink", "t.png"], pairs)]

    assert named("all") == ["1-ink", "1-t", "2-ink", "2-t"]
    assert named("zip") == ["1-ink", "2-t"]
    assert named("random:3:1") == named("random:3:1")
    assert {tuple(named(f"random:2:{seed}")) for seed in range(40)} == {
        (first, second) for n, first in enumerate(named("all")) for second in named("all")[n + 1 :]
    }
    assert list(make_pairs(["a.png"], [], "all")) == [{"id": "a", "content": "a.png"}]


CONTENTS = ["--contents=c?.png", STYLE]
REFUSED = {
    "no rows": ([OUTPUT], "--manifest, --contents: one of them; got neither"),
    "rows twice": (["--manifest=m.csv", *CONTENTS, OUTPUT], "--manifest, --contents: one of them; got both"),
    "no output": (CONTENTS, "--output: a template such as FOLDER/{id}.png; not given"),
    "outputs that collide": (
        [*CONTENTS, "--output=o.png"],
        "--output: a file for each row, such as {id}.png; o.png for c0 and c1",
    ),
    "an output that is read": (
        [*CONTENTS, "--output=./{id}.png"],
        "--output: files that no row reads; got c0.png",
    ),
    "another name in braces": (
        [*CONTENTS, "--output=o/{content}.png"],
        "--output: {id} in place of the row's id; got {content}",
    ),
    "ids twice": (["--manifest=twice.csv", OUTPUT], "id: one for each row; 7 is there twice"),
    "an unknown column": (
        ["--manifest=unknown.csv", OUTPUT],
        "unknown.csv: columns that are options of nst, or id; got 'contnet' in row 0 (did you mean content?)",
    ),
    "a missing column": (
        ["--manifest=missing.csv", OUTPUT],
        "style: a column, or --style for all rows; row 0 has neither",
    ),
    "a missing manifest": (
        ["--manifest=no.csv", OUTPUT],
        "no.csv: must be a file or folder that can be used; No such file or directory",
    ),
    "a manifest of another kind": (
        ["--manifest=m.xlsx", OUTPUT],
        "m.xlsx: must end in .csv, .jsonl, .parquet; got .xlsx",
    ),
    "a line that is no JSON": (
        ["--manifest=bad.jsonl", OUTPUT],
        "bad.jsonl, line 2: must be a JSON object; got int",
    ),
    "lists in lists in lists": (
        ["--manifest=deep.jsonl", STYLE, OUTPUT],
        "--manifest: values, or lists of them; a list is too deep",
    ),
    "too many cells": (
        ["--manifest=cells.csv", OUTPUT],
        "cells.csv, line 2: must be CSV in UTF-8; there are more cells than columns",
    ),
    "no Parquet": (["--manifest=bad.parquet", OUTPUT], "bad.parquet: must be a Parquet file; "),
    "a pattern of nothing": (
        ["--contents=no*.png", STYLE, OUTPUT],
        "--contents=no*.png: a pattern that files match; none does",
    ),
    "pairs that are not there": (
        [CONTENTS[0], "--styles=s*.png", "--pairs=random:9:0", OUTPUT],
        "--pairs: all, zip or random:NUMBER:SEED, with at most the 8 pairs",
    ),
    "lists of two lengths": (
        [CONTENTS[0], "--styles=s*.png", "--pairs=zip", OUTPUT],
        "--pairs=zip: as many contents as styles; got 4 and 2",
    ),
    "a shard out of range": (
        [*CONTENTS, OUTPUT, "--shard=3/3"],
        "--shard: INDEX/COUNT, INDEX below COUNT; or auto/COUNT",
    ),
    "a shard of nobody": (
        [*CONTENTS, OUTPUT, "--shard=auto/3"],
        "--shard: INDEX/COUNT, INDEX below COUNT; or auto/COUNT",
    ),
    "results of another version": (
        [*CONTENTS, OUTPUT, "--results=old"],
        "old/part-0.jsonl: a folder with results of this version, ",
    ),
    "results that are a file": ([*CONTENTS, OUTPUT, "--results=s.png/r"], "s.png/r: must be a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_all_rows_is_one_line_and_nothing_is_written(call, case):
    good = {"content": "c0.png", "style": "s.png"}
    write_csv("m.csv", good)
    write_csv("twice.csv", {"id": 7, **good}, {"id": 7, **good})
    write_csv("unknown.csv", {"contnet": "c0.png", "style": "s.png"})
    write_csv("missing.csv", {"content": "c0.png"})
    Path("bad.jsonl").write_text('{"content": "c0.png", "style": "s.png"}\n7\n')
    Path("deep.jsonl").write_text('{"content": "c0.png", "seed": ' + "[" * 700 + "]" * 700 + "}")
    Path("cells.csv").write_text("content,style\nc0.png,s.png,c1.png\n")
    Path("bad.parquet").write_text("no Parquet")
    Path("old").mkdir()
    old = {"id": "c0", "key": "", "paths": [], "error": None, "ended": 1.0, "nst_jax": "0.0.1"}
    Path("old/part-0.jsonl").write_text(json.dumps(old) + "\n")
    before = sorted(os.listdir())
    arguments, message = REFUSED[case]
    code, out, err = call(*arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"error: {message}")
    assert sorted(os.listdir()) == before


def test_a_signal_lets_the_row_in_hand_finish(call, monkeypatch):
    optimize, seen = batch_job.Batch._optimize, []

    def interrupted(self, ready):
        seen.append(ready.row.id)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return optimize(self, ready)

    monkeypatch.setattr(batch_job.Batch, "_optimize", interrupted)
    code, out, (err,) = call("--contents=c?.png", STYLE, OUTPUT)
    assert (code, out) == (143, ["o/c0.png", "o/c1.png"])
    assert err.startswith("error: terminated: 2 of 4 rows: 2 made, 0 failed, 0 skipped")
    assert err.endswith("; the same command goes on")
    monkeypatch.setattr(batch_job.Batch, "_optimize", optimize)
    assert call("--contents=c?.png", STYLE, OUTPUT)[:2] == (0, ["o/c2.png", "o/c3.png"])


def test_what_nobody_foresaw_costs_one_row(call, monkeypatch):
    optimize = batch_job.prepare

    def broken(request, **options):
        if request.inputs.content == "c1.png":
            raise ZeroDivisionError("division\nby zero")
        return optimize(request, **options)

    monkeypatch.setattr(batch_job, "prepare", broken)
    assert call("--contents=c[012].png", STYLE, OUTPUT)[0] == 3
    assert made() == ["c0.png", "c2.png"]
    assert [entry["error"] for entry in entries() if entry["error"]] == [
        "ZeroDivisionError: division by zero"
    ]


def test_ids_may_name_folders(call):
    manifest = write_csv("m.csv", {"id": "a/b", "content": "c0.png", "style": "s.png"})
    assert call(manifest, OUTPUT)[:2] == (0, ["o/a/b.png"])


def test_a_manifest_is_read_row_by_row(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"content": "a"}\n{}\nno JSON')
    rows = read_manifest(str(tmp_path / "m.jsonl"))
    assert [next(rows), next(rows)] == [{"content": "a"}, {}]


def test_rows_of_a_manifest_take_little_memory(tmp_path):
    count = 20_000
    with open(tmp_path / "m.jsonl", "w") as file:
        for number in range(count):
            row = {"id": f"folder/{number:030d}", "content": f"photos/{number:030d}.jpg", "style": "s.png"}
            file.write(json.dumps(row) + "\n")
    wanted = BatchOptions(manifest=str(tmp_path / "m.jsonl"), shard="1/2")
    request = make_batch_request(wanted, {"output": "o/{id}.png"}, {})
    tracemalloc.start()
    try:
        rows = request.rows(tmp_path / "scratch")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * count  # bytes; a row's texts and objects take 900
    kept = [int(row.id.rpartition("/")[2]) for row in rows]
    assert kept == [*range(1, count, 2)]
    back = rows.by([-number for number in kept])
    assert [int(row.id.rpartition("/")[2]) for row in back] == kept[::-1]
    assert len(rows) == len(back) == count // 2


def test_names_of_equal_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_request, "hash", lambda name: 0, raising=False)
    row = {"content": "c.png", "style": "s.png"}
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"id": f"r{k}", **row}) + "\n" for k in range(3)))
    given = {"output": "o/{id}.png"}
    request = make_batch_request(BatchOptions(manifest=str(manifest)), given, {})
    assert [row.id for row in request.rows(tmp_path)] == ["r0", "r1", "r2"]


@pytest.fixture
def memory():
    """Return an empty store, at memory://."""
    store = pytest.importorskip("fsspec").filesystem("memory")
    store.store.clear()
    return store


def put(store, *names):
    for name in names:
        store.pipe_file(f"/in/{name}", Path(name).read_bytes())


def files(store, folder):
    return sorted(Path(name).name for name in store.ls(folder, detail=False) if store.isfile(name))


def test_manifest_pictures_and_results_may_lie_at_addresses(call, memory, tmp_path):
    write_csv("m.csv", *({"id": f"r{k}", "content": f"memory://in/c{k}.png"} for k in range(3)))
    put(memory, "m.csv", "c0.png", "c1.png", "s.png")
    flags = ["--manifest=memory://in/m.csv", "--style=memory://in/s.png", "--output=memory://out/{id}.png"]
    before = sorted(os.listdir())
    code, out, _ = call(*flags, "--report=memory://out/{id}.json", "--init=memory://in/c1.png")
    assert code == 3  # of r2 there is no content
    assert sorted(out) == sorted(f"memory://out/r{k}.{kind}" for k in range(2) for kind in ("png", "json"))
    assert files(memory, "/out") == ["r0.json", "r0.png", "r1.json", "r1.png"]
    assert sorted(os.listdir()) == before
    lines = [
        json.loads(line)
        for part in files(memory, "/out/results")
        for line in memory.cat_file(f"/out/results/{part}").splitlines()
    ]
    assert {line["id"]: line["paths"] for line in lines} == {
        "r0": ["memory://out/r0.png", "memory://out/r0.json"],
        "r1": ["memory://out/r1.png", "memory://out/r1.json"],
        "r2": [],
    }
    put(memory, "c2.png")
    assert call(*flags, "--report=memory://out/{id}.json", "--init=memory://in/c1.png")[:2] == (
        0,
        ["memory://out/r2.png", "memory://out/r2.json"],
    )
    local = ["--content=c2.png", STYLE, "--init=c1.png", "--devices=1", "--output=x.png"]
    assert call(*local, program=nst.PROGRAM)[0] == 0
    assert memory.cat_file("/out/r2.png") == Path("x.png").read_bytes()


def test_of_an_object_store_no_bucket_is_made(memory, monkeypatch):
    made = []
    monkeypatch.setattr(type(memory), "makedirs", lambda self, path, **options: made.append(path))
    storage.write("memory://folder/a", b"")
    assert made == ["/folder"]
    monkeypatch.setattr(storage, "OBJECT_STORES", ("memory",))
    storage.write("memory://bucket/a", b"whole")
    storage.make_folder("simplecache::memory://bucket")
    assert made == ["/folder"]
    assert storage.read("memory://bucket/a") == b"whole"


def test_patterns_may_be_addresses(call, memory):
    put(memory, "c0.png", "c1.png")
    assert call("--contents=memory://in/*.png", STYLE, OUTPUT)[1] == ["o/c0.png", "o/c1.png"]


def test_a_store_that_fails_now_and_then_is_asked_again(call, memory, monkeypatch):
    put(memory, "c0.png", "c1.png")
    monkeypatch.setattr(storage, "PAUSE_SECONDS", 0.0)
    asked = collections.Counter()

    def failing(method):
        real = getattr(type(memory), method)

        def sometimes(self, path, *rest, **options):
            asked[method, path] += 1
            if "c1" in path or asked[method, path] < storage.TRIES:
                raise ConnectionError("the store is busy")
            return real(self, path, *rest, **options)

        monkeypatch.setattr(type(memory), method, sometimes)

    failing("get_file")
    failing("pipe_file")
    contents = write_csv("m.csv", *({"id": f"r{k}", "content": f"memory://in/c{k}.png"} for k in range(2)))
    code, out, (*_, err) = call(contents, STYLE, "--output=memory://out/{id}.png", "--results=o")
    assert (code, out) == (3, ["memory://out/r0.png"])
    assert "memory://in/c1.png: must be a file or folder that can be used; the store is busy (4 tries)" in err


ABSENT = {
    "fsspec": (
        ["--manifest=s3://b/m.csv", OUTPUT],
        "s3://b/m.csv: fsspec for addresses (pip install 'nst-jax[batch]'); it is not installed",
    ),
    "pyarrow": (
        ["--manifest=m.parquet", OUTPUT],
        "m.parquet: pyarrow for Parquet (pip install 'nst-jax[batch]'); it is not installed",
    ),
    "s3fs": (
        [*CONTENTS, "--output=s3://b/{id}.png", "--results=o"],
        "s3://b/{id}.png: an address that fsspec has a driver for; ",
    ),
}


@pytest.mark.parametrize("package", ABSENT)
def test_a_package_that_is_not_there_is_one_line(call, monkeypatch, package):
    for name in [*sys.modules]:
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    Path("m.parquet").write_text("")
    arguments, message = ABSENT[package]
    code, _, (err,) = call(*arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")


def test_killed_workers_lose_only_what_they_had_in_hand(capsys):
    assert batch_kill.main(["--rows=24", "--kills=2", "--size=32"]) == 0, capsys.readouterr().out


def test_what_a_killed_worker_has_left_half_written_is_removed(call):
    Path("o").mkdir()
    for name in ("old", "new"):
        path = Path(f"o/.nst_jax-{name}.tmp")
        path.write_text("half a picture")
        if name == "old":
            os.utime(path, (0, 0))
    assert call("--contents=c0.png", STYLE, OUTPUT)[0] == 0
    assert sorted(path.name for path in Path("o").iterdir()) == [".nst_jax-new.tmp", "c0.png", "results"]


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], True, 10**400])
def test_odd_values_of_json_cost_one_row(call, value):
    rows = [{"id": "bad", "content": "c0.png", "size": value}, {"id": "good", "content": "c0.png"}]
    Path("m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert call("--manifest=m.jsonl", STYLE, OUTPUT)[:2] == (3, ["o/good.png"])
    (error,) = [entry["error"] for entry in entries() if entry["error"]]
    assert error.startswith("--size: ")


def test_rounded_aspects_share_programs_and_results_have_their_own(call, compilations):
    sizes = [(36 + k, 48) for k in range(-1, 2)]
    for k, size in enumerate(sizes):
        draw(f"p{k}.png", *size, k)
    flags = ["--contents=p?.png", STYLE, "--size=48"]
    assert call(*flags, OUTPUT, "--dry_run")[1][0].endswith("3 shapes; 3 programs to compile")
    jax.clear_caches()
    assert call(*flags, OUTPUT, "--round_aspects")[0] == 0
    assert (
        compilations("run_steps")
        == len({program_size(size, InputOptions(round_aspects=True)) for size in sizes})
        == 2
    )
    for k, (height, width) in enumerate(sizes):
        with Image.open(f"o/p{k}.png") as picture:
            assert picture.size == (width, height)


@pytest.mark.parametrize("size", [(512, 512), (512, 511), (333, 512), (512, 341), (512, 100), (1024, 3)])
def test_a_rounded_aspect_is_two_percent_off_at_most(size):
    rounded = program_size(size, InputOptions(round_aspects=True))
    assert max(rounded) == max(size)
    assert (rounded[0] >= rounded[1]) == (size[0] >= size[1])
    assert abs(np.log(min(rounded) / min(size))) <= np.log(1.04) / 2 + 0.5 / min(size)
    assert program_size(rounded, InputOptions(round_aspects=True)) == rounded
    assert program_size(size, InputOptions()) == size


def test_ray_that_is_not_there_is_one_line(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = call("--contents=c0.png", STYLE, OUTPUT, "--runner=ray")
    message = "error: --runner=ray: ray for --runner=ray (pip install 'nst-jax[ray]'); it is not installed"
    assert (code, out, err) == (2, [], [message])
    assert not Path("o").exists()


@pytest.mark.skipif(
    not importlib.util.find_spec("ray"), reason="needs ray, which is not among the tests' packages"
)
def test_a_node_of_a_ray_cluster_that_goes_away_loses_no_row():
    script = Path(__file__).parents[1] / "batch_ray.py"
    done = subprocess.run([sys.executable, script, "--rows=20", "--size=32"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_summary_shows_a_sample_the_losses_and_the_failures(call, monkeypatch):
    monkeypatch.setattr(batch_summary, "SAMPLE", 2)
    Path("text.png").write_text("no picture")
    names = ["c0.png", "c1.png", "text.png", "no.png", "c2.png", "nor.png"]
    rows = [{"id": f"r{k}", "content": name, "style": "s.png"} for k, name in enumerate(names)]
    code, out, _ = call(write_csv("m.csv", *rows), OUTPUT, "--summary")
    assert code == 3
    assert sorted(out[-3:]) == [f"o/results/{name}" for name in ("losses.png", "sheet.png", "summary.json")]
    assert json.loads(Path("o/results/summary.json").read_text()) == {
        "made": 3,
        "failed": 3,
        "failures": {
            "must be a file that can be read": 2,
            "must be a whole picture file (PNG, JPEG, WEBP, TIFF, AVIF, GIF, BMP, PPM, JPEG2000)": 1,
        },
    }
    sheet = pixels("o/results/sheet.png")
    on_it = []
    for name in made():
        tile = pixels(f"o/{name}")
        places = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[:, :, 0]
        on_it += [name] if (places == tile).all((-3, -2, -1)).any() else []
    assert on_it == ["r0.png", "r4.png"]
    assert whole("o/results/losses.png")
    assert call(write_csv("m.csv", *rows), OUTPUT, "--summary")[1] == out[-3:]


def test_a_summary_of_nothing_but_failures_and_of_pictures_that_are_gone(call):
    assert call("--contents=s.png", "--style=no.png", OUTPUT, "--summary")[1] == ["o/results/summary.json"]
    assert call("--contents=c0.png", STYLE, OUTPUT)[0] == 0
    os.unlink("o/c0.png")
    flags = ["--contents=c1.png", STYLE, OUTPUT, "--summary"]
    assert set(call(*flags)[1]) == {
        "o/c1.png",
        *(f"o/results/{name}" for name in ("losses.png", "sheet.png", "summary.json")),
    }


def test_ray_makes_all_shards(call):
    code, _, (err,) = call("--contents=c0.png", STYLE, OUTPUT, "--runner=ray", "--shard=0/2")
    assert (code, err) == (2, "error: --shard: not with --runner=ray, which makes all shards; got both")


def test_whole_numbers_of_json_are_floats_where_options_are():
    assert [type(value) for value in parse_value(columns()["style_mix"], [3, 1.5])] == [float, float]
    assert type(parse_value(columns()["style_weight"], 3)) is float
    assert type(parse_value(columns()["size"], 32)) is int


def test_recipes_start_as_many_workers_as_there_are_shards_and_name_flags_of_the_program():
    yaml = pytest.importorskip("yaml")
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    job, task = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    assert (
        pod["restartPolicy"] == "Never"
    )  # which a podFailurePolicy asks for, and FailIndex a limit by index
    assert job["spec"]["backoffLimitPerIndex"] > 0
    (failing,) = job["spec"]["podFailurePolicy"]["rules"]
    assert failing["onExitCodes"]["values"] == [2, batch.FAILED]
    name, *arguments = pod["containers"][0]["args"]
    assert name == "nst-batch"
    assert f"--shard=auto/{job['spec']['completions']}" in arguments
    array, command = re.search(r"--array=0-(\d+)\n.*?srun (nst-batch .*?)\n", page, re.DOTALL).groups()
    assert f"--shard=auto/{int(array) + 1}" in command
    (submitted,) = re.findall(r"ray job submit .* -- (nst-batch .*)", page.replace("\\\n", " "))
    known = {field.name for kind in batch.PROGRAM.options for field in fields_of(kind)}
    for words in (arguments, *(shlex.split(line)[1:] for line in (command, task["run"], submitted))):
        assert {word.partition("=")[0].removeprefix("--") for word in words} <= known
    assert parse_shard(task["envs"]["SHARD"], {}) == (0, 8)
