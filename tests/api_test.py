"""The Python API as its users meet it: what it takes, what it refuses, and losses of their own."""

import inspect
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import nst_jax as nst
from nst_jax import images
from nst_jax.networks.base import check_picture

LOW = {"content_layers": ("conv1_2",), "style_layers": ("conv1_1",), "precision": "float32"}


@pytest.fixture
def pictures(rng):
    return rng.random((24, 32, 3), np.float32), rng.random((20, 20, 3), np.float32)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.full((4, 4, 3), 255, np.uint8), "style: floats in .0, 1.; got uint8"),
        (np.full((4, 4, 3), 255, np.float32), "style: floats in .0, 1.; got numbers from 255 to 255"),
        (jnp.full((4, 4, 3), 2.0), "style: floats in .0, 1.; got numbers from 2 to 2"),
        (np.full((4, 4, 3), np.nan, np.float32), "style: floats in .0, 1.; got numbers from nan to nan"),
        (np.zeros((1, 4, 4, 3), np.float32), r"style: an array \(h, w, 3\); got the shape \(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.float32), r"style: an array \(h, w, 3\); got the shape \(4, 4, 4\)"),
        (images.Picture(np.zeros((4, 4, 3), np.float32), None), "style: an array .*; got Picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(picture, message):
    with pytest.raises(nst.InputError, match=message):
        check_picture("style", picture)


def test_traps_end_in_one_line():
    """In a process without the tests' own checks of shapes."""
    code = """
import numpy as np
import nst_jax as nst

params, picture = nst.load_vgg(), np.full((16, 24, 3), 0.5, np.float32)
config = nst.Config(content_layers=("conv1_2",), style_layers=("conv1_1",), iterations=0)
spec = config.spec()
targets, weights = nst.make_targets(params, picture, picture, spec), config.loss_weights(1)
cases = [
    lambda: nst.stylize(params, picture[None], [picture], config=config),
    lambda: nst.stylize(params, picture, [picture[None]], config=config),
    lambda: nst.make_targets(params, 255 * picture, [picture], spec),
    lambda: nst.make_targets(params, picture, [picture[None]], spec),
    lambda: nst.total_loss(params, 255 * picture, targets, weights, spec),
    lambda: nst.total_loss(params, picture[None], targets, weights, spec),
    lambda: nst.features(params, picture, "conv1_1"),
    lambda: nst.features(params, picture, ["conv3_4"]),
    lambda: nst.images.save("picture", picture),
    lambda: nst.images.save("picture.png", (255 * picture).astype(np.uint8)),
]
for case in cases:
    try:
        case()
        print("no error")
    except nst.InputError as error:
        print(error)
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert lines.splitlines() == [
        "content: an array (h, w, 3); got the shape (1, 16, 24, 3)",
        "style: an array (h, w, 3); got the shape (1, 16, 24, 3)",
        "content: floats in [0, 1]; got numbers from 127.5 to 127.5",
        "style: an array (h, w, 3); got the shape (1, 16, 24, 3)",
        "picture: floats in [0, 1]; got numbers from 127.5 to 127.5",
        "picture: an array (h, w, 3); got the shape (1, 16, 24, 3)",
        "layers: a list of layers from conv1_1 to conv5_3; got 'c'",
        "layers: a list of layers from conv1_1 to conv5_3; got 'conv3_4' (did you mean conv3_3?)",
        "picture: must end in one of .png .jpg .jpeg .webp .tif .tiff .avif; no extension",
        "rgb: floats in [0, 1]; got uint8",
    ]


def test_the_parameters_of_another_network_are_refused(params, pictures):
    content, style = pictures
    with pytest.raises(nst.InputError, match="params: the parameters of vgg19; they lack conv3_4"):
        nst.stylize(params, content, [style], config=nst.Config(network="vgg19", **LOW))
    more = params._replace(convolutions={**params.convolutions, "conv3_4": params.convolutions["conv3_3"]})
    with pytest.raises(nst.InputError, match="params: the parameters of vgg16; they have conv3_4"):
        nst.stylize(more, content, [style], config=nst.Config(**LOW))


def test_a_lone_style_needs_no_list(params, pictures):
    content, style = pictures
    config = nst.Config(iterations=2, **LOW)
    one = nst.stylize(params, content, style, config=config)
    np.testing.assert_array_equal(one.image, nst.stylize(params, content, [style], config=config).image)


def test_a_size_that_is_not_the_picture_s_is_refused_and_one_that_is_not_given_is_the_picture_s(
    params, pictures
):
    content, style = pictures
    with pytest.raises(nst.InputError, match="`size`: 32, the longest side of the picture.*; got 64"):
        nst.stylize(params, content, [style], config=nst.Config(size=64, **LOW))
    with pytest.raises(nst.InputError, match="`stroke_size`: 1, as styles are used at the sizes they have"):
        nst.stylize(params, content, [style], config=nst.Config(stroke_size=0.5, **LOW))
    large = images.resize(content, 150, 200)
    config = nst.Config.from_preset(iterations=3, **LOW)
    first = next(nst.stylize_steps(params, large, [style], config=config))
    assert (first.scales, first.image.shape) == (2, (106, 141, 3))


def test_progress_is_told_of_every_chunk(params, pictures, capsys):
    content, style = pictures
    told = []
    last = nst.stylize(params, content, [style], config=nst.Config(iterations=3, **LOW), progress=told.append)
    assert [now.step for now in told] == [0, 1, 2, 3]
    assert told[-1] is last
    assert str(last) == f"step 3: loss {last.losses['total']:.4g}"
    assert str(last._replace(scale=2, scales=5)).startswith("step 3 at scale 2 of 5: loss ")


def test_a_path_is_a_name(tmp_path, pictures):
    path = tmp_path / "a.png"
    images.save(path, pictures[0])
    np.testing.assert_array_equal(images.load(path).rgb, images.load(str(path)).rgb)


def test_a_statistic_a_content_loss_and_an_optimizer_of_ones_own(params, pictures, monkeypatch):
    content, style = pictures
    gram, squares, adam = (
        registry[name]
        for registry, name in (
            (nst.STYLE_LOSSES, "gram"),
            (nst.CONTENT_LOSSES, "l2"),
            (nst.OPTIMIZERS, "adam"),
        )
    )

    def halved(sums, wanted):
        return gram.distance(sums, wanted) / 2

    def step(evaluate, learning_rate, iterate, memory, coordinates):
        image = jnp.clip(iterate.image - 0.01 * jnp.sign(iterate.gradient), 0, 1)
        return nst.Step(evaluate(image), memory, jnp.int32(1), jnp.asarray(False))

    with pytest.raises(nst.InputError, match="`style_loss`: .*; got 'mine'"):
        nst.Config(style_loss="mine")
    monkeypatch.setitem(nst.STYLE_LOSSES, "mine", gram._replace(distance=halved))
    monkeypatch.setitem(nst.CONTENT_LOSSES, "my_content", squares._replace())
    monkeypatch.setitem(nst.OPTIMIZERS, "signs", adam._replace(init=lambda image: (), step=step, carry=None))
    own = nst.Config(style_loss="mine", content_loss="my_content", optimizer="signs", iterations=2, **LOW)
    first, *_, last = nst.stylize_steps(params, content, [style], config=own)
    plain, *_ = nst.stylize_steps(params, content, [style], config=nst.Config(iterations=0, **LOW))
    assert first.losses["style"] == pytest.approx(plain.losses["style"] / 2, rel=1e-6)
    assert last.step == 2
    assert last.losses["total"] < first.losses["total"]
    assert 0 < np.abs(last.image - content).max() <= 0.0201
    # Another one under the same name is not the program compiled before.
    monkeypatch.setitem(nst.STYLE_LOSSES, "mine", gram)
    again, *_ = nst.stylize_steps(params, content, [style], config=own)
    assert again.losses["style"] == pytest.approx(plain.losses["style"], rel=1e-6)


def test_options_from_the_third_argument_on_are_keywords():
    public = {f"nst.{name}": value for name, value in vars(nst).items() if not name.startswith("_")}
    for module in (nst.images, nst.label_maps):
        public |= {
            f"{module.__name__}.{name}": value
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        }
    for name, function in public.items():
        if inspect.isfunction(function):
            for parameter in list(inspect.signature(function).parameters.values())[2:]:
                optional = parameter.default is not parameter.empty
                assert not optional or parameter.kind is parameter.KEYWORD_ONLY, (name, parameter.name)


def test_the_entry_points_explain_each_argument():
    documented = nst.stylize, nst.stylize_steps, nst.make_targets, nst.features
    for function in (*documented, images.save, nst.label_maps.make_masks):
        text = inspect.getdoc(function)
        for name in inspect.signature(function).parameters:
            assert f"    {name}:" in text, (function.__name__, name)
        assert "Args:" in text
    assert "Config.from_preset(" in inspect.getdoc(nst.stylize)
    assert "Config.from_preset(" in (Path(__file__).parents[1] / "README.md").read_text()
