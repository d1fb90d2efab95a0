"""Flow, warping and where it holds, on clips whose motion is known exactly; cuts."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from nst_jax import images
from nst_jax.video import flow
from nst_jax.video.flow import Motion

SHAPE = (96, 128)
# From a frame's columns and rows, around the middle, to those of the frame before.
MOTIONS = {
    "still": (np.eye(2), (0.0, 0.0)),
    "pan": (np.eye(2), (3.25, -1.5)),
    "zoom": (np.eye(2) / 1.03, (0.0, 0.0)),
    "rotation": (np.array([[np.cos(0.03), -np.sin(0.03)], [np.sin(0.03), np.cos(0.03)]]), (0.0, 0.0)),
}


@pytest.fixture(scope="module")
def drawn():
    return images.load("example:coffee").rgb


def rendered(drawn, columns, rows):
    """Return the drawn picture at places around its middle."""
    middle = np.array(drawn.shape[:2]) / 2
    places = [rows + middle[0], columns + middle[1]]
    planes = [map_coordinates(drawn[..., c], places, order=3, mode="reflect") for c in range(3)]
    return np.stack(planes, -1).clip(0, 1).astype(np.float32)


def grid():
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    return columns - SHAPE[1] / 2, rows - SHAPE[0] / 2


def pair(drawn, name):
    """Return a frame, the one before, and the exact flow between them."""
    (columns, rows), (matrix, shift) = grid(), MOTIONS[name]
    there = np.stack([columns, rows], -1) @ matrix.T + shift
    exact = there - np.stack([columns, rows], -1)
    return (
        rendered(drawn, there[..., 0], there[..., 1]),
        rendered(drawn, columns, rows),
        exact.astype(np.float32),
    )


def inside(exact):
    """Tell which pixels come from within the frame before."""
    columns, rows = grid()
    at = np.stack([columns + SHAPE[1] / 2, rows + SHAPE[0] / 2], -1) + exact
    return ((at >= 0) & (at <= (SHAPE[1] - 1, SHAPE[0] - 1))).all(-1)


@pytest.mark.parametrize("name", MOTIONS)
def test_the_flow_is_the_motion(drawn, name):
    frame, before, exact = pair(drawn, name)
    found = flow.find(frame, before)
    apart = np.linalg.norm(found - exact, axis=-1)[8:-8, 8:-8]
    assert apart.mean() < 0.25
    assert np.median(apart) < 0.12


@pytest.mark.parametrize("name", MOTIONS)
def test_warping_by_the_exact_flow_gives_the_frame(drawn, name):
    frame, before, exact = pair(drawn, name)
    apart = np.abs(flow.warp(before, exact) - frame)[inside(exact)]
    assert apart.mean() < (1e-6 if name == "still" else 0.012)
    assert np.abs(before - frame).mean() > 3 * apart.mean() or name == "still"


def test_pictures_are_warped_again_and_again_without_blur():
    """Ten times along a pan of a quarter of a pixel, against the exact one; bilinear blurs four times as much."""
    columns, rows = grid()
    shift = np.full((*SHAPE, 2), 0.25, np.float32) * (1, 0)

    def drawn(moved):
        plane = 0.5 + 0.3 * np.sin(2 * np.pi * (columns + moved) / 8) * np.cos(rows / 9)
        return plane[..., None].repeat(3, -1).astype(np.float32)

    apart = {}
    for how in (flow.warp, flow.warp_picture):
        image = drawn(0)
        for _ in range(10):
            image = how(image, shift.astype(np.float32))
        apart[how] = np.abs(image - drawn(2.5))[:, 8:-8].mean()
    assert apart[flow.warp_picture] < apart[flow.warp] / 4
    assert apart[flow.warp_picture] < 0.02


def test_warping_pictures_is_catmull_and_rom_s_spline(rng):
    picture, shift = rng.random((5, 7, 3), np.float32), np.zeros((5, 7, 2), np.float32)
    shift[2, 3, 0] = 0.25
    before, one, two, after = np.float64(picture[2, 2:6])
    slopes = (two - before) / 2, (after - one) / 2  # a cubic of these values and slopes, at 0.25
    t = 0.25
    hermite = 2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, 3 * t**2 - 2 * t**3, t**3 - t**2
    expected = hermite[0] * one + hermite[1] * slopes[0] + hermite[2] * two + hermite[3] * slopes[1]
    warped = flow.warp_picture(picture, shift)
    np.testing.assert_allclose(warped[2, 3], expected.clip(0, 1), rtol=1e-5)
    np.testing.assert_array_equal(warped[3], picture[3])


def test_warping_is_bilinear_and_mirrors_the_border(rng):
    array, shift = rng.random((5, 7, 3), np.float32), np.zeros((5, 7, 2), np.float32)
    shift[2, 3] = 0.25, -0.5
    shift[0, 0], shift[4, 6] = (-2, -1), (3, 2)
    warped = flow.warp(array, shift)
    expected = 0.5 * (0.75 * array[1, 3] + 0.25 * array[1, 4]) + 0.5 * (
        0.75 * array[2, 3] + 0.25 * array[2, 4]
    )
    np.testing.assert_allclose(warped[2, 3], expected, rtol=1e-6)
    np.testing.assert_array_equal(warped[0, 0], array[1, 2])
    np.testing.assert_array_equal(warped[4, 6], array[2, 3])
    np.testing.assert_array_equal(warped[3], array[3])


@pytest.mark.parametrize("name", MOTIONS)
def test_the_flow_holds_where_the_scene_was_in_sight(drawn, name):
    frame, before, exact = pair(drawn, name)
    moved = flow.motion(frame, before)
    assert moved.holds[inside(exact)].mean() > 0.85
    assert moved.holds[~inside(exact)].mean() < 0.1 if (~inside(exact)).any() else True


def crossing(drawn):
    """Return two frames with a square that moves by 7 columns, its places in both, and the exact flow."""
    columns, rows = grid()
    frames, squares = [], []
    for left in (40, 47):
        square = np.zeros(SHAPE, bool)
        square[30:66, left : left + 36] = True
        moved = rendered(drawn, 2.0 * (columns - left) - 150, 2.0 * rows - 70)
        frames.append(np.where(square[..., None], moved, rendered(drawn, columns, rows)))
        squares.append(square)
    exact = np.zeros((*SHAPE, 2), np.float32)
    exact[squares[1]] = -7, 0
    return *frames, *squares, exact


def test_what_a_square_uncovers_is_not_known(drawn):
    before, frame, old, new, exact = crossing(drawn)
    uncovered = old & ~new
    moved = flow.motion(frame, before)
    assert moved.holds[uncovered].mean() < 0.35
    assert moved.holds[~old & ~new].mean() > 0.85
    assert moved.holds[new].mean() > 0.8
    back = np.zeros_like(exact)
    back[old] = 7, 0
    exactly = flow.holds(exact, back)
    assert not exactly[uncovered][:-1].any()
    edges = np.gradient(exact[..., 0])[1] != 0  # of motion, one pixel to each side
    np.testing.assert_array_equal(
        exactly[~uncovered & ~edges], ~np.gradient(exact[..., 0])[0].astype(bool)[~uncovered & ~edges]
    )


def test_the_formulas_of_ruder():
    """|w + w~|^2 against 0.01 (|w|^2 + |w~|^2) + 0.5, and the slopes against 0.01 |w|^2 + 0.002."""
    shape = (9, 9, 2)
    for length, off, expected in ((0, 0.70, True), (0, 0.72, False), (3, 0.78, True), (3, 0.81, False)):
        backward = np.zeros(shape, np.float32)
        forward = np.zeros(shape, np.float32)
        backward[..., 0], forward[..., 0] = length, off - length
        both = length**2 + (off - length) ** 2
        assert (off**2 <= 0.01 * both + 0.5) == expected
        assert flow.holds(backward, forward)[4, 2] == expected
    for slope, expected in ((0.044, True), (0.046, False)):
        backward = np.zeros(shape, np.float32)
        backward[..., 1] = slope * np.arange(-4, 5)[:, None]
        assert flow.holds(backward, -backward)[4, 4] == expected


def test_nearer_frames_come_first_and_farther_ones_fill_the_gaps(rng):
    pictures = {back: rng.random((4, 5, 3), np.float32) for back in (1, 2, 4)}
    holds = {back: np.zeros((4, 5), bool) for back in pictures}
    holds[1][0], holds[2][:2], holds[4][1:3] = True, True, True
    none = np.zeros((4, 5, 2), np.float32)
    known = flow.combine({back: Motion(none, holds[back]) for back in pictures}, pictures)
    np.testing.assert_array_equal(known.weights.mean(1), [1, 1, 1, 0])
    for row, back in enumerate((1, 2, 4, 1)):  # unknown: the nearest, which the optimizer begins with
        np.testing.assert_array_equal(known.picture[row], pictures[back][row])


def test_the_combined_term_differs_from_ruder_s_sum_by_a_constant(rng):
    """sum_j c_j (x - w_j)^2 with c_j = max(c_j - sum of nearer c, 0)."""
    pictures = {back: rng.random((4, 5, 3), np.float32) for back in (1, 2, 4)}
    holds = {back: rng.random((4, 5)) > 0.5 for back in pictures}
    none = np.zeros((4, 5, 2), np.float32)
    known = flow.combine({back: Motion(none, holds[back]) for back in pictures}, pictures)
    x = rng.random((2, 4, 5, 3))
    total, seen = np.zeros((2, 4, 5, 3)), np.zeros((4, 5))
    for back, picture in pictures.items():
        weight = np.maximum(holds[back] - seen, 0)
        seen += holds[back]
        total += weight[..., None] * (x - picture) ** 2
    ours = known.weights[..., None] * (x - known.picture) ** 2
    np.testing.assert_allclose(ours[0] - ours[1], total[0] - total[1], atol=1e-12)


def test_cuts_are_found_and_motion_is_none(drawn):
    for name in MOTIONS:
        frame, before, _ = pair(drawn, name)
        assert not flow.is_cut(frame, before, flow.motion(frame, before)), name
    before, frame, *_ = crossing(drawn)
    assert not flow.is_cut(frame, before, flow.motion(frame, before))
    names = ("coffee", "rocket", "cat", "waves")
    scenes = [images.resize(images.load(f"example:{name}").rgb, *SHAPE) for name in names]
    plain = np.full((*SHAPE, 3), 0.5, np.float32)
    for one, scene in enumerate([*scenes, plain]):
        for other, another in enumerate([*scenes, plain]):
            assert flow.is_cut(scene, another, flow.motion(scene, another)) == (one != other), (one, other)


def test_a_motion_holds_where_it_leads_to_what_is_known():
    """All moves by 3 columns to the right, and the left half of the earlier frame is known."""
    back = np.zeros((20, 24, 2), np.float32)
    back[..., 0] = -3
    known = np.zeros((20, 24), bool)
    known[:, :12] = True
    moved = Motion(back, np.ones((20, 24), bool))
    expected = np.zeros((20, 24), bool)
    expected[:, :15] = True
    np.testing.assert_array_equal(flow.within(moved, known).holds[:, 3:], expected[:, 3:])
    np.testing.assert_array_equal(flow.within(moved, None).holds, moved.holds)
