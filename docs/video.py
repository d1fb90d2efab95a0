"""How steady clips are: steps of each frame against warping error, flicker and style distance.

python docs/video.py --out=FOLDER --clip=CLIP --size=96 --frames=6
prints the rows of the table in docs/video.md; what FOLDER has already is not made again. With --still=60 the
clip is its first frame with new noise in each, and brightness over time is printed.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from nst_jax import images, judge
from nst_jax.config import Config
from nst_jax.images.masks import Masks
from nst_jax.runs.input_files import Pictures
from nst_jax.system import device
from nst_jax.video import clips, flow, measures
from nst_jax.video.job import LONG_TERM, working_size
from nst_jax.video.sequence import Made, Shot, Steps
from nst_jax.weights import load_vgg

RUNS = {
    f"{steps} steps, weight {weight:g}": Steps(steps, weight)
    for steps, weight in ((8, 1.0), (3, 1.0), (8, 0.0), (8, 10.0), (20, 1.0))
}
ALONE = Steps(1)
STYLE = "example:night"
NOISE = 0.01  # standard deviation in the still clip


def frames_of(path: str, size: int, count: int) -> list[np.ndarray]:
    """Return the first frames of a clip."""
    clip = clips.probe(path)
    to = working_size(clip.size, size, even=True)
    return [images.resize(frame.image, *to) for frame in clips.read(clip, clips.Selection(1, count))]


def follow(shot: Shot, first: Made, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Return the pictures of a shot whose first frame is made."""
    shot.resume(first)
    made = [first]
    for number in range(1, len(frames)):
        motions = {
            back: flow.motion(frames[number], frames[number - back]) for back in LONG_TERM if back <= number
        }
        known = flow.combine(motions, {back: made[number - back].image for back in motions})
        known_content = flow.combine(motions, {back: frames[number - back] for back in motions})
        found = shot.follow(frames[number], known, known_content)
        assert found is not None
        made.append(found)
    return [one.image for one in made]


def main() -> None:
    """Make the pictures and print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--still", type=int, default=0)
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of RUNS")
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    device.set_up()
    given.out.mkdir(parents=True, exist_ok=True)
    frames = frames_of(given.clip, given.size, 1 if given.still else given.frames)
    if given.still:
        rng = np.random.default_rng(0)
        noise = [NOISE * rng.standard_normal(frames[0].shape) for _ in range(given.still)]
        frames = [(frames[0] + one).clip(0, 1).astype(np.float32) for one in noise]
    whole = images.load(STYLE).rgb
    style = images.resize(whole, *images.size_to_fit(*whole.shape[:2], given.size))
    config = Config.from_preset(size=max(frames[0].shape[:2]), iterations=(25,), scales="")
    params = load_vgg()

    def shot_of(content: np.ndarray, steps: Steps = ALONE) -> Shot:
        return Shot(params, Pictures(content, [style], None, Masks()), config, steps)

    first = shot_of(frames[0]).begin()
    assert first is not None
    if given.still:
        for anchor in (False, True):
            pictures = follow(shot_of(frames[0], Steps(given.steps, 1.0, anchor)), first, frames)
            means = [255 * float(picture.mean(dtype=np.float64)) for picture in pictures]
            print(
                f"anchor {anchor}:",
                *(f"{mean:.2f}" for mean in means[:: max(1, given.still // 10)]),
                f"{means[-1]:.2f}",
                flush=True,
            )
            np.save(given.out / f"still-{anchor}.npy", np.uint8(255 * np.stack([pictures[0], pictures[-1]])))
        return
    network = judge.load()
    of_style = judge.view(network, style)
    rows = [np.concatenate(frames, 1)]

    def tell(name: str, pictures: list[np.ndarray]) -> None:
        found = measures.measure(pictures, frames)
        distance = np.mean(
            [float(judge.style_distance(judge.view(network, one), of_style)) for one in pictures[1:]]
        )
        print(f"| {name} | {found.warping_error:.1f} | {found.flicker:.1f} | {distance:.3f} |", flush=True)
        rows.append(np.concatenate(pictures, 1))
        images.save(given.out / "sheet.png", np.concatenate(rows, 0))

    tell("the clip itself", frames)
    alone = [first, *(shot_of(frame).begin() for frame in frames[1:])]
    tell("frame by frame, 25 steps each", [made.image for made in alone if made])
    for name, steps in itertools.islice(RUNS.items(), given.runs):
        tell(name, follow(shot_of(frames[0], steps), first, frames))


if __name__ == "__main__":
    main()
