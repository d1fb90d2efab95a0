"""The program nst-judge, end to end, in process; --judge of nst and nst-sweep against it."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from nst_jax import images
from nst_jax.launchers import judge as launcher
from nst_jax.launchers import nst, sweep
from nst_jax.launchers.flags import run
from nst_jax.metrics import judge
from nst_jax.runs import judging

pytestmark = pytest.mark.usefixtures("optax_promotion")

PAIR = ["--content=c.png", "--style=s.png"]
LAYERS = "--style_layers=conv1_2,conv2_1"
FAST = ["--size=24", "--iterations=1", "--optimizer=adam", "--content_layers=conv2_1", LAYERS]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(judge, "SAMPLES", 64)  # quicker


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs a program in a folder of small pictures: exit code, lines of both outputs."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.chdir(tmp_path)
    for n, (name, size) in enumerate({"c": (24, 20), "s": (24, 24), "r": (24, 20), "wide": (24, 16)}.items()):
        coarse = np.random.default_rng(n).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(f"{name}.png")

    def call(*arguments, program=launcher.PROGRAM):
        code = run(program, ["--quiet", *arguments])
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def read_json(path):
    with open(path) as file:
        return json.load(file, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def measured(result, content="c.png", style="s.png"):
    return judge.measure(
        judge.load(), *(images.load(name).rgb for name in (result, content)), [images.load(style).rgb]
    )


def test_one_result_has_its_measures_at_the_top(call):
    code, out, err = call("--result=r.png", *PAIR, "--report=r.json")
    assert (code, err) == (0, [])
    heads, numbers, written = (line.split() for line in out)
    assert heads == ["result", *judge.METRICS]
    assert written == ["r.json"]
    report, expected = read_json("r.json"), measured("r.png")
    assert [report[name] for name in judge.METRICS] == [expected[name] for name in judge.METRICS]
    assert expected.pop("lpips_alex") is None  # too small for it
    shown = {name: f"{expected[name]:.4g}" for name in expected.keys() & judge.METRICS.keys()}
    assert numbers == ["r.png", *(shown.get(name, "-") for name in judge.METRICS)]
    assert report["by_style"] == [{"style": "s.png"} | expected["by_style"][0]]
    assert report["image"] == {"height": 20, "width": 24}
    assert report["optimized"] is None  # it does not tell
    assert report["weights"].keys() == {"vgg16", "alexnet"}
    assert report["metrics"].keys() == judge.METRICS.keys()
    assert report["config"]["style"] == ["s.png"]


def test_several_results_are_one_table_one_list_and_one_plot(call):
    arguments = ["--result=r.png", "--result=c.png", *PAIR, "--style=r.png", "--style_mix=1,0"]
    code, out, err = call(*arguments, "--report=r.json", "--plot=r.png.svg")
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["result", "r.png", "c.png", "r.json", "r.png.svg"]
    report = read_json("r.json")
    first, second = report["results"]
    assert (first["result"], second["result"]) == ("r.png", "c.png")
    assert first["style_distance"] == first["by_style"][0]["style_distance"] > 0
    assert first["by_style"][1]["fid"] < 1e-6
    assert second["lpips"] == second["self_similarity"] == second["content_color_distance"] == 0
    assert "lpips" not in report
    with open("r.png.svg") as plot:
        text = plot.read()
    assert all(f"<!-- {label} -->" in text for label in ("r.png", "c.png", "LPIPS to the content"))


def test_a_plot_names_no_folders(call, tmp_path):
    for name in ("a.svg", "b.SVG"):
        code, _, err = call(f"--result={tmp_path}/r.png", *PAIR, f"--plot={name}")
        assert (code, err) == (0, [])
        assert b"<!-- r.png -->" in (tmp_path / name).read_bytes()
        assert str(tmp_path).encode() not in (tmp_path / name).read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.SVG").read_bytes()


def test_large_pictures_are_reduced_and_a_style_has_its_scale(call):
    code, _, err = call("--result=r.png", *PAIR, "--size=20", "--stroke_size=0.8", "--report=r.json")
    assert (code, err) == (0, [])
    assert read_json("r.json")["image"] == {"height": 17, "width": 20}
    result, content, style = (images.load(name).rgb for name in ("r.png", "c.png", "s.png"))
    expected = judge.measure(
        judge.load(),
        images.resize(result, 17, 20),
        images.resize(content, 17, 20),
        [images.resize(style, 16, 16)],
    )
    assert read_json("r.json")["style_distance"] == pytest.approx(expected["style_distance"], rel=1e-5)
    assert read_json("r.json")["lpips"] == pytest.approx(expected["lpips"], rel=1e-5)


def test_without_a_content_what_is_measured_to_it_is_null(call):
    code, out, err = call("--result=r.png", "--style=s.png", "--report=r.json")
    assert (code, err) == (0, [])
    assert out[1].split()[1:4] == ["-", "-", "-"]
    assert read_json("r.json")["lpips"] is None
    assert read_json("r.json")["fid"] > 0


def test_nst_reports_what_nst_judge_measures_of_its_file(call):
    code, _, err = call(*PAIR, *FAST, "--output=o.jpg", "--judge", "--report=o.json", program=nst.PROGRAM)
    assert (code, err) == (0, [])
    code, _, err = call("--result=o.jpg", *PAIR, "--report=r.json")
    assert (code, err) == (0, [])
    ours, theirs = read_json("o.json")["judge"], read_json("r.json")
    assert ours["optimized"] == ["conv1_2"]
    assert ours == {name: theirs[name] for name in ours}
    assert set(judge.METRICS) < set(ours)


def test_nst_without_judge_reports_none(call):
    code, _, err = call(*PAIR, *FAST, "--output=o.png", "--judge", program=nst.PROGRAM)
    assert (code, err) == (2, ["error: --judge: with --report; it is not given"])
    assert call(*PAIR, *FAST, "--output=o.png", "--report=o.json", program=nst.PROGRAM)[0] == 0
    assert "judge" not in read_json("o.json")


def test_nst_refuses_to_judge_what_is_too_small_before_it_runs(call, tmp_path):
    arguments = [*PAIR, *FAST, "--size=18", "--output=o.png", "--judge", "--report=o.json"]
    code, out, err = call(*arguments, program=nst.PROGRAM)
    assert (code, out) == (2, [])
    assert err == ["error: o.png, judged at 18x15: at least 16 pixels a side for layer conv5_3; got 18x15"]
    assert not (tmp_path / "o.png").exists()


def test_a_sweep_measures_every_picture_also_one_that_was_made_without(call):
    arguments = [*PAIR, *FAST, "--preset=gatys", "--sweep=style_weight=1e4,1e10", "--output_dir=o"]
    assert call(*arguments, program=sweep.PROGRAM)[0] == 0
    assert not any("judge" in entry for entry in read_json("o/sweep.json"))
    code, _, err = call(*arguments, "--judge", "--resume", program=sweep.PROGRAM)
    assert (code, err) == (0, [])
    entries = read_json("o/sweep.json")
    for entry in entries:
        expected = measured(f"o/{entry['file']}")
        assert {name: entry["judge"][name] for name in judge.METRICS} == {
            name: expected[name] for name in judge.METRICS
        }
    assert entries[0]["judge"]["lpips"] != entries[1]["judge"]["lpips"]


WRONG = {
    ("--style=s.png",): "--result: a file or example:NAME; not given",
    ("--result=r.png",): "--style: a file or example:NAME; not given",
    ("--result=r.png", "--result=none.png", *PAIR): "none.png: must be a whole picture file",
    ("--result=r.png", "--result=text.png", *PAIR): "text.png: must be a whole picture file",
    (
        "--result=wide.png",
        *PAIR,
    ): "wide.png: a result has the aspect of the content, within a pixel or 1 % (any size); it is 24x16, the content 24x20",
    ("--result=dot.png", "--style=s.png"): "dot.png, judged at 1x1: at least 16 pixels a side",
    ("--result=r.png", "--style=dot.png", "--size=16"): "judged at 16x13: at least 16 pixels",
    ("--result=r.png", "--style=s.png", "--stroke_size=0.1"): "s.png, judged at 2x2: at least 16 pixels",
    (
        "--result=r.png",
        *PAIR,
        "--style_mix=1,1",
    ): "--style_mix: one number per style, 1, not all 0; got 1.0,1.0",
    ("--result=r.png", *PAIR, "--style_mix=0"): "--style_mix: one number per style, 1, not all 0",
    ("--result=r.png", *PAIR, "--report=c.png"): "--report, --plot: each a file of its own",
    ("--result=r.png", "--style=s.png", "--plot=p.png"): "--plot: with --content; it is not given",
    ("--result=r.png", *PAIR, "--plot=p.gif"): "p.gif: must end in one of .png .svg .pdf",
    ("--result=r.png", *PAIR, "--report=no/r.json"): "no/r.json: must be a file that can be written",
    ("--result=r.png", *PAIR, "--max_pixels=100"): "r.png: at most 100 pixels",
    ("r.png", *PAIR): "r.png: flags only",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_request_is_one_line_before_anything_is_judged(call, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(judge, "load", lambda: pytest.fail("it began"))
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (1, 1)).save("dot.png")
    before = sorted(tmp_path.iterdir())
    code, out, err = call(*arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert WRONG[arguments] in err[0]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "no JSON",
        "[]",
        "[" * 100_000,
        '{"config": 3}',
        '{"config": {"style_layers": 1, "network": "vgg16"}}',
    ],
)
def test_settings_that_are_none_tell_nothing(tmp_path, settings):
    images.save(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32), settings=settings)
    assert judging.optimized_layers(str(tmp_path / "a.png")) is None


def test_layers_of_another_network_are_not_the_judge_s(tmp_path):
    for network, expected in {"vgg16": ["conv3_3"], "vgg19": []}.items():
        settings = json.dumps({"config": {"network": network, "style_layers": ["conv3_3", "conv4_1"]}})
        images.save(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32), settings=settings)
        assert judging.optimized_layers(str(tmp_path / "a.png")) == expected
