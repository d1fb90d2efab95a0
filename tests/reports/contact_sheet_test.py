"""The contact sheet, its places worked out by hand; the knee, against a search by definition; the plot."""

import io
import math

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from nst_jax.reports.contact_sheet import (
    Panel,
    contact_sheet,
    describe,
    knee,
    plot_tradeoff,
    thumbnail,
    tile_side,
)

RED, GREEN, BLUE, GOLD = (200, 0, 0), (0, 160, 0), (0, 0, 210), (190, 150, 0)
LOSSES = {"total": 1234567.0, "content": 0.5, "style": 2e-5, "tv": math.nan}
BELOW = ["total 1.235e+06", "content 0.5", "style 2e-05", "tv nan"]


def flat(color, height, width):
    return np.full((height, width, 3), color, np.uint8)


def tile(color, height=60, width=90, lines=("a.png",), flag=None):
    return Panel(flat(color, height, width), lines, LOSSES, flag)


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def place(sheet, color):
    """Return left, top, right and bottom of all that has the color."""
    rows, columns = np.nonzero((sheet == color).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def assert_written(sheet, x, y, text, fill="black", room=120):
    """The text stands at x, y, and nothing else does in the 15 rows of its line."""
    line = Image.new("RGB", (room, 15), "white")
    ImageDraw.Draw(line).text((0, 0), text, fill=fill, font=ImageFont.load_default(11))
    np.testing.assert_array_equal(sheet[y : y + 15, x : x + room], np.asarray(line), text)


def test_every_name_has_its_value_numbers_in_short():
    values = {"style_weight": 1e8, "seed": 3, "style_mix": (1.0, 0.25), "style": "a.png"}
    assert describe(values) == ["style_weight 1e+08", "seed 3", "style_mix 1:0.25", "style a.png"]


@pytest.mark.parametrize(
    ("shape", "side", "size"),
    [
        ((600, 1200), 240, (120, 240)),
        ((1200, 600), 120, (120, 60)),
        ((30, 40), 240, (30, 40)),
        ((2, 4000), 240, (1, 240)),
    ],
)
def test_a_thumbnail_keeps_the_aspect_and_is_never_larger_than_the_picture(shape, side, size):
    ramp = np.linspace(0, 1, shape[1], dtype=np.float32)
    small = thumbnail(np.broadcast_to(ramp[None, :, None], (*shape, 3)).copy(), side)
    assert small.shape == (*size, 3)
    centers = (np.arange(size[1]) + 0.5) / size[1]  # a ramp made smaller is a ramp
    np.testing.assert_allclose(small[0, :, 1], 255 * centers, atol=4)


def test_a_sheet_of_very_many_has_pictures_of_half_the_size():
    assert [tile_side(n) for n in (1, 999, 1000, 10_000)] == [240, 240, 120, 120]


def test_tiles_lie_in_rows_with_their_lines_above_and_their_losses_below():
    """A column is 240 wide with 8 on both sides; a row 2 lines, 60 of picture, 4 lines, and 8 twice."""
    tiles = {
        0: tile(RED, lines=("0000.png", "seed 1")),
        1: tile(GREEN, 40, 240),
        2: tile(BLUE, flag="non-finite"),
    }
    sheet = pixels(contact_sheet(tiles, 2, [("c", flat(GOLD, 90, 180))]))
    assert sheet.shape == (2 * (60 + 6 * 15 + 16) + 8, 200 + 2 * 256, 3)
    assert place(sheet, RED) == (208, 38, 298, 98)
    assert place(sheet, GREEN) == (464, 38, 704, 78)
    assert place(sheet, BLUE) == (208, 204, 298, 264)
    assert_written(sheet, 208, 8, "0000.png")
    assert_written(sheet, 208, 23, "seed 1")
    for n, text in enumerate(BELOW):
        assert_written(sheet, 208, 98 + 15 * n, text, "#555555")
        assert_written(sheet, 464, 78 + 15 * n, text, "#555555")
    assert_written(sheet, 208 + 120, 264, "non-finite", "red")
    assert (sheet[:, 456:464] == 255).all()


def test_what_went_in_stands_in_the_margin_and_makes_the_sheet_as_high_as_it_needs():
    inputs = [("example:cat", flat(GOLD, 120, 180)), ("example:ink", flat(BLUE, 180, 100))]
    sheet = pixels(contact_sheet({0: tile(RED)}, 1, inputs))
    assert place(sheet, GOLD) == (8, 23, 188, 143)
    assert place(sheet, BLUE) == (8, 174, 108, 354)
    assert_written(sheet, 8, 8, "example:cat")
    assert_written(sheet, 8, 159, "example:ink")
    assert sheet.shape == (120 + 180 + 2 * 31 + 8, 456, 3)


def test_a_grid_has_names_and_values_over_its_columns_and_beside_its_rows():
    """The margin of 200, then 160 for the names of rows; one line and 8 for those of columns."""
    tiles = {n: tile(color) for n, color in enumerate((RED, GREEN, BLUE, GOLD))}
    heads, sides = ["seed 1", "seed 2"], [["style a", "tv_weight 0"], ["style b", "tv_weight 0"]]
    sheet = pixels(contact_sheet(tiles, 2, [], heads, sides))
    row = 60 + 5 * 15 + 16
    assert place(sheet, RED) == (368, 46, 458, 106)
    assert place(sheet, GREEN) == (624, 46, 714, 106)
    assert place(sheet, BLUE) == (368, 46 + row, 458, 106 + row)
    assert place(sheet, GOLD) == (624, 46 + row, 714, 106 + row)
    assert_written(sheet, 368, 8, "seed 1")
    assert_written(sheet, 624, 8, "seed 2")
    for n, (style, tv) in enumerate(sides):
        assert_written(sheet, 208, 46 + n * row, style)
        assert_written(sheet, 208, 61 + n * row, tv)


def test_a_picture_that_is_missing_leaves_its_place_empty():
    heads, sides = ["seed 1", "seed 2"], [["style a"], ["style b"], ["style c"]]
    sheet = pixels(contact_sheet({0: tile(RED), 3: tile(BLUE)}, 2, [], heads, sides))
    assert place(sheet, RED)[:2] == (368, 46)
    assert place(sheet, BLUE)[:2] == (624, 46 + 151)
    assert (sheet[31:182, 624:] == 255).all()
    assert sheet.shape[0] == 23 + 2 * 151 + 8  # no third row: nothing of it is there


def test_a_name_too_wide_loses_its_middle_and_stays_out_of_its_neighbor():
    names = ["pictures/of/last/summer/" + "x" * n + "/the_end.png" for n in (0, 20, 300)]
    tiles = {n: tile(RED, lines=(name,)) for n, name in enumerate(names)}
    sheet = pixels(contact_sheet(tiles, 3, [(names[2], flat(GOLD, 20, 20))], ["h" * 99] * 3))
    assert (sheet[:, 192:208] == 255).all()
    assert (sheet[:, 448:464] == 255).all()
    assert (sheet[:, 704:720] == 255).all()
    start, end = (ImageFont.load_default(11).getlength(text) for text in ("pictures/of/", "the_end.png"))
    line = sheet[31:46, 720:968].min((0, 2)) < 255
    assert line[: int(start)].any()
    assert line[240 - int(end) :].any()
    whole = pixels(contact_sheet({0: tile(RED, lines=(names[0],))}, 1, []))
    assert_written(whole, 208, 8, names[0], room=240)


def test_names_that_are_no_text_are_written_somehow():
    sheet = contact_sheet({0: tile(RED, lines=("a\udcff.png",))}, 1, [("\udcff", flat(GOLD, 9, 9))])
    assert pixels(sheet).shape[1] == 456
    assert plot_tradeoff([(1.0, 2.0)], ["a\udcff 猫 $\\frac$ _x"], None).startswith(b"\x89PNG")


def test_the_knee_worked_out_by_hand():
    """In logarithms the front is (0, 3), (1, 1), (2, 0.18), (3, 0): (1 + 1) / 3 is below (2 + 0.18) / 3.

    The last point, no better than any other, would put the second one behind were it counted: 1/9 + 1/3
    is above 2/9 + 0.06.
    """
    points = [(100.0, 1.5), (1.0, 1000.0), (1000.0, 1.0), (10.0, 10.0), (1e9, 1000.0)]
    assert knee(points) == 3
    assert knee(points[::-1]) == 1


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 1.0)],
        [(1.0, 2.0), (2.0, 1.0)],
        [(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (2.0, 1.0)],
        [(1.0, 3.0), (2.0, 3.0), (3.0, 3.0)],
        [(1.0, 3.0), (2.0, 2.0), (math.inf, 1.0), (0.0, 9.0), (math.nan, 1.0)],
    ],
)
def test_no_knee_of_fewer_than_three_points_that_trade(points):
    assert knee(points) is None


def test_an_end_is_never_the_knee():
    assert knee([(1.0, 10.0), (9.0, 9.0), (10.0, 1.0)]) == 1


def test_the_knee_is_what_a_search_by_its_definition_finds(rng):
    for _ in range(50):
        points = [(math.exp(x), math.exp(y)) for x, y in rng.normal(size=(12, 2))]
        front = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
        (x0, y1), (x1, y0) = min(front), max(front)
        below = {
            p: 1 - math.log(p[0] / x0) / math.log(x1 / x0) - math.log(p[1] / y0) / math.log(y1 / y0)
            for p in front
            if x0 < p[0] < x1
        }
        best = knee(points)
        assert (points[best] if below else best) == (max(below, key=below.get) if below else None)


def test_the_tradeoff_has_every_point_with_its_label_and_marks_the_knee(monkeypatch):
    drawn, labels = [], []
    plot, annotate = matplotlib.axes.Axes.plot, matplotlib.axes.Axes.annotate

    def see_plot(axes, x, y, *arguments, **options):
        drawn.append((x, y, options["color"]))
        return plot(axes, x, y, *arguments, **options)

    def see_label(axes, text, xy, **options):
        labels.append((text, xy))
        return annotate(axes, text, xy, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", see_plot)
    monkeypatch.setattr(matplotlib.axes.Axes, "annotate", see_label)
    points = [(1.0, 50.0), (2.0, 5.0), (40.0, 4.0)]
    png = plot_tradeoff(points, ["a", "b", "c"], 1)
    assert drawn == [(*points[0], "steelblue"), (*points[1], "crimson"), (*points[2], "steelblue")]
    assert labels == [("a", points[0]), ("b (knee)", points[1]), ("c", points[2])]
    assert pixels(png).shape[:2] == (660, 840)
    assert png == plot_tradeoff(points, ["a", "b", "c"], 1)
    assert area(png, (70, 130, 180)) == pytest.approx(2 * area(png, (220, 20, 60)), rel=0.2)


def area(png, color):
    return (np.abs(pixels(png)[..., :3].astype(int) - color) < 8).all(-1).sum()


def test_losses_of_zero_are_plotted_too():
    one, three = (
        area(plot_tradeoff(points, [""] * len(points), None), (70, 130, 180))
        for points in ([(1.0, 1.0)], [(0.0, 5.0), (0.0, 0.0), (3.0, 1.0)])
    )
    assert three == pytest.approx(3 * one, rel=0.1)
