"""Sizes on paper: pixels, resolution, and what becomes of photographs of another aspect."""

import json

import numpy as np
import pytest
from PIL import Image

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.launchers import nst
from nst_jax.launchers.flags import run
from nst_jax.runs import DeviceOptions, InputOptions, OutputOptions, Request, prepare
from nst_jax.runs.paper import middle, parse_paper

QUICK = {
    "preset": "gatys",
    "style_layers": ("conv1_1", "conv2_1"),
    "content_layers": ("conv2_1",),
    "iterations": (1,),
}
FLAGS = ["--preset=gatys", "--style_layers=conv1_1,conv2_1", "--content_layers=conv2_1", "--iterations=1"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder of small pictures: a photograph of 48 x 32 pixels, a painting, a mask."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("c.png", 1), ("s.png", 2)):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8)).save(name)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 12:36] = 255
    Image.fromarray(mask).save("m.png")
    return tmp_path


def job(outputs=None, config=None, **inputs):
    return prepare(
        Request(
            inputs=InputOptions(**{"content": "c.png", "style": ("s.png",), **inputs}),
            outputs=OutputOptions(output="a.png", **(outputs or {})),
            config=Config.from_preset(**QUICK, **(config or {})),
            devices=DeviceOptions(devices=1),
        )
    )


@pytest.mark.parametrize(
    ("text", "dpi", "size"),
    [
        ("30x20cm", 300, (2362, 3543)),
        ("20x30cm", 300, (3543, 2362)),
        ("300x200mm", 300, (2362, 3543)),
        ("8.5x11in", 100, (1100, 850)),
        ("0.01x0.01mm", 1, (1, 1)),
    ],
)
def test_paper_in_pixels(text, dpi, size):
    """Inches of 2.54 cm times pixels per inch, rounded; rows first."""
    assert parse_paper(text).size(max(1, parse_paper(text).longest(dpi))) == size


@pytest.mark.parametrize("text", ["30x20", "30 x 20cm", "-3x2cm", "0x2cm", "1e3x2cm", "30x20pt", "٣x٢cm"])
def test_what_is_no_paper_is_refused(text):
    with pytest.raises(InputError, match="`print_size`: WIDTHxHEIGHT in cm, mm or in"):
        parse_paper(text)


def test_the_middle_of_an_array():
    array = np.arange(24).reshape(4, 6)
    assert np.array_equal(middle(array, (2, 3)), array)
    assert np.array_equal(middle(array, (1, 1)), array[:, 1:5])
    assert np.array_equal(middle(array, (1, 6)), array[1:2])


def test_the_picture_has_the_paper_s_pixels_and_resolution():
    assert (
        run(
            nst.PROGRAM,
            [*FLAGS, "--content=c.png", "--style=s.png", "--output=a.png", "--print_size=3x2cm", "--dpi=60"],
        )
        == 0
    )
    with Image.open("a.png") as picture:
        assert picture.size == (71, 47)
        assert [round(number) for number in picture.info["dpi"]] == [60, 60]
    stored = json.loads(images.read_settings("a.png"))["config"]
    assert stored["print_size"] == "3x2cm"
    assert stored["dpi"] == 60  # without it, 300 would be taken
    assert "size" not in stored  # beside it, that would be refused


def test_without_a_resolution_it_is_300():
    made = job(print_size="6x4mm")
    assert (made.request.config.size, made.request.outputs.dpi, made.canvas.size) == (71, 300, (47, 71))


def test_a_photograph_of_another_aspect_is_refused_with_what_would_fit():
    with pytest.raises(InputError) as refused:
        job(print_size="3x3cm")
    assert str(refused.value) == (
        "`print_size`: the aspect of the content, such as 3x2cm, or `crop`; got 3x3cm for 48x32 pixels"
    )
    job(print_size="3x2.01cm")  # within 1 %


def test_a_crop_is_the_middle_of_photograph_and_mask():
    cut = job(print_size="3x3cm", crop=True, content_mask="m.png", outputs={"dpi": 27})
    assert cut.canvas.size == (32, 32)
    assert np.array_equal(cut.pictures.content, images.load("c.png").rgb[:, 8:40])
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, 4:28] = 1
    assert np.array_equal(cut.pictures.masks.content, mask)


@pytest.mark.parametrize(
    ("inputs", "outputs", "config", "message"),
    [
        ({"crop": True}, {}, {}, "`crop`: with `print_size`"),
        ({"print_size": "3x2cm"}, {}, {"size": 64}, "`print_size`: in place of `size`"),
        ({"print_size": "3x2cm"}, {"output_size": "content"}, {}, "`print_size`: with `output_size=working`"),
        ({"print_size": "3x2cm", "crop": True}, {"judge": True, "report": "a.json"}, {}, "`judge`: without"),
        ({"print_size": "30x20in"}, {"dpi": 9999}, {}, "`size`: .* 32768"),
    ],
)
def test_what_does_not_go_with_a_size_on_paper(inputs, outputs, config, message):
    with pytest.raises(InputError, match=message):
        job(outputs, config, **inputs)


def test_a_texture_has_any_aspect_but_no_crop():
    texture = {"content": "", "print_size": "6x6mm"}
    config = {"init": "noise", "content_weight": 0.0}
    assert job(config=config, **texture).canvas.size == (71, 71)
    with pytest.raises(InputError, match="`crop`: with `content`"):
        job(config=config, crop=True, **texture)
