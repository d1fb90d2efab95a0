"""Masks against slow loops in float64, and values by hand."""

import re
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images import masks
from nst_jax.images.masks import COLORS, RING, SEAM, Masks
from nst_jax.networks import NETWORKS
from nst_jax.networks.base import features, make_params

VGG = NETWORKS["vgg16"]
SIZES = [
    ((7, 9), (3, 4)),
    ((5, 4), (12, 11)),
    ((6, 8), (3, 4)),
    ((3, 5), (9, 15)),
    ((9, 4), (5, 10)),
    ((1, 6), (4, 1)),
]


def save(tmp_path, array, mode=None):
    path = tmp_path / "mask.png"
    Image.fromarray(np.asarray(array)).convert(mode).save(path) if mode else Image.fromarray(array).save(path)
    return str(path)


def grays(*values):
    return np.array([values], np.uint8)


def block(shape, rows, columns, value=1.0):
    mask = np.zeros(shape, np.float32)
    mask[slice(*rows), slice(*columns)] = value
    return mask


def area_average(mask, height, width):
    """The average over every new pixel, by the overlap of each old one: in whole numbers of 1/(old * new)."""
    h, w = mask.shape
    average = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(h, w):
            rows = min((i + 1) * h, (a + 1) * height) - max(i * h, a * height)
            columns = min((j + 1) * w, (b + 1) * width) - max(j * w, b * width)
            if rows > 0 and columns > 0:
                average[i, j] += float(mask[a, b]) * rows * columns / (h * w)
    return average


def halved(mask):
    """The mean of every whole 2x2 window."""
    small = np.zeros((mask.shape[0] // 2, mask.shape[1] // 2))
    for i, j in np.ndindex(small.shape):
        small[i, j] = sum(float(mask[2 * i + a, 2 * j + b]) for a in (0, 1) for b in (0, 1)) / 4
    return small


def faded(union):
    """The opacity, pixel by pixel: the mean of the least of the union within 0, 1 ... SEAM - 1 pixels."""
    found = np.zeros(union.shape)
    for i, j in np.ndindex(union.shape):
        least = [union[max(i - k, 0) : i + k + 1, max(j - k, 0) : j + k + 1].min() for k in range(SEAM)]
        found[i, j] = sum(map(float, least)) / SEAM
    return found


# Files


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_is_cut_above_127(tmp_path, mode):
    mask, _ = masks.load(save(tmp_path, grays(0, 1, 126, 127, 128, 129, 254, 255), mode))
    np.testing.assert_array_equal(mask, [[0, 0, 0, 0, 1, 1, 1, 1]])
    assert mask.dtype == np.float32


def test_every_gray_is_cut_at_the_same_place(tmp_path):
    mask, _ = masks.load(save(tmp_path, np.arange(256, dtype=np.uint8).reshape(16, 16)))
    np.testing.assert_array_equal(mask.ravel(), [0] * 128 + [1] * 128)


def test_a_soft_mask_keeps_its_grays(tmp_path):
    mask, _ = masks.load(save(tmp_path, grays(0, 51, 102, 204, 255)), soft=True)
    np.testing.assert_allclose(mask, [[0, 0.2, 0.4, 0.8, 1]], atol=1e-6)
    assert mask.dtype == np.float32
    assert mask.max() <= 1


def test_the_share_of_grays_leaves_out_what_is_within_25_of_black_or_white(tmp_path):
    name = save(tmp_path, grays(0, 25, 26, 127, 128, 229, 230, 255))
    assert masks.load(name)[1] == masks.load(name, soft=True)[1] == 4 / 8


def test_a_black_and_white_mask_has_no_grays():
    mask, share = masks.load("example:cat-face")
    assert share == 0
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize(("colored", "refused"), [(1, False), (2, True)])
def test_a_mask_with_more_than_one_percent_of_color_is_refused(tmp_path, colored, refused):
    rgb = np.full((10, 10, 3), 255, np.uint8)
    rgb[0, :colored, 2] = 229  # 26 of 255 away: a color
    rgb[5, :, 2] = 230  # 25: none
    name = save(tmp_path, rgb)
    if refused:
        with pytest.raises(InputError) as error:
            masks.load(name)
        assert (
            str(error.value)
            == f"{name}: a mask is a gray picture, white where the style acts; 2% of it is colored"
        )
    else:
        assert masks.load(name)[0].all()


@pytest.mark.parametrize(("gray", "soft"), [(0, False), (127, False), (0, True)])
def test_a_mask_without_a_white_part_is_refused(tmp_path, gray, soft):
    name = save(tmp_path, np.full((3, 4), gray, np.uint8))
    with pytest.raises(
        InputError,
        match=f"^{re.escape(name)}: a mask has a white part.*(black everywhere|none of it is above 127)",
    ):
        masks.load(name, soft)


def test_what_is_see_through_is_no_part_of_a_mask(tmp_path):
    rgba = np.full((4, 6, 4), 255, np.uint8)
    rgba[:, 3:, 3] = 0  # white drawn on nothing, as paint programs save it
    mask, _ = masks.load(save(tmp_path, rgba))
    np.testing.assert_array_equal(mask, np.repeat([[1, 1, 1, 0, 0, 0]], 4, 0))


def test_a_missing_mask_is_refused_by_name(tmp_path):
    name = str(tmp_path / "none.png")
    with pytest.raises(InputError, match=f"^{re.escape(name)}: .*No such file"):
        masks.load(name)


def test_a_mask_has_a_limit_of_pixels(tmp_path):
    name = save(tmp_path, grays(255, 255, 255))
    masks.load(name, max_pixels=3)
    with pytest.raises(InputError, match="at most 2 pixels"):
        masks.load(name, max_pixels=2)


# Shape


@pytest.mark.parametrize("size", [(100, 200), (50, 100), (1000, 2000), (1, 2), (199, 400), (201, 400)])
def test_a_mask_of_any_size_has_the_aspect_within_one_percent(size):
    masks.check_aspect("m.png", size, (100, 200), "the content")


@pytest.mark.parametrize("size", [(200, 100), (100, 203), (100, 197), (103, 200), (97, 200), (100, 100)])
def test_a_mask_of_another_aspect_is_refused(size):
    with pytest.raises(InputError) as error:
        masks.check_aspect("m.png", size, (100, 200), "the content")
    assert str(error.value) == (
        "m.png: a mask has the aspect of the content, within a pixel or 1 % (any size); "
        f"it is {size[1]}x{size[0]}, the content 200x100"
    )


@pytest.mark.parametrize("size", [(10, 100), (11, 100), (1, 10), (2, 10), (21, 200)])
@pytest.mark.parametrize("upright", [False, True])
def test_a_thin_mask_may_be_a_pixel_off(size, upright):
    turn = slice(None, None, -1 if upright else 1)
    masks.check_aspect("m.png", size[turn], (105, 1000)[turn], "the content")


@pytest.mark.parametrize("size", [(9, 100), (12, 100), (19, 200), (22, 200), (96, 1000)])
@pytest.mark.parametrize("upright", [False, True])
def test_a_thin_mask_that_is_more_than_a_pixel_off_is_refused(size, upright):
    turn = slice(None, None, -1 if upright else 1)
    with pytest.raises(InputError):
        masks.check_aspect("m.png", size[turn], (105, 1000)[turn], "the content")


@pytest.mark.parametrize(("width", "refused"), [(1011, True), (1009, False), (991, False), (989, True)])
def test_the_limit_of_the_aspect_is_one_percent(width, refused):
    if refused:
        with pytest.raises(InputError):
            masks.check_aspect("m.png", (500, width), (50, 100), "the content")
    else:
        masks.check_aspect("m.png", (500, width), (50, 100), "the content")


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resize_is_the_exact_average_over_each_pixel(old, new, rng):
    mask = rng.random(old, np.float32)
    ours = masks.resize(mask, *new)
    assert ours.shape == new
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, area_average(mask, *new), atol=1e-6)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resize_keeps_the_mean_and_the_range(old, new, rng):
    mask = (rng.random(old) > 0.4).astype(np.float32)
    ours = masks.resize(mask, *new)
    assert ours.mean(dtype=np.float64) == pytest.approx(mask.mean(dtype=np.float64), abs=1e-6)
    assert 0 <= ours.min() <= ours.max() <= 1
    np.testing.assert_allclose(masks.resize(np.ones(old, np.float32), *new), 1, atol=1e-6)


def test_resize_to_its_own_size_is_the_mask(rng):
    mask = rng.random((5, 7), np.float32)
    np.testing.assert_array_equal(masks.resize(mask, 5, 7), mask)


def test_resize_leaves_black_what_is_black():
    for width in (20, 33, 50, 75, 90):
        mask = block((2, width), (0, 2), (0, width // 2))
        for new in range(2, 60):
            np.testing.assert_allclose(masks.resize(mask, 1, new)[:, (new + 1) // 2 :], 0, atol=1e-12)


def test_resize_leaves_black_what_is_black_to_the_bit():
    for old, new in [(2, 98), (2, 206), (6, 98)]:
        for column in (old // 2, old // 3):
            mask = block((1, old), (0, 1), (0, column))
            np.testing.assert_array_equal(masks.resize(mask, 1, new) == 0, area_average(mask, 1, new) == 0)


# Regions


def test_no_masks_are_no_regions():
    assert masks.regions(Masks()) is None
    assert masks.regions(Masks(styles=[None, None], sources=[np.ones((2, 2), np.float32)])) is None


@pytest.mark.parametrize("styles", [[], [None], [None, None]])
def test_a_content_mask_alone_is_one_region_for_all(styles, rng):
    content = rng.random((3, 4), np.float32)
    np.testing.assert_array_equal(masks.regions(Masks(content, styles)), content[None])


def test_a_style_without_a_mask_acts_everywhere(rng):
    style = rng.random((3, 4), np.float32)
    found = masks.regions(Masks(styles=[None, style, None]))
    np.testing.assert_array_equal(found, [np.ones((3, 4)), style, np.ones((3, 4))])
    assert found.dtype == np.float32


def test_regions_are_those_of_the_styles_within_the_contents(rng):
    content, one, other = rng.random((3, 3, 4), np.float32)
    np.testing.assert_allclose(masks.regions(Masks(content, [one, other])), [one * content, other * content])
    np.testing.assert_allclose(masks.regions(Masks(content, [one, None])), [one * content, content])
    np.testing.assert_array_equal(masks.regions(Masks(None, [one, other])), [one, other])


def test_a_source_mask_makes_no_region(rng):
    content, style, source = rng.random((3, 3, 4), np.float32)
    with_source = masks.regions(Masks(content, [style], [source]))
    np.testing.assert_array_equal(with_source, masks.regions(Masks(content, [style])))


# Opacity


def ringed(parts):
    """The regions with their rings, pixel by pixel: where all are black, each one's largest weight nearby."""
    found = parts.copy()
    for i, j in np.argwhere(parts.sum(0) == 0):
        near = parts[:, max(i - RING, 0) : i + RING + 1, max(j - RING, 0) : j + RING + 1]
        found[:, i, j] = near.max((1, 2))
    return found


@pytest.mark.parametrize("white", [0.0005, 0.01, 0.9])
@pytest.mark.parametrize("shape", [(50, 70), (5, 90), (1, 1)])
def test_rings_equal_the_twin(white, shape, rng):
    parts = np.where(rng.random((2, *shape)) < white, rng.random((2, *shape)), 0).astype(np.float32)
    wide = ringed(parts)
    np.testing.assert_array_equal(masks.widened(parts), wide)
    np.testing.assert_allclose(masks.optimized(parts), faded((wide > 0).any(0)), atol=1e-6)


def test_all_of_the_picture_that_is_shown_is_optimized(rng):
    """A soft mask's grays, too: they are of what is shown, not of what the losses see."""
    parts = np.where(rng.random((2, 60, 60)) < 0.001, rng.random((2, 60, 60)), 0).astype(np.float32)
    assert (masks.optimized(parts)[masks.opacity(parts) > 0] == 1).all()
    assert 0 < parts.max() < 1


def test_regions_that_meet_have_no_rings_in_each_other(rng):
    one = rng.random((30, 50), np.float32)
    parts = np.stack([one, 1 - one])
    np.testing.assert_array_equal(masks.widened(parts), parts)


def test_opacity_rises_over_four_pixels_inside_a_half_plane():
    half = block((6, 12), (0, 6), (4, 12))
    assert SEAM == 4
    expected = [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(masks.opacity(half[None]), [expected] * 6)
    np.testing.assert_array_equal(masks.opacity(half.T[None]), np.array([expected] * 6).T)


def test_opacity_of_a_square_by_hand():
    square = block((7, 7), (1, 6), (1, 6))
    ring = np.minimum.outer([0, 1, 2, 3, 2, 1, 0], [0, 1, 2, 3, 2, 1, 0])
    np.testing.assert_array_equal(masks.opacity(square[None]), np.minimum(ring, [0, 1, 2, 3, 2, 1, 0]) / 4)


@pytest.mark.parametrize("soft", [False, True])
def test_opacity_equals_the_twin(soft, rng):
    for count in (1, 2, 3):
        white = rng.random((count, 14, 17)) > 0.3
        white[:, 3:12, 2:12] = True
        white[:, 5, 5] = False
        parts = white.astype(np.float32) * (
            rng.uniform(0.2, 1, white.shape).astype(np.float32) if soft else 1
        )
        ours = masks.opacity(parts)
        np.testing.assert_allclose(ours, faded(np.minimum(parts.sum(0), 1)), atol=1e-6)
        assert 0 <= ours.min() <= ours.max() <= 1
        np.testing.assert_array_equal(ours == 0, ~white.any(0))


def test_opacity_is_one_from_four_pixels_inside(rng):
    mask = (rng.random((30, 30)) > 0.01).astype(np.float32)
    blacks = np.argwhere(mask == 0)
    assert len(blacks)
    ours = masks.opacity(mask[None])
    for i, j in np.ndindex(mask.shape):
        distance = np.abs(blacks - [i, j]).max(-1).min()  # in a king's moves
        assert ours[i, j] == min(distance, SEAM) / SEAM


def test_the_border_of_the_picture_counts_as_white():
    np.testing.assert_array_equal(masks.opacity(np.ones((1, 5, 6), np.float32)), 1)
    np.testing.assert_array_equal(masks.opacity(np.ones((2, 1, 1), np.float32)), 1)


def test_two_complementary_masks_leave_no_seam(rng):
    hard = (rng.random((20, 30)) > 0.5).astype(np.float32)
    np.testing.assert_array_equal(masks.opacity(np.stack([hard, 1 - hard])), 1)
    resized = np.stack([masks.resize(mask, 13, 22) for mask in (hard, 1 - hard)])
    np.testing.assert_allclose(masks.opacity(resized), 1, atol=1e-6)


# Positions of the layers


@pytest.mark.parametrize("size", [(32, 48), (37, 53), (16, 31)])
def test_pooled_is_the_mean_of_every_whole_window(size, rng):
    mask = rng.random(size, np.float32)
    expected = mask
    for number in range(1, 6):
        for layer in (f"conv{number}_1", f"conv{number}_2"):
            ours = masks.pooled(mask, VGG.layer(layer).stride)
            assert ours.shape == (size[0] >> (number - 1), size[1] >> (number - 1))
            np.testing.assert_allclose(ours, expected, atol=1e-6)
        expected = halved(expected)


@pytest.mark.parametrize("size", [(32, 48), (37, 53)])
def test_pooled_has_the_shape_of_every_layer_of_the_network(size, params):
    layers = VGG.names
    shapes = jax.eval_shape(
        lambda image: features(params, image, layers), jax.ShapeDtypeStruct((*size, 3), jnp.float32)
    )
    for layer in layers:
        assert (
            masks.pooled(np.ones(size, np.float32), VGG.layer(layer).stride).shape == shapes[layer].shape[:2]
        )


def test_inner_leaves_out_the_outermost_positions_unless_no_others_have_weight(rng):
    weights = rng.random((4, 5), np.float32)
    found = masks.inner(weights)
    np.testing.assert_array_equal(found[1:3, 1:4], weights[1:3, 1:4])
    found[1:3, 1:4] = 0
    assert not found.any()
    edge = weights.copy()
    edge[1:3, 1:4] = 0
    for nowhere_else in (edge, weights[:2], weights[:, :1]):
        np.testing.assert_array_equal(masks.inner(nowhere_else), nowhere_else)


def test_pooled_puts_the_mask_where_the_network_puts_its_positions(rng):
    layers = [f"conv{number}_1" for number in range(1, 6)]
    arrays = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}
    for layer in layers:  # convolutions that copy the first channel
        arrays[f"{layer}.kernel"] = np.zeros((3, 3, 3 if layer == "conv1_1" else 1, 1), np.float32)
        arrays[f"{layer}.kernel"][1, 1, 0, 0] = 1
        arrays[f"{layer}.bias"] = np.zeros(1, np.float32)
    mask = rng.random((37, 53), np.float32)
    maps = features(make_params(VGG, arrays), np.repeat(mask[..., None], 3, -1), layers, pooling="average")
    for layer in layers:
        np.testing.assert_allclose(
            masks.pooled(mask, VGG.layer(layer).stride), maps[layer][..., 0], atol=1e-6
        )


# Too small


@pytest.mark.parametrize("number", range(1, 6))
def test_a_mask_of_one_position_passes_and_less_is_refused(number):
    unit = 2 ** (number - 1)
    mask = block((64, 80), (unit, 2 * unit), (2 * unit, 3 * unit))
    layers = ["conv1_1", f"conv{number}_1", "conv1_2"]
    masks.check("m.png", mask, VGG, layers)
    mask[unit, 2 * unit] -= 0.5
    with pytest.raises(InputError, match=f"one position of conv{number}_1" if number > 1 else "of conv1_2"):
        masks.check("m.png", mask, VGG, layers)


@pytest.mark.parametrize(
    ("side", "left", "shallower", "longest"),
    [(8, "0.25", "conv4_3", 128), (12, "0.56", "conv4_3", 86), (4, "0.062", "conv3_3", 256)],
)
def test_the_refusal_of_a_small_mask_says_what_is_left_and_what_would_do(side, left, shallower, longest):
    mask = block((64, 48), (16, 16 + side), (32, 32 + side))
    with pytest.raises(InputError) as error:
        masks.check("m.png", mask, VGG, ["conv5_1", "conv2_1"])
    refusal, size = re.fullmatch(
        "(.*) or a picture with a longest side of (.*) pixels would do", str(error.value)
    ).groups()
    assert refusal == (
        "m.png: the region covers at least one position of conv5_1 (16x16 pixels); "
        f"{left} of one; style layers up to {shallower}"
    )
    assert longest - 1 <= int(size) <= 1.15 * longest
    masks.check("m.png", mask, VGG, [shallower])
    masks.check("m.png", masks.resize(mask, longest, longest * 3 // 4), VGG, ["conv5_1"])


def test_the_refusal_of_less_than_a_pixel_names_no_shallower_layers():
    mask = block((64, 64), (3, 4), (3, 4), 0.5)
    with pytest.raises(
        InputError, match=r"; 0\.0020? of one; a picture with a longest side of \d+ pixels would do$"
    ):
        masks.check("m.png", mask, VGG, ["conv5_1"])


def test_white_in_the_odd_rows_that_poolings_drop_does_not_count():
    mask = block((17, 32), (16, 17), (0, 32))
    masks.check("m.png", mask, VGG, ["conv1_1"])
    with pytest.raises(InputError, match="; 0 of one;"):
        masks.check("m.png", mask, VGG, ["conv2_1"])


def small_masks(rng):
    """Masks that are refused, their layer, and the refusal."""
    for _ in range(150):
        h, w = rng.integers(16, 80, 2)
        y, x = rng.integers(h), rng.integers(w)
        mask = block((h, w), (y, y + rng.integers(1, 20)), (x, x + rng.integers(1, 20)))
        layer = f"conv{rng.integers(2, 6)}_1"
        try:
            masks.check("m.png", mask, VGG, [layer])
        except InputError as error:
            yield mask, layer, str(error)


def test_the_longest_side_that_a_refusal_names_would_do(rng):
    for mask, layer, refusal in small_masks(rng):
        longest = int(re.search(r"longest side of (\d+)", refusal)[1])
        masks.check("m.png", masks.resize(mask, *images.size_to_fit(*mask.shape, longest)), VGG, [layer])


def test_the_shallower_layers_that_a_refusal_names_would_do(rng):
    for mask, layer, refusal in small_masks(rng):
        if named := re.search(r"up to (conv\d_\d)", refusal):
            assert named[1] < layer
            masks.check("m.png", mask, VGG, [named[1]])


# Preview


def color_of(n):
    code = COLORS[n % len(COLORS)]
    return np.array([int(code[k : k + 2], 16) for k in (1, 3, 5)]) / 255


@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_preview_has_a_line_of_22_pixels_for_each_name(count, rng):
    picture, parts = rng.random((10, 60, 3), np.float32), rng.random((count, 10, 60), np.float32)
    shown = masks.preview(picture, parts, [f"name {n}" for n in range(count)])
    assert shown.shape == (10 + 22 * count, 60, 3)
    assert shown.dtype == np.float32
    assert 0 <= shown.min() <= shown.max() <= 1


def test_a_preview_is_tinted_where_regions_act_and_dark_where_none_does(rng):
    picture = rng.random((6, 40, 3), np.float32)
    parts = np.zeros((2, 6, 40), np.float32)
    parts[0, :, :20], parts[1, :, 10:30] = 1, 1  # the first, both, the second, none
    shown = np.float64(masks.preview(picture, parts, ["one", "other"])[:6])
    gray = np.float64(picture).mean(-1, keepdims=True)
    one, other = color_of(0), color_of(1)
    for columns, tint in {(0, 10): one, (10, 20): (one + other) / 2, (20, 30): other}.items():
        wanted = 0.45 * gray[:, slice(*columns)] + 0.55 * tint
        np.testing.assert_allclose(shown[:, slice(*columns)], wanted, atol=1e-6)
    np.testing.assert_allclose(shown[:, 30:], 0.35 * gray[:, 30:].repeat(3, -1), atol=1e-6)


def test_a_preview_of_a_soft_region_lies_between_tinted_and_dark(rng):
    picture = rng.random((4, 30, 3), np.float32)
    tinted, half, dark = (
        masks.preview(picture, np.full((1, 4, 30), value, np.float32), ["one"])[:4] for value in (1, 0.5, 0)
    )
    np.testing.assert_allclose(half, (tinted + dark) / 2, atol=1e-6)


def test_the_legend_has_the_color_and_the_name_of_every_region(rng):
    picture, parts = rng.random((5, 90, 3), np.float32), np.ones((9, 5, 90), np.float32)
    legend = masks.preview(picture, parts, ["mmm"] * 8 + [""])[5:]
    for n in range(9):
        line = legend[22 * n : 22 * (n + 1)]
        np.testing.assert_allclose(line[4:19, 4:19], np.broadcast_to(color_of(n), (15, 15, 3)), atol=1e-6)
        np.testing.assert_array_equal(line[:4, :22], 1)
        assert (line[:, 24:].min() < 0.2) == (n < 8), "black letters on white"


def test_a_preview_may_have_colors_of_its_own(rng):
    picture, parts = rng.random((5, 90, 3), np.float32), np.ones((1, 5, 90), np.float32)
    shown = masks.preview(picture, parts, [""], ["#ff8000"])
    np.testing.assert_allclose(
        shown[9 : 9 + 15, 4:19], np.broadcast_to([1, 128 / 255, 0], (15, 15, 3)), atol=1e-6
    )
    wanted = 0.45 * picture.mean(-1, keepdims=True) + 0.55 * np.array([1, 128 / 255, 0])
    np.testing.assert_allclose(shown[:5], wanted, atol=1e-6)


def test_the_colors_of_the_regions_differ():
    assert len(set(COLORS)) == len(COLORS) >= 7


def test_a_big_mask_is_never_in_color_and_in_float32(tmp_path):
    path = save(tmp_path, np.full((2000, 3000), 255, np.uint8), "RGB")
    tracemalloc.start()
    masks.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 6_000_000  # bytes a pixel: 3 of the file, 4 of the mask; 12 of float32 colors before
