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
    for steps, weight in ((10, 1.0), (1, 1.0), (3, 1.0), (5, 1.0), (20, 1.0), (10, 0.0), (10, 10.0))
} | {"at most 10 steps, tolerance 0.01": Steps(10, tolerance=0.01)}
ALONE = Steps(1)
STYLE = "example:night"
NOISE = 0.01  # standard deviation in the still clip


def frames_of(path: str, size: int, count: int) -> list[np.ndarray]:
    """Return the first frames of a clip."""
    clip = clips.probe(path)
    to = working_size(clip.size, size, even=True)
    return [images.resize(frame.image, *to) for frame in clips.read(clip, clips.Selection(1, count))]


def follow(shot: Shot, first: Made, frames: list[np.ndarray], before: list[Made] | None = None) -> list[Made]:
    """Return the frames of a shot whose first one is made; before: those of the pass before this one."""
    shot.resume(first)
    order, side = (range(len(frames)), -1) if before is None else (range(len(frames))[::-1], 1)
    made: dict[int, Made] = {}
    for number in order:
        others = {apart: number + side * apart for apart in LONG_TERM if number + side * apart in made}
        motions = {apart: flow.motion(frames[number], frames[other]) for apart, other in others.items()}
        if not motions:
            made[number] = before[number] if before else first
            continue
        known = flow.combine(motions, {apart: made[other].image for apart, other in others.items()})
        known_content = flow.combine(motions, {apart: frames[other] for apart, other in others.items()})
        own = before[number].image if before else None
        found = shot.follow(frames[number], known, known_content, own=own)
        assert found is not None
        made[number] = found
    return [made[number] for number in sorted(made)]


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
            made = follow(shot_of(frames[0], Steps(given.steps, 1.0, anchor)), first, frames)
            pictures = [one.image for one in made]
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
        made = follow(shot_of(frames[0], steps), first, frames)
        tell(name, [one.image for one in made])
        if steps is next(iter(RUNS.values())):
            again = follow(shot_of(frames[0], steps), first, frames, made)
            tell(f"{name}, and a second pass", [one.image for one in again])


if __name__ == "__main__":
    main()
