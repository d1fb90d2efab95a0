"""The weight of a term that is in force, from the one that was asked for: computed here and nowhere else.

    asked * share of the size (at_scale) * gradient ratio / pull (in_pulls) * exp(+- log_ratio / 2) (steered)

Times a layer's weight and a style's share of the mix it is the factor of a number in the total
(coefficients).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from nst_jax.losses import TERMS
from nst_jax.pytrees import Pytree
from nst_jax.spec import Spec


class LossWeights(Pytree):
    """The weights of the terms. They are arrays: new values do not recompile, and vmap can batch them."""

    terms: dict[str, Float[Array, ""]]  # alpha, beta, gamma, lambda, and those of further terms
    parts: dict[str, dict[str, Float[Array, ""]]]  # of the terms with several numbers: w_l, by layer
    style_mix: Float[Array, " k"]  # sums to 1

    def with_terms(self, **weights: Any) -> "LossWeights":
        """Return a copy with new weights for some terms."""
        return self.replace(terms=self.terms | weights)


class Dial(Pytree):
    """How far a strength has moved the weights (steering.py)."""

    log_ratio: Float[Array, ""]  # natural logarithm of the factor of the style's weight over the content's
    first: Float[Array, ""]  # LPIPS of the run's first picture to the photograph; NaN: not yet measured
    seen: Float[Array, ""]  # that of the last picture measured


def at_scale(asked: Mapping[str, float], share: float, loss_balancing: str) -> dict[str, float]:
    """Return the weights at a scale that has a share of the last one's pixels.

    Terms of styles are means over positions, the others sums: so the balance of the terms is the same at all
    scales. With loss_balancing=auto it is so by itself.

    Args:
        asked: Weights by term.
        share: From 0 to 1.
        loss_balancing: The option.
    """
    balanced = loss_balancing == "auto"
    return {
        name: share * weight if TERMS[name].of_style and not balanced else weight
        for name, weight in asked.items()
    }


def in_pulls(weights: LossWeights, pulls: Mapping[str, float], spec: Spec) -> LossWeights:
    """Return the weights of terms in units of their pulls (balancing.py). A pull of 0 divides nothing.

    Args:
        weights: As asked for.
        pulls: By term; terms without one stay.
        spec: What is static.
    """
    units = {name: (pull or 1.0) / TERMS[name].gradient_ratio(spec) for name, pull in pulls.items()}
    return weights.with_terms(**{name: weights.terms[name] / unit for name, unit in units.items()})


def steered(weights: LossWeights, dial: Dial | None) -> LossWeights:
    """Return the weights as a strength has moved them: by the root of the ratio, in opposite directions."""
    if dial is None:
        return weights
    root = jnp.exp(dial.log_ratio / 2)
    terms = weights.terms
    return weights.with_terms(content=terms["content"] / root, style=terms["style"] * root)


def coefficients(weights: LossWeights) -> dict[str, Any]:
    """Return the factor of every number in the total: alpha w_l, beta w_l mix_k, gamma, lambda."""

    def factor(name: str, weight: Array) -> Array:
        return weight * weights.style_mix if TERMS[name].of_style else jnp.asarray(weight)

    return {
        name: {part: factor(name, weight * w) for part, w in weights.parts[name].items()}
        if name in weights.parts
        else factor(name, weight)
        for name, weight in weights.terms.items()
    }
