"""The published notebook's objective, written out from its own formulas: for a 16- or 13-layer network, float64.

Features are channels first here, as rows of a matrix; sizes are those of the pictures (W x H), which are one size.
"""

import numpy as np


def gram_matrix(features):
    """(h, w, c) -> c x c, of the activations minus one."""
    rows = features.transpose(2, 0, 1).reshape(features.shape[2], -1)
    return (rows - 1) @ (rows - 1).T


def style_loss(style, combination, width, height):
    channels, size = 3, width * height
    difference = gram_matrix(style) - gram_matrix(combination)
    return np.sum(difference**2) / (4 * channels**2 * size**2)


def content_loss(base, combination):
    return np.sum((combination - base) ** 2)


def total_variation_loss(x):
    """x: (h, w, 3) in 0..255."""
    a = (x[:-1, :-1] - x[1:, :-1]) ** 2
    b = (x[:-1, :-1] - x[:-1, 1:]) ** 2
    return np.sum((a + b) ** 1.25)


def chain(style_layers, combination_layers, width, height, style_weight=5.0):
    """The terms weight / 2^(n-1-(i+1)) * (E_i - E_(i+1)), i = 0 ... n-2."""
    n = len(style_layers)
    terms = []
    for i in range(n - 1):
        first = style_loss(style_layers[i], combination_layers[i], width, height)
        second = style_loss(style_layers[i + 1], combination_layers[i + 1], width, height)
        terms.append(style_weight / 2 ** (n - 1 - (i + 1)) * (first - second))
    return terms
