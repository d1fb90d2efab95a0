import copy
import dataclasses
import pickle
import re

import numpy as np
import pytest

from nst_jax.config import PRESETS, Config
from nst_jax.errors import InputError
from nst_jax.losses.style import STYLE_LOSSES
from nst_jax.networks import NETWORKS
from nst_jax.options import describe_range, fields_of, parse_option

FIELDS = {field.name: field for field in fields_of(Config)}


def weights_of(layers):
    return {layer: float(weight) for layer, weight in layers.items()}


def test_uniform_weights_are_one_over_the_layers_for_style_and_one_for_content():
    weights = Config(content_layers=("conv3_1", "conv4_2")).loss_weights(1)
    assert weights_of(weights.parts["style"]) == pytest.approx(dict.fromkeys(Config().style_layers, 0.2))
    assert weights_of(weights.parts["content"]) == {"conv3_1": 1.0, "conv4_2": 1.0}


def test_geometric_weights_are_strong_at_the_bottom_for_style_and_at_the_top_for_content():
    """Novak & Nikulin 2016, 3.1: style 2^(D-d), content 2^d, d = 1...D from the bottom; to sum 1."""
    layers = ("conv1_1", "conv2_1", "conv3_1")
    weights = Config(
        style_layer_weights="geometric", style_layers=layers, content_layers=layers
    ).loss_weights(1)
    assert weights_of(weights.parts["style"]) == pytest.approx(
        dict(zip(layers, (4 / 7, 2 / 7, 1 / 7), strict=True))
    )
    assert weights_of(weights.parts["content"]) == pytest.approx(
        dict(zip(layers, (2 / 14, 4 / 14, 8 / 14), strict=True))
    )


def test_numbers_go_with_the_layers_in_the_order_given():
    config = Config(style_layers=("conv4_1", "conv1_1"), style_layer_weights="3,1")
    assert config.spec().style_layers == ("conv1_1", "conv4_1")
    assert weights_of(config.loss_weights(1).parts["style"]) == {"conv1_1": 0.25, "conv4_1": 0.75}


def test_layers_with_weight_0_do_not_count():
    config = Config(style_layers=("conv1_1", "conv2_1", "conv3_1"), style_layer_weights="1,0,1")
    assert weights_of(config.loss_weights(1).parts["style"]) == {
        "conv1_1": 0.5,
        "conv2_1": 0.0,
        "conv3_1": 0.5,
    }


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_all_layers(network):
    spec = Config(network=network, style_layers=("all",), content_layers=("all",)).spec()
    assert spec.style_layers == spec.content_layers == NETWORKS[network].names


def test_mix_is_normalized_and_equal_by_default():
    np.testing.assert_allclose(Config(style_mix=(3.0, 1.0)).loss_weights(2).style_mix, [0.75, 0.25])
    np.testing.assert_allclose(Config().loss_weights(4).style_mix, 0.25)


def test_what_is_static_is_hashable_and_free_of_numbers():
    assert hash(Config(style_weight=3.0).spec()) == hash(Config(tv_weight=9.0, size=64).spec())


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_valid_and_what_is_given_beside_one_wins(preset):
    config = Config.from_preset(preset, style_weight=7.0)
    assert config.preset == preset
    assert config.style_weight == 7.0


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_is_its_options_however_it_is_named(preset):
    config = Config.from_preset(preset, size=256)
    assert Config(preset=preset, size=256) == config
    assert dataclasses.replace(config) == config
    assert dataclasses.replace(Config(size=256), preset=preset) == config
    for name, value in PRESETS[preset].items():
        assert getattr(config, name) == value


def test_the_weights_follow_the_strength_the_loss_and_the_balance():
    dialed = Config.from_preset("gatys", strength=0.1)
    assert dialed.loss_balancing == "auto"
    assert Config(strength=0.1) == dialed
    assert dataclasses.replace(Config(), strength=0.1) == dialed
    assert dataclasses.replace(Config(strength=0.9), strength=0.1) == dialed
    assert (Config(loss_balancing="auto").content_weight, Config(loss_balancing="auto").style_weight) == (
        1.0,
        1.0,
    )
    default = Config.from_preset()
    assert dataclasses.replace(default, style_loss="gram") == Config.from_preset(style_loss="gram")
    assert dataclasses.replace(default, style_weight=3.0) == Config.from_preset(style_weight=3.0)
    assert dataclasses.replace(default, style_weight=3.0).content_weight == 1.0


def test_what_is_replaced_is_checked_beside_what_was_given_before():
    with pytest.raises(InputError, match="`strength`: without `style_weight`, whose place it takes"):
        dataclasses.replace(Config.from_preset(style_weight=3.0), strength=0.1)
    with pytest.raises(InputError, match="`strength`: without `style_weight`"):
        dataclasses.replace(Config.from_preset(strength=0.1), style_weight=3.0)
    with pytest.raises(InputError, match="`learning_rate`: for `optimizer=adam`"):
        dataclasses.replace(Config(optimizer="adam", learning_rate=0.1), optimizer="lbfgs")
    with pytest.raises(InputError, match="`size`: a whole number"):
        dataclasses.replace(Config(), size=1)


def test_an_option_without_effect_is_refused_by_the_constructor_too():
    with pytest.raises(InputError, match="`learning_rate`: for `optimizer=adam`"):
        Config(learning_rate=0.1)
    with pytest.raises(InputError, match="`matting_weight`: for `photorealistic`"):
        Config(matting_weight=1.0)


def test_copies_know_what_was_given():
    config = Config.from_preset(strength=0.1)
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
        assert dataclasses.replace(again, strength=0.9) == Config.from_preset(strength=0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "`size`: a whole number from 2 to 32768; got 1"),
        ({"style_weight": -1.0}, "`style_weight`: a finite number from 0 to 3e.38; got -1"),
        ({"tv_weight": float("nan")}, "`tv_weight`: a finite number.*got nan"),
        ({"content_weight": float("inf")}, "`content_weight`: a finite number.*got inf"),
        ({"network": "vgg61"}, "`network`: vgg16 or vgg19; got 'vgg61' .did you mean vgg1"),
        ({"style_loss": "grams"}, "`style_loss`: .*gram.*did you mean gram"),
        (
            {"style_layers": ("conv1_9",)},
            "`style_layers`: layers of vgg16 are.*'conv1_9' .did you mean conv1_",
        ),
        ({"style_layers": ()}, "`style_layers`: at least one layer, or all; got none"),
        ({"content_layers": ("conv5_4",)}, "`content_layers`: layers of vgg16"),
        ({"content_weight": 0.0, "style_weight": 0.0, "tv_weight": 0.0}, "at least one above 0; all are 0"),
        ({"style_mix": (0.0, 0.0)}, "`style_mix`: at least one number above 0"),
        ({"style_mix": (1.0, -1.0)}, "`style_mix`: a finite number from 0 to 1e.30; got -1"),
        ({"style_layer_weights": "geometrical"}, "`style_layer_weights`: .*did you mean geometric"),
        ({"style_layer_weights": "1,2"}, "`style_layer_weights`: .*5 numbers.*got '1,2'"),
        ({"style_layer_weights": "1,1,1,1,nan"}, "`style_layer_weights`"),
        ({"style_layer_weights": "0,0,0,0,0"}, "`style_layer_weights`: .*not all 0"),
        ({"tv_power": 0.5}, "`tv_power`"),
        (
            {"style_layer_weights": "telescoped", "style_layers": ("conv1_1",)},
            "`style_layers`: two or more for `style_layer_weights=telescoped`; got conv1_1",
        ),
        (
            {"style_loss": "chain", "style_layers": ("conv1_1",)},
            "`style_layers`: at least two layers for `style_loss=chain`; got conv1_1",
        ),
        ({"style_loss": "chain", "style_layer_weights": "1,1,1,1,1"}, "`style_layer_weights`: .*4 numbers"),
        ({"preserve_color": "lumaswap"}, "`preserve_color`: none, luma_swap, .*did you mean luma"),
        ({"style_layers": ("all", "conv1_1")}, "`style_layers`: layers, or all by itself; got all,conv1_1"),
        ({"color_match": "choleski"}, "`color_match`: .*did you mean cholesky"),
        (
            {"scales": "Auto"},
            "`scales`: auto, or longest sides that grow and end at `size=512`; got 'Auto' .did you mean auto",
        ),
        ({"scales": "256,128,512"}, "`scales`: auto, or longest sides that grow.*got '256,128,512'"),
        ({"scales": "256,256,512"}, "`scales`: auto, or longest sides that grow.*got '256,256,512'"),
        ({"scales": "128,256"}, "`scales`: .* end at `size=512`; got '128,256'"),
        ({"scales": "256,512", "size": 256}, "`scales`: .* end at `size=256`; got '256,512'"),
        ({"scales": "0,512"}, "`scales`: .*got '0,512'"),
        ({"scales": "a,512"}, "`scales`: .*got 'a,512'"),
        ({"iterations": (500, 200)}, "`iterations`: one number where there are no `scales`; got 500,200"),
        ({"iterations": -1}, "`iterations`: a whole number from 0 to 10000000; got -1"),
        (
            {"scales": "256,512", "iterations": 2},
            "`iterations`: 0, 3 or more in all, or 2 numbers from 1, one for each of `scales`; got 2",
        ),
        ({"scales": "256,512", "iterations": (1, 2, 3)}, "`iterations`: .*2 numbers from 1.*got 1,2,3"),
        ({"scales": "256,512", "iterations": (100, 0)}, "`iterations`: .*2 numbers from 1.*got 100,0"),
        ({"ema_decay": 0.9}, "`ema_decay`: 0, or `optimizer=adam`; got 0.9 for lbfgs"),
        ({"ema_decay": 1.0, "optimizer": "adam"}, "`ema_decay`: a finite number from 0 to 0.99999; got 1.0"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Config(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "scales", "sizes"),
    [
        (512, "", [512]),
        (512, "auto", [128, 181, 256, 362, 512]),
        (1024, "auto", [128, 181, 256, 362, 512, 724, 1024]),
        (200, "auto", [141, 200]),
        (180, "auto", [180]),  # 127 is below 128
        (128, "auto", [128]),
        (90, "auto", [90]),
        (512, " 100, 512", [100, 512]),
        (512, "512", [512]),
    ],
)
def test_the_sizes_of_the_ladder(size, scales, sizes):
    assert [scale.size for scale in Config(size=size, scales=scales).pyramid()] == sizes


@pytest.mark.parametrize(
    ("iterations", "scales", "steps"),
    [
        (200, "", [200]),
        (1, "", [1]),
        (0, "", [0]),
        (3000, "auto", [1000, 500, 500, 500, 500]),  # that program's own
        (200, "auto", [68, 33, 33, 33, 33]),
        (6, "auto", [2, 1, 1, 1, 1]),
        (11, "auto", [7, 1, 1, 1, 1]),
        ((5, 4, 3, 2, 1), "auto", [5, 4, 3, 2, 1]),
        (7, "256,512", [5, 2]),
        (0, "auto", [0]),  # the first picture, as it is
    ],
)
def test_steps_are_divided_over_the_ladder(iterations, scales, steps):
    config = Config(iterations=iterations, scales=scales)
    assert [scale.iterations for scale in config.pyramid()] == steps
    assert config.steps == sum(steps)
    assert config.pyramid()[-1].size == 512


def test_a_shift_for_a_loss_without_one_is_refused(monkeypatch):
    monkeypatch.setitem(STYLE_LOSSES, "gram", STYLE_LOSSES["gram"]._replace(shifts=False))
    with pytest.raises(
        InputError, match="`activation_shift`: 0 for `style_loss=gram`, which has no shift; got -1"
    ):
        Config(activation_shift=-1.0)
    assert Config().style_loss == "gram"


def test_a_color_match_for_another_mode_is_refused_not_ignored():
    with pytest.raises(
        InputError, match="`color_match`: for `preserve_color=match`; got `preserve_color=luma`"
    ):
        Config.from_preset(color_match="transport", preserve_color="luma")


def test_a_matting_weight_for_what_is_no_photograph_is_refused_not_ignored():
    with pytest.raises(InputError, match="`matting_weight`: for `photorealistic`; got no `photorealistic`"):
        Config.from_preset(matting_weight=1.0)
    assert Config.from_preset(matting_weight=1.0, photorealistic=True).loss_weights(1).terms["matting"] == 1
    assert "matting" not in Config().loss_weights(1).terms


def test_numbers_for_the_chain_go_by_the_order_of_style_layers():
    config = Config(
        style_loss="chain", style_layers=("conv3_1", "conv1_1", "conv2_1"), style_layer_weights="3,1"
    )
    weights = config.loss_weights(1).parts["style"]
    assert (float(weights["conv2_1"]), float(weights["conv3_1"])) == (0.25, 0.75)


def test_telescoped_weights_by_hand():
    weights = Config.from_preset("tutorial", style_layers=("conv1_1", "conv2_1", "conv3_1", "conv4_1"))
    assert [float(w) for w in weights.loss_weights(1).parts["style"].values()] == [0.25, 0.25, 0.5, -1.0]


def test_a_learning_rate_for_lbfgs_is_refused_not_ignored():
    with pytest.raises(InputError, match="`learning_rate`: for `optimizer=adam`"):
        Config.from_preset(learning_rate=0.1)
    assert Config.from_preset(learning_rate=0.1, optimizer="adam").learning_rate == 0.1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "640", 640),
        ("style_mix", "1, 2.5", (1.0, 2.5)),
        ("style_layers", "conv1_1,conv2_1", ("conv1_1", "conv2_1")),
        ("style_weight", "1e5", 1e5),
        ("init", "a,b.png", "a,b.png"),
        ("style_mix", "", ()),
        ("iterations", "200", (200,)),
        ("iterations", "500, 200", (500, 200)),
    ],
)
def test_text_becomes_a_value(name, text, value):
    assert parse_option(FIELDS[name], text) == value


@pytest.mark.parametrize(
    ("name", "text"), [("size", "big"), ("size", "1.5"), ("style_mix", "1,,2"), ("size", "")]
)
def test_text_that_is_no_value(name, text):
    with pytest.raises(
        InputError, match=re.escape(f"`{name}`: {describe_range(FIELDS[name])}; got '{text}'")
    ):
        parse_option(FIELDS[name], text)


def test_every_option_has_help():
    assert all(field.metadata["help"] for field in FIELDS.values())


@pytest.mark.parametrize("option", [{"size": 10**400}, {"iterations": (10**400,)}])
def test_whole_numbers_of_hundreds_of_digits_are_out_of_bounds(option):
    with pytest.raises(InputError, match="got 10000"):
        Config(**option)


@pytest.mark.parametrize(
    ("effort", "work", "varies", "alone"),
    [("draft", 11.35, 0.06, 48), ("normal", 50, 0.01, 150), ("fine", 400, 0.01, 1200)],
)
def test_an_effort_is_the_same_work_at_every_size(effort, work, varies, alone):
    """In steps at the full size: each scale has half of the next one's pixels, the coarsest twice the steps.

    Of a draft each has a quarter of them, so the coarsest's second share counts a little at small sizes.
    """
    for size in (256, 512, 1024, 2048):
        scales = Config.from_preset(size=size, effort=effort).pyramid()
        assert sum(scale.iterations * (scale.size / size) ** 2 for scale in scales) == pytest.approx(
            work, rel=varies
        )
        assert Config(size=size, effort=effort).pyramid() == ((size, alone),)


def test_iterations_take_the_place_of_an_effort():
    assert Config.from_preset(iterations=30).steps == 30
    with pytest.raises(InputError, match="`effort`: without `iterations`, whose place it takes"):
        Config(effort="draft", iterations=30)
    assert Config(effort="draft", iterations=48).steps == 48  # as the settings in a picture have both
    assert dataclasses.replace(Config(effort="fine"), effort="draft").steps == 48
