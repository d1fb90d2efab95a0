import jax
import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.images.masks import Masks
from nst_jax.runs import sweep as sweeping
from nst_jax.runs.problem import make_problem, with_hyperparameters
from nst_jax.runs.sweep import sweep
from nst_jax.runs.transfer import stylize

pytestmark = pytest.mark.usefixtures("optax_promotion")

LAYERS = {"style_layers": ("conv1_1", "conv2_1"), "content_layers": ("conv2_2",)}  # quick to compile


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    coarse = rng.random((3, 6, 8, 3)).repeat(6, 1).repeat(6, 2)
    return (0.8 * coarse + 0.2 * rng.random(coarse.shape)).astype(np.float32)


def run(problems, **options):
    finished = {}
    for now in sweep(problems, **options):
        finished |= now.finished
    assert sorted(finished) == list(range(len(problems)))
    return [finished[n] for n in range(len(problems))]


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("lanes",))


def over(params, pictures, configs, **options):
    base = make_problem(params, pictures[0], [pictures[1]], configs[0], **options)
    return [with_hyperparameters(base, config) for config in configs]


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_each_lane_is_the_single_run_with_its_values(params, pictures, optimizer):
    common = {"optimizer": optimizer, "iterations": 6, **LAYERS}
    rate = {"learning_rate": 0.1} if optimizer == "adam" else {}
    configs = [
        Config(style_weight=1e6, **common),
        Config(style_weight=1e8, tv_weight=1e-1, **common),
        Config(content_weight=10.0, style_layer_weights="3,1", **common),
        Config(activation_shift=0.0, **rate, **common),
        Config(style_weight=0.0, **common),
    ]
    for config, lane in zip(configs, run(over(params, pictures, configs), batch_size=8), strict=True):
        alone = stylize(params, pictures[0], [pictures[1]], config=config)
        assert lane.step == alone.step
        for term in ("total", "content", "style", "tv"):
            np.testing.assert_allclose(lane.losses[term], alone.losses[term], rtol=1e-3, err_msg=term)
        assert np.abs(lane.image - alone.image).mean() < 1e-3


def test_a_lane_by_itself_is_the_single_run_to_the_bit(params, pictures):
    configs = [
        Config(style_weight=weight, optimizer="adam", iterations=12, **LAYERS) for weight in (1e6, 1e9)
    ]
    for config, lane in zip(
        configs, run(over(params, pictures, configs), devices=jax.devices()[:1]), strict=True
    ):
        alone = stylize(params, pictures[0], [pictures[1]], config=config)
        np.testing.assert_array_equal(lane.image, alone.image)
        assert lane.losses == alone.losses


def test_one_compilation_however_many_values_and_passes(params, pictures, compilations):
    configs = [Config(style_weight=10.0**k, iterations=3, pooling="average", **LAYERS) for k in range(5)]
    problems = over(params, pictures, configs)
    run(problems, batch_size=4)  # a pass of 4 and one of 1 with three more that nobody sees
    assert compilations("_advance") == 1
    run(over(params, pictures, configs[::-1]), batch_size=4, report_every=1)
    assert compilations("_advance") == 1
    assert compilations("_initial_states") == 1
    run(over(params, pictures, [Config(iterations=3, style_layers=("conv1_2",))] * 4))
    assert compilations("_advance") == 2  # else the count could not fail


def test_a_lane_that_is_not_finite_stays_where_it_is_and_touches_no_other(params, pictures):
    common = {"optimizer": "adam", "iterations": 5, "style_weight": 1.0, **LAYERS}
    flat = np.full_like(pictures[0], 0.5)  # no variation: what is next to it has some, times more than fits
    configs = [Config(tv_weight=weight, **common) for weight in (1e-3, 3e38, 1e-2)]
    one = {"batch_size": 3, "devices": jax.devices()[:1]}
    absurd = run(over(params, pictures, configs, init=flat), **one)
    sound = run(over(params, pictures, [configs[0], configs[0], configs[2]], init=flat), **one)
    assert [lane.finite for lane in absurd] == [True, False, True]
    assert absurd[1].step == 0
    np.testing.assert_array_equal(absurd[1].image, flat)
    for lane in (0, 2):
        np.testing.assert_array_equal(absurd[lane].image, sound[lane].image)
        assert absurd[lane].losses == sound[lane].losses


def test_what_lanes_share_is_computed_once_and_held_once(params, pictures, monkeypatch):
    calls = []
    for name in ("content_targets", "style_targets"):
        original = getattr(sweeping, name)
        monkeypatch.setattr(
            sweeping,
            name,
            lambda *given, name=name, original=original: calls.append(name) or original(*given),
        )
    problems = over(
        params, pictures, [Config(style_weight=w, iterations=1, **LAYERS) for w in (1.0, 2.0, 3.0, 4.0)]
    )
    parts = sweeping._Parts(problems, mesh_of(1))
    _, inputs = parts.inputs(range(4), 4)
    targets, weights = inputs.targets, inputs.weights
    assert calls == ["content_targets", "style_targets"]
    single = problems[0].targets()
    assert jax.tree.map(np.shape, targets.terms) == jax.tree.map(np.shape, single.terms)
    assert weights.terms["style"].shape == (4,)


def test_styles_and_contents_may_differ_from_lane_to_lane(params, pictures):
    config = Config(iterations=4, photorealistic=True, **LAYERS)
    pairs = [(0, 1), (0, 2), (2, 1)]
    problems = [make_problem(params, pictures[c], [pictures[s]], config) for c, s in pairs]
    for (c, s), lane in zip(pairs, run(problems), strict=True):
        alone = stylize(params, pictures[c], [pictures[s]], config=config)
        for term in ("total", "matting"):
            np.testing.assert_allclose(lane.losses[term], alone.losses[term], rtol=1e-3, err_msg=term)


def test_seeds_are_noise_of_their_own_with_masks_and_without_a_content(params, pictures):
    common = {"iterations": 3, "init": "noise", "content_weight": 0.0, **LAYERS}
    mask = np.zeros((36, 48), np.float32)
    mask[:, :30] = 1
    configs = [Config(seed=seed, **common) for seed in (0, 1, 2)]
    base = make_problem(params, None, [pictures[1]], configs[0], masks=Masks(content=mask))
    lanes = run([with_hyperparameters(base, config) for config in configs])
    for config, lane in zip(configs, lanes, strict=True):
        alone = stylize(params, None, [pictures[1]], config=config, masks=Masks(content=mask))
        np.testing.assert_array_equal(lane.image[:, 30:], alone.image[:, 30:])
        np.testing.assert_allclose(lane.losses["style"], alone.losses["style"], rtol=1e-3)
    assert np.abs(lanes[0].image - lanes[1].image).mean() > 0.1


def test_lanes_are_spread_evenly_over_the_devices(params, pictures):
    """Six lanes on four devices are eight, two on each; the results do not depend on it."""
    problems = over(
        params, pictures, [Config(style_weight=10.0**k, iterations=2, **LAYERS) for k in range(6)]
    )
    assert jax.device_count() == 4
    parts = sweeping._Parts(problems, mesh_of(4))
    states = sweeping._start(*parts.inputs(range(6), 8), parts.layout)
    shards = states.iterate.image.addressable_shards
    assert sorted(shard.device.id for shard in shards) == [0, 1, 2, 3]
    assert {shard.data.shape for shard in shards} == {(2, 36, 48, 3)}
    four, one = run(problems, batch_size=8), run(problems, devices=jax.devices()[:1])
    for a, b in zip(four, one, strict=True):
        np.testing.assert_allclose(a.losses["total"], b.losses["total"], rtol=1e-5)
        np.testing.assert_allclose(a.image, b.image, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "lanes", "devices", "even"),
    [
        (8, 8, 1, 8),
        (9, 8, 1, 5),
        (10, 4, 1, 4),
        (6, 6, 4, 4),
        (3, 1, 1, 1),
        (16, 12, 4, 8),
        (2, 1, 2, 2),
        (6, 8, 4, 8),
    ],
)
def test_passes_are_of_one_size(count, lanes, devices, even):
    assert sweeping._even(count, lanes, devices) == even


def needed(problems, lanes):
    """Return the bytes that the compiler counts for so many lanes, on each device."""
    parts = sweeping._Parts(problems, mesh_of(1))
    first, inputs = parts.inputs((0,), lanes)
    states = sweeping._start(first, inputs, parts.layout)
    memory = sweeping._advance.lower(states, np.int32(0), inputs, parts.layout).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes


def test_lanes_come_from_the_memory_that_is_free(params, pictures):
    problems = over(
        params, pictures, [Config(style_weight=10.0**k, iterations=1, **LAYERS) for k in range(4)]
    )

    def lanes(free):
        steps = sweep(problems, batch_size=4, free_memory=free, devices=jax.devices()[:1])
        return max(len(now.lanes) for now in steps)

    assert lanes(2**40) == 4
    assert lanes((needed(problems, 2) + needed(problems, 4)) // 2) == 2
    with pytest.raises(NotEnoughMemory, match=r"a lane of 48x36 pixels needs .* GiB and 0\.0 GiB are free"):
        lanes(2**10)


def test_the_first_guess_of_lanes_goes_by_the_pixels(params, pictures):
    (problem,) = over(params, pictures, [Config(**LAYERS)])
    lane = sweeping.BYTES_PER_PIXEL * 36 * 48
    assert sweeping._guess(problem, 100, 4, int(2.5 * lane)) == 8  # two on each device
    assert sweeping._guess(problem, 6, 4, 2**40) == 8  # all at once, as many on each
    assert sweeping._guess(problem, 6, 4, 0) == 4
    assert sweeping._guess(problem, 6, 4, None) == 8


def test_problems_of_other_programs_or_sizes_are_refused(params, pictures):
    config = Config(iterations=1, **LAYERS)
    one = make_problem(params, pictures[0], [pictures[1]], config)
    small = make_problem(params, pictures[0][:30], [pictures[1]], config)
    longer = with_hyperparameters(one, Config(iterations=2, **LAYERS))
    with pytest.raises(InputError, match="pictures of one size; got 48x30 and 48x36"):
        list(sweep([one, small]))
    with pytest.raises(InputError, match="one number of iterations"):
        list(sweep([one, longer]))
    for option in ({"activation_shift": -1.0}, {"tv_power": 2.0}):
        with pytest.raises(InputError, match="one `(activation_shift|tv_power)`; got"):
            list(sweep([one, with_hyperparameters(one, Config(iterations=1, **LAYERS, **option))]))


def test_masks_of_the_picture_must_be_the_same_in_all_lanes(params, pictures):
    left = np.ones((36, 48), np.float32)
    left[:, 24:] = 0
    config = Config(iterations=1, **LAYERS)
    given = (params, pictures[0], [pictures[1]], config)
    one, equal, other, none = (
        make_problem(*given, masks=masks)
        for masks in (Masks(content=left), Masks(content=left.copy()), Masks(content=1 - left), Masks())
    )
    assert len(run([one, equal])) == 2
    for strange in (other, none):
        with pytest.raises(InputError, match="sweep: the same masks in all lanes; got others"):
            list(sweep([one, strange]))
