"""One picture over several devices: the same numbers, the memory of a share, nothing gathered."""

import re
from functools import partial

import jax
import numpy as np
import pytest

from nst_jax.config import PRESETS, Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.images.masks import Masks
from nst_jax.objective import sharding
from nst_jax.optimize.loop import initial_state, run_chunk, start
from nst_jax.runs.memory_plan import make_plan, memory_use
from nst_jax.runs.problem import make_problem, shard_problem
from nst_jax.runs.transfer import stylize_steps

pytestmark = pytest.mark.usefixtures("optax_promotion")

LOW = {"style_layers": ("conv1_1", "conv3_1"), "content_layers": ("conv2_2",)}
GATHERED = re.compile(r"= \w+\[([\d,]+)\]\S* all-gather(?:-start)?\(")
ONE = {"style_layers": ("conv2_1",), "content_layers": ("conv2_2",)}
COLLECTIVES = re.compile(r"(?:all-gather|all-to-all|all-reduce|collective-permute)(?=(?:-start)?\()")


def picture(height, width, seed):
    """Return waves and some noise, so that nothing is symmetric."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (7 + 3 * c) + seed) * np.cos(y / (11 + 2 * c) + c) for c in range(3)], -1)
    noisy = 0.5 + 0.35 * waves + 0.1 * rng.standard_normal((height, width, 3))
    return noisy.clip(0.02, 0.98).astype(np.float32)


def prepare(params, shape, devices, masked=False, tile=0, **options):
    masks = None
    if masked:
        y, x = np.mgrid[: shape[0], : shape[1]]
        round_ = ((x - shape[1] / 2) ** 2 + (y - shape[0] / 2) ** 2 < (0.45 * min(shape)) ** 2) * 0.75
        sources = [picture(61, 37, seed)[..., 0] for seed in (8, 9)]
        masks = Masks(styles=[np.float32(round_), np.float32(y > 0.6 * shape[0])], sources=sources)
    styles = [picture(61, 37, 5), picture(61, 37, 6)]  # of one size, for one program
    problem = make_problem(params, picture(*shape, 1), styles, Config(**options), picture(*shape, 2), masks)
    problem = problem.replace(spec=problem.spec._replace(tile=tile))
    return shard_problem(problem, sharding.make_mesh(devices))


def begin(problem):
    """Return the state at step 0, and what a chunk takes beside it."""
    targets, spec = problem.targets(), problem.spec
    first = sharding.shard(sharding.pad(problem.first, spec), spec)
    rest = problem.inputs(targets), spec
    return start(first, *rest), rest


def loop(problem):
    """Return the compiled loop; nothing runs but the styles' statistics."""
    spec = problem.spec
    targets = sharding.placed(jax.eval_shape(problem.targets), spec)
    first = sharding.shard(sharding.pad(problem.first, spec), spec)
    state = jax.eval_shape(partial(initial_state, spec=spec), first, problem.weights)
    return run_chunk.lower(sharding.placed(state, spec), np.int32(1), problem.inputs(targets), spec).compile()


SMALLEST_LOOP = {"optimizer": "adam", "parametrization": "pixels"}  # where what is tested is the evaluation
CASES = {  # shape and options
    "gram": ((93, 51), {}),
    "chain": ((57, 45), {**LOW, "style_loss": "chain", "masked": True}),
    "wasserstein": ((60, 51), {**ONE, "style_loss": "wasserstein"}),
    "tutorial": ((45, 30), {**PRESETS["tutorial"], **LOW}),
    "luma": ((50, 35), {**ONE, "preserve_color": "luma", "pooling": "average", "masked": True}),
    "matched": ((61, 43), {**ONE, "style_loss": "remd", "content_loss": "laplacian", "masked": True}),
    "alike": ((59, 45), {**ONE, "style_loss": "patch", "content_loss": "self_similarity"}),
    "histogram": ((45, 41), {**ONE, "style_loss": "histogram"}),
    "photorealistic": ((59, 43), {**ONE, "photorealistic": True, "matting_weight": 1e7, "masked": True}),
    "less than a unit each": ((7, 33), LOW),
    "even": ((32, 16), LOW),
}


@pytest.mark.parametrize("case", CASES)
def test_gradient_and_terms_are_those_of_one_device(params, case):
    shape, options = CASES[case]
    options = {**options, **SMALLEST_LOOP}
    (one, _), (many, _) = (begin(prepare(params, shape, n, **options)) for n in (1, 4))
    expected, found = (np.asarray(s.iterate.gradient) / float(s.scale) for s in (one, many))
    assert np.linalg.norm(found[: shape[0]] - expected) <= 1e-5 * np.linalg.norm(expected)
    assert not found[shape[0] :].any()
    assert found.shape[0] % 4 == 0
    close = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, many.iterate.terms, one.iterate.terms)


def test_windows_are_of_columns_only_and_exact(params):
    options = {**ONE, **SMALLEST_LOOP, "photorealistic": True, "matting_weight": 1e7}
    (one, _), (many, _) = (begin(prepare(params, (35, 171), n, tile=64 * (n > 1), **options)) for n in (1, 4))
    expected, found = (np.asarray(s.iterate.gradient) / float(s.scale) for s in (one, many))
    assert np.linalg.norm(found[:35] - expected) <= 1e-5 * np.linalg.norm(expected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), many.iterate.terms, one.iterate.terms)
    program = loop(prepare(params, (35, 171), 4, tile=64, **options))
    assert "all-gather" not in program.as_text()


@pytest.mark.parametrize(
    ("optimizer", "parametrization"), [("lbfgs", "fourier"), ("lbfgs", "pixels"), ("adam", "pixels")]
)
def test_no_maps_are_gathered_and_each_device_needs_its_share_of_the_memory(
    params, optimizer, parametrization
):
    size = 512  # of smaller ones the borders that are exchanged have a larger share
    options = {"optimizer": optimizer, "parametrization": parametrization}
    one, many = (loop(prepare(params, (size, size), n, **options)) for n in (1, 4))
    gathered = [re.findall(r"\d+", shape) for shape in GATHERED.findall(many.as_text())]
    # The spectrum takes two pictures at once, and is gathered itself, plane by plane: six numbers a pixel.
    assert all(np.prod([int(side) for side in shape]) <= 6 * size**2 for shape in gathered)
    assert bool(gathered) == (parametrization == "fourier")
    kinds = set(COLLECTIVES.findall(many.as_text())) - {"all-gather"}
    assert kinds == {"all-reduce", "collective-permute"}
    temporary = [program.memory_analysis().temp_size_in_bytes for program in (one, many)]
    assert temporary[1] <= 0.35 * temporary[0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_state_stays_where_it_is(params, optimizer, compilations):
    """The optimizer's memory by rows from the first chunk on, so that a second one compiles nothing."""
    problem = prepare(params, (93, 32), 4, masked=True, optimizer=optimizer, **LOW)
    state, rest = begin(problem)
    targets = rest[0].targets
    for leaf in jax.tree.leaves((targets.terms["content"], targets.regions, targets.background)):
        assert not leaf.sharding.is_fully_replicated
    before = jax.tree.map(lambda leaf: leaf.sharding, state)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.is_fully_replicated == (leaf.ndim < 3)
    for _ in range(2):
        state = run_chunk(state, np.int32(1), *rest)
        same = jax.tree.map(lambda leaf, at: at.is_equivalent_to(leaf.sharding, leaf.ndim), state, before)
        assert all(jax.tree.leaves(same))
    assert compilations("run_steps") == 1


def test_a_run_gives_the_picture_of_one_device(params):
    shape = (45, 40)
    config = Config(iterations=3, optimizer="adam", **LOW)
    masks = Masks(content=np.float32(np.mgrid[:45, :40][1] > 12))
    pictures = [picture(*shape, 1), [picture(50, 40, 5)]]
    runs = [
        list(stylize_steps(params, *pictures, config=config, masks=masks, report_every=2, devices=devices))
        for devices in (1, jax.devices()[1:3])
    ]
    one, many = runs
    assert [now.step for now in many] == [0, 2, 3]
    assert many[-1].image.shape == (*shape, 3)
    np.testing.assert_allclose(many[-1].image, one[-1].image, atol=1e-3)
    np.testing.assert_allclose(many[-1].losses["total"], one[-1].losses["total"], rtol=1e-4)
    np.testing.assert_array_equal(many[-1].image[:, :13], pictures[0][:, :13])


def test_the_memory_forecast_compiles_the_programs_that_then_run(params, compilations):
    arguments = [params, picture(45, 40, 1), [picture(50, 40, 5)]]
    config = Config(iterations=2, **LOW)
    list(stylize_steps(*arguments, config=config, devices=4, free_memory=2**40))
    for program in ("wanted_of_style", "run_steps"):
        assert compilations(program) == 1
    with pytest.raises(NotEnoughMemory, match="a picture of 40x45 pixels needs"):
        list(stylize_steps(*arguments, config=config, devices=4, free_memory=2**20))


@pytest.mark.parametrize("devices", [0, 5])
def test_devices_that_are_not_there_are_refused(params, devices):
    with pytest.raises(InputError, match=f"`devices`: from 1 to 4, as many as there are; got {devices}"):
        next(stylize_steps(params, picture(45, 40, 1), [picture(50, 40, 5)], devices=devices))


def test_how_many_devices_have_work():
    spec = Config(content_layers=("conv1_1",), style_layers=("conv5_1",)).spec()
    assert [sharding.most_devices(height, spec) for height in (16, 31, 32, 100)] == [1, 1, 2, 6]


@pytest.mark.usefixtures("optax_promotion")
def test_rungs_and_averages_run_over_devices(params):
    """To the start of the second scale, which is the first one's own rows, enlarged; there Adam starts afresh."""
    config = Config(**ONE, optimizer="adam", ema_decay=0.9, size=77, scales="41,77", iterations=(2, 2))
    arguments = [params, picture(77, 50, 1), [picture(50, 40, 5)]]
    single, spread = (list(stylize_steps(*arguments, config=config, devices=count)) for count in (1, 3))
    for one, other in zip(single[:4], spread[:4], strict=True):
        assert one.image.shape == other.image.shape
        np.testing.assert_allclose(other.losses["total"], one.losses["total"], rtol=2e-3)


def test_what_has_all_its_rows_in_every_window_is_cut_by_columns_or_not_at_all(params):
    config = Config(**ONE, iterations=1)
    for shape, fits in (((300, 40), False), ((40, 300), True)):
        arguments = [params, picture(*shape, 1), [picture(50, 40, 5)], config]
        problem = shard_problem(make_problem(*arguments), sharding.make_mesh(2))
        free = memory_use(problem).peak - 1
        if fits:
            assert make_plan(problem, free).problem.spec.tile == 256
        else:
            with pytest.raises(NotEnoughMemory, match="40x300 pixels needs"):
                make_plan(problem, free)
