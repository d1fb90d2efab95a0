"""The program nst-sweep, end to end, in process: each picture against the run of nst with its values."""

import itertools
import json
import os
import re
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

from nst_jax import images
from nst_jax.launchers import nst, progress_bar, sweep
from nst_jax.launchers.flags import run
from nst_jax.reports.contact_sheet import knee
from nst_jax.runs import sweep_folder, sweep_job, sweep_sheet
from nst_jax.runs.sweep_request import SweepOptions, make_cells
from nst_jax.system import device

pytestmark = pytest.mark.usefixtures("optax_promotion")

LAYERS = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # quick to compile
SMALL = [
    "--preset=gatys",
    "--size=32",
    "--iterations=2",
    "--optimizer=adam",
    *LAYERS,
]  # whose first steps go far
PAIR = ["--content=c.png", "--style=s.png"]
WEIGHTS = "--sweep=style_weight=1e6,1e8,1e9,1e4"
OTHERS = {"settings.json", "sheet.png", "sweep.json", "tradeoff.png"}


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs a program in a folder of small pictures: exit code, lines of both outputs.

    On one device: --batch_size is rounded up to a multiple of their number, which sweep_test.py looks into.
    """
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.chdir(tmp_path)
    draw("c.png", 24, 32, 1)
    draw("c2.png", 24, 32, 2)
    draw("s.png", 32, 28, 3)
    draw("s2.png", 20, 32, 4)

    def call(*arguments, program=sweep.PROGRAM):
        code = run(program, ["--quiet", *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def draw(path, height, width, seed, mode="RGB"):
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, len(mode)), np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def read_json(path):
    with open(path) as file:
        return json.load(file, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def place(sheet, picture):
    """Return the row and column at which the picture lies in the sheet."""
    height, width, _ = picture.shape
    for y, x in zip(*np.nonzero((sheet == picture[0, 0]).all(-1)), strict=True):
        if np.array_equal(sheet[y : y + height, x : x + width], picture):
            return int(y), int(x)
    return pytest.fail("not in the sheet")


def assert_near(numbers, expected):
    """Dictionaries of losses are equal within a thousandth."""
    assert json.dumps(numbers, sort_keys=True).count('"') == json.dumps(expected, sort_keys=True).count('"')
    for one, other in zip(jax.tree.leaves(numbers), jax.tree.leaves(expected), strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


# By name: further arguments, the values as --sweep takes them, as nst takes them, as sweep.json has them.
LBFGS = "--optimizer=lbfgs"
TWO_STYLES = ["--content=c.png", "--style=s.png", "--style=s2.png"]
SWEPT = {
    "style_weight": (PAIR, ["1e6", "1e9"], None, [1e6, 1e9]),
    "content_weight": (PAIR, ["0", "100"], None, [0.0, 100.0]),
    "tv_weight": (PAIR, ["0", "10"], None, [0.0, 10.0]),
    "style_mix": ([*TWO_STYLES, LBFGS], ["1:0", "1:3"], ["1,0", "1,3"], [[1.0, 0.0], [1.0, 3.0]]),
    "style_layer_weights": (PAIR, ["geometric", "1:16"], ["geometric", "1,16"], ["geometric", "1,16"]),
    "learning_rate": (PAIR, ["0.001", "0.2"], None, [0.001, 0.2]),
    "seed": ([*PAIR, "--init=noise"], ["1", "4294967295"], None, [1, 4294967295]),
    "style": (["--content=c.png"], ["s.png", "s2.png"], None, ["s.png", "s2.png"]),
    "content": (["--style=s.png", LBFGS], ["c.png", "c2.png"], None, ["c.png", "c2.png"]),
    "style, first picture of it": (["--content=c.png", "--init=style"], ["s.png", "s2.png"], None, None),
    "style_weight, masked": (
        [*TWO_STYLES, "--style_mask=left.png", "--style_mask=right.png", "--style_source_mask=top.png"]
        + ["--style_source_mask="],
        *(["1", "1e9"], None, None),
    ),
    "style_mix, labeled": (
        [*TWO_STYLES, "--content_labels=labels.png", "--style_labels=top.png", "--style_labels="],
        *(["1:0", "1:3"], ["1,0", "1,3"], [[1.0, 0.0], [1.0, 3.0]]),
    ),
    "content, masked": (["--style=s.png", "--content_mask=left.png"], ["c.png", "c2.png"], None, None),
    "style, luma": (["--content=c.png", "--preserve_color=luma"], ["s.png", "s2.png"], None, None),
    "content, match": (["--style=s.png", "--preserve_color=match"], ["c.png", "c2.png"], None, None),
    "seed, texture": (["--style=s.png", LBFGS, "--init=noise", "--content_weight=0"], ["1", "2"], None, None),
}


@pytest.mark.parametrize("case", SWEPT)
def test_each_picture_is_that_of_nst_with_the_same_values(call, case):
    given, listed, alone, values = SWEPT[case]
    name = case.split(",")[0]
    mask = np.zeros((24, 32), np.uint8)
    for file, part in {"left.png": np.s_[:, :12], "right.png": np.s_[:, 18:]}.items():
        Image.fromarray(
            np.where(np.isin(np.arange(32), np.arange(32)[part[1]]), 255, mask).astype(np.uint8)
        ).save(file)
    Image.fromarray(np.repeat(np.uint8([255, 0]), 16)[:, None].repeat(28, 1)).save("top.png")
    Image.fromarray(np.repeat(np.uint8([0, 255]), 16)[None].repeat(24, 0)).save("labels.png")
    code, out, err = call(
        *SMALL, *given, f"--sweep={name}={','.join(listed)}", "--batch_size=2", "--output_dir=o"
    )
    assert (code, err) == (0, [])
    entries = read_json("o/sweep.json")
    assert [list(entry) for entry in entries] == [["file", "values", "losses", "flag", "knee"]] * 2
    ends = ["-c", "-c2"] if name == "content" else ["", ""]
    assert [entry["file"] for entry in entries] == [f"000{n}{end}.png" for n, end in enumerate(ends)]
    assert [entry["flag"] for entry in entries] == [None, None]
    if values:
        assert [entry["values"] for entry in entries] == [{name: value} for value in values]
    for entry, value in zip(entries, alone or listed, strict=True):
        arguments = [*SMALL, *given, f"--{name}={value}", "--output=a.png", "--report=r.json"]
        assert call(*arguments, program=nst.PROGRAM)[0] == 0
        assert_near(entry["losses"], read_json("r.json")["losses"]["final"])
        file = os.path.join("o", entry["file"])
        assert np.abs(pixels(file).astype(int) - pixels("a.png")).max() <= 2
        assert json.loads(images.read_settings(file)) == json.loads(images.read_settings("a.png"))
    first, second = (pixels(os.path.join("o", entry["file"])).astype(int) for entry in entries)
    assert np.abs(first - second).max() > 2


def test_a_grid_has_the_last_name_fastest_and_writes_its_files(call):
    grid = ["--sweep=tv_weight=0,10", "--sweep=style_weight=1e5,1e6,1e9"]
    code, out, err = call(*PAIR, *SMALL, *grid, "--output_dir=o")
    files = [f"{n:04d}.png" for n in range(6)]
    assert (code, err) == (0, [])
    assert out == [f"o/{name}" for name in [*files, "sweep.json", "sheet.png", "tradeoff.png"]]
    assert set(os.listdir("o")) == {*files, *OTHERS}
    entries = read_json("o/sweep.json")
    assert [entry["file"] for entry in entries] == files
    cells = [tuple(entry["values"].values()) for entry in entries]
    assert cells == list(itertools.product([0, 10], [1e5, 1e6, 1e9]))
    assert list(entries[0]["values"]) == ["tv_weight", "style_weight"]
    points = [(entry["losses"]["content"], entry["losses"]["style"]) for entry in entries]
    assert [entry["knee"] for entry in entries] == [n == knee(points) for n in range(6)]

    # The margin of 200, names of rows in 160, a line and 8 for those of columns; see contact_sheet_test.py.
    sheet = pixels("o/sheet.png")
    assert sheet.shape == (max(23 + 2 * (24 + 75 + 16), 24 + 32 + 2 * 31) + 8, 360 + 3 * 256, 3)
    for n, file in enumerate(files):
        row, column = divmod(n, 3)
        assert place(sheet, pixels(f"o/{file}")) == (46 + row * 115, 368 + column * 256)
    assert place(sheet, pixels("c.png")) == (23, 8)
    assert place(sheet, pixels("s.png")) == (23 + 24 + 31, 8)


ASPECTS = ["--sweep=content=c.png,s.png,c2.png", "--sweep=style_weight=1e6,1e9"]
OF_ASPECTS = [f"{n:04d}-{name}.png" for n, name in enumerate(("c", "c", "s", "s", "c2", "c2"))]


def test_contents_of_other_aspects_are_made_by_a_program_each(call, tmp_path, caplog):
    caplog.set_level("INFO")
    arguments = ["--style=s.png", *SMALL, *ASPECTS, "--batch_size=2"]
    assert run(sweep.PROGRAM, [*arguments, "--output_dir=new/parents/o"]) == 0
    assert "pictures of 2 sizes, a program for each: 4 of 32x24, 2 of 28x32" in caplog.text
    assert "pictures 5-6 of 6  step 2/2" in caplog.text
    folder = tmp_path / "new/parents/o"
    assert set(os.listdir(folder)) == {*OF_ASPECTS, *OTHERS}
    assert [entry["file"] for entry in read_json(folder / "sweep.json")] == OF_ASPECTS
    assert read_json(folder / "settings.json")["lanes"] == [2, 2]
    for name, content in {OF_ASPECTS[3]: "s.png", OF_ASPECTS[5]: "c2.png"}.items():
        alone = ["--style=s.png", f"--content={content}", *SMALL, "--style_weight=1e9", "--output=a.png"]
        assert call(*alone, program=nst.PROGRAM)[0] == 0
        assert np.abs(pixels(folder / name).astype(int) - pixels("a.png")).max() <= 2


@pytest.mark.parametrize("passes", [1, 2])
def test_ctrl_c_among_other_aspects_loses_no_step(call, tmp_path, monkeypatch, passes):
    arguments = ["--style=s.png", *SMALL, *ASPECTS, "--batch_size=2"]
    assert call(*arguments, "--output_dir=p")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_in_pass(patch, passes)
        assert call(*arguments, "--output_dir=o")[0] == 130
    seen = steps_of(monkeypatch)
    assert call(*arguments, "--output_dir=o", "--resume")[0] == 0
    assert seen[0] == 1  # where it stood
    assert contents(tmp_path / "o") == contents(tmp_path / "p")


def interrupt_in_pass(monkeypatch, passes):
    """Send Ctrl-C in the middle of the pass after so many."""
    original, finished, sent = sweep_job.sweep, [], []

    def interrupted(*arguments, **options):
        for now in original(*arguments, **options):
            finished.extend([now] if now.finished else [])
            if len(finished) == passes and now.step == 1 and not sent:
                sent.append(signal.raise_signal(signal.SIGINT))
                time.sleep(0.2)  # until the thread that waits for signals has seen it
            yield now

    monkeypatch.setattr(sweep_job, "sweep", interrupted)


def test_names_with_commas_are_a_flag_each(call, tmp_path):
    (tmp_path / "c.png").rename(tmp_path / "c, of sand.png")
    files = ["--sweep=content=c, of sand.png", "--sweep=content=c2.png"]
    code, _, err = call("--style=s.png", *SMALL, "--iterations=0", *files, "--output_dir=o")
    assert (code, err) == (0, [])
    assert {"0000-c, of sand.png", "0001-c2.png"} < set(os.listdir("o"))
    assert [entry["values"]["content"] for entry in read_json("o/sweep.json")] == ["c, of sand.png", "c2.png"]


def test_the_sheet_and_the_plot_name_no_folders(call, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep_sheet, "contact_sheet", lambda *given: drawn.append(str(given)) or b"")
    monkeypatch.setattr(sweep_sheet, "plot_tradeoff", lambda *given: drawn.append(str(given)) or b"")
    swept = [f"--sweep=content={tmp_path}/c.png,{tmp_path}/c2.png", "--sweep=tv_weight=0,1"]
    assert call(f"--style={tmp_path}/s.png", *SMALL, *swept, "--output_dir=o")[0] == 0
    assert len(drawn) == 2
    assert all("c2.png" in text and str(tmp_path) not in text for text in drawn)
    assert str(tmp_path) not in images.read_settings("o/0000-c.png")
    assert call(*PAIR, *SMALL, "--sweep=tv_weight=0", "--no_settings", "--output_dir=p")[0] == 0
    assert images.read_settings("p/0000.png") is None


def test_zip_takes_values_side_by_side(call):
    lists = ["--sweep=style=s.png,s2.png,s.png", "--sweep=style_weight=1e6,1e6,1e9", "--zip"]
    assert call("--content=c.png", *SMALL, *lists, "--output_dir=o")[0] == 0
    values = [tuple(entry["values"].values()) for entry in read_json("o/sweep.json")]
    assert values == [("s.png", 1e6), ("s2.png", 1e6), ("s.png", 1e9)]
    sheet = pixels("o/sheet.png")  # two columns: about a square; three lines above each picture
    assert place(sheet, pixels("o/0002.png")) == (24 + 7 * 15 + 16 + 8 + 45, 208)
    assert place(sheet, pixels("s2.png")) == (23 + 24 + 31 + 32 + 31, 8)


def test_large_pictures_are_thumbnails_on_the_sheet(call):
    options = ["--size=300", "--iterations=0", *LAYERS, "--sweep=tv_weight=0,1"]
    draw("c.png", 225, 300, 1)
    assert call(*PAIR, *options, "--output_dir=o")[0] == 0
    small = images.to_uint8(images.resize(images.load("o/0000.png").rgb, 180, 240))
    assert place(pixels("o/sheet.png"), small) == (8 + 30, 208)
    assert pixels("o/0000.png").shape == (225, 300, 3)


def test_the_contents_transparency_is_that_of_the_pictures_as_with_nst(call):
    draw("c.png", 24, 32, 6, "RGBA")
    call(*PAIR, *SMALL, "--sweep=style_weight=1e6,1e9", "--output_dir=o")
    call(*PAIR, *SMALL, "--style_weight=1e9", "--output=a.png", program=nst.PROGRAM)
    assert pixels("a.png").shape == (24, 32, 4)
    np.testing.assert_array_equal(pixels("o/0001.png")[..., 3], pixels("a.png")[..., 3])


def test_a_lane_that_overflows_is_flagged_and_touches_no_other(call):
    values = "--sweep=tv_weight=0,1e38,1e-3"
    code, out, err = call(*PAIR, *SMALL, values, "--batch_size=3", "--output_dir=o")
    assert code == 3
    assert err == [
        "error: loss: finite numbers (smaller weights?); not finite in 0001.png, which hold the last finite pictures"
    ]
    entries = read_json("o/sweep.json")
    assert [entry["flag"] for entry in entries] == [None, "non-finite", None]
    assert call(*PAIR, *SMALL, "--sweep=tv_weight=0,1e-3", "--output_dir=p")[0] == 0
    for entry, other in zip(entries[::2], read_json("p/sweep.json"), strict=True):
        assert_near(entry["losses"], other["losses"])
    np.testing.assert_array_equal(pixels("o/0001.png"), pixels("c.png"))
    losses = pixels("o/sheet.png")[62:77].astype(int)  # 8, two lines and a picture further down
    red = losses[..., 0] > losses[..., 1] + 100
    assert red[:, 464 + 120 : 712].any()
    assert not red[:, : 464 + 120].any()
    assert call(*PAIR, *SMALL, values, "--output_dir=o", "--resume")[0] == 3


def test_the_tradeoff_is_drawn_of_what_is_finite(call, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep_sheet, "plot_tradeoff", lambda *given: drawn.append(given) or b"plot")
    for module in (sweep_folder, sweep_sheet):
        monkeypatch.setattr(module, "knee", lambda points: len(points) - 1)
    call(*PAIR, *SMALL, "--sweep=tv_weight=0,1e38,1e-3", "--output_dir=o")
    ((points, labels, best),) = drawn
    entries = read_json("o/sweep.json")
    assert points == [(e["losses"]["content"], e["losses"]["style"]) for e in entries[::2]]
    assert (labels, best) == (["tv_weight 0", "tv_weight 0.001"], 1)
    assert [entry["knee"] for entry in entries] == [False, False, True]
    with open("o/tradeoff.png", "rb") as file:
        assert file.read() == b"plot"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def started(monkeypatch):
    """Return a list that grows by the number of problems with every start of the optimization."""
    counts = []
    original = sweep_job.sweep

    def counted(problems, *arguments, **options):
        counts.append(len(problems) - len(options["done"]))
        return original(problems, *arguments, **options)

    monkeypatch.setattr(sweep_job, "sweep", counted)
    return counts


def test_resume_makes_only_what_is_missing_and_gives_the_same_bytes(call, tmp_path, started):
    arguments = [*PAIR, *SMALL, WEIGHTS, "--batch_size=1", "--output_dir=o"]
    assert call(*arguments)[0] == 0
    before = contents(tmp_path / "o")
    (tmp_path / "o" / "0002.png").unlink()
    code, out, _ = call(*arguments, "--resume")
    assert (code, out) == (0, ["o/0002.png", "o/sweep.json", "o/sheet.png", "o/tradeoff.png"])
    assert contents(tmp_path / "o") == before
    assert call(*arguments, "--resume")[1] == ["o/sweep.json", "o/sheet.png", "o/tradeoff.png"]
    assert contents(tmp_path / "o") == before
    assert started == [4, 1]


def interrupt_after(monkeypatch, finished):
    """Send Ctrl-C at so many finished passes; return a list of the steps that are told from then on."""
    original = sweep_job.sweep

    def interrupted(*arguments, **options):
        passes = 0
        for now in original(*arguments, **options):
            passes += bool(now.finished)
            if passes == finished or seen:
                seen.append(now.step)
            if len(seen) == 1:
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.2)  # until the thread that waits for signals has seen it
            yield now

    seen = []
    monkeypatch.setattr(sweep_job, "sweep", interrupted)
    return seen


def test_ctrl_c_keeps_what_is_finished_and_resume_makes_the_rest(call, tmp_path, monkeypatch):
    arguments = [*PAIR, *SMALL, WEIGHTS, "--batch_size=2"]
    with monkeypatch.context() as patch:
        seen = interrupt_after(patch, 1)
        code, out, err = call(*arguments, "--output_dir=o")
    assert code == 130
    assert len(seen) == 1  # nothing runs after it
    assert err == ["error: interrupted: 2 of 4 pictures are in o; --resume goes on"]
    assert set(os.listdir("o")) == {"0000.png", "0001.png", "unfinished", *OTHERS}
    assert [entry["file"] for entry in read_json("o/sweep.json")] == ["0000.png", "0001.png"]
    kept = contents(tmp_path / "o")
    code, out, _ = call(*arguments, "--output_dir=o", "--resume")
    assert (code, out[:2]) == (0, ["o/0002.png", "o/0003.png"])
    assert call(*arguments, "--output_dir=p")[0] == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "p")
    assert not os.path.exists("o/unfinished")
    assert contents(tmp_path / "p")["0000.png"] == kept["0000.png"]


@pytest.mark.parametrize("lanes", [1, 3])
def test_ctrl_c_in_the_middle_of_a_pass_loses_no_step(call, tmp_path, monkeypatch, lanes):
    arguments = [*PAIR, *SMALL, WEIGHTS, f"--batch_size={lanes}"]
    assert call(*arguments, "--output_dir=p")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=1)
        code, out, err = call(*arguments, "--output_dir=o")
    assert (code, out) == (130, [])
    assert err == ["error: interrupted: 0 of 4 pictures are in o; --resume goes on"]
    assert sorted(os.listdir("o")) == ["settings.json", "unfinished"]
    seen = steps_of(monkeypatch)
    assert call(*arguments, "--output_dir=o", "--resume")[0] == 0
    assert seen[0] == 1  # where it stood
    assert contents(tmp_path / "o") == contents(tmp_path / "p")


def interrupt_at(monkeypatch, step):
    """Send Ctrl-C where a pass first stands at a step."""
    original, sent = sweep_job.sweep, []

    def interrupted(*arguments, **options):
        for now in original(*arguments, **options):
            if now.step == step and not sent:
                sent.append(signal.raise_signal(signal.SIGINT))
                time.sleep(0.2)  # until the thread that waits for signals has seen it
            yield now

    monkeypatch.setattr(sweep_job, "sweep", interrupted)


def steps_of(monkeypatch):
    """Return a list of the steps that are told from now on."""
    original, seen = sweep_job.sweep, []

    def watched(*arguments, **options):
        for now in original(*arguments, **options):
            seen.append(now.step)
            yield now

    monkeypatch.setattr(sweep_job, "sweep", watched)
    return seen


def test_a_sweep_does_not_go_on_with_another_picture_or_version(call, tmp_path, monkeypatch):
    arguments = [*PAIR, *SMALL, WEIGHTS, "--output_dir=o"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=1)
        assert call(*arguments)[0] == 130
    with monkeypatch.context() as patch:
        patch.setattr(device.nst_jax, "__version__", "0.0.1")
        code, _, err = call(*arguments, "--resume")
    assert (code, len(err)) == (2, 1)
    assert re.match("error: nst_jax: as in the run in o; .* there, 0.0.1 now", err[0])
    draw("c.png", 24, 32, 9)
    code, _, err = call(*arguments, "--resume")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: c.png at 32x24: as in the run in o; 32x24 with sha256 ")


def test_ctrl_c_in_the_last_pass_loses_nothing(call, monkeypatch):
    interrupt_after(monkeypatch, 1)
    code, out, err = call(*PAIR, *SMALL, "--sweep=style_weight=1e6,1e8", "--batch_size=2", "--output_dir=o")
    assert (code, out[-1], err) == (0, "o/tradeoff.png", [])


def test_a_gap_in_an_interrupted_grid_stays_a_gap_on_the_sheet(call, tmp_path, monkeypatch):
    arguments = [*PAIR, *SMALL, "--sweep=tv_weight=0,1", "--sweep=style_weight=1e6,1e9", "--output_dir=o"]
    call(*arguments)
    (tmp_path / "o" / "0000.png").unlink()
    interrupt_after(monkeypatch, 0)
    assert call(*arguments, "--resume")[0] == 130
    assert place(pixels("o/sheet.png"), pixels("o/0001.png")) == (46, 368 + 256)
    assert place(pixels("o/sheet.png"), pixels("o/0002.png")) == (46 + 115, 368)


def test_progress_is_told_by_lanes_and_steps(call, caplog, monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)  # each chunk, not one every few seconds
    code = run(sweep.PROGRAM, [*PAIR, *SMALL, WEIGHTS, "--batch_size=2", "--output_dir=o"])
    told = [record.getMessage() for record in caplog.records]
    told = [re.sub(r"\d+ s left", "T s left", line) for line in told if line.startswith("pictures")]
    assert code == 0
    assert told == [
        "pictures 1-2 of 4  step 0/2  compiling",
        "pictures 1-2 of 4  step 1/2  T s left",
        "pictures 1-2 of 4  step 2/2  T s left",
        "pictures 3-4 of 4  step 0/2  T s left",
        "pictures 3-4 of 4  step 1/2  T s left",
        "pictures 3-4 of 4  step 2/2  T s left",
    ]


NOT_A_SWEEP = "--sweep=NAME=V1,V2,...: NAME is one of strength, .*; got "
WRONG = {
    "scales": ([WEIGHTS, "--scales=16,32", "--iterations=9"], "--scales: not in a sweep; got 16,32"),
    "ema_decay": ([WEIGHTS, "--ema_decay=0.9"], "--ema_decay: not in a sweep; got 0.9"),
    "iterations": ([WEIGHTS, "--iterations=2,3"], "--iterations: one number where .*; got 2,3"),
    "no sweep": ([], "--sweep: one or more NAME=V1,V2,..., each name but of files once; none was given"),
    "name twice": (["--sweep=seed=1", "--sweep=seed=2"], "--sweep: .* once; seed is there twice"),
    "given twice": (
        ["--sweep=tv_weight=1,2", "--tv_weight=3"],
        "--tv_weight: either --tv_weight or --sweep=tv_weight=...; got both",
    ),
    "rounded aspects": (
        [WEIGHTS, "--round_aspects"],
        "--round_aspects: for nst and nst-batch; got it for nst-sweep",
    ),
    "no such name": (
        ["--sweep=stile_weight=1"],
        NOT_A_SWEEP + r"'stile_weight' \(did you mean style_weight\?\)",
    ),
    "not swept": (["--sweep=size=32,48"], NOT_A_SWEEP + "'size'"),
    "no name": (["--sweep="], NOT_A_SWEEP + "''"),
    "no values": (["--sweep=tv_weight"], "--sweep=tv_weight: values with commas between them; got ''"),
    "empty list": (["--sweep=style="], "--sweep=style: values with commas"),
    "gap in a list": (["--sweep=tv_weight=1,,2"], "--sweep=tv_weight: values with commas .* got '1,,2'"),
    "no number": (["--sweep=tv_weight=1,much"], "--tv_weight: a finite number from 0 .*; got 'much'"),
    "no finite number": (["--sweep=tv_weight=1,nan"], "--tv_weight: a finite number from 0"),
    "out of bounds": (["--sweep=style_weight=1,-1"], "--style_weight: a finite number from 0 .*; got -1.0"),
    "no whole number": (["--sweep=seed=1.5", "--init=noise"], "--seed: a whole number from 0"),
    "mix of two": (["--sweep=style_mix=1,1:1"], "--style_mix: one number per style, 1; got 2"),
    "weighting": (
        ["--sweep=style_layer_weights=unifrom"],
        r"--style_layer_weights: .* \(did you mean uniform\?\)",
    ),
    "all weights 0": (
        ["--sweep=style_weight=0,1", "--content_weight=0", "--tv_weight=0"],
        "at least one above 0; all are 0",
    ),
    "seed of no noise": (["--sweep=seed=1,2"], "--sweep=seed: with --init=noise, .*; got --init=content"),
    "rate of lbfgs": (
        ["--sweep=learning_rate=0.1", LBFGS],
        "--learning_rate: for --optimizer=adam; lbfgs searches",
    ),
    "zip": (
        ["--sweep=seed=1,2", "--sweep=tv_weight=1", "--zip"],
        "--zip: lists of one length; got seed 2, tv_weight 1",
    ),
    "many": (
        [f"--sweep=seed={','.join(map(str, range(101)))}", f"--sweep=tv_weight={','.join('9' * 100)}"],
        "--sweep: at most 10000 pictures without --yes; got 10100",
    ),
    "a mask for contents of other aspect": (
        ["--content=", "--sweep=content=c.png,s.png", "--content_mask=c.png"],
        "c.png: a mask",
    ),
    "content twice": (
        ["--sweep=content=c.png", "--sweep=content=c.png,c2.png"],
        "c.png,c2.png: must be a whole picture file",  # where it is there twice each has one file
    ),
    "missing style": (["--sweep=style=s.png,no.png"], "no.png: must be a whole picture file"),
    "mask of other aspect": (
        ["--sweep=style=s.png,s2.png", "--style_source_mask=m.png"],
        "m.png: a mask has the aspect of its style",
    ),
    "no folder": (["--sweep=tv_weight=1", "--output_dir="], "--output_dir: a folder; not given"),
    "folder in a file": (
        ["--sweep=tv_weight=1", "--output_dir=c.png/o"],
        "c.png/o: must be a folder that can be written to; Not a directory",
    ),
    "folder is a file": (
        ["--sweep=tv_weight=1", "--output_dir=c.png"],
        "--output_dir=c.png: a folder; it is a file",
    ),
    "long name": (
        ["--sweep=tv_weight=1", "--output_dir=" + "x" * 300],
        "xx: must be a folder .*; File name too long",
    ),
    "batch size": (["--sweep=tv_weight=1", "--batch_size=-1"], "--batch_size: a whole number from 0"),
    "batch size of earlier days": (["--lanes=2"], "--lanes: .*no such flag .did you mean --batch_size[?]"),
    "name of earlier days": (
        ["--sweep=layer_weighting=uniform"],
        "--sweep=NAME.*got 'layer_weighting' .did you mean style_layer_weights[?]",
    ),
    "flag of nst alone": (
        ["--sweep=tv_weight=1", "--output=a.png"],
        r"--output: .*\(did you mean --output_dir\?\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_requests_are_one_line_and_write_nothing(call, tmp_path, case):
    Image.new("L", (28, 32), 255).save("m.png")
    before = sorted(os.listdir(tmp_path))
    arguments, message = WRONG[case]
    code, out, err = call(*PAIR, *SMALL, "--output_dir=o", *arguments)
    assert (code, out, len(err)) == (2, [], 1), err
    assert err[0].startswith("error: ")
    assert re.search(message, err[0]), err[0]
    assert sorted(os.listdir(tmp_path)) == before


def test_10000_pictures_are_made_without_asking_and_more_with_yes():
    hundred = {"seed": list(range(100)), "tv_weight": list(range(100))}
    assert len(make_cells(hundred, SweepOptions())) == 10_000
    assert len(make_cells({**hundred, "style_weight": [1, 2]}, SweepOptions(yes=True))) == 20_000


@pytest.mark.parametrize(
    "other",
    [
        ["--sweep=style_weight=1e6,1e8"],
        [WEIGHTS.replace("1e4", "1e5")],
        [WEIGHTS, "--tv_weight=0"],
        [WEIGHTS, "--style=s2.png"],
        [WEIGHTS, "--zip"],
    ],
)
def test_a_folder_with_another_sweep_in_it_is_refused(call, tmp_path, other):
    settings = [*PAIR, *SMALL, "--iterations=0"]
    assert call(*settings, WEIGHTS, "--output_dir=o")[0] == 0
    before = contents(tmp_path / "o")
    for resume in ([], ["--resume"]):
        code, out, err = call(*settings, *other, "--output_dir=o", *resume)
        assert (code, out) == (2, [])
        assert err == [
            "error: --output_dir=o: an empty folder, or this sweep's own; it holds another sweep's results (settings.json)"
        ]
    code, _, err = call(*settings, WEIGHTS, "--output_dir=o")
    assert code == 2
    assert err == [
        "error: --output_dir=o: an empty folder, or --resume to go on; it holds results of this sweep"
    ]
    assert contents(tmp_path / "o") == before


@pytest.mark.parametrize("name", ["sheet.png", "0001.png", "settings.json", "sweep.json"])
def test_no_file_that_is_there_is_written_over(call, tmp_path, name):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / name).write_bytes(b"mine")
    code, _, err = call(*PAIR, *SMALL, WEIGHTS, "--output_dir=o", "--resume")
    assert code == 2
    assert err[0].endswith(f"it holds another sweep's results ({name})")
    assert contents(tmp_path / "o") == {name: b"mine"}


def test_a_folder_with_other_things_in_it_is_taken(call, tmp_path):
    code, out, _ = call(*PAIR, *SMALL, "--iterations=0", "--sweep=tv_weight=0,1", "--output_dir=.")
    assert (code, out[0]) == (0, "0000.png")
    assert set(os.listdir(tmp_path)) == {
        "c.png",
        "c2.png",
        "s.png",
        "s2.png",
        "0000.png",
        "0001.png",
        *OTHERS,
    }


def test_too_little_memory_exits_4_and_leaves_nothing(call, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda *_: 10**6)
    before = os.listdir(tmp_path)
    code, out, err = call(*PAIR, *SMALL, WEIGHTS, "--output_dir=o")
    assert (code, out, len(err)) == (4, [], 1)
    assert re.search(r"a lane of 32x24 pixels needs 0\.\d GiB and 0\.0 GiB are free", err[0])
    assert os.listdir(tmp_path) == before


def test_the_plot_is_left_out_where_its_library_is_not_installed(call, monkeypatch):
    monkeypatch.setattr(sweep_sheet, "can_plot", lambda: False)
    code, out, _ = call(*PAIR, *SMALL, "--sweep=tv_weight=0,1", "--output_dir=o")
    assert (code, out[-1]) == (0, "o/sheet.png")
    assert "tradeoff.png" not in os.listdir("o")


def test_help_names_what_can_be_swept(call):
    code, out, _ = call("--help")
    text = "\n".join(out)
    option = text[text.index("  --sweep: ") : text.index("  --output_dir: ")]  # folded into lines
    assert code == 0
    assert all(name.split(",")[0] in option for name in SWEPT)


DAMAGED = {
    "brackets without end": lambda entries: "[" * 100_000,
    "nothing": lambda entries: "",
    "no list": lambda entries: "7",
    "no entries": lambda entries: "[1]",
    "entry without a file": lambda entries: json.dumps([{}]),
    "file of a list": lambda entries: json.dumps([{**entries[0], "file": [1]}]),
    "file elsewhere": lambda entries: json.dumps([{**entries[0], "file": "../0000.png"}]),
    "file beyond the sweep": lambda entries: json.dumps([{**entries[0], "file": "0007.png"}]),
    "other values": lambda entries: json.dumps([{**entries[0], "values": {"style_weight": 7}}]),
    "no losses": lambda entries: json.dumps([{**entries[0], "losses": {}}]),
    "loss of text": lambda entries: json.dumps(
        [{**entries[0], "losses": {**entries[0]["losses"], "tv": "a"}}]
    ),
    "flag of a list": lambda entries: json.dumps([{**entries[0], "flag": [1]}]),
}


def test_a_damaged_sweep_json_is_one_line(call, tmp_path):
    arguments = [*PAIR, *SMALL, WEIGHTS, "--output_dir=o", "--resume"]
    call(*arguments)
    entries = read_json("o/sweep.json")
    for name, damage in DAMAGED.items():
        (tmp_path / "o" / "sweep.json").write_text(damage(entries))
        code, out, err = call(*arguments)
        assert (code, out, len(err)) == (2, [], 1), (name, err)
        assert err[0].startswith(
            "error: o/sweep.json: must be as nst-sweep wrote it; remove it to make all"
        ), name
    (tmp_path / "o" / "sweep.json").unlink()
    os.mkfifo(tmp_path / "o" / "sweep.json")  # whoever opens it waits for its other end
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize("damage", ["[" * 100_000, "pipe", "link to a long name"])
def test_damaged_settings_are_another_sweeps(call, tmp_path, damage):
    (tmp_path / "o").mkdir()
    if damage == "pipe":
        os.mkfifo(tmp_path / "o" / "settings.json")
    elif damage == "link to a long name":
        os.symlink("x" * 300, tmp_path / "o" / "settings.json")
    else:
        (tmp_path / "o" / "settings.json").write_text(damage)
    code, out, err = call(*PAIR, *SMALL, WEIGHTS, "--output_dir=o", "--resume")
    assert (code, out, len(err)) == (2, [], 1)
    assert "another sweep's results (settings.json)" in err[0]


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(call):
    common = [*PAIR, *SMALL, WEIGHTS, "--output_dir=o"]
    lines = call(*common, "--dry_run")[1]
    assert re.fullmatch(r"4 pictures of 32x24 pixels, 2 steps each: about \d+ s", lines[0])
    assert lines[1].startswith("in all about ")
    assert not os.path.exists("o")


def test_a_dry_run_knows_regions_and_their_styles(call, tmp_path):
    for name, height, width in (("c-labels.png", 24, 32), ("s-labels.png", 32, 28)):
        labels = np.zeros((height, width, 3), np.uint8)
        labels[: height // 2] = 255
        Image.fromarray(labels).save(tmp_path / name)
    regions = ["--content_labels=c-labels.png", "--style_labels=s-labels.png", "--style_labels="]
    common = [*PAIR, "--style=s2.png", "--style_mix=1,2", *regions, *SMALL, WEIGHTS, "--output_dir=o"]
    assert call(*common, "--dry_run")[0] == 0
