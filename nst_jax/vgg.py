"""VGG-16 and VGG-19 (Simonyan & Zisserman 2014, arXiv 1409.1556) as pure functions."""

NETWORKS: dict[str, tuple[int, ...]] = {  # convolutions per block; a 2x2 pooling lies between blocks
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
BLOCK_CHANNELS = (64, 128, 256, 512, 512)


def layer_names(network: str) -> tuple[str, ...]:
    """Return the network's convolutions from the bottom up, named convB_K.

    >>> layer_names("vgg16")[-1], len(layer_names("vgg19"))
    ('conv5_3', 16)
    """
    return tuple(
        f"conv{block}_{k}" for block, count in enumerate(NETWORKS[network], 1) for k in range(1, count + 1)
    )


def kernel_shapes(network: str) -> dict[str, tuple[int, int, int, int]]:
    """Return the shape (3, 3, channels in, channels out) of every convolution's kernel."""
    shapes, channels = {}, 3
    for name in layer_names(network):
        width = BLOCK_CHANNELS[int(name[4]) - 1]
        shapes[name] = (3, 3, channels, width)
        channels = width
    return shapes
