"""The native part: the numbers of a float64 twin and of XLA, in every way that programs run convolutions."""

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, Mesh, PartitionSpec

from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.networks import convolutions
from nst_jax.networks.base import cast, features
from nst_jax.objective import objective, sharding, tiling
from nst_jax.objective.weights import coefficients
from nst_jax.runs.problem import make_problem, shard_problem
from nst_jax.runs.transfer import stylize_steps

pytestmark = pytest.mark.usefixtures("optax_promotion")

native = pytest.mark.usefixtures("native_part")
TYPES = {"float32": 1e-6, "bfloat16": 4e-3}  # rounding of one convolution's factors and result
LOW = {"style_layers": ("conv1_1", "conv3_1"), "content_layers": ("conv2_2",), "preset": "gatys"}


@pytest.fixture
def onednn():
    with convolutions.using("onednn"):
        yield


def skip_unless_convolved(dtype):
    if dtype == "bfloat16" and not convolutions.library().convolves_bfloat16():
        pytest.skip("this processor has no AVX-512, without which oneDNN convolves no bfloat16")


@pytest.fixture
def narrowest(native_part):
    """Return the narrowest type that the native part convolves here."""
    return "bfloat16" if native_part.convolves_bfloat16() else "float32"


def layer(h, w, i, o, dtype, rng):
    """Return maps, a kernel, a bias and a cotangent, as float64 of what the type holds; and what runs them."""
    skip_unless_convolved(dtype)
    held = [
        np.asarray(jnp.asarray(rng.normal(size=shape).astype(np.float32)).astype(dtype), np.float64)
        for shape in ((h, w, i), (3, 3, i, o), (o,), (h, w, o))
    ]
    x, kernel, bias, cotangent = held
    library = convolutions.library()
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    packed = [library._pack(jnp.asarray(part, dtype)) for part in (kernel, flipped)]

    def run(x):
        return library.layer(x, *packed, jnp.asarray(bias, jnp.float32), False)

    return x, kernel, bias, cotangent, run


def error(found, expected):
    return np.linalg.norm(np.float64(found) - expected) / np.linalg.norm(expected)


@native
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("h", "w", "i", "o"),
    [
        (1, 1, 3, 5),
        (1, 9, 8, 8),
        (2, 1, 16, 3),
        (8, 13, 64, 32),
        (9, 16, 3, 64),
        (35, 21, 33, 17),
        (50, 70, 64, 3),
    ],
)
def test_a_layer_and_its_gradient_equal_the_float64_twin(h, w, i, o, dtype, rng):
    x, kernel, bias, cotangent, run = layer(h, w, i, o, dtype, rng)
    y, back = jax.vjp(run, jnp.asarray(x, dtype)[None])
    (slope,) = back(jnp.asarray(cotangent, dtype)[None])
    twin = np.maximum(reference.convolve(x, kernel) + bias, 0)
    assert y.dtype == slope.dtype == dtype
    assert error(y[0], twin) < TYPES[dtype]
    passed = np.where(np.asarray(y[0], np.float64) > 0, cotangent, 0)
    assert error(slope[0], reference.convolve_back(passed, kernel)) < TYPES[dtype]


@native
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_features_of_the_real_network_equal_the_float64_twin(params, weights, rng, onednn, precision, bound):
    skip_unless_convolved(precision)
    image = rng.random((50, 67, 3), np.float32)
    layers = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
    ours = features(params, image, layers, precision=precision)
    twins, _ = reference.forward(weights.arrays, image, layers, "max")
    for name in layers:
        assert error(ours[name], twins[name]) < bound, name


def problem_of(params, shape=(61, 47), **options):
    config = Config.from_preset(**{**LOW, **options})
    rng = np.random.default_rng(3)
    content, style, init = (rng.random((*shape, 3), np.float32) for _ in range(3))
    return make_problem(params, content, [style], config, init)


def evaluated(problem, evaluate=objective.evaluate):
    run = jax.jit(evaluate, static_argnames="spec")
    first = sharding.shard(sharding.pad(problem.first, problem.spec), problem.spec)
    return run(problem.params, first, problem.targets(), coefficients(problem.weights), spec=problem.spec)


@native
def test_an_evaluation_has_the_value_and_gradient_of_xla(params):
    found = {}
    for choice in ("xla", "onednn"):
        with convolutions.using(choice):
            found[choice] = evaluated(problem_of(params, precision="float32"))
    ours, other = found["onednn"], found["xla"]
    np.testing.assert_allclose(ours.value, other.value, rtol=1e-5)
    assert error(ours.gradient, np.float64(other.gradient)) < 1e-4


@native
def test_the_gradient_is_the_slope_of_finite_differences(params, onednn):
    problem = problem_of(
        params, precision="float32", content_layers=("conv1_1",), style_layers=("conv1_1", "conv1_2")
    )
    gradient = np.float64(evaluated(problem).gradient)
    way = np.float32(gradient / np.linalg.norm(gradient))
    step = 1e-2
    up, down = (
        evaluated(problem.replace(first=np.clip(problem.first + sign * step * way, 0, 1))).value
        for sign in (1, -1)
    )
    slope = (float(up) - float(down)) / (2 * step)
    np.testing.assert_allclose(slope, np.sum(gradient * way), rtol=0.02)


@native
@pytest.mark.parametrize("dtype", TYPES)
def test_batches_loops_and_jit_give_the_bytes_of_single_calls(dtype, rng):
    *_, run = layer(19, 23, 16, 16, dtype, rng)
    pictures = jnp.asarray(rng.normal(size=(3, 1, 19, 23, 16)), dtype)

    def both(x):
        y, back = jax.vjp(run, x)
        return y, back(y)[0]

    one_by_one = [both(x) for x in pictures]
    for batched in (jax.vmap(both)(pictures), jax.jit(jax.vmap(both))(pictures)):
        for k, expected in enumerate(one_by_one):
            for found, alone in zip(batched, expected, strict=True):
                np.testing.assert_array_equal(found[k], alone)
    looped = jax.lax.fori_loop(0, 3, lambda _, x: run(x), pictures[0])
    np.testing.assert_array_equal(looped, run(run(run(pictures[0]))))
    at_once = jax.vmap(jax.vmap(run))(pictures[:, None])
    np.testing.assert_array_equal(at_once[1, 0], one_by_one[1][0])


@native
def test_kernels_are_known_by_what_is_in_them(rng):
    """Two of one shape, one of which may lie where the other lay."""
    for _ in range(4):
        x, kernel, bias, _, run = layer(9, 9, 16, 16, "float32", rng)
        y = run(jnp.asarray(x, "float32")[None])
        assert error(y[0], np.maximum(reference.convolve(x, kernel) + bias, 0)) < 1e-6


@native
def test_threads_of_one_process_run_side_by_side(rng, narrowest):
    *_, run = layer(40, 40, 64, 64, narrowest, rng)
    x = jnp.asarray(rng.normal(size=(1, 40, 40, 64)), narrowest)
    expected = np.asarray(run(x).astype(jnp.float32))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: np.asarray(run(x).astype(jnp.float32)), range(64)):
            np.testing.assert_array_equal(found, expected)


@native
def test_an_error_is_told_and_leaves_nothing_behind(rng):
    x, kernel, bias, _, run = layer(9, 9, 16, 16, "float32", rng)
    library, maps = convolutions.library(), jnp.asarray(x, "float32")[None]
    before = np.asarray(run(maps))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a kernel of another shape"):
        library.forward(maps, jnp.zeros(100, jnp.uint8), jnp.asarray(bias, jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="bfloat16 or float32"):
        library.forward(maps.astype(jnp.float16), jnp.zeros(100, jnp.uint8), jnp.asarray(bias, jnp.float32))
    np.testing.assert_array_equal(run(maps), before)


@native
def test_windows_give_the_gradient_of_the_whole(params, onednn):
    problem = problem_of(params, (150, 170), precision="float32", tile="96")
    whole = evaluated(problem)
    cut = evaluated(problem, tiling.evaluate)
    np.testing.assert_allclose(cut.value, whole.value, rtol=1e-5)
    assert error(cut.gradient, np.float64(whole.gradient)) < 1e-5


@native
@pytest.mark.parametrize("shape", [(61, 47), (93, 51)])
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("bfloat16", 1e-1)])
def test_rows_over_devices_give_the_gradient_of_one(params, onednn, shape, precision, bound):
    skip_unless_convolved(precision)
    problem = problem_of(params, shape, precision=precision)
    one, many = evaluated(problem), evaluated(shard_problem(problem, sharding.make_mesh(4)))
    np.testing.assert_allclose(many.value, one.value, rtol=bound)
    assert error(many.gradient[: shape[0]], np.float64(one.gradient)) < bound
    assert not np.asarray(many.gradient)[shape[0] :].any()


@native
def test_lanes_over_devices_give_the_bytes_of_one(rng, narrowest):
    *_, run = layer(19, 23, 16, 16, narrowest, rng)
    pictures = jnp.asarray(rng.normal(size=(4, 1, 19, 23, 16)), narrowest)
    mesh = Mesh(np.array(jax.devices()[:4]), ("lanes",), axis_types=(AxisType.Auto,))
    lanes = PartitionSpec("lanes")
    over = jax.jit(jax.shard_map(jax.vmap(run), mesh=mesh, in_specs=lanes, out_specs=lanes, check_vma=False))
    np.testing.assert_array_equal(over(pictures), jax.vmap(run)(pictures))


@native
def test_two_runs_give_the_same_bytes(params, narrowest):
    rng = np.random.default_rng(5)
    pictures = rng.random((40, 52, 3), np.float32), [rng.random((45, 33, 3), np.float32)]
    config = Config.from_preset(**LOW, precision=narrowest, iterations=3)
    with convolutions.using("onednn"):
        one, other = ([p.image for p in stylize_steps(params, *pictures, config=config)] for _ in range(2))
    np.testing.assert_array_equal(one[-1], other[-1])
    assert np.isfinite(one[-1]).all()


@native
def test_bfloat16_is_convolved_where_it_is_said(rng, monkeypatch):
    library = convolutions.library()
    said = library.convolves_bfloat16()
    monkeypatch.setattr(library, "convolves_bfloat16", lambda: True)  # else it is skipped
    *_, run = layer(4, 4, 8, 8, "bfloat16", rng)
    maps = jnp.ones((1, 4, 4, 8), "bfloat16")
    if said:
        run(maps)
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match="could not create a primitive descriptor"):
            run(maps)


@native
def test_bfloat16_without_avx512_is_refused_in_one_line(monkeypatch, onednn):
    monkeypatch.setattr(convolutions.library(), "convolves_bfloat16", lambda: False)
    with pytest.raises(InputError, match="AVX-512 only, which this processor lacks"):
        convolutions.chosen("bfloat16")
    assert convolutions.chosen("float32") == "onednn"


@native
def test_what_is_chosen(params):
    library = convolutions.library()
    best = ["onednn", "onednn"] if library.has_bfloat16() else ["xla", "xla"]
    with convolutions.using("auto"):
        assert [convolutions.chosen(precision) for precision in ("bfloat16", "auto")] == best
        assert convolutions.chosen("float32") == "xla"
    with convolutions.using("onednn"):
        packed = cast(params, "float32")
        assert {c.kernel.ndim for c in packed.convolutions.values()} == {1}
        assert cast(packed, "float32") is packed
        assert convolutions.describe("float32").startswith("oneDNN 3.")
    with convolutions.using("xla"):
        assert convolutions.describe("bfloat16") == "xla"
    with convolutions.using("onedn"), pytest.raises(InputError, match="did you mean onednn"):
        convolutions.chosen("float32")


def test_where_it_is_not_built_xla_runs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(convolutions.sys, "prefix", str(tmp_path))
    find = convolutions.library.__wrapped__
    assert find() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / convolutions.LIBRARY).write_bytes(b"no library")
    with pytest.warns(UserWarning, match="not used"):
        assert find() is None
    monkeypatch.setattr(convolutions, "library", lambda: None)
    with convolutions.using("auto"):
        assert convolutions.chosen("bfloat16") == "xla"
    with convolutions.using("onednn"), pytest.raises(InputError, match="not built"):
        convolutions.chosen("bfloat16")
