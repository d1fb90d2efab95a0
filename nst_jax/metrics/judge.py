"""The judge: how far a finished picture is from its content and from its styles, by measures not optimized.

All that look through a network look through the bundled VGG-16, lpips_alex through the bundled AlexNet,
whatever the picture was made with. They are distances: 0 for equal pictures and, but for dirt, the same in
both directions. They compare only between pictures judged at one size.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.images.color import oklab
from nst_jax.losses.sampling import distance_shares, sample_positions
from nst_jax.losses.style import STYLE_LOSSES, Statistics
from nst_jax.losses.style.gaussian import mean_and_covariance
from nst_jax.metrics import lpips as perceptual
from nst_jax.networks import JUDGES
from nst_jax.networks.base import Params, check_size, features, make_params, smallest_side
from nst_jax.networks.vgg import SIFID_LAYER, STROTSS_LAYERS, convolution
from nst_jax.weights import load_dists_weights, load_lpips_heads, load_vgg, load_weights

Picture = Float32[np.ndarray, "h w 3"]
Scalar = Float[Array, ""]

NETWORK, ALEXNET = perceptual.NETWORK, JUDGES["alexnet"]
LAYERS = perceptual.LAYERS  # and of the style distance
FID_LAYER = SIFID_LAYER
CONTENT_LAYERS = STROTSS_LAYERS  # of the self-similarity
SAMPLES = 1024  # positions of the self-similarity
QUANTILES = 1024  # of the colors along each direction
DISTS_SIDE = 256  # pixels: the shorter side of what DISTS looks at, as its authors have it
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM's scales, from the finest
WINDOW = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))  # of SSIM, along one axis
SPECKLE_REACH = 3  # positions to each side over which speckle is averaged
# The axes of a cube through faces, edges and corners: their projections lose as much of every vector.
AXES = np.array(
    [
        *[(1, 0, 0), (0, 1, 0), (0, 0, 1)],
        *[(1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)],
        *[(1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)],
    ]
)
DIRECTIONS = AXES / np.linalg.norm(AXES, axis=1, keepdims=True)


class Network(NamedTuple):
    """The bundled VGG-16 and AlexNet, and LPIPS's weights of their channels."""

    params: Params
    alexnet: Params
    heads: dict[str, Float[Array, " c"]]  # of LAYERS and AlexNet's
    shares: Float[Array, "2 1475"]  # DISTS's alpha and beta; all together 1


class ImageFeatures(NamedTuple):
    """What the judge sees of a picture."""

    maps: dict[str, Float[Array, "_ _ _"]]  # of the heads' layers, of length 1, times the heads' roots
    columns: Float[Array, "n d"]  # red, green, blue and the features of CONTENT_LAYERS at some positions
    grams: Statistics  # of LAYERS
    moments: Statistics  # of FID_LAYER: mean and second moment
    colors: Float[Array, "a q"]  # quantiles of OkLab along DIRECTIONS
    gray: Float[Array, "h w"]  # luma, 0 to 1
    stages: list[Float[Array, "_ _ _"]]  # what DISTS compares: a small picture and its maps
    shares: Float[Array, "2 1475"]  # the network's
    speckle: Float[Array, " q"]  # quantiles of the color's speckle in calm places
    calm: Bool[Array, "h w"]  # the calm places


class Metric(NamedTuple):
    """A measure of a picture against another one."""

    measure: Callable[[ImageFeatures, ImageFeatures], Scalar | None]
    to: str  # which other one: content or style
    range: str
    tells: str
    blind: str  # what it cannot tell


# --- what is seen ---


def load() -> Network:
    """Return the networks of the judge. Raises InputError if the bundled weights are damaged."""
    dists = load_dists_weights()
    shares = np.stack([dists["alpha"], dists["beta"]])
    heads = load_lpips_heads(NETWORK.name, LAYERS) | load_lpips_heads(ALEXNET.name, ALEXNET.names)
    alexnet = make_params(ALEXNET, load_weights(ALEXNET.name).arrays)
    on_device = jax.tree.map(jnp.asarray, (heads, shares / shares.sum()))
    return Network(load_vgg(NETWORK.name), alexnet, *on_device)


def view(network: Network, image: Picture, calm: np.ndarray | None = None) -> ImageFeatures:
    """Return the features of a picture that the metrics compare.

    Args:
        network: From load().
        image: RGB in [0, 1].
        calm: Where it is calm. None: computed from the picture.

    Raises:
        InputError: A side has less than 16 pixels.
    """
    check_size(image.shape, NETWORK.select(LAYERS), "picture")
    positions = sample_positions(np.ones(image.shape[:2]), SAMPLES)
    height, width = image.shape[:2]
    share = min(1, DISTS_SIDE / min(height, width))
    small = images.resize(image, round(share * height), round(share * width))
    apart = departures(image)
    calm = calm_places(apart) if calm is None else calm
    colors, speckle = color_quantiles(image), quantiles(apart[0][calm])
    return _look(network, *map(jnp.asarray, (image, positions, colors, small, speckle, calm)))


@jax.jit
def _look(
    network: Network,
    image: Float[Array, "h w 3"],
    positions: Int32[Array, "n 2"],
    colors: Float[Array, "a q"],
    small: Float[Array, "_ _ 3"],
    speckle: Float[Array, " q"],
    calm: Bool[Array, "h w"],
) -> ImageFeatures:
    with jax.default_matmul_precision("highest"):
        seen = features(network.params, image, CONTENT_LAYERS)
        style = {layer: seen[layer] for layer in LAYERS}
        large = min(image.shape[:2]) >= smallest_side(ALEXNET.layers)
        compared = style | (features(network.alexnet, image, ALEXNET.names) if large else {})
        none = jnp.zeros(())
        return ImageFeatures(
            maps=perceptual.weighted(compared, network.heads),
            columns=_columns(image, seen, positions),
            grams=STYLE_LOSSES["gram"].statistics(style, none, None, NETWORK),
            moments=STYLE_LOSSES["wasserstein"].statistics({FID_LAYER: seen[FID_LAYER]}, none, None, NETWORK),
            colors=colors,
            gray=image @ jnp.array([0.299, 0.587, 0.114]),
            stages=_stages(network.params, small),
            shares=network.shares,
            speckle=speckle,
            calm=calm,
        )


def _stages(params: Params, image: Float[Array, "h w 3"]) -> list[Float[Array, "_ _ _"]]:
    """Return what DISTS compares: the picture and the last map of each size, with L2 pooling between."""
    x, stages, stride = ((image - params.mean[None, None]) / params.std[None, None])[None], [image], 1
    for layer in params.network.layers:
        if layer.stride > stride:
            stages.append(x[0])
            x, stride = _l2_pool(x), layer.stride
        kernel, _, bias = params.convolutions[layer.name]
        x = jax.nn.relu(convolution(x, kernel) + bias[None, None, None])
    return [*stages, x[0]]


def _l2_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """Return the root of the squares' mean over 3x3 positions, by a Hann window, at every other one."""
    for axis in (1, 2):
        around = [(0, 0)] * axis + [(1, 1)] + [(0, 0)] * (3 - axis)
        padded = jnp.pad(x**2 if axis == 1 else x, around)
        size = padded.shape[axis] - 2
        left, middle, right = (jax.lax.slice_in_dim(padded, k, k + size, 2, axis) for k in range(3))
        x = (left + 2 * middle + right) / 4
    return jnp.sqrt(x + 1e-12)


def _columns(image: Array, seen: dict[str, Array], positions: Int32[Array, "n 2"]) -> Float[Array, "n d"]:
    """Return the picture and the maps at positions of the picture, one beside the other: hypercolumns."""
    rows, columns = positions.T
    found = [image[rows, columns]]
    for layer, map_ in seen.items():
        unit, (height, width, _) = NETWORK.layer(layer).stride, map_.shape
        found.append(map_[jnp.minimum(rows // unit, height - 1), jnp.minimum(columns // unit, width - 1)])
    return jnp.concatenate(found, 1)


def color_quantiles(image: Picture) -> Float32[np.ndarray, "a q"]:
    """Return QUANTILES quantiles of the picture's colors in OkLab along each of DIRECTIONS."""
    colors = oklab(image.reshape(-1, 3)).astype(np.float32)
    return np.stack([quantiles(colors @ axis) for axis in DIRECTIONS.astype(np.float32)])


def quantiles(numbers: Float[np.ndarray, " n"]) -> Float[np.ndarray, " q"]:
    """Return QUANTILES quantiles, evenly spaced."""
    ranks = ((np.arange(QUANTILES) + 0.5) / QUANTILES * len(numbers)).astype(int)
    return np.sort(numbers)[ranks]


def departures(image: Picture) -> Float32[np.ndarray, "2 h w"]:
    """Return how far chroma and lightness are from their median over 3x3 pixels, averaged around each.

    In 255ths of OkLab's unit, over 7x7 pixels; borders are repeated.
    """
    lab = 255 * oklab(image).astype(np.float32)
    height, width, _ = lab.shape
    padded = np.pad(lab, [(1, 1), (1, 1), (0, 0)], "edge")
    shifts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    apart = lab - np.partition(np.stack(shifts), 4, 0)[4]
    found = np.stack([np.hypot(apart[..., 1], apart[..., 2]), np.abs(apart[..., 0])])
    for axis in (1, 2):
        around = [(0, 0)] * axis + [(SPECKLE_REACH, SPECKLE_REACH)] + [(0, 0)] * (2 - axis)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(found, around, "edge"), 2 * SPECKLE_REACH + 1, axis
        )
        found = windows.mean(-1)
    return found


def calm_places(apart: Float32[np.ndarray, "2 h w"]) -> np.ndarray:
    """Return where a picture of these departures has the least of them, as a mask of half of its pixels."""
    energy = apart.sum(0)
    calm = np.zeros(energy.size, bool)
    calm[np.argsort(energy, axis=None, kind="stable")[: (energy.size + 1) // 2]] = True
    return calm.reshape(energy.shape)


# --- the metrics ---


def lpips(x: ImageFeatures, c: ImageFeatures) -> Scalar:
    """Return LPIPS of VGG-16: lpips.distance. Zhang et al. 2018 (arXiv 1801.03924), eq. 1."""
    return perceptual.distance(x.maps, c.maps)


def lpips_alex(x: ImageFeatures, c: ImageFeatures) -> Scalar | None:
    """Return LPIPS, version 0.1 of AlexNet: lpips on AlexNet's layers; most papers print this one.

    None below 31 pixels a side: of less the second pooling leaves nothing. Zhang et al. 2018 (arXiv
    1801.03924), eq. 1.
    """
    large = x.maps.keys() >= set(ALEXNET.names)
    return perceptual.distance(x.maps, c.maps, ALEXNET.names) if large else None


def dists(x: ImageFeatures, c: ImageFeatures) -> Scalar:
    """Return DISTS: 1 - sum_c (alpha_c l_c + beta_c s_c) over the channels of the picture and of five maps.

    l = (2 mu_x mu_c + e) / (mu_x^2 + mu_c^2 + e).

    s = (2 cov + e) / (var_x + var_c + e) over the positions, e = 1e-6.

    alpha and beta sum to 1 together. 0 to about 1. Ding et al. 2020 (arXiv 2004.07728), eq. 5 to 7;
    at a shorter side of DISTS_SIDE pixels.
    """
    means, structures = [], []
    for one, other in zip(x.stages, c.stages, strict=True):
        mean_x, mean_c = jnp.mean(one, (0, 1)), jnp.mean(other, (0, 1))
        apart_x, apart_c = one - mean_x[None, None], other - mean_c[None, None]
        means.append((2 * mean_x * mean_c + 1e-6) / (mean_x**2 + mean_c**2 + 1e-6))
        together = 2 * jnp.mean(apart_x * apart_c, (0, 1)) + 1e-6
        structures.append(together / (jnp.mean(apart_x**2 + apart_c**2, (0, 1)) + 1e-6))
    alpha, beta = x.shares
    # Of equal pictures exactly 0: the weights meet what each channel lacks.
    return jnp.sum(alpha * (1 - jnp.concatenate(means)) + beta * (1 - jnp.concatenate(structures)))


def ms_ssim_distance(x: ImageFeatures, c: ImageFeatures) -> Scalar:
    """Return 1 - MS-SSIM of the luma: 1 - l_M^w_M prod_j cs_j^w_j, scales j each half of the last; 0 to 1.

    Windows of 11 pixels, Gaussian of 1.5; constants 0.01^2 and 0.03^2. Wang et al. 2003 ("Multiscale
    structural similarity"), eq. 7. Differs from the paper: of a small picture as many scales as the window
    fits into, their weights by their sum; and cs below 0 counts as 0.
    """
    one, other, found = x.gray, c.gray, []
    count = max(1, sum(min(one.shape) // 2**j >= len(WINDOW) for j in range(len(MS_SSIM_WEIGHTS))))
    for j in range(count):
        luminance, contrast = _ssim_parts(one, other)
        found.append(jnp.mean(luminance * contrast if j == count - 1 else contrast))
        one, other = (_halve(gray) for gray in (one, other))
    weights = jnp.array(MS_SSIM_WEIGHTS[:count]) / sum(MS_SSIM_WEIGHTS[:count])
    return 1 - jnp.prod(jnp.maximum(jnp.stack(found), 0) ** weights)


def _ssim_parts(x: Array, c: Array) -> tuple[Array, Array]:
    window = WINDOW / WINDOW.sum()

    def mean(plane: Array) -> Array:
        rows, columns = (plane.shape[axis] - len(window) + 1 for axis in (0, 1))
        plane = sum(weight * plane[k : k + rows] for k, weight in enumerate(window))
        return sum(weight * plane[:, k : k + columns] for k, weight in enumerate(window))

    mean_x, mean_c = mean(x), mean(c)
    luminance = (2 * mean_x * mean_c + 0.01**2) / (mean_x**2 + mean_c**2 + 0.01**2)
    together = 2 * (mean(x * c) - mean_x * mean_c) + 0.03**2
    return luminance, together / (mean(x**2) - mean_x**2 + mean(c**2) - mean_c**2 + 0.03**2)


def _halve(plane: Array) -> Array:
    rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
    return plane[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))


def dirt(x: ImageFeatures, s: ImageFeatures) -> Scalar:
    """Return the mean over quantiles q of max(0, e_x(q) - e_s(q)): color speckle that the painting has not.

    e: departure of chroma from its median over 3x3 pixels, averaged over 7x7, in 255ths of OkLab's unit. For
    x it is taken in the calmest half of the photograph, for s in the calmest half of the painting. So a
    painting of fine dots allows as many; strokes of one color count for nothing.
    """
    return jnp.mean(jnp.maximum(x.speckle - s.speckle, 0))


def self_similarity(x: ImageFeatures, c: ImageFeatures) -> Scalar:
    """Return (1/n) sum_ij |D^x_ij / sum_i D^x_ij - D^c_ij / sum_i D^c_ij|, in [0, 2].

    D_ij: the cosine distance of the hypercolumns at positions i and j (red, green, blue and CONTENT_LAYERS;
    n = SAMPLES positions spread evenly). Kolkin et al. 2019 (STROTSS, arXiv 1904.12785), the content loss.
    Differs from the paper: times n, as in its code, so that n does not matter. Positions are fixed. Each
    map's cell has its own value, none between. LEVEL is added to D.
    """
    return jnp.mean(jnp.sum(jnp.abs(distance_shares(x.columns) - distance_shares(c.columns)), 0))


def style_distances(x: ImageFeatures, s: ImageFeatures) -> dict[str, Scalar]:
    """Return |G_x - G_s| / (|G_x| + |G_s|) of the Grams of each of LAYERS, by Frobenius norms, in [0, 1]."""
    norm = jnp.linalg.norm
    return {
        layer: norm(x.grams[layer] - s.grams[layer]) / (norm(x.grams[layer]) + norm(s.grams[layer]) + 1e-12)
        for layer in LAYERS
    }


def style_distance(x: ImageFeatures, s: ImageFeatures) -> Scalar:
    """Return the mean over LAYERS of |G_x - G_s| / (|G_x| + |G_s|), in [0, 1]; no scale of features matters.

    G: the Gram matrix over the positions (Gatys et al. 2015, eq. 3). None of LAYERS is among the defaults'
    style layers; of a run that optimized some of them, see style_distances.
    """
    return jnp.mean(jnp.stack(list(style_distances(x, s).values())))


def frechet_distance(x: ImageFeatures, s: ImageFeatures) -> Scalar:
    """Return |mu_x - mu_s|^2 + tr(S_x + S_s - 2 (S_s^1/2 S_x S_s^1/2)^1/2) at FID_LAYER, at least 0.

    mu, S: mean and covariance of the features over the positions of one picture: the single-image FID of
    Shaham et al. 2019 (SinGAN, arXiv 1905.01164). Differs from the paper: features of VGG-16, not of
    Inception, so the numbers are not SIFIDs; and S + e I, e = 1e-5 (E|x|^2 + E|s|^2), which float32 needs. As
    the least |L_x Q - L_s|^2 over orthogonal Q, L L^T = S: no difference of traces.
    """
    both = x.moments[FID_LAYER], s.moments[FID_LAYER]
    power = sum(jnp.trace(moments[:, :-1]) for moments in both)
    ridge = (1e-5 * power + 1e-12) * jnp.eye(len(both[0]))
    (mean_x, covariance_x), (mean_s, covariance_s) = map(mean_and_covariance, both)
    root_x, root_s = (jnp.linalg.cholesky(covariance + ridge) for covariance in (covariance_x, covariance_s))
    with jax.default_matmul_precision("highest"):
        left, _, right = jnp.linalg.svd(root_x.T @ root_s)
        apart = root_x @ left @ right - root_s
    return jnp.sum((mean_x - mean_s) ** 2) + jnp.sum(apart**2)


def color_distance(x: ImageFeatures, y: ImageFeatures) -> Scalar:
    """Return the sliced 2-Wasserstein distance of the colors in OkLab, scaled: black to white is 1.

    (3 mean_a mean_q (Q^x_aq - Q^y_aq)^2)^1/2, Q: the quantiles q of the colors along direction a. Of two
    plain colors it is their distance, of a shift of all colors its length, else at most the Wasserstein
    distance. Rabin et al. 2011 ("Wasserstein barycenter and its application to texture mixing"). Differs from
    the paper: few and fixed directions.
    """
    return jnp.sqrt(3 * jnp.mean((x.colors - y.colors) ** 2))


METRICS = {
    "lpips": Metric(
        lpips,
        "content",
        "from 0, seldom above 1",
        "how different people would find it from the photograph, patch by patch",
        "strokes that are wanted from damage: every style raises it; 0 is the photograph",
    ),
    "lpips_alex": Metric(
        lpips_alex,
        "content",
        "from 0, seldom above 1",
        "how different people would find it, by the variant that most papers print",
        "what lpips cannot; null below 31 pixels a side",
    ),
    "dists": Metric(
        dists,
        "content",
        "from 0, seldom above 0.6",
        "how different people would find it, where textures of one kind are alike",
        "where in a texture something lies; colors that are wanted from wrong ones",
    ),
    "ms_ssim_distance": Metric(
        ms_ssim_distance,
        "content",
        "0 to 1",
        "whether light and dark are where they were in the photograph, at five scales",
        "what a thing is; a shift by a few pixels counts as much as its loss; colors",
    ),
    "self_similarity": Metric(
        self_similarity,
        "content",
        "0 to 2, mostly below 0.3",
        "whether what was alike in the photograph is alike still: layout, whatever the colors and strokes",
        "details between its 1024 positions; what a thing is",
    ),
    "content_color_distance": Metric(
        color_distance,
        "content",
        "0 to about 1",
        "how far the colors have moved from the photograph's",
        "where in the picture they lie",
    ),
    "style_distance": Metric(
        style_distance,
        "style",
        "0 to 1",
        "whether textures of every scale are the painting's, on layers that the defaults do not optimize",
        "order beyond the network's reach: large shapes, composition; whether one likes it",
    ),
    "fid": Metric(
        frechet_distance,
        "style",
        "from 0, hundreds",
        "whether small strokes and edges are the painting's",
        "anything larger than 14 pixels; its unit is the network's",
    ),
    "color_distance": Metric(
        color_distance,
        "style",
        "0 to about 1",
        "how far the colors are from the painting's",
        "where in the picture they lie; wrong from wanted, with --preserve_color",
    ),
    "dirt": Metric(
        dirt,
        "style",
        "from 0; to the eye clean below 1",
        "whether the photograph's calm places have specks of color that the painting's have not",
        "specks of light alone, blur, wrong shapes: plain gray is clean",
    ),
}


@partial(jax.jit, static_argnames="to")
def _compare(x: ImageFeatures, y: ImageFeatures, to: str) -> dict[str, Any]:
    found: dict[str, Any] = {n: metric.measure(x, y) for n, metric in METRICS.items() if metric.to == to}
    return found | ({"style_distance_by_layer": style_distances(x, y)} if to == "style" else {})


def measure(
    network: Network,
    result: Picture,
    content: Float32[np.ndarray, "_ _ 3"] | None,
    styles: Sequence[Float32[np.ndarray, "_ _ 3"]],
    style_mix: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the METRICS of a result by name, as numbers. None: there is no content, or it is too small.

    With several styles: the mean weighted by style_mix. by_style has the numbers of each style, and
    style_distance_by_layer the parts of its style_distance. The whole picture is judged, whatever the masks.

    Args:
        network: From load().
        result: The picture, RGB in [0, 1].
        content: The photograph, of the result's shape. None: there is none.
        styles: The paintings, each of its own shape.
        style_mix: A number for each style. Empty: equal.

    Raises:
        InputError: Shapes differ, a side has less than 16 pixels, or style_mix has another length or sum 0.
    """
    if content is not None and content.shape != result.shape:
        raise InputError("content", f"the result's shape {result.shape}", f"got {content.shape}")
    if not styles or len(style_mix) not in (0, len(styles)):
        raise InputError("style_mix", f"one number per style, {len(styles)}", f"got {len(style_mix)}")
    mix = np.array(style_mix or [1.0] * len(styles))
    if not 0 < mix.sum() < np.inf:
        raise InputError("style_mix", "numbers of a finite sum above 0", f"got {list(style_mix)}")
    found: dict[str, Any] = dict.fromkeys(METRICS)
    if content is None:
        seen = view(network, result)
    else:
        photograph = view(network, content)
        seen = view(network, result, np.asarray(photograph.calm))
        found |= _numbers(_compare(seen, photograph, "content"))
    seen, others = _for_style(seen), (_for_style(view(network, style)) for style in styles)
    each = [_numbers(_compare(seen, other, "style")) for other in others]
    found |= {
        name: float(mix @ [one[name] for one in each] / mix.sum()) for name in each[0] if name in METRICS
    }
    return found | {"by_style": each}


def _for_style(seen: ImageFeatures) -> ImageFeatures:
    """Return a view without its large parts, whose sizes are the picture's."""
    return seen._replace(maps={}, stages=[], gray=jnp.zeros((1, 1)), calm=jnp.zeros((1, 1), bool))


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    numbers: dict[str, Any] = jax.tree.map(float, found)
    return {name: numbers[name] for name in (*METRICS, "style_distance_by_layer") if name in numbers}
