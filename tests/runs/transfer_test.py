import jax
import numpy as np
import pytest
import reference

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.images import masks as masking
from nst_jax.images.masks import SEAM, Masks
from nst_jax.objective.objective import total_loss
from nst_jax.objective.targets import make_targets
from nst_jax.optimize.loop import Inputs, run_chunk, start
from nst_jax.runs.problem import first_picture, noise_picture
from nst_jax.runs.pyramid import settled
from nst_jax.runs.transfer import stylize, stylize_steps

pytestmark = pytest.mark.usefixtures("optax_promotion")

OPTIMIZERS = ["lbfgs", "adam"]
SHALLOW = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_1",)}
SHALLOW_TWIN = {
    "style_layers": SHALLOW["style_layers"],
    "style_weights": {"conv1_1": 0.5, "conv2_1": 0.5},
    "content_layers": {"conv2_1": 1.0},
}


@pytest.fixture(scope="module")
def pictures():
    """Return a content and a style picture with some structure."""
    rng = np.random.default_rng(3)
    grid = np.linspace(0, 3, 48)
    content = np.stack([np.sin(grid[:32, None] * k + grid[None] * (3 - k)) for k in range(3)], -1) * 0.4 + 0.5
    style = np.kron(rng.random((9, 7, 3)), np.ones((4, 6, 1)))
    return content.astype(np.float32), style.astype(np.float32)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_loss_goes_down_and_the_style_comes_in(params, pictures, optimizer):
    content, style = pictures
    config = Config(optimizer=optimizer, iterations=25, tv_weight=0.0)
    steps = list(stylize_steps(params, content, [style], config=config, report_every=5))
    totals = [progress.losses["total"] for progress in steps]
    assert [progress.step for progress in steps] == [0, 5, 10, 15, 20, 25]
    assert totals[-1] < 0.2 * totals[0]
    assert totals == sorted(totals, reverse=True)
    assert steps[-1].image.min() >= 0
    assert steps[-1].image.max() <= 1
    assert steps[-1].evaluations >= 26
    assert not any(progress.resume_state for progress in steps)  # which would keep the optimizer's memory


def test_without_a_config_it_is_the_default_preset_at_the_picture_s_size(params, rng):
    """Coarse to fine above 181 pixels, which wants the config's size to be the picture's."""
    content, style = rng.random((24, 182, 3), np.float32), rng.random((30, 40, 3), np.float32)
    first = next(stylize_steps(params, content, [style]))
    assert (first.scales, first.image.shape) == (2, (17, 129, 3))


@pytest.mark.parametrize("preset", ["wasserstein", "gatys", "strotss"])
def test_strength_0_is_the_photograph_to_the_bit(params, rng, preset):
    content, style = rng.random((96, 80, 3), np.float32), rng.random((80, 96, 3), np.float32)
    config = Config.from_preset(preset, strength=0.0, size=96, iterations=5)
    assert np.array_equal(stylize(params, content, [style], config=config).image, content)
    several = Config.from_preset(strength=0.0, iterations=(4, 3), scales="64,96", size=96)
    assert [scale.iterations for scale in several.pyramid()] == [4, 3]


def test_the_losses_told_are_those_of_the_picture_handed_out(params, weights, pictures):
    """After several steps of L-BFGS, whose terms come out of the line search, against the float64 twin."""
    content, style = pictures
    last = stylize(params, content, [style], config=Config(iterations=4, style_weight=1e6))
    twin, _ = reference.objective(weights.arrays, last.image, content, [style], beta=1e6, gamma=1e-3)
    for term in ("total", "content", "style", "tv"):
        np.testing.assert_allclose(last.losses[term], twin[term], rtol=1e-4, err_msg=term)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_chunked_equals_unchunked_bit_for_bit(params, pictures, optimizer):
    content, style = pictures
    config = Config(optimizer=optimizer, iterations=7, **SHALLOW)
    *_, whole = stylize_steps(params, content, [style], config=config, report_every=7)
    *_, chunked = stylize_steps(params, content, [style], config=config, report_every=3)
    np.testing.assert_array_equal(whole.image, chunked.image)
    assert whole.losses == chunked.losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_what_changes_the_program_compiles_anew(params, pictures, optimizer, compilations):
    content, style = pictures
    base = {
        "optimizer": optimizer,
        "iterations": 3,
        "pooling": "average",  # not compiled by other tests
        "style_layers": ("conv1_2", "conv2_1"),
        "content_layers": ("conv2_2",),
    }

    def run(content=content, **options):
        stylize(params, content, [style], config=Config(**{**base, **options}))

    run()
    assert compilations("run_steps") == 1
    run(iterations=8)
    run(content=content[::-1].copy())
    run(style_weight=1e4, content_weight=2.0, tv_weight=0.5, tv_power=2.0, activation_shift=-1.0)
    run(style_layer_weights="geometric")
    run(preserve_color="luma_swap")
    if optimizer == "adam":
        run(learning_rate=0.01)
    assert compilations("run_steps") == 1
    assert compilations("initial_state") == 1
    run(photorealistic=True, style_layers=("conv1_1", "conv2_2"))
    assert compilations("run_steps") == 2  # else the count above could not fail
    run(photorealistic=True, style_layers=("conv1_1", "conv2_2"), matting_weight=1.0)
    assert compilations("run_steps") == 2


def test_the_memory_forecast_compiles_the_programs_that_then_run(params, pictures, compilations):
    content, style = pictures
    config = Config(iterations=2, style_layers=("conv1_2",))
    list(stylize_steps(params, content, [style], config=config, free_memory=2**40))
    for program in ("wanted_of_style", "run_steps"):
        assert compilations(program) == 1


@pytest.mark.parametrize("iterations", [0, 2])
def test_what_does_not_fit_into_memory_is_refused_before_it_runs(params, pictures, iterations):
    content, style = pictures
    config = Config(iterations=iterations)
    with pytest.raises(NotEnoughMemory, match=r"needs 0\.\d GiB and 0\.1 GiB are free; \d+x\d+ would fit"):
        list(stylize_steps(params, content, [style], config=config, free_memory=130 * 2**20))
    large = np.zeros((400, 400, 3), np.float32)
    with pytest.raises(NotEnoughMemory, match="a picture of 400x400 pixels"):  # a style alone
        list(stylize_steps(params, content, [large], config=config, free_memory=280 * 2**20))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_has_a_fixed_type(params, pictures, optimizer):
    content, style = pictures
    config = Config(optimizer=optimizer)
    spec, weights = config.spec(), config.loss_weights(1)
    targets = make_targets(params, content, [style], spec)
    rate = jax.numpy.float32(0.01)
    inputs = Inputs(params=params, targets=targets, weights=weights, learning_rate=rate)
    before = start(jax.numpy.asarray(content), inputs, spec)
    types = jax.tree.map(jax.typeof, before)
    after = run_chunk(before, np.int32(1), inputs, spec)
    assert jax.tree.map(jax.typeof, after) == types


def test_a_loss_that_is_not_finite_ends_at_the_last_finite_picture(params, pictures):
    content, style = pictures
    config = Config(optimizer="adam", iterations=5, style_weight=1.0, tv_weight=3e38)
    # A flat picture has no variation; the first move away from it has, times more than float32 holds.
    gray = np.full_like(content, 0.5)
    first, *_, last = stylize_steps(params, content, [style], config=config, init=gray)
    assert first.finite
    assert not last.finite
    assert last.step == 0
    assert last.losses == first.losses
    np.testing.assert_array_equal(last.image, gray)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loss_that_is_not_finite_at_once_ends_at_once(params, pictures, optimizer):
    content, style = pictures
    config = Config(optimizer=optimizer, iterations=5, style_weight=3e38)
    (only,) = stylize_steps(params, content, [style], config=config)
    assert not only.finite
    assert (only.step, only.evaluations) == (0, 1)
    assert only.losses["style"] > 0  # what it met is told: without its weight it is finite
    np.testing.assert_array_equal(only.image, content)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_scale_of_the_weights_changes_nothing(params, pictures, optimizer):
    """Squares of gradients must fit into float32 whatever the weights: a power of two changes no bit."""
    content, style = pictures
    options = {"optimizer": optimizer, "iterations": 6, **SHALLOW}
    base = Config(content_weight=1.0, style_weight=2.0**20, tv_weight=2.0**-10, **options)
    last = stylize(params, content, [style], config=base)
    assert last.losses["style"] < 0.9 * first_loss(params, content, style, base)
    for power in (-80, 50):
        factor = 2.0**power
        scaled = Config(
            content_weight=factor, style_weight=2.0**20 * factor, tv_weight=2.0**-10 * factor, **options
        )
        np.testing.assert_array_equal(stylize(params, content, [style], config=scaled).image, last.image)


def first_loss(params, content, style, config):
    return next(stylize_steps(params, content, [style], config=config)).losses["style"]


def test_lbfgs_ends_where_no_step_lowers_the_loss(params, pictures):
    """A picture in its own style: the loss is 0 but for rounding, and no time is spent on that."""
    content, _ = pictures
    steps = list(
        stylize_steps(
            params,
            content,
            [content],
            config=Config(tv_weight=0.0, iterations=300, **SHALLOW),
            report_every=1,
        )
    )
    totals = [progress.losses["total"] for progress in steps]
    assert totals == sorted(totals, reverse=True)
    assert steps[-1].converged
    assert steps[-1].step < 100
    assert steps[-1].evaluations < 300


def test_numbers_that_are_no_pictures_are_refused(params, pictures):
    content, style = pictures
    with pytest.raises(InputError, match=r"content: floats in \[0, 1\]; got numbers from 2"):
        stylize(params, content * 255, [style])
    with pytest.raises(InputError, match=r"params: the parameters of vgg19; they lack conv3_4"):
        stylize(params, content, [style], config=Config(network="vgg19", style_layers=("conv5_4",)))


def test_texture_synthesis_without_content(params, pictures):
    _, style = pictures
    config = Config(init="noise", content_weight=0.0, iterations=20, tv_weight=0.0, **SHALLOW)
    steps = list(stylize_steps(params, None, [style], config=config))
    assert steps[-1].image.shape == style.shape
    assert steps[-1].losses["content"] == 0
    assert steps[-1].losses["content_by_layer"] == {}
    assert steps[-1].losses["style"] < 0.1 * steps[0].losses["style"]


def test_the_picture_does_not_depend_on_the_styles_size(params, pictures):
    content, style = pictures
    last = stylize(params, content, [style, style[:20, :31]], config=Config(iterations=1, **SHALLOW))
    assert last.image.shape == content.shape


def test_first_pictures(pictures):
    content, style = pictures
    np.testing.assert_array_equal(first_picture(content, [style], Config()), content)
    noise = first_picture(content, [style], Config(init="noise", seed=4))
    assert noise.shape == content.shape
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise, noise_picture(32, 48, 4))
    assert not np.array_equal(noise, noise_picture(32, 48, 5))
    assert abs(noise.mean() - 0.5) < 0.02
    np.testing.assert_array_equal(
        first_picture(content, [content[::-1]], Config(init="style")), content[::-1]
    )
    np.testing.assert_array_equal(first_picture(content, [style], Config(), noise), noise)
    with pytest.raises(InputError, match=r"init: the content's shape \(32, 48, 3\); got \(36, 42, 3\)"):
        first_picture(content, [style], Config(), style)


@pytest.mark.parametrize(
    ("content", "styles", "options", "message"),
    [
        (True, 0, {}, "style: at least one style picture"),
        (False, 1, {}, "content: a content picture, or content_weight 0"),
        (False, 1, {"content_weight": 0.0}, "init: content .with a content picture., noise.*got content"),
        (True, 1, {"init": "style"}, "init: .*style .of the picture's size.*got style"),
        (True, 2, {"style_mix": (1.0,)}, "`style_mix`: one number per style, 2; got 1"),
    ],
)
def test_pictures_and_options_that_do_not_go_together(params, pictures, content, styles, options, message):
    picture, style = pictures
    with pytest.raises(InputError, match=message):
        stylize(params, picture if content else None, [style] * styles, config=Config(**options))


def test_pictures_too_small_for_the_layers(params, pictures):
    content, style = pictures
    with pytest.raises(InputError, match="content: at least 16 pixels a side for layer conv5_1; got 48x12"):
        stylize(params, content[:12], [style], config=Config())
    with pytest.raises(InputError, match="style: at least 16 pixels a side for layer conv5_1; got 9x36"):
        stylize(params, content, [style[:, :9]], config=Config())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_rung_starts_from_the_last_picture_enlarged(params, weights, pictures, optimizer, compilations):
    content, style = pictures
    options = {"size": 48, "scales": "24,36,48", "iterations": (4, 3, 5), "pooling": "average", **SHALLOW}
    config = Config(optimizer=optimizer, style_weight=1e6, **options)
    steps = list(stylize_steps(params, content, [style], config=config, report_every=2))
    assert [(now.scale, now.step, now.image.shape[:2]) for now in steps] == [
        *((1, step, (16, 24)) for step in (0, 2, 4)),
        *((2, step, (24, 36)) for step in (4, 6, 7)),
        *((3, step, (32, 48)) for step in (7, 8, 10, 12)),  # chunks end at the same steps as of one scale
    ]
    assert {now.scales for now in steps} == {3}
    np.testing.assert_array_equal(steps[0].image, images.resize(content, 16, 24))
    for end, first in ((2, 3), (5, 6)):
        height, width, _ = steps[first].image.shape
        np.testing.assert_array_equal(steps[first].image, images.resize(steps[end].image, height, width))
        assert steps[first].evaluations == steps[end].evaluations + 1
    assert np.abs(steps[-1].image - content).mean() > 0.01
    for now in (steps[2], steps[-1]):  # of pictures of their own scale, at the balance of the last one
        height, width, _ = now.image.shape
        small = images.resize(content, height, width)
        scale = width / 48
        painted = images.resize(style, round(36 * scale), round(42 * scale))
        twin, _ = reference.objective(
            weights.arrays, now.image, small, [painted], beta=1e6 * scale**2, gamma=1e-3,
            pooling="average", **SHALLOW_TWIN,
        )  # fmt: skip
        for term in ("total", "content", "style", "tv"):
            np.testing.assert_allclose(now.losses[term], twin[term], rtol=1e-4, err_msg=term)
    assert compilations("run_steps") == compilations("initial_state") == 3  # one for each size


def test_one_rung_is_the_run_without_scales_to_the_bit(params, pictures):
    content, style = pictures
    plain, laddered = (
        stylize(params, content, [style], config=Config(size=48, iterations=3, scales=scales, **SHALLOW))
        for scales in ("", "48")
    )
    np.testing.assert_array_equal(plain.image, laddered.image)
    assert plain.losses == laddered.losses
    assert (plain.scale, plain.scales) == (laddered.scale, laddered.scales) == (1, 1)


def resampled(array, height, width, kernel, radius):
    """Enlarge by a kernel, literally: pixels are squares, weights sum to 1 at the border too."""
    for axis, new in ((0, height), (1, width)):
        old = array.shape[axis]
        where = (np.arange(new) + 0.5) * old / new - 0.5
        distance = np.abs(where[:, None] - np.arange(old))
        weights = np.where(distance < radius, kernel(distance), 0)
        weights /= weights.sum(1, keepdims=True)
        array = np.moveaxis(np.tensordot(weights, array, (1, axis)), 0, axis)
    return array


def keys(t):
    """Return the cubic kernel of Keys 1981, a = -1/2."""
    return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)


def test_adams_moments_go_on_from_rung_to_rung(params, pictures):
    """The first step of a scale, from a NumPy Adam that keeps its moments in the gradient's own units."""
    content, style = pictures
    config = Config(
        **{"optimizer": "adam", "parametrization": "pixels", "learning_rate": 0.01},
        **{"size": 48, "scales": "24,48", "iterations": (4, 1), **SHALLOW},
    )
    spec = config.spec()
    steps = list(stylize_steps(params, content, [style], config=config, report_every=1))
    slope = jax.jit(jax.grad(total_loss, argnums=1), static_argnames="spec")

    def gradient(now):
        height, width, _ = now.image.shape
        small = images.resize(content, height, width)
        painted = style if width == 48 else images.resize(style, 18, 21)
        targets = make_targets(params, small, [painted], spec)
        weights = Config(style_weight=1e8 * (width / 48) ** 2, **SHALLOW).loss_weights(1)
        return np.asarray(slope(params, now.image, targets, weights, spec), np.float64)

    first = second = np.zeros((16, 24, 3))
    for now in steps[:4]:
        g = gradient(now)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
    before, after = steps[5:]
    g = gradient(before)
    first = 0.9 * resampled(first, 32, 48, keys, 2) + 0.1 * g
    second = 0.999 * resampled(second, 32, 48, lambda t: 1 - t, 1) + 0.001 * g**2
    step = (first / (1 - 0.9**5)) / np.sqrt(second / (1 - 0.999**5))
    expected = np.clip(before.image - 0.01 * step, 0, 1)
    np.testing.assert_allclose(after.image, expected, atol=2e-5)
    fresh = np.clip(before.image - 0.01 * np.sign(g), 0, 1)
    assert np.abs(after.image - fresh).max() > 5e-3  # else a scale that starts afresh would pass


def test_the_average_is_that_of_a_loop_with_its_bias_corrected(params, weights, pictures, compilations):
    content, style = pictures
    options = {"optimizer": "adam", "iterations": 6, "tv_weight": 0.01, **SHALLOW}
    plain = list(stylize_steps(params, content, [style], config=Config(**options), report_every=1))
    before = compilations("run_steps")
    for decay in (0.9, 0.5):
        averaged = list(
            stylize_steps(params, content, [style], config=Config(ema_decay=decay, **options), report_every=1)
        )
        np.testing.assert_array_equal(averaged[0].image, content)
        total = np.zeros(content.shape)
        for t, (own, now) in enumerate(zip(plain[1:], averaged[1:], strict=True), 1):
            total = decay * total + (1 - decay) * np.float64(own.image)
            np.testing.assert_allclose(now.image, total / (1 - decay**t), rtol=0, atol=1e-6)
            if t < 6:
                assert now.losses == own.losses  # of the newest picture
        last = averaged[-1]
        assert last.evaluations == plain[-1].evaluations + 1
        twin, _ = reference.objective(
            weights.arrays, last.image, content, [style], beta=1e8, gamma=0.01, **SHALLOW_TWIN
        )
        for term in ("total", "content", "style", "tv"):
            np.testing.assert_allclose(last.losses[term], twin[term], rtol=1e-4, err_msg=term)
    assert compilations("run_steps") == before + 1  # another decay is no other program


def test_the_average_starts_the_next_rung_and_starts_anew(params, pictures):
    content, style = pictures
    config = Config(optimizer="adam", ema_decay=0.9, size=48, scales="24,48", iterations=(5, 2), **SHALLOW)
    steps = list(stylize_steps(params, content, [style], config=config, report_every=1))
    end, begin, step, _ = steps[5:]
    np.testing.assert_array_equal(begin.image, images.resize(end.image, 32, 48))
    spec = config.spec()
    targets = make_targets(params, content, [style], spec)
    own = float(total_loss(params, step.image, targets, config.loss_weights(1), spec))
    np.testing.assert_allclose(step.losses["total"], own, rtol=1e-4)  # nothing but the newest is in it


def test_a_step_that_is_not_taken_is_not_averaged(params, pictures):
    content, style = pictures
    config = Config(
        optimizer="adam", ema_decay=0.5, iterations=5, style_weight=1.0, tv_weight=3e38, **SHALLOW
    )
    *_, last = stylize_steps(params, content, [style], config=config, init=np.full_like(content, 0.5))
    assert not last.finite
    np.testing.assert_array_equal(last.image, 0.5)


def test_a_loss_that_is_not_finite_ends_the_whole_ladder(params, pictures):
    content, style = pictures
    config = Config(size=48, scales="24,48", iterations=4, style_weight=3e38, **SHALLOW)
    (only,) = stylize_steps(params, content, [style], config=config)
    assert (only.finite, only.scale) == (False, 1)


def test_a_rung_that_has_converged_is_followed_by_the_next(params, pictures):
    content, style = pictures
    config = Config(size=48, scales="24,48", iterations=(5, 3), style_weight=0.0, tv_weight=0.0, **SHALLOW)
    steps = list(
        stylize_steps(params, content, [style], config=config, report_every=1)
    )  # the first is the content itself
    assert [(now.scale, now.step, now.converged) for now in steps[:3]] == [
        (1, 0, False),
        (1, 0, True),
        (2, 0, False),
    ]
    assert (steps[-1].scale, steps[-1].step) == (2, 3)
    assert steps[-1].losses["total"] < steps[2].losses["total"]


def test_noise_is_of_the_first_rungs_size(params, pictures):
    content, style = pictures
    config = Config(init="noise", seed=4, size=48, scales="24,48", iterations=(1, 1), **SHALLOW)
    first = next(stylize_steps(params, content, [style], config=config, init=noise_picture(32, 48, 4)))
    np.testing.assert_array_equal(first.image, noise_picture(16, 24, 4))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masks_and_several_styles_on_every_rung(params, pictures, optimizer):
    content, style = pictures
    left, right = half(content), half(content, slice(28, 44))
    config = Config(
        optimizer=optimizer, size=48, scales="24,48", iterations=(3, 3), style_weight=1e7, **SHALLOW
    )
    styles = [style, style[::-1, :30].copy()]
    masks = Masks(styles=[left, right], sources=[None, half(styles[1], slice(0, 20))])
    steps = list(stylize_steps(params, content, styles, config=config, masks=masks))
    for now in steps:
        height, width, _ = now.image.shape
        outside = masking.resize(left, height, width) + masking.resize(right, height, width) == 0
        np.testing.assert_array_equal(now.image[outside], images.resize(content, height, width)[outside])
        assert len(now.losses["by_style"]) == 2
    assert steps[-1].losses["total"] < next(now for now in steps if now.scale == 2).losses["total"]
    assert np.abs(steps[-1].image[:, :20] - content[:, :20]).mean() > 0.01


def test_around_a_texture_in_a_mask_each_rung_has_its_own_first_picture(params, pictures):
    _, style = pictures
    options = {"content_weight": 0.0, "size": 42, "scales": "21,42", "iterations": (2, 2)}
    config = Config(init="style", **SHALLOW, **options)
    last = stylize(params, None, [style], config=config, init=style, masks=Masks(content=half(style)))
    np.testing.assert_array_equal(last.image[:, 24:], style[:, 24:])  # not enlarged from the smaller one


@pytest.mark.parametrize(
    ("options", "masks", "message"),
    [
        ({"size": 64, "scales": "24,64"}, None, "`size`: 48, the longest side of the picture; .*; got 64"),
        ({"size": 48, "scales": "20,48"}, None, r"content: at least 16 pixels a side for layer conv5_1; got 20x13 \(scale 1 of 2, 20 pixels\)"),
        ({"size": 48, "scales": "24,30,48", "style_layers": ("conv3_1",)}, Masks(content=np.float32(np.arange(48) < 2) * np.float32(np.arange(32) < 8)[:, None]), r"`content_mask`: the region .* of conv3_1.*\(scale 1 of 3, 24 pixels\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_some_rung_is_refused_before_the_first(params, pictures, options, masks, message):
    content, style = pictures
    with pytest.raises(InputError, match=message):
        next(stylize_steps(params, content, [style], config=Config(iterations=20, **options), masks=masks))


def test_the_memory_of_all_rungs_is_forecast_before_the_first_one_runs(params, pictures, compilations):
    content, style = pictures
    config = Config(
        size=48, scales="24,48", iterations=4, optimizer="adam", ema_decay=0.5, pooling="average", **SHALLOW
    )
    steps = stylize_steps(params, content, [style], config=config, free_memory=2**40)
    next(steps)
    assert (compilations("run_steps"), compilations("initial_state")) == (2, 1)  # 24 has begun
    list(steps)
    assert (compilations("run_steps"), compilations("initial_state")) == (2, 2)


def half(content, white=slice(0, 24)):
    mask = np.zeros(content.shape[:2], np.float32)
    mask[:, white] = 1
    return mask


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("init", ["content", "noise"])
def test_outside_the_masks_the_picture_is_the_content_to_the_bit(params, pictures, optimizer, init):
    content, style = pictures
    config = Config(optimizer=optimizer, iterations=6, init=init, style_weight=1e9, **SHALLOW)
    last = stylize(params, content, [style], config=config, masks=Masks(content=half(content)))
    np.testing.assert_array_equal(last.image[:, 24:], content[:, 24:])
    assert np.abs(last.image[:, :24] - content[:, :24]).mean() > 0.01
    assert np.abs(last.image[:, : 24 - SEAM] - content[:, : 24 - SEAM]).mean() > 0.01


def test_the_style_is_all_there_eight_pixels_from_a_mask_s_border(params):
    """The mean change of a photograph by the default preset, by that beyond 24 pixels; docs/masks.md has more."""
    content, style = (images.resize(images.load(f"example:{name}").rgb, 96, 96) for name in ("cat", "glass"))
    mask = np.zeros((96, 96), np.float32)
    mask[:, :60] = 1
    config = Config.from_preset(size=96, iterations=12)
    last = stylize(params, content, [style], config=config, masks=Masks(content=mask))
    change = np.abs(last.image - content).mean((0, 2))[:60][::-1]  # by pixels from the border
    assert change[5:8].mean() > 0.9 * change[24:].mean()
    np.testing.assert_array_equal(last.image[:, 60:], content[:, 60:])


def test_the_ring_of_a_mask_goes_on_to_the_next_rung(params, pictures):
    content, style = pictures
    given = {"optimizer": "adam", "learning_rate": 1e-8, "parametrization": "pixels", "size": 48, **SHALLOW}
    masks, small = Masks(content=half(content)), noise_picture(16, 24, 4)
    config = Config(init="noise", seed=4, scales="24,48", iterations=(1, 1), **given)
    last = stylize(params, content, [style], config=config, masks=masks)
    # Half of the picture: the ring has all of the other half.
    one = Config(iterations=1, **given)
    alone = stylize(params, content, [style], config=one, init=images.resize(small, 32, 48), masks=masks)
    np.testing.assert_allclose(last.losses["total"], alone.losses["total"], rtol=1e-4)


@pytest.mark.parametrize("preserve_color", ["luma_swap", "luma", "match", "histogram"])
@pytest.mark.parametrize("style_loss", ["gram", "chain"])
def test_masks_colors_losses_and_several_styles_work_together(params, pictures, preserve_color, style_loss):
    content, style = pictures
    config = Config(
        preserve_color=preserve_color,
        style_loss=style_loss,
        iterations=4,
        style_layer_weights="geometric",
        **SHALLOW,
    )
    left, right = half(content), half(content, slice(28, 44))
    masks = Masks(styles=[left, right], sources=[None, half(style, slice(0, 30))])
    first, *_, last = stylize_steps(params, content, [style, style[::-1].copy()], config=config, masks=masks)
    assert last.losses["total"] < first.losses["total"]
    outside = left + right == 0
    np.testing.assert_array_equal(last.image[outside], content[outside])
    assert len(last.losses["by_style"]) == 2
    mixed = sum(one["style"] for one in last.losses["by_style"]) / 2
    np.testing.assert_allclose(mixed, last.losses["style"], rtol=1e-6)


def test_a_texture_within_a_mask_leaves_the_first_picture_around_it(params, pictures):
    _, style = pictures
    config = Config(init="noise", content_weight=0.0, iterations=4, **SHALLOW)
    first, *_, last = stylize_steps(params, None, [style], config=config, masks=Masks(content=half(style)))
    np.testing.assert_array_equal(last.image[:, 24:], first.image[:, 24:])
    assert last.losses["style"] < first.losses["style"]


def test_luma_optimizes_nothing_but_luma(params, pictures):
    content, style = pictures
    last = stylize(
        params,
        content,
        [style],
        config=Config(preserve_color="luma", iterations=5, style_weight=1e9, **SHALLOW),
    )
    weights = np.array([0.299, 0.587, 0.114])
    for blue, scale in ((2, 1.772), (0, 1.402)):  # Cb and Cr, BT.601 full range
        chroma = [(x[..., blue] - np.float64(x) @ weights) / scale for x in (last.image, content)]
        np.testing.assert_allclose(*chroma, atol=1e-6)
    assert np.abs(last.image - content).mean() > 0.005


def test_another_mask_of_the_same_size_compiles_nothing(params, pictures, compilations):
    content, style = pictures
    config = Config(iterations=2, style_layers=("conv2_1",), content_layers=("conv2_2",))
    for white in (slice(0, 24), slice(5, 44)):
        stylize(params, content, [style], config=config, masks=Masks(content=half(content, white)))
    assert compilations("run_steps") == 1
    stylize(params, content, [style], config=config)
    assert compilations("run_steps") == 2  # without masks it is another program


def test_a_small_region_takes_the_style_as_well_as_a_large_one(params, pictures):
    """Area normalization: what is left of the style loss after some steps, 5 % against 50 % of the picture."""
    content = np.tile(pictures[0], (6, 4, 1))  # 192x192
    options = {"content_weight": 0.0, "tv_weight": 0.0, **SHALLOW}
    shares = {}
    for name, white in {"small": np.s_[60:103, 60:103], "large": np.s_[:, :96]}.items():
        mask = np.zeros((192, 192), np.float32)
        mask[white] = 1
        steps = stylize_steps(
            params, content, [pictures[1]], config=Config(iterations=12, **options), masks=Masks(content=mask)
        )
        first, *_, last = steps
        shares[name] = last.losses["style"] / first.losses["style"]
    assert shares["large"] < 0.1
    assert shares["small"] < 2 * shares["large"], shares


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (Masks(styles=[None]), "`style_mask`: one for each of the 2 styles; got 1"),
        (Masks(sources=[None] * 3), "`style_source_mask`: one for each of the 2 styles; got 3"),
        (Masks(content=np.ones((32, 32), np.float32)), r"`content_mask`: rows and columns \(32, 48\); got \(32, 32\)"),
        (Masks(styles=[None, np.full((32, 48), 2, np.float32)]), r"`style_mask 2`: float32 numbers in \[0, 1\]"),
        (Masks(styles=[None, np.zeros((32, 48), np.float32)]), "`style_mask 2`: .*conv5_1.*0 of one"),
        (Masks(content=np.ones((32, 48), np.float32) * (np.arange(48) < 24), styles=[None, np.float32(np.arange(48) >= 24) * np.ones((32, 1), np.float32)]), "`style_mask 2` within `content_mask`: "),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused(params, pictures, masks, message):
    content, style = pictures
    with pytest.raises(InputError, match=message):
        stylize(params, content, [style, style], config=Config(iterations=1), masks=masks)


def test_a_color_mode_needs_a_content(params, pictures):
    config = Config(preserve_color="match", content_weight=0.0, init="noise")
    with pytest.raises(InputError, match="`preserve_color`: none where there is no content"):
        stylize(params, None, [pictures[1]], config=config)


def test_a_color_that_does_not_vary_is_named_with_its_style_and_its_mask(params, pictures):
    content, style = pictures
    flat = content.copy()
    flat[:, :24] = 0.5
    masks = Masks(styles=[half(content, slice(24, 48)), half(content)])
    message = r"`preserve_color=luma`: a content that varies in brightness; .* \(style 2, where the masks are white\)"
    with pytest.raises(InputError, match=message):
        stylize(params, flat, [style, style], config=Config(preserve_color="luma"), masks=masks)


NARROW = np.float32(np.arange(300 * 30 * 3).reshape(30, 300, 3) % 251 / 250)


@pytest.mark.parametrize(
    ("content", "style", "masks", "scales"),
    [
        (np.ones((300, 300, 3), np.float32), np.ones((300, 300, 3), np.float32), None, "auto"),
        (NARROW, np.ones((300, 300, 3), np.float32), None, "212,300"),  # of 16 rows at least: 300 / 2^(1/2)
        (np.ones((300, 300, 3), np.float32), NARROW, None, "212,300"),
        (None, NARROW, None, "212,300"),
        (NARROW[:8], NARROW, None, "auto"),  # too narrow for any: as it is, for who refuses it
        (np.ones((300, 300, 3), np.float32), np.ones((300, 300, 3), np.float32), 28, "212,300"),
    ],
)
def test_an_automatic_ladder_has_no_rung_that_is_too_small(content, style, masks, scales):
    """masks: the side of a white square; the deepest layer's positions have 16, of which 150 pixels leave 14."""
    if masks:
        white = np.zeros((300, 300), np.float32)
        white[32 : 32 + masks, 32 : 32 + masks] = 1
        masks = Masks(content=white)
    given = {"init": "noise", "content_weight": 0.0} if content is None else {}
    config = Config.from_preset(size=300, iterations=(9,), **given)
    assert [scale.size for scale in config.pyramid()] == [150, 212, 300]
    found = settled(config, content, [style], None, masks)
    assert found.scales == scales


def test_a_shorter_ladder_takes_the_last_of_the_steps_given():
    config = Config.from_preset(size=300, iterations=(5, 4, 3))
    found = settled(config, NARROW, [np.ones((300, 300, 3), np.float32)])
    assert (found.scales, found.iterations) == ("212,300", (4, 3))
