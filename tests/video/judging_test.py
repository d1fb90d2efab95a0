"""nst-judge of clips: their steadiness by the formulas, their style distance that of their frames."""

import json

import numpy as np
import pytest
from clip_files import encode, rgb_frame

from nst_jax import images
from nst_jax.launchers import judge as launcher
from nst_jax.launchers.console import DONE, WRONG_REQUEST
from nst_jax.launchers.flags import run
from nst_jax.metrics import judge
from nst_jax.video import measures
from nst_jax.video.clips import ALL, probe, read


def clip_of(path, pictures):
    frames = [rgb_frame(picture).reformat(format="bgr0") for picture in pictures]
    return encode(path, frames, "ffv1", times=[40 * n for n in range(len(frames))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a pan, two results of it, and a shorter one."""
    found, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(3)
    whole = images.resize(images.load("example:cat").rgb, 40, 60)
    pan = [whole[:, 3 * n : 3 * n + 36] for n in range(7)]
    clip_of(found / "in.mkv", pan)
    clip_of(found / "steady.mkv", [picture**2 for picture in pan])
    noisy = [(picture + 0.1 * rng.standard_normal(picture.shape)).clip(0, 1) for picture in pan]
    clip_of(found / "noisy.mkv", [picture.astype(np.float32) for picture in noisy])
    clip_of(found / "short.mkv", pan[:5])
    return found


def frames_of(path):
    return [frame.image for frame in read(probe(str(path)), ALL)]


def test_clips_are_measured_beside_their_content(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    report, night = tmp_path / "report.json", images.load("example:night").rgb
    style = images.resize(night, *images.size_to_fit(*night.shape[:2], 40))  # as long as the clip is
    asked = ["--quiet", "--content=in.mkv", "--style=example:night", f"--report={report}"]
    assert run(launcher.PROGRAM, [*asked, "--result=steady.mkv", "--result=noisy.mkv"]) == DONE
    head, *rows, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["result", "warping_error", "flicker", "style_distance"]
    assert [row.split()[0] for row in rows] == ["in.mkv", "steady.mkv", "noisy.mkv"]
    told = json.loads(report.read_text())
    assert told["metrics"].keys() == {"warping_error", "flicker", "style_distance"}
    network = judge.load()
    for found in told["results"]:
        frames = frames_of(folder / found["result"])
        expected = measures.measure(frames, frames_of(folder / "in.mkv"))
        assert (found["warping_error"], found["flicker"]) == pytest.approx(expected, rel=1e-5)
        stills = [judge.measure(network, still, None, [style])["style_distance"] for still in frames[::2]]
        assert found["style_distance"] == pytest.approx(np.mean(stills), rel=1e-3)
        assert found["frames"] == 7
    own, steady, noisy = told["results"]
    assert noisy["flicker"] > 2 * max(own["flicker"], steady["flicker"])


@pytest.mark.parametrize(
    ("result", "content", "more", "said"),
    [
        (["short.mkv"], "in.mkv", (), "short.mkv: 7 frames, as in.mkv has; it has 5"),
        (["noisy.mkv"], "example:cat", (), "--content: a clip, as the results are; got example:cat"),
        (["noisy.mkv"], "", (), "--content: a clip, as the results are; got none"),
        (["noisy.mkv", "example:cat"], "in.mkv", (), "--result: pictures, or clips; got both"),
        (["noisy.mkv"], "in.mkv", ["--plot=a.png"], "--plot: for pictures; --result is a clip"),
        (["gone.mkv"], "in.mkv", (), "gone.mkv: "),
    ],
)
def test_what_does_not_go_together_is_one_line(folder, monkeypatch, capsys, result, content, more, said):
    monkeypatch.chdir(folder)
    given = [f"--result={name}" for name in result] + [f"--content={content}", "--style=example:night", *more]
    assert run(launcher.PROGRAM, ["--quiet", *given]) == WRONG_REQUEST
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
