"""The strength steers: measured against LPIPS by the judge, and against the law by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nst_jax.config import TEXTURE, Config
from nst_jax.images.masks import Masks
from nst_jax.metrics import judge
from nst_jax.objective.weights import Dial, steered
from nst_jax.optimize import steering
from nst_jax.optimize.loop import run_chunk, start
from nst_jax.optimize.optimizers import OPTIMIZERS
from nst_jax.runs.problem import make_problem
from nst_jax.runs.pyramid import make_problems
from nst_jax.runs.sweep import sweep
from nst_jax.runs.transfer import run, stylize, stylize_steps

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_1",)}


@pytest.fixture(scope="module")
def pair():
    """Return a photograph of shapes and a painting of strokes, of 64 pixels."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:64, :64] / 64
    content = np.stack([np.hypot(y - 0.5, x - 0.4) < 0.3, x > y, np.sin(9 * x) > 0], -1) * 0.6 + 0.2
    style = np.kron(rng.random((16, 8, 3)), np.ones((4, 8, 1)))
    return content.astype(np.float32), style.astype(np.float32)


def measured(image, content):
    network = judge.load()
    return float(judge.lpips(judge.view(network, image), judge.view(network, content)))


@pytest.mark.parametrize("preset", ["gatys", "wasserstein"])
def test_a_strength_is_the_same_distance_from_every_photograph(params, pair, rng, preset):
    """Of another pair, whose style is noise, the same weights make another distance, by up to 0.3."""
    content, style = pair
    for painting in (style, rng.random((64, 64, 3), np.float32)):
        config = Config.from_preset(preset, strength=0.5, iterations=30)
        last = stylize(params, content, [painting], config=config)
        distance = measured(last.image, content)
        assert distance == pytest.approx(TEXTURE * 0.5, abs=0.05)
        assert last.lpips == pytest.approx(distance, rel=1e-3)


def test_pictures_are_measured_at_256_pixels_and_within_the_masks(params, rng):
    content, style = rng.random((300, 96, 3), np.float32), rng.random((48, 48, 3), np.float32)
    mask = np.zeros(content.shape[:2], np.float32)
    mask[:, :40] = 1
    config = Config(strength=0.5, **LAYERS)
    problem = make_problem(params, content, [style], config, masks=Masks(content=mask))
    ruler, targets = steering.make_ruler(problem.content, problem.spec), problem.targets()
    assert ruler is not None
    assert ruler.photograph["conv1_2"].shape == (256, 82, 64)
    image = rng.random(content.shape, np.float32)
    state = start(jnp.asarray(image), problem.inputs(targets), problem.spec)
    found = steering.steer(state, targets.background, ruler, jnp.float32(0.3), np.int32(0), problem.spec)
    opacity = np.asarray(targets.background.opacity)
    shown = opacity[..., None] * image + (1 - opacity[..., None]) * content
    small = [np.asarray(jax.image.resize(one, (256, 82, 3), "linear")) for one in (shown, content)]
    assert float(found.dial.seen) == pytest.approx(measured(*small) / opacity.mean(), rel=1e-3)


def state_at(problem, targets, seen, step):
    """Return a state whose picture was last seen at a distance, after some steps from the photograph."""
    state = start(jnp.asarray(seen), problem.inputs(targets), problem.spec)
    dial = Dial(log_ratio=jnp.float32(0.5), first=jnp.float32(0), seen=jnp.float32(0))
    return state.replace(step=jnp.int32(step), dial=dial)


@pytest.mark.parametrize(
    ("step", "target_lpips", "converged", "acts"),
    [
        (10, 0.6, False, True),
        (10, 0.01, False, True),
        (9, 0.6, False, False),  # not yet due
        (9, 0.6, True, True),  # no step is left without it
        (10, np.nan, False, False),
    ],
)
def test_the_correction_is_the_law_by_hand(params, pair, rng, step, target_lpips, converged, acts):
    content, style = pair
    problem = make_problem(params, content, [style], Config(strength=0.5, **LAYERS))
    targets, ruler = problem.targets(), steering.make_ruler(problem.content, problem.spec)
    image = np.clip(content + 0.05 * rng.standard_normal(content.shape).astype(np.float32), 0, 1)
    state = state_at(problem, targets, image, step).replace(converged=jnp.asarray(converged))
    found = steering.steer(state, None, ruler, jnp.float32(target_lpips), np.int32(20), problem.spec)
    seen = measured(image, content)
    wanted = target_lpips * (1 - np.exp(-(20 + step) / 6))
    odds = [one / (0.7 - one) for one in (wanted, seen)]
    moved = np.clip(0.85 * np.log(odds[0] / odds[1]), -1.2, 1.2) if acts else 0
    np.testing.assert_allclose(found.dial.log_ratio, 0.5 + moved, rtol=1e-3)
    assert bool(np.isinf(found.iterate.value)) == acts
    assert bool(np.any(found.iterate.gradient)) != acts
    assert bool(found.converged) == (converged and not acts)
    before, after = problem.weights.terms, steered(problem.weights, found.dial).terms
    ratio = (after["style"] / after["content"]) / (before["style"] / before["content"])
    assert after["tv"] == before["tv"]
    np.testing.assert_allclose(ratio, np.exp(0.5 + moved), rtol=2e-3)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_picture_of_other_weights_is_evaluated_and_nothing_else_changes(params, pair, optimizer):
    content, style = pair
    problem = make_problem(params, content, [style], Config(optimizer=optimizer, strength=0.5, **LAYERS))
    rest = problem.inputs(problem.targets()), problem.spec
    state = run_chunk(start(jnp.asarray(content), *rest), np.int32(12), *rest)
    stands = jax.device_get(state)
    iterate = state.iterate
    again = state.replace(
        iterate=iterate._replace(value=jnp.float32(np.inf), gradient=0 * iterate.gradient),
        step=state.step + 0,
    )
    found = jax.device_get(run_chunk(again, np.int32(0), *rest))
    assert found.evaluations == stands.evaluations + 1
    np.testing.assert_allclose(found.iterate.gradient, stands.iterate.gradient, atol=1e-6)
    known = [state.memory._asdict() for state in (found, stands)]
    for name in known[0].keys() - {"products"}:  # which have the newest pair's column now, as a step has it
        for one, other in zip(*(jax.tree.leaves(memory[name]) for memory in known), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
    assert (found.step, found.scale) == (stands.step, stands.scale)
    np.testing.assert_array_equal(found.iterate.image, stands.iterate.image)


def test_neither_chunks_nor_a_rest_between_change_what_comes_of_it(params, pair):
    content, style = pair
    config = Config.from_preset(strength=0.6, size=64, scales="48,64", iterations=(11, 9), **LAYERS)
    *_, whole = stylize_steps(params, content, [style], config=config, report_every=20)
    problems = make_problems(params, content, [style], config)
    for seen in run(problems, report_every=3):
        if seen.step == 15:
            stands = seen.resume_state.replace(state=jax.device_get(seen.resume_state.state))
    *_, resumed = run(problems, report_every=4, resume_state=stands)
    np.testing.assert_array_equal(whole.image, resumed.image)
    assert whole.losses == resumed.losses


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "ema_decay": 0.5}])
def test_the_value_is_that_of_the_weights_in_force(params, pair, options):
    """At the start of a scale, too, which goes on with the weights of the one before."""
    content, style = pair
    sizes = {"size": 64, "scales": "48,64", "iterations": (12, 7)}
    problems = make_problems(params, content, [style], Config(strength=0.9, **options, **sizes, **LAYERS))
    for seen in run(problems, report_every=3):
        state, average = seen.resume_state.state, "ema_decay" in options and seen.ends
        if np.isfinite(state.iterate.value) and not average:  # else the losses are another picture's
            assert float(state.iterate.value / state.scale) == pytest.approx(seen.losses["total"], rel=1e-4)
        taken = seen.step, seen.scale
    assert abs(state.dial.log_ratio) > 0.1
    assert taken == (19, 2)


def test_strengths_are_lanes_of_one_program(params, pair, compilations):
    content, style = pair[0][:, :56], pair[1]  # not compiled by other tests
    configs = [Config(strength=strength, iterations=10, **LAYERS) for strength in (0.0, 0.2, 0.3, 0.6)]
    problems = [make_problem(params, content, [style], config) for config in configs]
    problems = [problem.replace(content=content, styles=problems[0].styles) for problem in problems]
    found = {}
    for now in sweep(problems, batch_size=4):
        found |= now.finished
    assert compilations("_advance") == 1
    for number, config in enumerate(configs):
        alone = stylize(params, content, [style], config=config)
        assert found[number].lpips == pytest.approx(alone.lpips, abs=0.01)
        ratio = [one.losses["weights"]["style"] for one in (found[number], alone)]
        np.testing.assert_allclose(*ratio, rtol=0.05)
    assert compilations("run_steps") == 1
    assert compilations("turn") == 1
    np.testing.assert_array_equal(found[0].image, content)


def test_over_devices_it_is_steered_as_on_one(params, pair):
    content, style = pair
    config = Config(strength=0.5, iterations=10, **LAYERS)
    one, four = (stylize_steps(params, content, [style], config=config, devices=n) for n in (1, 4))
    (*_, one), (*_, four) = one, four
    assert four.lpips == pytest.approx(one.lpips, abs=0.01)
    assert four.losses["weights"] == pytest.approx(one.losses["weights"], rel=0.05)


def test_only_a_strength_with_a_photograph_to_measure_against_steers(params, pair):
    content, style = pair

    def steered(content=content, **given):
        return make_problem(params, content, [style], Config(**given, **LAYERS)).spec.steered

    assert steered(strength=0.5)
    assert steered(preset="wasserstein", strength=0.5)
    assert not steered(preset="wasserstein")
    assert not steered()
    assert not steered(preset="wasserstein", style_weight=2.0)
    assert not steered(preset="strotss")
    assert not steered(content[:15], strength=0.5)  # LPIPS's deepest layer sees nothing
    assert not steered(None, content_weight=0.0, loss_balancing="auto", init="noise")


def test_rulers_have_the_shapes_that_the_plan_is_told(params, pair):
    content, style = pair
    problem = make_problem(params, content, [style], Config(strength=0.5, **LAYERS))
    shapes, ruler = (
        steering.ruler_shapes(problem.content, problem.spec),
        steering.make_ruler(problem.content, problem.spec),
    )
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, ruler)
