"""Make one picture through the Python API, and measure it.

python examples/one_picture.py --size=256 --output=picture.png
"""

import argparse

import numpy as np

import nst_jax as nst


def load(name: str, size: int) -> np.ndarray:
    """Return a picture whose longest side is size."""
    picture = nst.images.load(name).rgb
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    return nst.images.resize(picture, round(height * scale), round(width * scale))


def main() -> None:
    """Read the flags and make the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--content", default="example:coffee", help="photograph, a file or example:NAME")
    parser.add_argument("--style", default="example:night", help="painting, a file or example:NAME")
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels")
    parser.add_argument("--steps", type=int, default=60, help="steps of the optimizer")
    parser.add_argument("--strength", type=float, default=0.7, help="0: the photograph; 1: hardly any of it")
    parser.add_argument("--output", default="picture.png", help="picture to write")
    flags = parser.parse_args()

    content, style = load(flags.content, flags.size), load(flags.style, flags.size)
    config = nst.Config.from_preset(strength=flags.strength, iterations=flags.steps)
    result = nst.stylize(nst.load_vgg(), content, [style], config=config, progress=print)
    nst.images.save(flags.output, result.image)
    print(f"LPIPS to the photograph: {result.lpips:.3f}")


if __name__ == "__main__":
    main()
