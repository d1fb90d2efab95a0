"""The example pictures: drawn the same each time, at any size; shipped as drawn; their licenses named."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_jax import examples
from nst_jax.examples.draw import LABELS, MASKS, SHIPPED, STYLES, Pixels, draw, labels, mask
from nst_jax.images import label_maps

FOLDER = Path(examples.__file__).parent
PICTURES = sorted(FOLDER.glob("*.jpg"))
DRAWN_FILES = sorted(FOLDER.glob("*.png"))
SIZES = {"night": (61, 93), "glass": (97, 64), "waves": (99, 62), "ink": (80, 80)}


@cache
def picture(name: str) -> Pixels:
    return draw(name, SIZES[name], seed=0)


@pytest.mark.parametrize("name", STYLES)
def test_same_seed_same_picture(name: str) -> None:
    np.testing.assert_array_equal(picture(name), draw(name, SIZES[name], seed=0))


@pytest.mark.parametrize("name", ["glass", "waves"])  # the quick ones
def test_another_seed_another_picture(name: str) -> None:
    assert np.mean(picture(name) != draw(name, SIZES[name], seed=1)) > 0.5


@pytest.mark.parametrize("name", STYLES)
def test_any_size(name: str) -> None:
    rows, columns = SIZES[name]
    whole = picture(name)
    assert whole.shape == (rows, columns, 3)
    assert whole.dtype == np.uint8
    for half in (*np.array_split(whole, 2, axis=0), *np.array_split(whole, 2, axis=1)):
        assert half.std() > 20, "part of the picture is nearly empty"


def test_the_same_picture_at_every_size() -> None:
    small, large = draw("waves", (120, 96)), Image.fromarray(draw("waves", (360, 288)))
    reduced = np.asarray(large.resize((96, 120), Image.Resampling.BOX), float)
    assert np.abs(small - reduced).mean() < 10


def test_shipped_as_drawn() -> None:
    drawn = io.BytesIO()
    Image.fromarray(draw("waves", SHIPPED["waves"])).save(drawn, "jpeg", quality=92, subsampling=0)
    with Image.open(FOLDER / "waves.jpg") as shipped, Image.open(drawn) as fresh:
        assert np.abs(np.asarray(shipped, float) - np.asarray(fresh, float)).mean() < 1


@pytest.mark.parametrize("name", MASKS)
def test_masks_shipped_as_drawn(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as shipped:
        assert shipped.mode == "L"
        np.testing.assert_array_equal(shipped, mask(name))


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_fits_its_photograph(name: str) -> None:
    photograph, _ = MASKS[name]
    assert name.startswith(f"{photograph}-")
    with Image.open(FOLDER / f"{photograph}.jpg") as image:
        assert mask(name).shape == image.size[::-1]
    assert mask(name).dtype == np.uint8
    assert set(np.unique(mask(name))) == {0, 255}
    assert 0.1 < np.mean(mask(name) == 255) < 0.9, "one region is nearly empty"


@pytest.mark.parametrize(("one", "other"), [("coffee-cup", "coffee-table"), ("rocket-sky", "rocket-pad")])
def test_two_masks_share_out_the_photograph(one: str, other: str) -> None:
    np.testing.assert_array_equal(mask(one), 255 - mask(other))


@pytest.mark.parametrize("name", LABELS)
def test_label_maps_shipped_as_drawn_and_as_large_as_their_picture(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as shipped:
        assert shipped.mode == "P"
        np.testing.assert_array_equal(shipped.convert("RGB"), labels(name).convert("RGB"))
        if name != "doodle":
            with Image.open(FOLDER / f"{name.removesuffix('-labels')}.jpg") as image:
                assert image.size == shipped.size
    colors = {"#2a6fdb", *(color for _, outlines in [LABELS[name]] for color, _ in outlines)}
    assert set(label_maps.load(f"example:{name}").names) == colors


def license(path: Path) -> str:
    """Return the license that the README names for the file."""
    (row,) = (
        line for line in (FOLDER / "README.md").read_text().splitlines() if f"| `{path.name}` |" in line
    )
    return row.split("|")[4].strip()


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_every_picture_opens_and_names_its_license(path: Path) -> None:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        assert max(image.size) <= 1000
        if path.stem in SHIPPED:
            assert image.size == SHIPPED[path.stem][::-1]
    assert license(path) in {"CC0", "public domain", "Apache-2.0"}


@pytest.mark.parametrize("path", DRAWN_FILES, ids=lambda path: path.stem)
def test_every_mask_and_label_map_names_its_license(path: Path) -> None:
    assert license(path) == "Apache-2.0"


def test_pictures_are_few_and_small() -> None:
    assert {path.stem for path in PICTURES} == {"cat", "coffee", "rocket", *STYLES}
    assert SHIPPED.keys() == STYLES.keys()
    assert sum(path.stat().st_size for path in PICTURES) < 2.5e6
    assert {path.stem for path in DRAWN_FILES} == {*MASKS, *LABELS}
    assert sum(path.stat().st_size for path in DRAWN_FILES) < 2e4
