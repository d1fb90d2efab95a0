"""A video job: its frames follow each other, a cut begins anew, a killed run goes on to the same bytes."""

import dataclasses
import json
import queue
import shutil
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import jax
import numpy as np
import pytest
from clip_files import encode, packets, rgb_frame, rotated

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotWritten
from nst_jax.images.masks import Masks
from nst_jax.launchers import video
from nst_jax.launchers.console import DONE, WRONG_REQUEST
from nst_jax.launchers.flags import run as run_program
from nst_jax.objective import targets
from nst_jax.runs import InputOptions, problem
from nst_jax.runs.input_files import Pictures
from nst_jax.video import clips, flow, job, preview, sequence
from nst_jax.video.clips import ALL, probe, read
from nst_jax.video.flow import Before
from nst_jax.video.job import Encoded, Finished, FrameMade, Resumed, prepare_video
from nst_jax.video.keyframes import parse
from nst_jax.video.request import VideoOptions, VideoRequest
from nst_jax.video.sequence import Shot, Steps, anchored
from nst_jax.video.store import Store

TIMES = (0, 40, 90, 120, 170, 200)
QUICK = {
    "size": 48,
    "iterations": (4,),
    "scales": "",
    "content_layers": ("conv1_2",),
    "style_layers": ("conv1_1",),
}


def frame(name, left=0, shape=(36, 48)):
    """Return a part of an example, from a column on."""
    whole = images.load(f"example:{name}").rgb
    small = images.resize(whole, 60, 90)
    return small[10 : 10 + shape[0], left : left + shape[1]]


def clip_of(path, pictures, **options):
    frames = [rgb_frame(picture).reformat(format="bgr0") for picture in pictures]
    return encode(path, frames, "ffv1", times=list(TIMES[: len(frames)]), **options)


@pytest.fixture(scope="module")
def panned(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "pan.mkv"
    return clip_of(path, [frame("cat", 4 * n) for n in range(5)], sound="pcm_s16le")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "cut.mkv"
    return clip_of(path, [frame("cat", 4 * n) for n in range(3)] + [frame("rocket", 4 * n) for n in range(3)])


def mask(left, shape=(36, 48)):
    """Return a mask that is white from a column on, over 20 columns."""
    found = np.zeros((*shape, 3), np.float32)
    found[:, left : left + 20] = 1
    return found


LEFT = (0, 8, 48, 16, 28)  # 48: black everywhere


@pytest.fixture(scope="module")
def moving_mask(tmp_path_factory):
    return clip_of(tmp_path_factory.mktemp("masks") / "mask.mkv", map(mask, LEFT))


def request_of(clip, output, *, inputs=None, config=None, **options):
    options = {"frame_steps": 2, "codec": "ffv1", "flow": "fast", **options}
    return VideoRequest(
        inputs=InputOptions(
            content=str(clip),
            **{"style": () if "style_at" in options else ("example:night",), **(inputs or {})},
        ),
        options=VideoOptions(output=str(output), **options),
        config=Config.from_preset(**{**QUICK, **(config or {})}),
    )


def run(request, stop=lambda: False):
    return list(prepare_video(request).run(stop))


def pictures_of(path):
    return [shown.image for shown in read(probe(str(path)), ALL)]


def test_a_clip_has_the_frames_times_and_audio_of_its_source(tmp_path, panned):
    output, report = tmp_path / "o.mkv", tmp_path / "o.json"
    *events, written, told, finished = run(request_of(panned, output, report=str(report)))
    assert [(event.number, event.total, event.begins) for event in events] == [
        (n, 5, n == 1) for n in range(1, 6)
    ]
    assert [written, told, finished] == [Encoded(str(output)), Encoded(str(report)), Finished(5, False)]
    source, made = probe(panned), probe(str(output))
    assert made.size == (36, 48)
    times = [shown.time * made.time_base for shown in read(made, ALL)]
    assert times == [Fraction(time, 1000) for time in TIMES[:5]]
    assert packets(str(output)) == packets(source.path)
    frames = json.loads(report.read_text())["frames"]
    assert [entry["shot"] for entry in frames] == [1] * 5
    assert [entry["steps"] for entry in frames] == [4, 2, 2, 2, 2]
    assert all(entry["losses"]["temporal"] > 0 for entry in frames[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "o.mkv"]


CHANGING = {"style_at": ("0:example:night", "0.15:example:ink"), "strength_at": ("0.05:0.5", "0.2:0.9")}


def test_a_frame_whose_steps_gain_little_takes_fewer(tmp_path, panned):
    steps = {}
    for tolerance in (0.0, 0.02, 1.0):
        report = tmp_path / "o.json"
        run(
            request_of(
                panned, tmp_path / "o.mkv", report=str(report), frame_steps=9, frame_tolerance=tolerance
            )
        )
        steps[tolerance] = [entry["steps"] for entry in json.loads(report.read_text())["frames"]]
    assert steps[0.0] == [4, 9, 9, 9, 9]
    assert steps[1.0] == [4, 1, 1, 1, 1]
    assert all(1 < few < 9 for few in steps[0.02][1:])


@pytest.mark.parametrize(
    ("changing", "masked"),
    [({}, False), (CHANGING, False), ({}, True)],
    ids=["one style", "keyframes", "masks"],
)
def test_one_program_serves_all_frames_and_styles_are_looked_at_once(
    tmp_path, panned, moving_mask, compilations, monkeypatch, changing, masked
):
    jax.clear_caches()
    looked, wanted_of_style = [], targets.wanted_of_style

    def look(params, style, *others):
        looked.append(isinstance(style, jax.core.Tracer))  # of the memory's plan
        return wanted_of_style(params, style, *others)

    monkeypatch.setattr(targets, "wanted_of_style", look)
    inputs = {"content_mask": moving_mask} if masked else {}
    run(request_of(panned, tmp_path / "o.mkv", inputs=inputs, **changing))
    programs = 2 if changing else 1  # a strength is corrected in the first frame alone
    assert compilations("run_steps") == compilations("content_targets") == programs
    assert looked.count(False) == (2 if changing else 1)


@pytest.mark.parametrize("second_pass", [False, True])
def test_paintings_are_looked_at_once_for_all_shots(tmp_path, cut, monkeypatch, second_pass):
    made, make_targets = [], problem.make_targets

    def note(*given, **options):
        found = make_targets(*given, **options)
        made.append(isinstance(jax.tree.leaves(found)[0], jax.core.Tracer))  # of the memory's plan
        return found

    monkeypatch.setattr(problem, "make_targets", note)
    run(request_of(cut, tmp_path / "o.mkv", second_pass=second_pass))
    assert made.count(False) == 1 + second_pass


def test_shares_and_strengths_are_linear_between_keyframes():
    found = parse(["1:a", "2:b", "4:a"], ["2:0.2", "4:0.6"])
    assert found.files == ("a", "b")
    plain = Config.from_preset()
    at = {seconds: found.config_at(plain, seconds) for seconds in (0.0, 1.0, 1.25, 2.0, 3.0, 4.0, 9.0)}
    assert [one.style_mix for one in at.values()] == [
        (1, 0), (1, 0), (0.75, 0.25), (0, 1), (0.5, 0.5), (1, 0), (1, 0)
    ]  # fmt: skip
    np.testing.assert_allclose([one.strength for one in at.values()], [0.2, 0.2, 0.2, 0.2, 0.4, 0.6, 0.6])
    assert parse([], []).config_at(plain, 1.0) is plain


def test_styles_change_over_time_and_a_killed_run_goes_on(tmp_path, panned):
    report, changing = tmp_path / "o.json", {"style_at": CHANGING["style_at"]}
    run(request_of(panned, tmp_path / "o.mkv", report=str(report), **changing))
    frames = json.loads(report.read_text())["frames"]
    for entry, time in zip(frames, TIMES, strict=False):
        share, by_style = min(1, time / 150), entry["losses"]["by_style"]
        expected = (1 - share) * by_style[0]["style"] + share * by_style[1]["style"]
        np.testing.assert_allclose(entry["losses"]["style"], expected, rtol=1e-5)
    run(request_of(panned, tmp_path / "alone.mkv", last=1))
    np.testing.assert_array_equal(pictures_of(tmp_path / "o.mkv")[0], pictures_of(tmp_path / "alone.mkv")[0])
    answers = iter([False] * 9 + [130] * 99)
    run(request_of(panned, tmp_path / "again.mkv", **changing), lambda: next(answers))
    assert any(
        isinstance(one, Resumed) for one in run(request_of(panned, tmp_path / "again.mkv", **changing))
    )
    assert (tmp_path / "again.mkv").read_bytes() == (tmp_path / "o.mkv").read_bytes()


def test_each_style_is_balanced_as_it_is_by_itself(params):
    pictures = Pictures(frame("cat"), [frame("rocket"), frame("coffee") ** 4], None, Masks())
    mixed = Config.from_preset(**QUICK, loss_balancing="auto", style_mix=(1.0, 0.0))
    weights = []
    for styles in ([0], [1], [0, 1]):
        config = mixed if len(styles) > 1 else dataclasses.replace(mixed, style_mix=())
        own = pictures._replace(styles=[pictures.styles[k] for k in styles])
        weights.append(shot := Shot(params, own, config, Steps(1)))
        shot.begin()
    *alone, both = weights
    both.retune(dataclasses.replace(mixed, style_mix=(0.0, 1.0)))
    styles = [float(shot.following.weights.terms["style"]) for shot in (*alone, both)]
    assert styles[0] != pytest.approx(styles[1], rel=0.1)
    assert styles[2] == pytest.approx(styles[1], rel=1e-5)


def test_a_strength_over_time_moves_the_weights_by_the_odds_of_its_lpips(tmp_path, panned):
    report, config = tmp_path / "o.json", {"iterations": (12,), "size": 64}
    changing = {"strength_at": ("0.05:0.5", "0.2:0.9")}
    run(request_of(panned, tmp_path / "o.mkv", config=config, report=str(report), **changing))
    weights = [entry["losses"]["weights"] for entry in json.loads(report.read_text())["frames"]]
    ratio = np.log([one["style"] / one["content"] for one in weights[1:]])
    share = 0.56 / 0.7 * np.interp([0.04, 0.09, 0.12, 0.17], [0.05, 0.2], [0.5, 0.9])  # of the ceiling
    np.testing.assert_allclose(np.diff(ratio), 0.85 * np.diff(np.log(share / (1 - share))), rtol=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cut):
    """Return the bytes that a run of the clip with a cut comes to."""
    path = tmp_path_factory.mktemp("whole") / "whole.mkv"
    run(request_of(cut, path))
    return path.read_bytes()


class Killed(BaseException):
    """What ends a run at once, as SIGKILL would."""


def killed_and_resumed(request, at):
    """Return the clip of a run that is killed at a question, then resumed, and the frames that it tells of."""
    output, asked = Path(request.options.output), iter(range(at))

    def stop():
        if next(asked, None) is None:
            raise Killed
        return False

    with pytest.raises(Killed):
        run(request, stop)
    assert not output.exists()
    events = run(request)
    resumed = sum(event.frames for event in events if isinstance(event, Resumed))
    return output.read_bytes(), resumed + sum(isinstance(event, FrameMade) for event in events)


@pytest.mark.parametrize("at", [0, 2, 5, 6, 7, 8, 10, 12, 15, 18])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, cut, whole, at):
    assert killed_and_resumed(request_of(cut, tmp_path / "o.mkv"), at) == (whole, 6)


def test_a_frame_that_is_damaged_is_made_again(tmp_path, panned):
    first = tmp_path / "a.mkv"
    run(request_of(panned, first, keep_frames=True))
    folder = tmp_path / "a.mkv.frames"
    path = folder / "00000003.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (folder / "00000005.npz").unlink()
    before = first.read_bytes()
    events = run(request_of(panned, first, keep_frames=True))
    assert [event.number for event in events if isinstance(event, FrameMade)] == [3, 5]
    assert first.read_bytes() == before


def test_a_stopped_run_keeps_its_frames(tmp_path, panned):
    answers = iter([False] * 6 + [130] * 99)
    events = run(request_of(panned, tmp_path / "o.mkv"), lambda: next(answers))
    assert events[-1] == Finished(1, 130)
    assert not (tmp_path / "o.mkv").exists()
    assert (tmp_path / "o.mkv.frames" / "00000001.npz").exists()


@pytest.mark.parametrize(
    "change", [{"frame_steps": 3}, {"config": {"tv_weight": 0.5}}, {"temporal_weight": 2.0}, {"every": 2}]
)
def test_frames_of_other_options_are_not_used(tmp_path, panned, change):
    answers = iter([False] * 6 + [130] * 99)
    run(request_of(panned, tmp_path / "o.mkv"), lambda: next(answers))
    name = next(iter(change.get("config", change)))
    with pytest.raises(InputError, match=f"--{name}: as in the run in"):
        run(request_of(panned, tmp_path / "o.mkv", **change))


def test_a_folder_of_other_things_is_left_alone(tmp_path, panned):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="it holds letter.txt"):
        run(request_of(panned, tmp_path / "o.mkv", frames_dir=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_cut_begins_anew_and_nothing_smears(tmp_path, cut):
    events = run(request_of(cut, tmp_path / "o.mkv"))
    assert [event.begins for event in events[:6]] == [True, False, False, True, False, False]
    run(request_of(cut, tmp_path / "second.mkv", first=4))
    for one, other in zip(
        pictures_of(tmp_path / "o.mkv")[3:], pictures_of(tmp_path / "second.mkv"), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def twice(tmp_path_factory, cut):
    """Return the events and the folder of a run in two passes of the clip with a cut."""
    folder = tmp_path_factory.mktemp("twice")
    return run(request_of(cut, folder / "o.mkv", second_pass=True, keep_frames=True)), folder


def frames_of(folder):
    """Return the pictures and the contents in a folder of frames, by number."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            found[int(path.stem)] = file["picture"] / 65535, file.get("content", None)
    return found


def test_a_second_pass_goes_from_the_last_frame_of_each_shot_to_its_first(twice, cut, tmp_path):
    events, folder = twice
    made = [event for event in events if isinstance(event, FrameMade)]
    assert [(event.number, event.total) for event in made] == [(n, 12) for n in range(1, 13)]
    assert [event.begins for event in made[6:]] == [True, False, False, True, False, False]
    assert events[-1] == Finished(12, False)
    first, second = frames_of(folder / "o.mkv.frames"), frames_of(folder / "o.mkv.frames" / "backward")
    assert [number for number in first if np.array_equal(first[number][0], second[number][0])] == [3, 6]
    shown = pictures_of(folder / "o.mkv")
    for number, (picture, content) in second.items():
        np.testing.assert_allclose(shown[number - 1], picture, atol=0.51 / 255)
        assert content is None
    run(request_of(cut, tmp_path / "o.mkv", keep_frames=True))
    for number, (picture, _) in frames_of(tmp_path / "o.mkv.frames").items():  # one pass alone
        np.testing.assert_array_equal(picture, first[number][0])


def test_a_frame_of_the_second_pass_begins_half_way_to_what_later_ones_show(
    twice, monkeypatch, tmp_path, cut
):
    """Frame 2, against the first pass's and the third's, warped by hand; the steps are left out."""
    began, problems, follow, optimize = [], [], Shot.follow, sequence.run

    def note(self, frame, known, known_content, masks, stop, own):
        began.append((frame, known, known_content, own))
        return follow(self, frame, known, known_content, masks, stop, own)

    def note_problem(given, **options):
        problems.extend(given if "report_every" in options else ())  # those of frames that follow
        return optimize(given, **options)

    monkeypatch.setattr(Shot, "follow", note)
    monkeypatch.setattr(sequence, "run", note_problem)
    run(request_of(cut, tmp_path / "o.mkv", second_pass=True))
    frame, known, known_content, own = began[6]  # of 4 in the first pass, 5 and 4 in the second
    first = frames_of(twice[1] / "o.mkv.frames")
    assert own is not None
    np.testing.assert_allclose(own, first[2][0], atol=1e-6)
    contents = {number: content / np.float32(65535) for number, (_, content) in first.items()}
    np.testing.assert_allclose(frame, contents[2], atol=1e-6)
    moved = {1: flow.motion(contents[2], contents[3], "fast")}
    for found, third in ((known, first[3][0].astype(np.float32)), (known_content, contents[3])):
        wanted = flow.combine(moved, {1: third})
        np.testing.assert_array_equal(found.weights, wanted.weights)
        np.testing.assert_allclose(found.picture, wanted.picture, atol=1e-5)
    w, c, x = (np.asarray(part, np.float64) for part in (known.picture, known.weights[..., None], own))
    assert 0 < c.mean() < 1
    np.testing.assert_allclose(problems[6].first, (1 - c) * x + c * (0.5 * x + 0.5 * w), atol=1e-6)


@pytest.mark.parametrize("at", [6, 20, 23, 27])
def test_a_killed_second_pass_goes_on_to_the_same_bytes(tmp_path, cut, twice, at):
    found = killed_and_resumed(request_of(cut, tmp_path / "o.mkv", second_pass=True), at)
    assert found == ((twice[1] / "o.mkv").read_bytes(), 12)
    assert not (tmp_path / "o.mkv.frames").exists()


def test_both_passes_run_in_one_program(tmp_path, panned, compilations):
    jax.clear_caches()
    run(request_of(panned, tmp_path / "o.mkv", second_pass=True))
    assert compilations("run_steps") == compilations("content_targets") == 1


def test_masks_that_move_have_no_second_pass(tmp_path, panned, moving_mask):
    request = request_of(
        panned, tmp_path / "o.mkv", inputs={"content_mask": str(moving_mask)}, second_pass=True
    )
    with pytest.raises(InputError, match="pictures; got a clip as --content_mask"):
        prepare_video(request)


def test_a_still_clip_stays_still_by_the_term(tmp_path):
    """Without it the frames go on to change, as steps go on."""
    clip = clip_of(tmp_path / "still.mkv", [frame("cat")] * 4)
    apart = {}
    for weight in (0.0, 1e3):
        run(request_of(clip, tmp_path / "o.mkv", temporal_weight=weight))
        shown = pictures_of(tmp_path / "o.mkv")
        apart[weight] = np.abs(shown[3] - shown[0]).mean()
    assert apart[0.0] > 4 / 255
    assert apart[1e3] < apart[0.0] / 8


def test_outside_of_a_mask_is_the_content(tmp_path, panned):
    mask = np.zeros((36, 48, 3), np.float32)
    mask[:, 16:] = 1
    images.save(tmp_path / "mask.png", mask)
    inputs = {"content_mask": str(tmp_path / "mask.png")}
    run(request_of(panned, tmp_path / "o.mkv", inputs=inputs, keep_frames=True))
    for shown, content in zip(pictures_of(tmp_path / "o.mkv"), pictures_of(panned), strict=True):
        np.testing.assert_array_equal(shown[:, :16], content[:, :16])
        assert np.abs(shown[:, 24:] - content[:, 24:]).mean() > 0.02


def test_each_frame_has_its_own_mask_and_a_killed_run_goes_on(tmp_path, panned, moving_mask):
    output, inputs = tmp_path / "o.mkv", {"content_mask": moving_mask}
    report = tmp_path / "o.json"
    run(request_of(panned, output, inputs=inputs, report=str(report)))
    for shown, content, left in zip(pictures_of(output), pictures_of(panned), LEFT, strict=True):
        black = mask(left)[..., 0] == 0
        np.testing.assert_array_equal(shown[black], content[black])
        assert left == 48 or np.abs(shown - content)[:, left + 4 : left + 16].mean() > 0.02
    told = json.loads(report.read_text())
    assert told["config"]["content_mask"] == moving_mask
    assert told["mask_clips"]["--content_mask"] == {"file": moving_mask, "size": [36, 48], "frames": 5}
    again, answers = tmp_path / "again.mkv", iter([False] * 9 + [130] * 99)
    run(request_of(panned, again, inputs=inputs), lambda: next(answers))
    assert any(isinstance(one, Resumed) for one in run(request_of(panned, again, inputs=inputs)))
    assert again.read_bytes() == output.read_bytes()


def test_a_mask_clip_of_equal_frames_is_that_picture_at_any_size(tmp_path, panned):
    images.save(tmp_path / "mask.png", mask(16))
    twice = np.kron(mask(16), np.ones((2, 2, 1), np.float32))
    clip_of(tmp_path / "mask.mkv", [twice] * 3)
    found = []
    for name in ("mask.png", "mask.mkv"):
        inputs = {"content_mask": str(tmp_path / name)}
        run(request_of(panned, tmp_path / "o.mkv", inputs=inputs, first=2, last=4))
        found.append((tmp_path / "o.mkv").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("lefts", [LEFT, (48, *LEFT[1:])], ids=["white first", "black first"])
def test_a_style_whose_mask_is_black_has_no_share(tmp_path, panned, lefts):
    moving = clip_of(tmp_path / "left.mkv", map(mask, lefts))
    images.save(tmp_path / "right.png", mask(30))
    report = tmp_path / "o.json"
    inputs = {
        "style": ("example:night", "example:ink"),
        "style_mask": (moving, str(tmp_path / "right.png")),
    }
    run(request_of(panned, tmp_path / "o.mkv", report=str(report), inputs=inputs))
    for entry, left in zip(json.loads(report.read_text())["frames"], lefts, strict=True):
        first, second = (one["style"] for one in entry["losses"]["by_style"])
        expected = second / 2 if left == 48 else (first + second) / 2
        np.testing.assert_allclose(entry["losses"]["style"], expected, rtol=1e-5)


def test_frames_of_another_mask_clip_are_not_used(tmp_path, panned):
    name, answers = tmp_path / "mask.mkv", iter([False] * 6 + [130] * 99)
    inputs = {"content_mask": clip_of(name, map(mask, LEFT))}
    run(request_of(panned, tmp_path / "o.mkv", inputs=inputs), lambda: next(answers))
    clip_of(name, map(mask, (*LEFT[:-1], 20)))  # the first frames are equal
    with pytest.raises(InputError, match="the clip of --content_mask: as in the run in"):
        run(request_of(panned, tmp_path / "o.mkv", inputs=inputs))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([mask(0)] * 4, "5 frames, as the content has, or 3, as are chosen; it has 4"),
        ([mask(0, (48, 36))] * 3, "a mask has the aspect of the content"),
        ([mask(0), np.float32([1, 0, 0]) * mask(0), mask(0)], "frame 2: a mask is a gray picture"),
    ],
)
def test_a_mask_clip_that_does_not_fit_is_one_line(tmp_path, panned, capsys, frames, said):
    content_mask = clip_of(tmp_path / "mask.mkv", frames)
    given = {"content": panned, "style": "example:night", "output": tmp_path / "o.mp4", "audio": "false"}
    given |= {"first": 2, "last": 4, "content_mask": content_mask}
    assert run_program(video.PROGRAM, arguments(**given)) == WRONG_REQUEST
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("first", [1, 2])
def test_a_preview_has_the_masks_of_its_frames(tmp_path, panned, monkeypatch, first):
    monkeypatch.setattr(preview, "SECONDS", 0.08)  # of 25 frames: 2
    monkeypatch.setattr(preview, "STILLS", 2)
    lefts = LEFT[first - 1 :]
    inputs = {"content_mask": clip_of(tmp_path / "mask.mkv", map(mask, lefts))}
    asked = request_of(panned, tmp_path / "o.mkv", inputs=inputs, first=first, preview=True)
    events = list(preview.prepare_preview(asked).run())
    assert events[-1].frames == 2
    contents = pictures_of(panned)[first - 1 :]
    stills = np.split(images.load(tmp_path / "o.preview.png").rgb[36:], 2, 1)
    found = [stills, pictures_of(tmp_path / "o.preview.mkv")]
    for shown, step in zip(found, (2, 1), strict=True):
        for number, picture in enumerate(shown):
            black = mask(lefts[step * number])[..., 0] == 0
            np.testing.assert_allclose(picture[black], contents[step * number][black], atol=1 / 255)


@pytest.mark.parametrize("mode", ["luma", "luma_swap"])
def test_colors_that_are_kept_are_each_frame_s_own(tmp_path, panned, mode):
    run(request_of(panned, tmp_path / "o.mkv", config={"preserve_color": mode}))
    for shown, content in zip(pictures_of(tmp_path / "o.mkv"), pictures_of(panned), strict=True):
        chroma = [image[..., 2] - image @ np.float32([0.299, 0.587, 0.114]) for image in (shown, content)]
        inside = ((shown > 0.02) & (shown < 0.98)).all(-1)  # not clipped
        assert np.abs(chroma[0] - chroma[1])[inside].max() < 3 / 255


def test_a_strength_is_found_for_the_first_frame_and_kept(tmp_path, panned):
    config = {"strength": 0.8, "iterations": (12,), "size": 64}
    run(request_of(panned, tmp_path / "o.mkv", config=config))
    answers, output = iter([False] * 18 + [130] * 99), tmp_path / "again.mkv"
    run(request_of(panned, output, config=config), lambda: next(answers))
    assert any(isinstance(event, Resumed) for event in run(request_of(panned, output, config=config)))
    assert output.read_bytes() == (tmp_path / "o.mkv").read_bytes()


def test_windows_give_the_frames_of_the_whole(tmp_path, panned):
    found = {}
    for tile in ("off", "32"):
        run(
            request_of(panned, tmp_path / "o.mkv", config={"tile": tile, "parametrization": "pixels"}, last=3)
        )
        found[tile] = pictures_of(tmp_path / "o.mkv")
    for one, other in zip(*found.values(), strict=True):
        assert np.abs(one - other).mean() < 1.5 / 255


def test_the_anchor_moves_the_mean_as_the_content_s(rng):
    image, earlier, change = rng.uniform(0.4, 0.6, (3, 8, 9, 3)).astype(np.float32)
    change = (change - 0.5) / 5
    weights = np.float32(rng.random((8, 9)) > 0.4)
    held = anchored(image, Before(earlier, weights), change)
    mean = [(weights[..., None] * moved).sum((0, 1)) / weights.sum() for moved in (held - earlier, change)]
    np.testing.assert_allclose(*mean, atol=1e-6)
    np.testing.assert_allclose((held - image).std((0, 1)), 0, atol=1e-6)
    np.testing.assert_array_equal(anchored(image, Before(earlier, 0 * weights), change), image)


def test_png_frames_of_16_bits(tmp_path, panned):
    output = tmp_path / "f_%04d.png"
    run(request_of(panned, output, codec="", bit_depth=16, first=2, last=4, every=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f_0001.png", "f_0002.png"]
    assert images.read(tmp_path / "f_0001.png").colors.dtype == np.uint16


def see_through(path):
    """Write a clip of two frames whose opacity rises from the left to the right, and from 0 to 0.5."""
    frames = []
    for most in (1.0, 0.5):
        alpha = np.linspace(0, most, 48, dtype=np.float32)[None].repeat(36, 0)[..., None]
        whole = images.to_uint8(np.concatenate([frame("cat"), alpha], -1))
        frames.append(av.VideoFrame.from_ndarray(whole, "rgba").reformat(format="bgra"))
    return encode(path, frames, "ffv1", times=[0, 40])


def test_the_opacity_of_a_clip_is_kept_or_its_loss_is_told(tmp_path, caplog):
    content = see_through(tmp_path / "in.mkv")
    run(request_of(content, tmp_path / "o.mkv"))
    run(request_of(content, tmp_path / "o_%01d.png", codec=""))
    assert "alpha" not in caplog.text
    frames = [list(read(probe(str(path)), ALL)) for path in (content, tmp_path / "o.mkv")]
    for number, (source, made) in enumerate(zip(*frames, strict=True), 1):
        np.testing.assert_array_equal(made.alpha, source.alpha)
        np.testing.assert_array_equal(images.read(tmp_path / f"o_{number}.png").alpha, source.alpha)
        np.testing.assert_allclose(images.load(tmp_path / f"o_{number}.png").rgb, made.image, atol=1e-6)
    prepare_video(request_of(content, tmp_path / "o.mp4", codec=""))
    assert "in.mkv: its alpha is not kept by h264, but shown on white" in caplog.text


def arguments(**given):
    plain = {
        **{name: value for name, value in QUICK.items() if value},
        "iterations": 4,
        "frame_steps": 2,
        **given,
    }
    lists = {
        name: ",".join(value) if name.endswith("layers") else value
        for name, value in plain.items()
        if value is not None
    }
    texts = {name: value if isinstance(value, tuple) else (value,) for name, value in lists.items()}
    return [f"--{name}={value}" for name, values in texts.items() for value in values]


def test_the_program_makes_a_clip_and_forecasts_it(tmp_path, panned, capsys):
    given = arguments(content=panned, style="example:night", output=tmp_path / "o.mp4", audio="false")
    assert run_program(video.PROGRAM, [*given, "--dry_run"]) == DONE
    out = capsys.readouterr().out
    assert "5 frames of 48x36 pixels" in out
    assert not list(tmp_path.iterdir())
    assert run_program(video.PROGRAM, given) == DONE
    assert capsys.readouterr().out == f"{tmp_path / 'o.mp4'}\n"
    assert probe(str(tmp_path / "o.mp4")).frames == 5


def test_a_preview_is_stills_of_the_whole_and_a_sample_of_its_start(tmp_path, cut, capsys, monkeypatch):
    monkeypatch.setattr(preview, "SECONDS", 0.12)  # of 25 frames: 3
    monkeypatch.setattr(preview, "STILLS", 2)
    given = arguments(content=cut, style="example:night", output=tmp_path / "o_%04d.png", size=50)
    assert run_program(video.PROGRAM, [*given, "--preview"]) == DONE
    sheet, sample = tmp_path / "o_04d.preview.png", tmp_path / "o_04d.preview.mp4"
    assert capsys.readouterr().out == f"{sheet}\n{sample}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [sample.name, sheet.name]
    assert probe(str(sample)).frames == 3
    frames = [images.resize(one.image, 38, 50) for one in read(probe(cut), ALL)]
    found = images.load(sheet).rgb
    assert found.shape == (2 * 38, 2 * 50, 3)
    np.testing.assert_allclose(found[:38], np.concatenate([frames[0], frames[3]], 1), atol=1 / 255)
    luma, first = np.float32([0.2126, 0.7152, 0.0722]), pictures_of(sample)[0]
    apart = [np.abs((still - first) @ luma).mean() for still in (found[38:, :50], found[:38, :50])]
    assert apart[0] < 4 / 255 < apart[1] / 2


def test_a_clip_that_is_too_narrow_at_256_pixels_has_a_forecast(tmp_path):
    content = clip_of(tmp_path / "in.mkv", [images.resize(frame("cat"), 18, 320)] * 2)
    config = {"size": 320, "style_layers": ("conv5_1",), "iterations": (1,)}
    found = prepare_video(request_of(content, tmp_path / "o.mkv", config=config)).forecast()
    assert found.size == (18, 320)
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"content": ""}, "--content: a video file"),
        ({"output": ""}, "--output: a clip to write"),
        ({"output": "o.avi"}, "must end in one of"),
        ({"style": "no.png"}, "no.png"),
        ({"content": "example:cat"}, "a video that FFmpeg reads"),
        ({"first": 6}, "--first: from 1 to 5"),
        ({"first": 3, "last": 2}, "--last: --first=3 or more"),
        ({"size": 49}, "--size: an even number for h264"),
        ({"print_size": "10x10cm"}, "--print_size: for pictures"),
        ({"bit_depth": 16}, "--bit_depth: 8, or 16 for PNG files"),
        ({"output": "o.webm"}, "audio that .webm can hold, --audio=false, or an output that ends in .mkv"),
        ({"flow": "best"}, "--flow: fine or fast"),
        ({"report": "no/report.json"}, "there is no folder"),
        ({"preview": "true", "dry_run": "true"}, "--preview: without --dry_run"),
        ({"style_at": "1:a.png"}, "--style_at: without --style; got both"),
        ({"style": None, "style_at": "1:a.png", "style_mix": "1"}, "--style_at: without --style_mix"),
        ({"style": None, "style_at": "a.png"}, "--style_at: SECONDS:FILE, such as 2.5:...; got 'a.png'"),
        ({"style": None, "style_at": "nan:a.png"}, "--style_at: SECONDS:FILE"),
        ({"style": None, "style_at": "9:example:night"}, "--style_at: at most 0.2"),
        ({"strength_at": "0:0"}, "--strength_at: SECONDS:STRENGTH, from 0.01 to 1"),
        ({"strength_at": ("2:0.5", "2:0.6")}, "--strength_at: each later than the one before; got 2 after 2"),
        ({"strength_at": "0:0.5", "strength": 0.5}, "--strength_at: without --strength; got both"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, panned, capsys, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    plain = {"content": panned, "style": "example:night", "output": "o.mp4", **given}
    assert run_program(video.PROGRAM, arguments(**plain)) == WRONG_REQUEST
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_second_pass_of_more_frames_begins_at_another_end(tmp_path, panned):
    """Frames of the second pass depend on the last one, those of the first do not."""
    request = request_of(panned, tmp_path / "o.mkv", second_pass=True, keep_frames=True, last=3)
    run(request)
    with pytest.raises(InputError, match="the last frame: as in the run in .*backward.*3"):
        run(dataclasses.replace(request, options=dataclasses.replace(request.options, last=5)))


def test_soft_and_hard_mask_clips_do_not_share_frames(tmp_path, panned):
    black = clip_of(tmp_path / "mask.mkv", [mask(left) for left in (48, 48, 8, 8, 8)])
    inputs = {"content_mask": str(black)}
    answers = iter([False] * 6 + [130] * 99)
    run(request_of(panned, tmp_path / "o.mkv", inputs=inputs), lambda: next(answers))
    with pytest.raises(InputError, match="--soft_masks: as in the run in"):
        run(request_of(panned, tmp_path / "o.mkv", inputs={**inputs, "soft_masks": True}))


def test_frames_that_are_kept_need_no_room_again(tmp_path, panned, monkeypatch):
    run(request_of(panned, tmp_path / "o.mkv", keep_frames=True))
    usage = shutil.disk_usage(tmp_path)
    free = job.SPARE_BYTES + 36 * 48 * 3 * 5  # of the clip alone: the five frames are there
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    prepare_video(request_of(panned, tmp_path / "o.mkv"))
    with pytest.raises(InputError, match="MiB free, which it may need"):
        prepare_video(request_of(panned, tmp_path / "other.mkv"))


def test_a_stop_that_is_said_once_is_heeded(tmp_path, panned):
    """Also while frames are skipped that are there already."""
    run(request_of(panned, tmp_path / "o.mkv", keep_frames=True))
    (tmp_path / "o.mkv").unlink()
    answers = iter([False, False, 130])
    events = run(request_of(panned, tmp_path / "o.mkv"), lambda: next(answers, False))
    assert events[-1] == Finished(2, 130)
    assert not (tmp_path / "o.mkv").exists()


@pytest.mark.parametrize("at", [3, 26, 30])  # of the zip file: bytes of the first member's header
def test_a_frame_whose_header_is_damaged_is_none(tmp_path, panned, at):
    run(request_of(panned, tmp_path / "o.mkv", keep_frames=True))
    path = tmp_path / "o.mkv.frames" / "00000002.npz"
    whole = path.read_bytes()
    with Store(path.parent, json.loads((path.parent / "run.json").read_text())) as store:
        assert store.load(2, (36, 48)) is not None
        central = whole.rindex(b"PK\x01\x02")
        for place in (8, 10, 20, 24):  # flags, way to compress, sizes
            data = bytearray(whole)
            data[central + place] ^= 1 << (at % 8)
            path.write_bytes(data)
            store.load(2, (36, 48))  # None, or what is not damaged


@pytest.fixture
def encoded(monkeypatch):
    """Frames that have come to the encoder, as they come; a number in stop_at makes it fail there."""
    came, stop_at, failed, write = queue.Queue(), [], threading.Event(), clips.write

    def watched(output, clip, frames, *others):
        def noted():
            for number, frame in enumerate(frames, 1):
                if number in stop_at:
                    failed.set()
                    raise NotWritten(output.path, "must be a file that can be written", "disk full")
                came.put(number)
                yield frame

        write(output, clip, noted(), *others)

    monkeypatch.setattr(clips, "write", watched)
    return SimpleNamespace(came=came, stop_at=stop_at, failed=failed)


@pytest.mark.parametrize(("name", "codec"), [("o.mkv", "ffv1"), ("f_%03d.png", "")])
def test_frames_are_encoded_while_others_are_made(tmp_path, panned, encoded, name, codec):
    output = tmp_path / "out" / name
    output.parent.mkdir()
    for event in prepare_video(request_of(panned, output, codec=codec, keep_frames=True)).run():
        if isinstance(event, FrameMade):
            if event.number > 1:  # a frame is told of just before the encoder knows it
                assert encoded.came.get(timeout=60) == event.number - 1
            assert not any(output.parent.glob(f"*{output.suffix}"))  # all or nothing
    assert len(list(output.parent.glob(f"*{output.suffix}"))) == (1 if name == "o.mkv" else 5)
    assert not Path(f"{output}.frames".replace("%", ""), "encoded").exists()


def test_a_run_that_is_stopped_leaves_nothing_that_is_half_encoded(tmp_path, panned, encoded):
    answers = iter([False] * 8)
    run(request_of(panned, tmp_path / "o.mkv"), lambda: next(answers, 130))
    assert encoded.came.get(timeout=60) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["o.mkv.frames"]
    names = {path.name for path in (tmp_path / "o.mkv.frames").iterdir()}
    assert {"00000001.npz", "run.json"} <= names
    assert "encoded" not in names


def test_what_a_killed_run_has_half_encoded_is_not_delivered(tmp_path, panned):
    half = tmp_path / "f_02d.png.frames" / "encoded"
    half.mkdir(parents=True)
    (half / "f_06.png").write_bytes(b"half")
    run(request_of(panned, tmp_path / "f_%02d.png", codec=""))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"f_0{n}.png" for n in range(1, 6)]


def test_a_clip_that_cannot_be_encoded_ends_the_run_at_once(tmp_path, panned, encoded):
    encoded.stop_at.append(2)
    events = prepare_video(request_of(panned, tmp_path / "o.mkv")).run()
    for _ in range(3):  # then the thread has frame 2
        next(events)
    assert encoded.failed.wait(timeout=60)
    with pytest.raises(NotWritten, match="disk full"):
        list(events)
    assert len(list((tmp_path / "o.mkv.frames").glob("*.npz"))) < 5


def test_a_label_map_holds_for_all_frames(tmp_path, panned):
    """The halves of each frame are made of the halves of the painting, in the other order."""
    halves = np.zeros((36, 48, 3), np.float32)
    halves[:, 24:] = (1, 0, 0)
    images.save(str(tmp_path / "content.png"), halves)
    images.save(str(tmp_path / "style.png"), halves[:, ::-1])
    painting = np.zeros((36, 48, 3), np.float32)
    painting[:, :24, 1] = 1  # green where the map is red
    images.save(str(tmp_path / "painting.png"), painting)
    names = {"content_labels": str(tmp_path / "content.png"), "style_labels": (str(tmp_path / "style.png"),)}
    report = tmp_path / "o.json"
    inputs = {**names, "style": (str(tmp_path / "painting.png"),)}
    config = {"content_weight": 1e-3, "style_weight": 1e3, "iterations": (12,)}
    run(request_of(panned, tmp_path / "o.mkv", inputs=inputs, report=str(report), config=config))
    for frame, told in zip(
        pictures_of(tmp_path / "o.mkv"), json.loads(report.read_text())["frames"], strict=True
    ):
        assert [part["label"] for part in told["losses"]["by_style"]] == ["#000000", "#ff0000"]
        left, right = frame[:, :20].mean((0, 1)), frame[:, 28:].mean((0, 1))
        assert right[1] - right[0] > 0.1 + left[1] - left[0]


def source(path, kind):
    """Return a clip of a kind, and the rows, columns and frames that h264 gets of it at 48 pixels."""
    pictures = [frame("cat", 4 * n) for n in range(3)]
    if kind == "one frame":
        return clip_of(path / "in.mkv", pictures[:1]), (36, 48, 1)
    if kind == "odd":
        return clip_of(path / "in.mkv", [picture[:35, :47] for picture in pictures]), (36, 48, 3)
    if kind == "10 bits":
        deep = [rgb_frame(picture).reformat(format="yuv420p10le") for picture in pictures]
        return encode(path / "in.mkv", deep, "ffv1"), (36, 48, 3)
    plain = [rgb_frame(picture).reformat(format="yuv420p") for picture in pictures]
    if kind == "upright":
        found = encode(path / "in.mp4", plain, "libx264")
        rotated(Path(found), 90)
        return found, (48, 36, 3)
    found = Path(encode(path / "in.ts", plain * 6, "mpeg2video", times=list(range(18)), base=Fraction(1, 25)))
    found.write_bytes(found.read_bytes()[: found.stat().st_size // 2])
    return str(found), (36, 48, None)


@pytest.mark.parametrize("kind", ["one frame", "odd", "10 bits", "upright", "cut off"])
def test_clips_of_all_kinds_become_clips(tmp_path, kind):
    clip, (height, width, frames) = source(tmp_path, kind)
    output = tmp_path / "o.mp4"
    run(request_of(clip, output, codec="h264", frame_steps=1, config={"iterations": (1,)}))
    made = pictures_of(output)
    assert {one.shape for one in made} == {(height, width, 3)}
    assert len(made) == (frames or len(pictures_of(clip)))


def test_two_runs_do_not_share_a_folder(tmp_path, panned):
    job = prepare_video(request_of(panned, tmp_path / "o.mkv"))
    events = job.run()
    next(events)
    with pytest.raises(InputError, match="a folder that no other run uses"):
        run(request_of(panned, tmp_path / "o.mkv"))
    events.close()


def test_a_clip_is_not_written_over_itself(panned):
    request = request_of(panned, panned)
    with pytest.raises(InputError, match="named twice"):
        prepare_video(dataclasses.replace(request))


def test_a_stop_while_the_clip_is_written_is_too_late(tmp_path, panned):
    output = tmp_path / "o.mkv"
    assert run(request_of(panned, output), output.exists)[-1] == Finished(5, False)
