"""Make a picture for each of several style weights at once, by vmap, and plot what they trade.

The losses are pure functions of arrays, so any optimizer will do: here Adam of optax.

python examples/sweep_style_weights.py --size=128 --output=sweep.png
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from one_picture import load

import nst_jax as nst

STYLE_WEIGHTS = (1e4, 1e5, 1e6, 1e7)


def main() -> None:
    """Read the flags, optimize all pictures, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="longest side in pixels")
    parser.add_argument("--steps", type=int, default=100, help="steps of Adam")
    parser.add_argument("--output", default="sweep.png", help="picture to write")
    flags = parser.parse_args()

    content, style = load("example:coffee", flags.size), load("example:night", flags.size)
    params, config = nst.load_vgg(), nst.Config()
    spec, weights = config.spec(), config.loss_weights(styles=1)
    targets = nst.make_targets(params, content, [style], spec)
    loss = functools.partial(nst.total_loss, params, targets=targets, spec=spec)
    adam = optax.adam(0.03)

    def optimize(weights: nst.LossWeights) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the picture for these weights, and its content and style loss."""

        def step(_: jax.Array, state: tuple[jax.Array, optax.OptState]) -> tuple[jax.Array, optax.OptState]:
            image, memory = state
            gradient = jax.grad(loss)(image, weights=weights)
            update, memory = adam.update(gradient, memory)
            return jnp.clip(image + update, 0, 1), memory

        start = jnp.asarray(content)
        image, _ = jax.lax.fori_loop(0, flags.steps, step, (start, adam.init(start)))
        terms = nst.loss_terms(params, image, targets, spec)
        content_loss, style_loss = (sum(jax.tree.leaves(terms[name])).sum() for name in ("content", "style"))
        return image, content_loss, style_loss

    lanes = weights.with_terms(style=jnp.array(STYLE_WEIGHTS))
    axes = jax.tree.map(lambda _: None, weights).with_terms(style=0)
    pictures, content_losses, style_losses = jax.jit(jax.vmap(optimize, in_axes=(axes,)))(lanes)

    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 8), layout="constrained")
    above.imshow(jnp.concatenate(list(pictures), axis=1))
    above.set_axis_off()
    below.loglog(content_losses, style_losses, "o-")
    for weight, x, y in zip(STYLE_WEIGHTS, content_losses, style_losses, strict=True):
        below.annotate(f" {weight:g}", (float(x), float(y)))
        print(f"style weight {weight:g}: content loss {x:.4g}, style loss {y:.4g}")
    below.set(xlabel="content loss", ylabel="style loss")
    figure.savefig(flags.output)


if __name__ == "__main__":
    main()
