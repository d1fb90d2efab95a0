"""Write the numbers that `nst-bench --selftest` compares a device with, by the float64 twins.

Example: python tests/selftest_values.py
"""

import numpy as np
import reference

import nst_jax as nst
from nst_jax.launchers.selftest import CONFIG, FILE, LAYER
from nst_jax.weights import load_weights


def picture(name: str, longest: int) -> np.ndarray:
    """Return an example picture, small, in bytes: what is kept must not depend on a decoder."""
    pixels = nst.images.load(f"example:{name}").rgb
    return nst.images.to_uint8(nst.images.resize(pixels, *nst.images.size_to_fit(*pixels.shape[:2], longest)))


def values() -> dict[str, np.ndarray]:
    """Return the pictures and the numbers, each by its name."""
    content, style = picture("coffee", 48), picture("night", 40)
    arrays = load_weights(CONFIG.network).arrays
    x, c, s = content[:, ::-1] / 255, content / 255, style / 255
    losses, gradient = reference.objective(
        arrays, x, c, [s], alpha=CONFIG.content_weight, beta=CONFIG.style_weight, gamma=CONFIG.tv_weight
    )
    return {
        "content": content,
        "style": style,
        "features": reference.forward(arrays, x, [LAYER])[0][LAYER],
        "content loss": np.float64(losses["content"]),
        "style loss": np.float64(sum(losses["style_by_layer"].values())),
        "variation": np.float64(losses["tv"]),
        "gradient": gradient,
    }


if __name__ == "__main__":
    np.savez_compressed(FILE, **values())
    print(FILE)
