"""The networks' weights: where they come from, and the readers of published files."""

from nst_jax.weights.store import Verdict as Verdict
from nst_jax.weights.store import Weights as Weights
from nst_jax.weights.store import cache_folder as cache_folder
from nst_jax.weights.store import convert as convert
from nst_jax.weights.store import fetch as fetch
from nst_jax.weights.store import load_dists_weights as load_dists_weights
from nst_jax.weights.store import load_lpips_heads as load_lpips_heads
from nst_jax.weights.store import load_vgg as load_vgg
from nst_jax.weights.store import load_weights as load_weights
from nst_jax.weights.store import on_device as on_device
from nst_jax.weights.store import read_weights as read_weights
from nst_jax.weights.store import verify as verify
