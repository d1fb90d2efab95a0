"""The static options of a compiled program."""

from typing import Any, NamedTuple

from jax.sharding import Mesh

from nst_jax.networks import NETWORKS
from nst_jax.networks.base import Network


class Spec(NamedTuple):
    """The options that change the compiled program: static and hashable."""

    content_layers: tuple[str, ...]  # none: there is no content
    style_layers: tuple[str, ...]  # from the bottom up
    terms: tuple[str, ...]  # names of the terms, in the order of losses.TERMS
    style_loss: str = "gram"
    content_loss: str = "l2"
    pooling: str = "max"
    optimizer: str = "lbfgs"
    parametrization: str = "fourier"
    luminance: bool = False  # whether the picture is gray
    precision: str = "auto"
    tile: int = 0  # longest side of the windows that are taken one by one, in pixels; 0: the whole at once
    recompute_content: bool = (
        False  # whether the content's activations are recomputed for every window, and not kept
    )
    mesh: Mesh | None = None  # whose devices have each a share of the picture's rows; None: one device
    rows: int = 0  # with a mesh: of the picture, below which it is padded
    steered: bool = False  # whether a strength moves the weights during the run (steering.py)
    other_layers: tuple[str, ...] = ()  # that further terms read
    plugged: tuple[Any, ...] = ()  # what the names stand for: others under the same names compile anew
    network: Network = NETWORKS["vgg16"]  # that the layers are of

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers in use, each once."""
        return tuple(dict.fromkeys(self.content_layers + self.style_layers + self.other_layers))

    def stride(self, name: str) -> int:
        """Return the pixels from one position of a layer to the next. Any other name means pixels: 1."""
        return next((layer.stride for layer in self.network.layers if layer.name == name), 1)

    def own_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of a picture of this shape without the padding below it."""
        return self.rows or shape[0], shape[1]
