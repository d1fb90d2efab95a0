"""How near to a mask's border the style is all there: three photographs and paintings, and a figure in each.

python docs/masks.py --pairs=FOLDER [--out=FOLDER] [--preset=gatys] [--everywhere]
prints a line of the tables of docs/masks.md for each: the mean change of the photograph at some distances
from the border, by that beyond 24 pixels, and the latter. FOLDER of --pairs: see docs/pairs.py. --everywhere:
without the mask, to compare with. About 40 s a picture on two CPU cores.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

import nst_jax as nst

SIZE = 192
FAR = 24  # pixels: farther in, a mask's border plays no part
DISTANCES = ((1, 3), (3, 6), (6, 8), (8, 13), (13, FAR))  # pixels, from and below
PICTURES = {  # photograph x painting, and the corners of a figure, for a side of 200
    "elephant": ("07x09", "66,125 72,80 90,52 130,48 165,55 200,75 200,165 175,170 120,172 90,150"),
    "pizza": ("15x35", "33,28 177,172"),  # of the square around a disc
    "bus": ("09x03", "0,44 100,38 200,52 200,160 60,180 0,165"),
}


def figure(corners: str) -> np.ndarray:
    """Return a mask of SIZE pixels a side: a polygon, or the disc in the square between two corners."""
    side = 1024
    points = [tuple(float(x) / 200 * side for x in corner.split(",")) for corner in corners.split()]
    image = Image.new("1", (side, side))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if len(points) == 2 else draw.polygon)(points, fill=1)
    return np.float32(nst.masks.resize(np.asarray(image, np.float32), SIZE, SIZE) > 0.5)


def profile(image: np.ndarray, content: np.ndarray, mask: np.ndarray) -> list[float]:
    """Return the mean change at DISTANCES from the border, by that beyond FAR, and the latter."""
    depth = distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    change = np.abs(image - content).mean(-1)
    inside = float(change[depth > FAR].mean())
    rings = [change[(depth >= near) & (depth < far)].mean() for near, far in DISTANCES]
    return [*(float(ring) / inside for ring in rings), inside]


def main() -> None:
    """Make the pictures and print what changed, and where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", required=True, type=Path, help="folder of photographs and paintings")
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    parser.add_argument("--preset", default="wasserstein")
    parser.add_argument("--everywhere", action="store_true", help="without the masks")
    asked = parser.parse_args()
    params = nst.load_vgg()
    config = nst.Config.from_preset(asked.preset, size=SIZE, iterations=90)
    for name, (pair, corners) in PICTURES.items():
        files = zip(("photographs", "paintings"), pair.split("x"), strict=True)
        sources = [
            nst.images.load(str(asked.pairs / folder / f"{number}.png")).rgb for folder, number in files
        ]
        content, style = (nst.images.resize(source, SIZE, SIZE) for source in sources)
        mask = figure(corners)
        masks = None if asked.everywhere else nst.Masks(content=mask)
        image = nst.stylize(params, content, [style], config=config, masks=masks).image
        if masks:
            assert (image[mask == 0] == content[mask == 0]).all()
        if asked.out:
            nst.images.save(str(asked.out / f"{name}-{asked.preset}.png"), image)
        numbers = " | ".join(f"{number:.2f}" for number in profile(image, content, mask))
        print(f"| {name} | {asked.preset} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
