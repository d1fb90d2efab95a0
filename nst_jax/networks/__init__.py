"""Networks by name, a module for each family; base.py says what a network tells of itself."""

from collections.abc import Mapping

from nst_jax.networks.alexnet import ALEXNET
from nst_jax.networks.base import Network
from nst_jax.networks.vgg import VGG16, VGG19

NETWORKS: dict[str, Network] = {  # through which pictures are optimized
    "vgg16": VGG16,
    "vgg19": VGG19,
}
JUDGES = {"alexnet": ALEXNET}  # through which they are judged, and no more


def known_networks() -> Mapping[str, Network]:
    """Return all networks by name, of which there are files of weights."""
    return NETWORKS | JUDGES
