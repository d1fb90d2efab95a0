"""Color modes against slow float64 twins, and chroma by the formulas of BT.601 written out."""

import functools
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images.color import COLOR_MATCHES, COLOR_MODES, finish_picture, luma, prepare_style, swap_luma

MATCHES = sorted(COLOR_MATCHES)
MODES = sorted(COLOR_MODES)
CASES = [(mode, match) for mode in MODES for match in (MATCHES if mode == "match" else ["symmetric"])]
PAIRS = [("cat", "night"), ("rocket", "glass"), ("coffee", "waves"), ("night", "rocket")]


@functools.cache
def example(name, longest=30):
    rgb = images.load(f"example:{name}").rgb
    return images.resize(rgb, *images.size_to_fit(*rgb.shape[:2], longest))


def squeezed(picture, half=0.15):
    """The picture with colors near the middle of the range, so that what is moved to them stays in it."""
    return (0.5 + half * (2 * picture - 1)).astype(np.float32)


def y_of(picture):
    r, g, b = np.moveaxis(np.float64(picture), -1, 0)
    return 0.299 * r + 0.587 * g + 0.114 * b


def chroma_of(picture):
    """Cb and Cr of [0, 1] as in JPEG, 0 for gray."""
    r, g, b = np.moveaxis(np.float64(picture), -1, 0)
    return np.stack([-0.168736 * r - 0.331264 * g + 0.5 * b, 0.5 * r - 0.418688 * g - 0.081312 * b], -1)


def rows_of(picture, weights):
    mass = np.ones(picture.shape[:2]) if weights is None else weights
    return [
        (pixel, float(m)) for pixel, m in zip(np.float64(picture).reshape(-1, 3), mass.ravel(), strict=True)
    ]


def moments(picture, weights=None):
    """Mean and covariance, pixel by pixel."""
    rows = rows_of(picture, weights)
    total = sum(m for _, m in rows)
    mean = sum(m * pixel for pixel, m in rows) / total
    return mean, sum(m * np.outer(pixel - mean, pixel - mean) for pixel, m in rows) / total


def root(matrix):
    return sqrtm(matrix).real


def matrix_of(match, content, style):
    """A, of the formulas of peers.md 2.13, by Schur roots."""
    if match == "cholesky":
        return np.linalg.cholesky(content) @ np.linalg.inv(np.linalg.cholesky(style))
    if match == "symmetric":
        return root(content) @ np.linalg.inv(root(style))
    inverse = np.linalg.inv(root(style))
    return inverse @ root(root(style) @ content @ root(style)) @ inverse


def quantile(value, values):
    """The share of (value, mass) pairs below the value, with half of those equal to it."""
    below = sum(m for v, m in values if v < value)
    equal = sum(m for v, m in values if v == value)
    return (below + equal / 2) / sum(m for _, m in values)


def at_quantile(share, values):
    """The value at a quantile, on the straight line between its neighbors."""
    points = sorted({(quantile(v, values), v) for v, m in values if m > 0})
    if share <= points[0][0]:
        return points[0][1]
    for (q, v), (q_next, v_next) in itertools.pairwise(points):
        if share <= q_next:
            return v + (v_next - v) * (share - q) / (q_next - q)
    return points[-1][1]


def keep_twin(style, content, match, style_weights, content_weights):
    return np.float64(style)


def luma_twin(style, content, match, style_weights, content_weights):
    gray = [np.repeat(y_of(picture)[..., None], 3, -1) for picture in (style, content)]
    (mean_s, square_s), (mean_c, square_c) = map(moments, gray, (style_weights, content_weights))
    return (gray[0] - mean_s[0]) * (square_c[0, 0] / square_s[0, 0]) ** 0.5 + mean_c[0]


def match_twin(style, content, match, style_weights, content_weights):
    (mean_s, square_s), (mean_c, square_c) = moments(style, style_weights), moments(content, content_weights)
    a = matrix_of(match, square_c, square_s)
    moved = [a @ pixel + mean_c - a @ mean_s for pixel, _ in rows_of(style, None)]
    return np.reshape(moved, style.shape)


def histogram_twin(style, content, match, style_weights, content_weights):
    moved = np.zeros(style.shape)
    for k in range(3):
        ours = [(pixel[k], m) for pixel, m in rows_of(style, style_weights)]
        theirs = [(pixel[k], m) for pixel, m in rows_of(content, content_weights)]
        for index in np.ndindex(style.shape[:2]):
            moved[*index, k] = at_quantile(quantile(np.float64(style[*index, k]), ours), theirs)
    return moved


TWINS = {
    "none": keep_twin,
    "luma_swap": keep_twin,
    "luma": luma_twin,
    "match": match_twin,
    "histogram": histogram_twin,
}


def test_every_mode_has_a_twin():
    assert COLOR_MODES.keys() == TWINS.keys()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("mode", "match"), CASES)
def test_moved_colors_equal_the_float64_twin(mode, match, weighted, rng):
    style, content = example("waves", 9), example("cat", 12)
    weights = [
        rng.uniform(0.1, 1, p.shape[:2]).astype(np.float32) if weighted else None for p in (style, content)
    ]
    ours = prepare_style(mode, style, content, match, *weights)
    twin = TWINS[mode](style, content, match, *weights).clip(0, 1)
    np.testing.assert_allclose(ours, twin, atol=1e-5)


@pytest.mark.parametrize(("mode", "match"), CASES)
def test_contract_a_prepared_style_is_float32_in_range_with_its_own_shape(mode, match, rng):
    style = (rng.random((7, 5, 3)) > 0.5).astype(np.float32)  # black, white and the pure colors
    for content in (example("rocket"), (rng.random((4, 9, 3)) > 0.5).astype(np.float32)):
        moved = prepare_style(mode, style, content, match)
        assert moved.shape == style.shape
        assert moved.dtype == np.float32
        assert 0 <= moved.min() <= moved.max() <= 1


@pytest.mark.parametrize("mode", MODES)
def test_contract_a_finished_picture_is_float32_in_range_with_its_own_shape(mode, rng):
    result, content = (rng.random((7, 5, 3)) > 0.5).astype(np.float32), example("cat")[:7, :5]
    finished = finish_picture(mode, result, content)
    assert finished.shape == result.shape
    assert finished.dtype == np.float32
    assert 0 <= finished.min() <= finished.max() <= 1


@pytest.mark.parametrize("mode", MODES)
def test_only_the_luma_modes_put_the_chroma_of_the_content_back(mode):
    result, content = example("night")[:20, :20], example("cat")[:20, :20]
    expected = swap_luma(result, content) if mode in ("luma_swap", "luma") else result
    np.testing.assert_array_equal(finish_picture(mode, result, content), expected)
    assert COLOR_MODES[mode].luminance == (mode == "luma")


# The matrices of match


def covariances(rng):
    for _ in range(20):
        content, style = (factor @ factor.T / 30 for factor in rng.normal(size=(2, 3, 3)))
        yield content, style
    for content, style in PAIRS:
        yield moments(example(content))[1], moments(example(style))[1]


@pytest.mark.parametrize("match", MATCHES)
def test_a_match_carries_the_covariance_of_the_style_over_to_the_contents(match, rng):
    for content, style in covariances(rng):
        a = COLOR_MATCHES[match](content, style)
        np.testing.assert_allclose(a @ style @ a.T, content, rtol=0, atol=1e-5 * content.max())


@pytest.mark.parametrize("match", MATCHES)
def test_a_match_of_channels_that_do_not_correlate_scales_each(match):
    content, style = np.diag([0.04, 0.01, 0.09]), np.diag([0.01, 0.04, 0.01])
    np.testing.assert_allclose(COLOR_MATCHES[match](content, style), np.diag([2, 0.5, 3]), atol=1e-9)


@pytest.mark.parametrize("match", MATCHES)
def test_a_match_with_itself_leaves_colors_where_they_are(match, rng):
    for content, _ in covariances(rng):
        np.testing.assert_allclose(COLOR_MATCHES[match](content, content), np.eye(3), atol=1e-5)


def test_cholesky_is_lower_triangular_with_a_positive_diagonal(rng):
    for content, style in covariances(rng):
        a = COLOR_MATCHES["cholesky"](content, style)
        np.testing.assert_allclose(np.triu(a, 1), 0, atol=1e-9)
        assert np.diag(a).min() > 0


def test_symmetric_is_the_quotient_of_the_roots(rng):
    for content, style in covariances(rng):
        a = COLOR_MATCHES["symmetric"](content, style)
        np.testing.assert_allclose(a @ root(style), root(content), atol=1e-7)


def test_transport_is_symmetric_and_positive_definite(rng):
    for content, style in covariances(rng):
        a = COLOR_MATCHES["transport"](content, style)
        np.testing.assert_allclose(a, a.T, atol=1e-8 * np.abs(a).max())
        assert np.linalg.eigvalsh((a + a.T) / 2).min() > 0


def test_transport_moves_colors_least_of_the_three(rng):
    for content, style in covariances(rng):
        cost = {}
        for match in MATCHES:
            step = COLOR_MATCHES[match](content, style) - np.eye(3)
            cost[match] = np.trace(step @ style @ step.T)
        assert cost["transport"] <= min(cost.values()) + 1e-9


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize(("content", "style"), PAIRS)
def test_a_matched_style_has_the_mean_and_covariance_of_the_content(match, content, style):
    near = squeezed(example(content))
    moved = prepare_style("match", example(style), near, match)
    assert 0 < moved.min() <= moved.max() < 1, "clipped: the pair does not show it"
    for ours, theirs in zip(moments(moved), moments(near), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("match", MATCHES)
def test_a_gray_content_makes_the_matched_style_gray(match):
    content = squeezed(luma(example("cat")))
    moved = prepare_style("match", example("waves"), content, match)
    assert 0 < moved.min() <= moved.max() < 1
    np.testing.assert_allclose(np.ptp(moved, axis=-1), 0, atol=1e-4)  # Cholesky's tiny diagonal
    for ours, theirs in zip(moments(moved), moments(content), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# Weights


def window(picture, rows, columns):
    weights = np.zeros(picture.shape[:2], np.float32)
    weights[rows, columns] = 1
    return weights, picture[rows, columns].copy()


@pytest.mark.parametrize(("mode", "match"), CASES)
def test_only_what_the_style_shows_where_its_weights_lie_counts(mode, match):
    style, content = example("night"), example("cat")
    rows, columns = slice(3, 15), slice(5, 22)
    weights, crop = window(style, rows, columns)
    moved = prepare_style(mode, style, content, match, style_weights=weights)
    expected = prepare_style(mode, crop, content, match)
    np.testing.assert_allclose(moved[rows, columns], expected, atol=1e-6)


@pytest.mark.parametrize(("mode", "match"), CASES)
def test_only_what_the_content_shows_where_its_weights_lie_counts(mode, match):
    style, content = example("night"), example("cat")
    weights, crop = window(content, slice(8, 16), slice(4, 12))
    moved = prepare_style(mode, style, content, match, content_weights=weights)
    np.testing.assert_allclose(moved, prepare_style(mode, style, crop, match), atol=1e-6)


def test_a_histogram_stays_within_the_colors_where_the_weights_lie():
    content = np.float32([0, 0.4, 0.6, 1])[None, :, None].repeat(3, 2)
    style = np.linspace(0, 1, 101, dtype=np.float32)[None, :, None].repeat(3, 2)
    moved = prepare_style("histogram", style, content, content_weights=np.float32([[0, 1, 1, 0]]))
    assert 0.4 - 1e-6 <= moved.min() <= moved.max() <= 0.6 + 1e-6


@pytest.mark.parametrize(("mode", "match"), CASES)
def test_every_pixel_of_the_style_moves_wherever_its_weights_lie(mode, match):
    half, content = example("waves"), example("cat")
    twice = np.concatenate([half, half], 1)
    weights = np.zeros(twice.shape[:2], np.float32)
    weights[:, : half.shape[1]] = 1
    moved = prepare_style(mode, twice, content, match, style_weights=weights)
    expected = prepare_style(mode, half, content, match)
    np.testing.assert_allclose(moved, np.concatenate([expected, expected], 1), atol=1e-6)


@pytest.mark.parametrize(("mode", "match"), CASES)
def test_a_pixel_of_threefold_weight_counts_as_three(mode, match, rng):
    style, content = example("glass", 16), example("rocket", 16)
    times = [rng.integers(1, 4, picture.shape[:2]) for picture in (style, content)]
    repeated = [
        np.repeat(p.reshape(-1, 3), n.ravel(), 0)[None] for p, n in zip((style, content), times, strict=True)
    ]
    weights = [n.astype(np.float32) / 3 for n in times]
    moved = prepare_style(mode, style, content, match, *weights)
    moved = np.repeat(moved.reshape(-1, 3), times[0].ravel(), 0)[None]
    np.testing.assert_allclose(moved, prepare_style(mode, *repeated, match), atol=1e-5)


# Histogram


def test_a_histogram_of_another_size_and_ties_equals_the_twin(rng):
    style, content = (np.float32(rng.integers(0, n, (h, 7, 3)) / 16) for n, h in ((5, 6), (17, 3)))
    ours = prepare_style("histogram", style, content)
    np.testing.assert_allclose(ours, histogram_twin(style, content, None, None, None), atol=1e-6)


def test_histogram_keeps_a_style_that_is_the_content():
    for name in ("cat", "ink"):
        picture = example(name)
        np.testing.assert_allclose(prepare_style("histogram", picture, picture), picture, atol=1e-6)


def test_histogram_is_monotone_in_every_channel():
    style, content = example("night"), example("coffee")
    moved = prepare_style("histogram", style, content)
    for k in range(3):
        order = np.argsort(style[..., k], axis=None, kind="stable")
        assert np.diff(np.float64(moved[..., k].ravel()[order])).min() >= -1e-6
        assert np.corrcoef(moved[..., k].ravel(), style[..., k].ravel())[0, 1] > 0.5


@pytest.mark.parametrize(("content", "style"), PAIRS)
def test_histogram_gives_every_channel_the_distribution_of_the_content(content, style):
    wanted, shares = example(content), np.linspace(0.02, 0.98, 49)
    moved = prepare_style("histogram", example(style), wanted)
    for k in range(3):
        ours, theirs = (np.quantile(picture[..., k], shares) for picture in (moved, wanted))
        np.testing.assert_allclose(ours, theirs, atol=0.03)
        assert np.abs(ours - theirs).mean() < 0.005


def test_histogram_permutes_distinct_values_of_equal_number(rng):
    style, content = (rng.permutation(60).reshape(4, 5, 3).astype(np.float32) / 59 for _ in range(2))
    moved = prepare_style("histogram", style, content)
    for k in range(3):
        np.testing.assert_allclose(np.sort(moved[..., k], None), np.sort(content[..., k], None), atol=1e-6)


def test_histogram_sends_a_flat_channel_to_the_median():
    style = example("night").copy()
    style[..., 1] = 0.3
    content = np.float32([0.1, 0.2, 0.4, 0.8, 0.9])[None, :, None].repeat(3, 2)
    np.testing.assert_allclose(prepare_style("histogram", style, content)[..., 1], 0.4, atol=1e-6)


# Luma


def test_luma_of_the_primary_colors():
    pure = np.float32([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]])
    expected = np.repeat([[[0.299], [0.587], [0.114], [1], [0]]], 3, -1)
    np.testing.assert_allclose(luma(pure), expected, atol=1e-6)
    assert luma(pure).dtype == np.float32
    assert luma(pure).max() <= 1


def test_luma_matches_two_values_by_hand():
    style = np.float32([[[0.2, 0.2, 0.2], [0.4, 0.4, 0.4]]])  # mean 0.3, deviation 0.1
    content = np.float32([[[0.4, 0.4, 0.4], [0.8, 0.8, 0.8]]])  # mean 0.6, deviation 0.2
    np.testing.assert_allclose(prepare_style("luma", style, content), content, atol=1e-6)


@pytest.mark.parametrize(("content", "style"), PAIRS)
def test_luma_has_the_mean_and_deviation_of_the_contents_luma(content, style):
    near = squeezed(example(content))
    moved = prepare_style("luma", example(style), near)
    assert 0 < moved.min() <= moved.max() < 1
    np.testing.assert_array_equal(moved[..., 1:], moved[..., :1].repeat(2, -1))
    assert moved[..., 0].mean(dtype=np.float64) == pytest.approx(y_of(near).mean(), abs=1e-6)
    assert moved[..., 0].std(dtype=np.float64) == pytest.approx(y_of(near).std(), abs=1e-6)


# Luma swap


def eighths(shape, rng):
    return np.float32(rng.integers(0, 256, shape) / 255)


def swaps(rng):
    """Results and contents: any, of the examples, and saturated ones under black, white and any."""
    corners = np.float32(list(itertools.product([0, 1], repeat=3)))[None].repeat(6, 0)
    yield eighths((9, 11, 3), rng), eighths((9, 11, 3), rng)
    yield example("night")[:20, :20], np.float32(images.to_uint8(example("cat")[:20, :20]) / 255)
    yield eighths(corners.shape, rng), corners
    yield np.zeros_like(corners), corners
    yield np.ones_like(corners), corners
    yield eighths((9, 11, 3), rng), np.float32(rng.integers(0, 2, (9, 11, 3)) * 0.9 + 0.05)


def test_swapped_pictures_have_the_chroma_of_the_content(rng):
    for result, content in swaps(rng):
        swapped = swap_luma(result, content)
        np.testing.assert_allclose(chroma_of(swapped), chroma_of(content), atol=1e-6)
        rounded = images.to_uint8(swapped) / 255
        np.testing.assert_allclose(chroma_of(rounded), chroma_of(content), rtol=0, atol=1 / 255)


def test_swapped_pictures_have_the_nearest_luma_that_the_chroma_allows(rng):
    steps = np.linspace(0, 1, 2001)
    moved = 0
    for result, content in swaps(rng):
        swapped = y_of(swap_luma(result, content))
        for index in np.ndindex(swapped.shape):
            wanted = y_of(result[index])
            colors = np.float64(content[index]) - y_of(content[index]) + steps[:, None]
            allowed = steps[((colors >= -1e-6) & (colors <= 1 + 1e-6)).all(-1)]
            if len(allowed) and allowed[0] <= wanted <= allowed[-1]:
                assert swapped[index] == pytest.approx(wanted, abs=1e-6)
            elif len(allowed):
                assert swapped[index] == pytest.approx(allowed[np.abs(allowed - wanted).argmin()], abs=1e-3)
                moved += 1
    assert moved > 50


def test_a_pure_color_allows_its_own_luma_only():
    red, white = np.float32([[[1, 0, 0]]]), np.ones((1, 1, 3), np.float32)
    np.testing.assert_allclose(swap_luma(white, red), red, atol=1e-6)


def test_swapping_twice_is_swapping_once(rng):
    for result, content in swaps(rng):
        once = swap_luma(result, content)
        np.testing.assert_allclose(swap_luma(once, content), once, atol=1e-6)


def test_swapping_the_content_with_itself_gives_the_content(rng):
    for _, content in swaps(rng):
        np.testing.assert_allclose(swap_luma(content, content), content, atol=1e-6)


def test_luma_and_chroma_are_those_of_jpeg(rng):
    result, content = eighths((16, 16, 3), rng), eighths((16, 16, 3), rng)
    swapped, content, gray = (
        np.asarray(Image.fromarray(images.to_uint8(picture)).convert("YCbCr"), int)
        for picture in (swap_luma(result, content), content, luma(result))
    )
    assert np.abs(swapped[..., 1:] - content[..., 1:]).max() <= 1
    np.testing.assert_array_equal(gray[..., 1:], 128)
    pixels = images.to_uint8(result)
    theirs = np.asarray(Image.fromarray(pixels).convert("YCbCr"), float)
    np.testing.assert_allclose(255 * y_of(result), theirs[..., 0], atol=1)
    np.testing.assert_allclose(255 * chroma_of(result) + 128, theirs[..., 1:], atol=1)
    assert np.abs(gray[..., 0] - theirs[..., 0]).max() <= 1


# Refused

FLAT = np.full((4, 5, 3), 0.25, np.float32)
VARY = {"luma": "brightness", "match": "color", "histogram": "color"}


@pytest.mark.parametrize("mode", VARY)
@pytest.mark.parametrize("which", ["style", "content"])
def test_a_flat_picture_is_refused(mode, which):
    pictures = {"style": example("night"), "content": example("cat"), which: FLAT}
    with pytest.raises(InputError) as refused:
        prepare_style(mode, **pictures)
    flag, allowed = f"`preserve_color={mode}`: ", f"a {which} that varies in {VARY[mode]}"
    assert str(refused.value).startswith(flag + allowed)
    assert f"; the {which}'s deviation is " in str(refused.value)


@pytest.mark.parametrize("mode", VARY)
@pytest.mark.parametrize("which", ["style", "content"])
def test_a_picture_that_is_flat_where_its_weights_lie_is_refused(mode, which):
    pictures = {"style": example("night").copy(), "content": example("cat").copy()}
    weights, _ = window(pictures[which], slice(2, 6), slice(3, 9))
    pictures[which][weights > 0] = 0.25
    with pytest.raises(InputError, match=f"a {which} that varies"):
        prepare_style(mode, **pictures, **{f"{which}_weights": weights})


def test_a_gray_style_is_refused_in_match_and_the_message_says_what_to_use():
    gray = luma(example("night"))
    with pytest.raises(
        InputError, match=r"a style that varies in color in all three channels.*gray.*: luma\)"
    ):
        prepare_style("match", gray, example("cat"))
    prepare_style("luma", gray, example("cat"))


def test_a_style_whose_channels_hang_together_is_refused_in_match():
    style = example("night").copy()
    style[..., 2] = (style[..., 0] + style[..., 1]) / 2
    with pytest.raises(InputError, match="each in its own way"):
        prepare_style("match", style, example("cat"))


@pytest.mark.parametrize(("deviation", "refused"), [(0.0008, True), (0.0012, False)])
@pytest.mark.parametrize("mode", ["luma", "histogram"])
@pytest.mark.parametrize("which", ["style", "content"])
def test_a_quarter_of_a_step_of_8_bits_is_enough(mode, which, deviation, refused):
    pictures = {"style": example("night"), "content": example("cat")}
    pictures[which] = np.float32([0.5 - deviation, 0.5 + deviation])[None, :, None].repeat(3, 2)
    if refused:
        with pytest.raises(InputError):
            prepare_style(mode, **pictures)
    else:
        assert np.isfinite(prepare_style(mode, **pictures)).all()


@pytest.mark.parametrize("mode", sorted(COLOR_MODES.keys() - VARY.keys()))
def test_modes_that_leave_the_style_as_it_is_take_flat_pictures(mode):
    np.testing.assert_array_equal(prepare_style(mode, FLAT, FLAT), FLAT)
    night = example("night")
    np.testing.assert_array_equal(prepare_style(mode, night, FLAT), night)
