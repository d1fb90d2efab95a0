"""--settings: a picture, or a report, makes the same picture again, and a flag given beside it wins."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.reports.report import resolved
from nst_jax.runs.settings import fewest, parse_options, read_options

PAIR = ["--content=example:cat", "--style=example:waves"]
SHALLOW = ["--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1"]  # quick to compile


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Return a function that runs nst in an empty folder: exit code, and lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run(nst.PROGRAM, ["--quiet", "--devices=1", *arguments])
        return code, capfd.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize(
    "options",
    [
        ["--preset=gatys", "--size=48", "--iterations=3"],
        ["--size=48", "--strength=0.4", "--effort=draft", "--scales=32,48", "--stroke_size=0.5"],
        ["--size=40", "--iterations=2", "--style=example:ink", "--style_mix=1,3", "--dpi=200", "--seed=4"],
        ["--print_size=1x1in", "--crop", "--dpi=48", "--preset=gatys", "--iterations=2"],
    ],
)
def test_a_picture_and_its_report_make_it_again_to_the_byte(call, options):
    assert call(*PAIR, *SHALLOW, *options, "--output=a.png", "--report=a.json")[0] == 0
    for told in ("a.png", "a.json"):
        assert call(f"--settings={told}", "--output=b.png") == (0, [])
        assert Path("b.png").read_bytes() == Path("a.png").read_bytes()
        os.remove("b.png")


def test_what_is_given_wins_and_takes_the_place_of_its_like(call):
    common = [*PAIR, *SHALLOW, "--preset=gatys", "--size=48", "--strength=0.4", "--effort=draft"]
    assert call(*common, "--output=a.png")[0] == 0
    given = ["--size=32", "--style_weight=2", "--iterations=2", "--content=example:coffee"]
    assert call("--settings=a.png", *given, "--output=b.png", "--report=b.json")[0] == 0
    found = json.loads(Path("b.json").read_text())["config"]
    assert found["content"] == "example:coffee"
    assert (found["size"], found["style_weight"], found["iterations"]) == (32, 2.0, [2])
    assert (found["preset"], found["loss_balancing"]) == ("gatys", "none")
    assert "strength" not in found


def test_files_that_are_not_there_have_to_be_given(call, tmp_path):
    Image.new("RGB", (40, 30), "teal").save("mine.png")
    (tmp_path / "other").mkdir()
    common = [*SHALLOW, "--preset=gatys", "--size=32", "--iterations=1", "--style=example:ink"]
    assert call(*common, "--content=mine.png", "--output=other/a.png")[0] == 0
    os.chdir("other")
    code, err = call("--settings=a.png", "--output=b.png")
    assert (code, len(err)) == (2, 1)
    assert err[0].startswith("error: --content: ")
    assert call("--settings=a.png", "--content=../mine.png", "--output=b.png")[0] == 0
    assert Path("b.png").read_bytes() == Path("a.png").read_bytes()


def test_what_holds_no_settings_is_refused_in_one_line(call):
    Image.new("RGB", (8, 8)).save("plain.png")
    for name, text in {
        "empty.json": "",
        "list.json": "[1]",
        "other.json": '{"config": 3}',
        "deep.json": "[" * 10**5,
        "text.png": "no picture",
        "wrong.json": '{"config": {"size": "large"}}',
        "listed.json": '{"config": {"content_loss": ["l2"]}}',
        "both.json": '{"config": {"strength": 0.5, "style_weight": 3.0, "loss_balancing": "auto"}}',
    }.items():
        Path(name).write_text(text)
    for name in [*os.listdir(), "missing.png", "missing.json"]:
        code, err = call(f"--settings={name}", *PAIR, "--output=out/b.png")
        assert (code, len(err)) == (2, 1), (name, err)
        assert err[0].startswith("error: "), err
    assert not os.path.exists("out")


def test_the_fewest_options_mean_the_same():
    for config in (
        Config.from_preset(),
        Config.from_preset(size=700, effort="fine", strength=0.3),
        Config(style_weight=3.0, style_layers=("all",), iterations=7),
        Config.from_preset("strotss", content_weight=2.0),
    ):
        told = json.loads(json.dumps(resolved(config, 2))) | {"style": ["a.png", "b.png"]}
        kept = parse_options(told, "settings")
        assert resolved(Config.from_preset(**kept), 2) == resolved(config, 2)
        assert len(kept) <= len(config.given) + 1
    with pytest.raises(InputError, match="`strength`: without `style_weight`"):
        fewest({"strength": 0.5, "style_weight": 3.0}, 1)


def test_options_of_one_run_and_of_other_versions_are_left_out():
    told = {"color_depth": 1.0, "size": 96, "checkpoint": "k", "report": "r.json"}
    assert parse_options(told, "settings") == {"size": 96}


def test_options_of_earlier_names_are_those_of_today():
    told = {
        "preset": "gatys",
        "style_scale": 2.0,
        "balance": "auto",
        "content_loss": "laplacian",
        "depth": 16,
    }
    today = {"preset": "gatys", "stroke_size": 2.0, "loss_balancing": "auto", "content_loss": "laplacian"}
    assert parse_options(told, "settings") == today | {"bit_depth": 16}
    told = {"preset": "strotss", "content_loss": "squares", "optimizer": "adam", "average": 0.5}
    today = {"preset": "strotss", "content_loss": "l2", "optimizer": "adam", "ema_decay": 0.5}
    assert parse_options(told, "settings") == today


def test_a_long_report_is_not_read(tmp_path):
    with (tmp_path / "r.json").open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(InputError, match="at most 16777216 bytes of settings"):
        read_options(str(tmp_path / "r.json"))
