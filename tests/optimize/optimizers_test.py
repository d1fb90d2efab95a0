import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nst_jax.optimize import optimizers
from nst_jax.optimize.optimizers import OPTIMIZERS, PIXELS, Coordinates, Iterate

pytestmark = pytest.mark.usefixtures("optax_promotion")

RATE = jnp.float32(0.05)
ONE = {"all": jnp.float32(1)}


def quadratic(target, curvature):
    """Return the objective coefficient * sum curvature (x - target)^2 / 2."""
    return lambda image, factors: factors["all"] * jnp.sum(curvature * (image - target) ** 2) / 2


def evaluate(objective, coefficients, image):
    value, (gradient, terms) = jax.value_and_grad(objective, argnums=(0, 1))(image, coefficients)
    return Iterate(image, value, gradient, terms)


@pytest.fixture(params=sorted(OPTIMIZERS))
def optimizer(request):
    return OPTIMIZERS[request.param]


@pytest.fixture
def problem(rng):
    target = rng.uniform(0.2, 0.8, (4, 5, 3)).astype(np.float32)
    curvature = rng.uniform(1, 30, (4, 5, 3)).astype(np.float32)
    return quadratic(target, curvature), target


def run(optimizer, objective, image, steps, coefficients=ONE):
    """Return the iterates and the number of evaluations after the first."""
    step = jax.jit(
        lambda iterate, memory: optimizer.step(
            partial(evaluate, objective, coefficients), RATE, iterate, memory, PIXELS
        )
    )
    iterate, memory = evaluate(objective, coefficients, image), optimizer.init(image)
    iterates, count = [iterate], 0
    for _ in range(steps):
        iterate, memory, evaluations, _ = step(iterate, memory)
        iterates.append(iterate)
        count += int(evaluations)
    return iterates, count


def test_finds_the_known_minimum_of_a_quadratic(optimizer, problem):
    objective, target = problem
    iterates, _ = run(optimizer, objective, jnp.full((4, 5, 3), 0.5), 300)
    np.testing.assert_allclose(iterates[-1].image, target, atol=2e-3)


def test_finds_the_minimum_of_a_quadratic_in_the_box(optimizer):
    target = jnp.linspace(-0.5, 1.5, 60).reshape(4, 5, 3)
    objective = quadratic(target, jnp.full((4, 5, 3), 2.0))
    iterates, _ = run(optimizer, objective, jnp.full((4, 5, 3), 0.5), 200)
    np.testing.assert_allclose(iterates[-1].image, np.clip(target, 0, 1), atol=2e-3)


def test_every_picture_stays_in_the_box_with_its_own_value_gradient_and_terms(optimizer):
    objective = quadratic(jnp.linspace(-2, 3, 60).reshape(4, 5, 3), jnp.linspace(1, 9, 60).reshape(4, 5, 3))
    iterates, _ = run(optimizer, objective, jnp.full((4, 5, 3), 0.9), 8)
    for iterate in iterates:
        assert iterate.image.min() >= 0
        assert iterate.image.max() <= 1
        fresh = evaluate(objective, ONE, iterate.image)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), iterate, fresh)


def test_five_lbfgs_steps_inside_the_box_equal_optax_alone(rng):
    """Far from the border the projection does nothing: the steps are those of optax.lbfgs."""
    curvature = rng.uniform(1, 30, (4, 5, 3)).astype(np.float32)
    target = rng.uniform(0.4, 0.6, (4, 5, 3)).astype(np.float32)
    objective = quadratic(target, curvature)
    plain = optax.lbfgs(memory_size=10)

    def value(image):
        return objective(image, ONE)

    image = jnp.full((4, 5, 3), 0.5)
    ours, _ = run(OPTIMIZERS["lbfgs"], objective, image, 5)
    state = plain.init(image)
    for iterate in ours[1:]:
        updates, state = plain.update(
            jax.grad(value)(image),
            state,
            image,
            value=value(image),
            grad=jax.grad(value)(image),
            value_fn=value,
        )
        image = optax.apply_updates(image, updates)
        np.testing.assert_allclose(iterate.image, image, atol=1e-5)


def test_five_adam_steps_equal_the_papers_algorithm():
    """Kingma & Ba 2014, algorithm 1, in float64, with a projection to [0, 1] after each step."""
    curvature, target = np.linspace(1, 9, 12).reshape(2, 2, 3), np.linspace(-0.2, 1.1, 12).reshape(2, 2, 3)
    ours, count = run(
        OPTIMIZERS["adam"],
        quadratic(jnp.float32(target), jnp.float32(curvature)),
        jnp.full((2, 2, 3), 0.5),
        5,
    )
    x, m, v = np.full((2, 2, 3), 0.5), 0.0, 0.0
    for t in range(1, 6):
        g = curvature * (x - target)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = np.clip(x - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), 0, 1)
        np.testing.assert_allclose(ours[t].image, x, rtol=1e-5)
    assert count == 5


def test_lbfgs_restarts_its_memory_at_negative_curvature_and_still_descends():
    """A saddle: cos has s.y < 0 between 0 and pi/2 of its argument."""

    def objective(image, factors):
        return factors["all"] * jnp.sum(jnp.cos(3 * (image + 0.02)))

    iterates, _ = run(OPTIMIZERS["lbfgs"], objective, jnp.linspace(0.0, 0.4, 12).reshape(2, 2, 3), 30)
    values = [float(iterate.value) for iterate in iterates]
    assert all(after <= before for before, after in zip(values, values[1:], strict=False))
    np.testing.assert_allclose(iterates[-1].image, 1.0, atol=1e-3)  # cos(3.06) is the least in the box


def test_steps_grow_where_the_path_bends_down():
    """In units of a gradient of norm 1 a step moves each of many pixels by little, and no pair says more."""

    def objective(image, factors):
        return factors["all"] * jnp.sum(jnp.cos(3 * image)) / 300

    iterates, _ = run(OPTIMIZERS["lbfgs"], objective, jnp.full((60, 50, 3), 0.1), 10)
    assert iterates[1].image.mean() < 0.11
    np.testing.assert_allclose(iterates[-1].image, 1.0, atol=1e-3)


def test_a_path_without_curvature_ends_in_the_corner_of_the_box():
    """Where no direction is left there is none whose length could be asked for."""
    iterates, _ = run(
        OPTIMIZERS["lbfgs"], lambda image, _: jnp.sum(image) / 300, jnp.full((60, 50, 3), 0.3), 12
    )
    assert all(np.isfinite(iterate.value) for iterate in iterates)
    np.testing.assert_array_equal(iterates[-1].image, 0)


def two_loops(gradient, pairs, square):
    """Return -H g by Nocedal & Wright 1999, algorithm 7.4, in float64, in the coordinates z of x = S z."""
    q, alphas = square @ gradient, []
    inverse = np.linalg.inv(square)
    pairs = [(inverse @ s, square @ y) for s, y in pairs]
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    s, y = pairs[-1] if pairs else (q, max(1, np.linalg.norm(q)) * q)
    q = s @ y / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + s * (alpha - y @ q / (s @ y))
    return -square @ q


def test_descent_equals_the_two_loops_in_float64_also_when_slots_are_used_again_and_after_a_restart(rng):
    mixing = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    square = mixing @ np.diag(rng.uniform(0.5, 2, 24)) @ mixing.T
    hessian = mixing.T @ np.diag(rng.uniform(1, 30, 24)) @ mixing

    def at(x):
        image, gradient = (jnp.asarray(v.reshape(2, 4, 3), jnp.float32) for v in (x, hessian @ x))
        return Iterate(image, jnp.float32(0), gradient, {})

    def twice(pictures):
        parts = [square @ square @ np.ravel(part) for part in np.split(np.asarray(pictures), 2, -1)]
        return jnp.asarray(np.concatenate([part.reshape(2, 4, 3) for part in parts], -1), jnp.float32)

    memory, points = optimizers._lbfgs_init(jnp.zeros((2, 4, 3))), [rng.normal(size=24)]
    for step in range(27):
        points = [*points[-optimizers.PAIRS :], rng.normal(size=24)]
        old, new = at(points[-2]), at(points[-1])
        if step == 14:  # a step with s.y < 0
            new = new._replace(gradient=2 * old.gradient - new.gradient)
        memory = optimizers._remember(memory, old, new)
        if step == 14:
            points = points[-1:]
            assert memory.number == 0
            np.testing.assert_allclose(memory.leap, np.linalg.norm(new.image - old.image), rtol=1e-6)
            continue
        assert memory.leap == 0
        found, memory = optimizers._descent(memory, new.gradient, Coordinates(twice, twice))
        pairs = [(b - a, hessian @ (b - a)) for a, b in itertools.pairwise(points)]
        expected = two_loops(hessian @ points[-1], pairs, square)
        assert np.linalg.norm(np.ravel(found) - expected) <= 5e-5 * np.linalg.norm(expected), step
    assert len(pairs) == optimizers.PAIRS


def test_without_a_pair_the_step_is_down_the_slope_and_at_most_1_long():
    memory = optimizers._lbfgs_init(jnp.zeros((2, 4, 3)))
    for size in (0.01, 7.0):
        gradient = jnp.full((2, 4, 3), size)
        found, _ = optimizers._descent(memory, gradient, PIXELS)
        np.testing.assert_allclose(np.ravel(found), two_loops(np.ravel(gradient), [], np.eye(24)), rtol=1e-6)


def test_the_first_evaluation_and_a_step_that_stays_make_no_pair():
    image, unseen = jnp.full((2, 2, 3), 0.5), jnp.float32(jnp.inf)
    memory = optimizers._lbfgs_init(image)
    first = Iterate(image, unseen, jnp.zeros_like(image), {})
    seen = Iterate(image, jnp.float32(1), jnp.ones_like(image), {})
    memory = memory._replace(number=jnp.int32(3), leap=jnp.float32(2))
    for old, left in ((first, (3, 2)), (seen, (0, 0))):
        found = optimizers._remember(memory, old, seen)
        assert (found.number, found.leap) == left


def test_directions_do_not_leave_the_box():
    image, direction = jnp.float32([[[0, 0, 0.5], [1, 1, 0.5]]]), jnp.float32([[[-1, 1, -1], [-1, 1, 1]]])
    expected = np.float32([[[0, 1, -1], [-1, 0, 1]]])
    np.testing.assert_array_equal(optimizers._feasible(image, direction), expected)


def test_lbfgs_stays_where_the_search_finds_nothing_lower():
    """A picture at its minimum to the last bit: no move, no rise, and after one try from scratch it says so."""
    target = jnp.full((4, 5, 3), 0.25)
    objective = quadratic(target, jnp.full((4, 5, 3), 2.0))
    at = evaluate(objective, ONE, target)
    step = OPTIMIZERS["lbfgs"].step(
        partial(evaluate, objective, ONE), RATE, at, OPTIMIZERS["lbfgs"].init(target), PIXELS
    )
    np.testing.assert_array_equal(step.iterate.image, target)
    assert step.converged


def test_a_search_that_fails_starts_the_memory_anew_and_ends_only_from_scratch(monkeypatch):
    """A memory that leads far out, where nothing is finite: steepest descent is tried before the run ends."""
    image = jnp.full((2, 2, 3), 0.5)

    def objective(image, factors):
        near = jnp.abs(image - 0.5).max() < 0.4
        return factors["all"] * jnp.where(near, jnp.sum((image - 0.3) ** 2), jnp.inf)

    def far(memory, gradient, _):
        return jnp.where(memory.number == 0, -1, -1e38) * gradient, memory

    monkeypatch.setattr(optimizers, "_descent", far)
    calls = partial(evaluate, objective, ONE)
    at = calls(image)
    memory = optimizers._lbfgs_init(image)._replace(number=jnp.int32(1))
    step = optimizers._lbfgs_step(calls, RATE, at, memory, PIXELS)
    np.testing.assert_array_equal(step.iterate.image, image)
    assert step.evaluations == optimizers.TRIALS
    assert not step.converged
    step = optimizers._lbfgs_step(calls, RATE, step.iterate, step.memory, PIXELS)
    assert step.iterate.value < at.value
    monkeypatch.setattr(optimizers, "_descent", lambda memory, gradient, _: (-1e38 * gradient, memory))
    step = optimizers._lbfgs_step(calls, RATE, at, optimizers._lbfgs_init(image), PIXELS)
    assert not jnp.isfinite(step.iterate.value)  # for the loop to end on
    assert not step.converged


def test_lbfgs_evaluates_once_a_step_where_the_first_guess_is_good(problem):
    _, count = run(OPTIMIZERS["lbfgs"], problem[0], jnp.full((4, 5, 3), 0.5), 20)
    assert count < 30


def test_vmap_over_coefficients_equals_one_after_the_other(optimizer, problem):
    objective, _ = problem
    image = jnp.full((4, 5, 3), 0.5)
    batch = {"all": jnp.float32([0.5, 1.0, 20.0])}

    def three_steps(coefficients):
        iterate, memory = evaluate(objective, coefficients, image), optimizer.init(image)
        for _ in range(3):
            iterate, memory, _, _ = optimizer.step(
                partial(evaluate, objective, coefficients), RATE, iterate, memory, PIXELS
            )
        return iterate.image

    together = jax.jit(jax.vmap(three_steps))(batch)
    for n, picture in enumerate(together):
        np.testing.assert_allclose(picture, jax.jit(three_steps)({"all": batch["all"][n]}), atol=1e-5)
