"""What fits is taken at once, what does not in windows, and what does not even so is refused."""

import numpy as np
import pytest

from nst_jax.config import Config
from nst_jax.errors import InputError, NotEnoughMemory
from nst_jax.runs import memory_plan
from nst_jax.runs.memory_plan import make_plan, make_plans, memory_use, work
from nst_jax.runs.problem import make_problem
from nst_jax.runs.pyramid import make_problems
from nst_jax.runs.transfer import stylize_steps

pytestmark = pytest.mark.usefixtures("optax_promotion")

LOW = {"content_layers": ("conv2_2",), "style_layers": ("conv1_1", "conv2_1"), "iterations": (3,)}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(5)
    smooth = np.kron(rng.random((38, 50, 3)), np.ones((8, 8, 1))).astype(np.float32)
    return smooth[:300, :397], smooth[::-1, ::-1][:64, :80].copy()


@pytest.fixture
def problem(params, pictures):
    content, style = pictures
    return lambda **options: make_problem(params, content, [style], Config(**{**LOW, **options}))


def test_auto_takes_what_fits_at_once_then_windows_then_activations_made_anew(problem):
    whole = memory_use(problem())
    found = make_plan(problem(), whole.peak)
    assert found.problem.spec.tile == 0
    assert found.needed == found.whole == whole.peak
    assert str(found).startswith("397x300 pixels at once: 0.")

    found = make_plan(problem(), whole.peak - 1)
    tile = found.problem.spec.tile
    assert 0 < tile < 397
    assert not found.problem.spec.recompute_content
    assert found.needed == memory_use(found.problem).peak < found.whole == whole.peak
    larger = found.problem.replace(spec=found.problem.spec._replace(tile=384))
    assert tile == 384 or memory_use(larger).peak >= whole.peak  # the fastest that fits
    assert "windows of" in str(found)

    heavy = {"content_layers": ("conv1_1", "conv1_2")}  # twenty pictures' worth each
    found = make_plan(problem(**heavy), memory_use(problem(**heavy, tile="256")).peak - 1000)
    assert found.problem.spec.recompute_content
    assert "recomputed" in str(found)


def test_problems_of_one_shape_are_compiled_once(problem, monkeypatch):
    read = []
    memory = memory_plan._memory
    monkeypatch.setattr(memory_plan, "_memory", lambda program: read.append(program) or memory(program))
    monkeypatch.setattr(memory_plan, "_KNOWN", {})
    one = problem(tile="off")
    first, count = memory_use(one), len(read)
    assert memory_use(one.replace(first=1 - one.first, styles=[1 - one.styles[0]])) == first
    assert len(read) == count == 3  # the style's, the content's, the loop's
    other = one.replace(first=one.first[:288], content=one.content[:288])
    assert memory_use(other).peak < first.peak
    memory_use(one.replace(spec=one.spec._replace(pooling="average")))
    assert len(read) == 3 + 2 + 3  # of the other, the style's is known


def test_what_does_not_even_fit_in_windows_is_refused_with_what_would(problem):
    with pytest.raises(NotEnoughMemory, match=r"397x300 pixels needs 0\.\d GiB in windows .* would fit"):
        make_plan(problem(), 170 * 2**20)
    free = memory_use(problem()).peak // 2
    with pytest.raises(NotEnoughMemory, match="`size=1.*`tile=auto` takes larger ones in windows"):
        make_plan(problem(tile="off"), free)
    assert make_plan(problem(tile="128"), 2 * free - 1).problem.spec.tile == 128


def test_a_window_as_large_as_the_picture_is_the_picture_at_once(problem):
    one, whole = (make_plan(problem(tile=tile), 2**40) for tile in ("400", "off"))
    assert str(one) == str(whole)
    assert one.needed == whole.needed
    assert work(one.problem) == work(whole.problem) == 397 * 300


def test_without_a_limit_nothing_is_compiled_and_the_picture_is_taken_at_once(problem):
    found = make_plan(problem(), None)
    assert found.problem.spec.tile == found.needed == 0


def test_every_rung_has_a_plan_of_its_own(params, pictures):
    content, style = pictures
    config = Config(**LOW, size=397, scales="140,397")
    problems = make_problems(params, content, [style], config)
    small, large = make_plans(problems, memory_use(problems[1]).peak - 1)
    assert small.problem.spec.tile == 0
    assert large.problem.spec.tile
    assert work(large.problem) > 1.5 * 397 * 300
    assert work(small.problem) == 140 * 106


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_in_windows_is_the_run_at_once(params, pictures, optimizer):
    content, style = pictures[0][:100, :157], pictures[1]
    runs = []
    for tile in ("off", "96"):
        config = Config(**{**LOW, "optimizer": optimizer, "tile": tile, "style_weight": 1e6})
        runs.append(list(stylize_steps(params, content, [style], config=config, report_every=1)))
    for whole, tiled in zip(*runs, strict=True):
        assert tiled.evaluations == whole.evaluations
        np.testing.assert_allclose(tiled.losses["total"], whole.losses["total"], rtol=1e-4)
        assert np.abs(tiled.image - whole.image).mean() < 1e-4


def test_memory_in_windows_hardly_grows_with_the_picture(params, pictures):
    content, style = pictures
    sizes = []
    for times in (1, 4):
        large = np.tile(content, (times, times, 1))
        problem = make_problem(params, large, [style], Config(**LOW, tile="128", optimizer="adam"))
        found = memory_use(problem.replace(spec=problem.spec._replace(recompute_content=True)))
        sizes.append(
            found.loop / 2**20 - 14 * large.size * 4 / 2**20
        )  # but for pictures, of which there are few
    assert sizes[1] < 1.2 * sizes[0]


def test_windows_too_small_for_a_core_are_refused():
    Config(tile="160")
    for tile in ("159", "0", "-3", "many"):
        with pytest.raises(
            InputError,
            match=r"`tile`: auto, off, or at least 160 \(conv5_1 sees 58 pixels to each side\); got",
        ):
            Config(tile=tile)
    with pytest.raises(InputError, match="did you mean auto"):
        Config(tile="autp")
