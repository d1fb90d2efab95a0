"""The terms that the objective is the sum of, by name; base.py says what a term is."""

from nst_jax.losses.base import Term
from nst_jax.losses.content import CONTENT
from nst_jax.losses.matting import MATTING
from nst_jax.losses.style.term import STYLE
from nst_jax.losses.temporal import TEMPORAL
from nst_jax.losses.variation import VARIATION

# In the order in which they are told.
TERMS: dict[str, Term] = {
    "content": CONTENT,
    "style": STYLE,
    "tv": VARIATION,
    "matting": MATTING,
    "temporal": TEMPORAL,
}


def own_terms() -> dict[str, Term]:
    """Return the terms that need nothing but a content and styles: those with an option of Config."""
    return {name: term for name, term in TERMS.items() if not term.given}
