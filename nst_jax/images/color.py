"""Color modes: what happens to colors before, during and after the transfer.

Pictures are sRGB in [0, 1]; luma and chroma are the full-range Y, Cb, Cr of ITU-R BT.601, as in JPEG.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from nst_jax.errors import InputError

Picture = Float32[np.ndarray, "h w 3"]
Weights = Float32[np.ndarray, "_ _"] | None  # of each pixel in the statistics; None: 1
Matrix = Float[np.ndarray, "3 3"]

LUMA = np.array([0.299, 0.587, 0.114])
CONES = np.array(  # of linear sRGB
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
OPPONENTS = np.array(  # OkLab of the cones' cubic roots
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
LEAST_DEVIATION = 1e-3  # of colors that vary: a quarter of a step of 8 bits


class Colors(NamedTuple):
    """A picture as the color modes see it: its pixels as rows, and each one's share of the whole."""

    rows: Float[np.ndarray, "n 3"]
    shares: Float[np.ndarray, " n"]  # their sum is 1


class ColorMode(NamedTuple):
    """A color mode: style(style, content, match) before the transfer, finish(result, content) after it.

    None: the picture stays the very one that it is.
    """

    style: Callable[[Colors, Colors, Callable[[Matrix, Matrix], Matrix]], Float[np.ndarray, "n 3"]] | None
    finish: Callable[[Picture, Picture], Picture] | None
    luminance: bool = False  # during it: whether only luma is optimized


def prepare_style(
    mode: str,
    style: Picture,
    content: Float32[np.ndarray, "_ _ 3"],
    match: str = "symmetric",
    style_weights: Weights = None,
    content_weights: Weights = None,
) -> Picture:
    """Return the style with its colors brought to the content's, clipped to [0, 1].

    With weights (masks) the colors of both are those where the weights lie; every pixel of the style moves.

    Args:
        mode: A key of COLOR_MODES.
        style: The painting, RGB in [0, 1].
        content: The photograph (h, w, 3), RGB in [0, 1].
        match: A key of COLOR_MATCHES.
        style_weights: Of the style's pixels. None: 1.
        content_weights: Of the content's pixels. None: 1.

    Raises:
        InputError: Colors that must vary do not.
    """
    move = COLOR_MODES[mode].style
    if move is None:
        return style
    moved = move(_colors(style, style_weights), _colors(content, content_weights), COLOR_MATCHES[match])
    return moved.reshape(style.shape).clip(0, 1).astype(np.float32)


def finish_picture(mode: str, result: Picture, content: Picture) -> Picture:
    """Return the result of a transfer with the colors that the mode puts back, of the content.

    Args:
        mode: A key of COLOR_MODES.
        result: The picture, RGB in [0, 1].
        content: Of the same shape.
    """
    finish = COLOR_MODES[mode].finish
    return result if finish is None else finish(result, content)


def _colors(picture: Picture, weights: Weights) -> Colors:
    mass = np.ones(picture.shape[:2]) if weights is None else weights.astype(np.float64)
    return Colors(picture.reshape(-1, 3).astype(np.float64), mass.ravel() / mass.sum())


def luma(picture: Picture) -> Picture:
    """Return Y = 0.299 R + 0.587 G + 0.114 B in all three channels."""
    return np.repeat((picture @ LUMA)[..., None], 3, axis=-1).clip(0, 1).astype(np.float32)


def oklab(rgb: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Return OkLab of sRGB in [0, 1], in float64: L in [0, 1], black to white, and a, b in about [-0.4, 0.4].

    Equal steps look about equally large. Ottosson 2020 ("A perceptual color space for image processing").
    """
    rgb = rgb.astype(np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ CONES.T) @ OPPONENTS.T


def swap_luma(result: Picture, content: Picture) -> Picture:
    """Return the Y of the result with the Cb and Cr of the content.

    Y is moved to the nearest value that leaves the color in [0, 1], which keeps the chroma exact; clipping
    R, G and B would not.
    """
    y = result.astype(np.float64) @ LUMA
    chroma = content - (content.astype(np.float64) @ LUMA)[..., None]  # R - Y, G - Y, B - Y fix Cb and Cr
    y = np.minimum(np.maximum(y, -chroma.min(-1)), 1 - chroma.max(-1))
    return (y[..., None] + chroma).clip(0, 1).astype(np.float32)


def _mean_and_covariance(colors: Colors) -> tuple[Float[np.ndarray, " 3"], Matrix]:
    mean = colors.shares @ colors.rows
    centered = colors.rows - mean
    return mean, (centered * colors.shares[:, None]).T @ centered


def _match_luma(style: Colors, content: Colors, match: object) -> Float[np.ndarray, "n 3"]:
    """Return (sd_c / sd_s) (Y_s - mean_s) + mean_c in all channels. Gatys et al. 2016 (arXiv 1606.05897)."""
    y_style, y_content = style.rows @ LUMA, content.rows @ LUMA
    mean_s, mean_c = style.shares @ y_style, content.shares @ y_content
    deviation_s = np.sqrt(style.shares @ (y_style - mean_s) ** 2)
    deviation_c = np.sqrt(content.shares @ (y_content - mean_c) ** 2)
    _check_varies("luma", deviation_c, "brightness", "content")
    _check_varies("luma", deviation_s, "brightness", "style")
    return np.repeat(((deviation_c / deviation_s) * (y_style - mean_s) + mean_c)[:, None], 3, axis=-1)


def _match_linear(
    style: Colors, content: Colors, match: Callable[[Matrix, Matrix], Matrix]
) -> Float[np.ndarray, "n 3"]:
    """Return A x + b with A S_s A^T = S_c, b = mean_c - A mean_s. Gatys et al. 2016 (arXiv 1606.05897)."""
    mean_s, covariance_s = _mean_and_covariance(style)
    mean_c, covariance_c = _mean_and_covariance(content)
    _check_varies("match", np.linalg.eigvalsh(covariance_c)[-1].clip(0) ** 0.5, "color", "content")
    varies = "color in all three channels, each in its own way (for a gray one: luma)"
    _check_varies("match", np.linalg.eigvalsh(covariance_s)[0].clip(0) ** 0.5, varies, "style")
    return (style.rows - mean_s) @ match(covariance_c, covariance_s).T + mean_c


def _match_histograms(style: Colors, content: Colors, match: object) -> Float[np.ndarray, "n 3"]:
    """Return each channel with the content's distribution: the value of the same quantile."""
    for name, colors in {"content": content, "style": style}.items():
        variances = np.diag(_mean_and_covariance(colors)[1])
        _check_varies("histogram", variances.max() ** 0.5, "color", name)
    moved = np.empty_like(style.rows)
    for channel in range(3):
        values_s, quantiles_s = _distribution(style, channel)
        values_c, quantiles_c = _distribution(content, channel)
        at = np.interp(style.rows[:, channel], values_s, quantiles_s)
        moved[:, channel] = np.interp(at, quantiles_c, values_c)
    return moved


def _distribution(colors: Colors, channel: int) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return the values of a channel in order, and the share of the picture below each, with half its own.

    Half, so that a channel of one value only goes to the content's median.
    """
    values, where = np.unique(colors.rows[:, channel], return_inverse=True)
    shares = np.bincount(where, colors.shares)
    values, shares = values[shares > 0], shares[shares > 0]
    return values, np.cumsum(shares) - shares / 2


def _check_varies(mode: str, deviation: float, what: str, picture: str) -> None:
    if deviation < LEAST_DEVIATION:
        raise InputError(
            f"`preserve_color={mode}`",
            f"a {picture} that varies in {what}",
            f"the {picture}'s deviation is {deviation:.2g} of 1",
        )


def _root(matrix: Matrix, power: float = 0.5) -> Matrix:
    """Return the symmetric power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values.clip(0 if power > 0 else 1e-300) ** power) @ vectors.T


def _cholesky(content: Matrix, style: Matrix) -> Matrix:
    # A gray content has a singular covariance, which only the tiny diagonal makes a Cholesky factor of.
    factor = np.linalg.cholesky(content + 1e-12 * np.eye(3))
    return factor @ np.linalg.inv(np.linalg.cholesky(style))


def _symmetric(content: Matrix, style: Matrix) -> Matrix:
    return _root(content) @ _root(style, -0.5)


def _transport(content: Matrix, style: Matrix) -> Matrix:
    root, inverse = _root(style), _root(style, -0.5)
    return inverse @ _root(root @ content @ root) @ inverse


# By name: A(S_c, S_s) with A S_s A^T = S_c. Of the Cholesky factors, of the symmetric roots (image
# analogies), and of the optimal transport between two normal distributions, which moves colors least.
COLOR_MATCHES: dict[str, Callable[[Matrix, Matrix], Matrix]] = {
    "cholesky": _cholesky,
    "symmetric": _symmetric,
    "transport": _transport,
}
COLOR_MODES = {
    "none": ColorMode(None, None),
    "luma_swap": ColorMode(None, swap_luma),
    "luma": ColorMode(_match_luma, swap_luma, luminance=True),
    "match": ColorMode(_match_linear, None),
    "histogram": ColorMode(_match_histograms, None),
}
