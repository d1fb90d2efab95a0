"""Config: every option of an optimization, once: default, help, unit, bounds, choices; and the presets."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from nst_jax.errors import InputError, did_you_mean
from nst_jax.images.color import COLOR_MATCHES, COLOR_MODES
from nst_jax.losses import TERMS, own_terms
from nst_jax.losses.base import Weight
from nst_jax.losses.content import CONTENT_LOSSES
from nst_jax.losses.style import STYLE_LOSSES, StyleLoss, term_names
from nst_jax.networks import NETWORKS
from nst_jax.networks.base import check_layers
from nst_jax.networks.precision import PRECISIONS
from nst_jax.networks.vgg import POOLINGS
from nst_jax.objective.objective import layers_of
from nst_jax.objective.tiling import least_tile
from nst_jax.objective.weights import LossWeights, at_scale
from nst_jax.optimize.optimizers import OPTIMIZERS
from nst_jax.optimize.parametrizations import PARAMETRIZATIONS
from nst_jax.options import Field, check_option, fields_of, is_tuple, option
from nst_jax.spec import Spec

# By name: what differs from the fields' defaults below, which are `gatys`.
PRESETS: dict[str, dict[str, Any]] = {
    # What a program makes of two files. Chosen on real photographs and paintings: docs/pairs.md.
    "wasserstein": {
        "style_loss": "wasserstein",
        "content_layers": ("conv2_2", "conv3_2", "conv4_2"),
        "style_layer_weights": "lower",
        "pooling": "average",
        "parametrization": "natural",
        "scales": "auto",
        "loss_balancing": "auto",
    },
    "gatys": {},
    # Novak & Nikulin 2016: 3.1, 3.2, 3.3 and 3.5 together; the weight chosen by eye on several pairs.
    "improved": {
        "style_weight": 1e9,
        "style_loss": "chain",
        "content_layers": ("all",),
        "style_layers": ("all",),
        "style_layer_weights": "geometric",
        "activation_shift": -1.0,
    },
    # Kolkin et al. 2019: both losses of STROTSS; at one size where no --scales are given.
    "strotss": {"style_loss": "remd", "content_loss": "self_similarity", "loss_balancing": "auto"},
    # Li & Wand 2016: their two layers. Adam: a patch that another one replaces makes the loss jump, which a
    # line search does not get over.
    "patch": {
        "style_loss": "patch",
        "style_layers": ("conv3_1", "conv4_1"),
        "optimizer": "adam",
        "loss_balancing": "auto",
    },
    # The published code of the tutorial. Its content loss lacks the 1/2, so alpha is twice its 0.025; its
    # style weight 5 is for each style, so with k styles --style_weight is 5 k.
    "tutorial": {
        "content_weight": 0.05,
        "style_weight": 5.0,
        "tv_weight": 8.5e-5,
        "content_layers": ("conv5_2",),
        "style_layers": ("all",),
        "style_layer_weights": "telescoped",
        "style_loss": "tutorial",
        "activation_shift": -1.0,
    },
}

DEFAULT = "wasserstein"  # of the presets
SHARES = {"wasserstein": 0.4}  # of the style in a preset's weights, whatever the loss: _weights

FIRST, SLOPE, LAST = 1.65, 1.9, 0.8  # of the share of the weights at which a run of some strength begins

RATIOS = {"uniform": 1.0, "lower": 4.0, "geometric": 2.0}  # of a style term's weight to the next one's above
NAMED = (*RATIOS, "telescoped")  # layer weightings

TEXTURE = 0.56  # LPIPS at strength 1: as much as nearly every pair reaches in 40 steps

ALONE = 6  # times the steps of a scale has a picture without scales: as many as with five

COARSEST = 128  # pixels: the least longest side of --scales=auto


class Effort(NamedTuple):
    """How much time a run takes."""

    steps: int  # of each scale; the coarsest has twice as many
    octaves: float  # from one scale to the next, where --scales=auto chooses them


EFFORTS = {"draft": Effort(8, 1.0), "normal": Effort(25, 0.5), "fine": Effort(200, 0.5)}


class Scale(NamedTuple):
    """One size of a run from coarse to fine."""

    size: int  # longest side, in pixels
    iterations: int


def _option(default: Any, help: str, **allowed: Any) -> Any:
    """Declare an option whose default is that of a preset: of `gatys`, where the preset names none."""
    field = option(default, help, **allowed)
    return dataclasses.field(default=None, metadata={**field.metadata, "default": default})


def _weight(weight: Weight) -> Any:
    """Declare the weight of a term."""
    return _option(weight.default, weight.help, low=0, high=3e38)


@functools.cache  # asked for at every check
def _term_weights(weights: tuple[tuple[str, Weight], ...]) -> tuple[Field, ...]:
    """Return options for the weights of terms."""
    made = [(f"{name}_weight", float, _weight(weight)) for name, weight in weights]
    return dataclasses.fields(dataclasses.make_dataclass("TermWeights", made))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The options of one transfer: Config(preset="improved", size=256). They are checked at once.

    An option that is not given has the preset's value. With a strength, the weights follow from it.
    Config() is `gatys`: Gatys et al. 2015. The programs and stylize use Config.from_preset() by default.
    dataclasses.replace(config, size=512) changes an option and keeps the others that were given.

    Raises:
        InputError: An option is wrong, or has no effect with the others.
    """

    preset: str = _option(
        "gatys",
        "set of defaults, which other options override: wasserstein (the defaults shown), the transport "
        "distance of means and covariances, coarse to fine; gatys, Gatys et al. 2015; improved, Novak and "
        "Nikulin 2016; strotss, Kolkin et al. 2019; patch, Li and Wand 2016; tutorial, the code of a "
        "published tutorial, for comparison only",
        choices=PRESETS,
    )
    network: str = _option("vgg16", "pretrained network", choices=NETWORKS)
    size: int = _option(
        512, "longest side of the optimized picture, in pixels; the aspect ratio is kept", low=2, high=32768
    )
    stroke_size: float = _option(
        1.0,
        "size of the strokes: the longest side of a style relative to --size; 0.5 and 2 are already large "
        "changes",
        low=1 / 64,
        high=64,
    )
    style_mix: tuple[float, ...] = _option(
        (), "one number per style, normalized to sum 1; empty: equal", low=0, high=1e30
    )
    content_weight: float = _weight(TERMS["content"].weight)
    style_weight: float = _weight(TERMS["style"].weight)
    tv_weight: float = _weight(TERMS["tv"].weight)
    photorealistic: bool = _option(
        False,
        "keep the picture a photograph: its colors around every pixel stay close to an affine function of "
        "the content's",
    )
    matting_weight: float = _weight(TERMS["matting"].weight)
    loss_balancing: str = _option(
        "none",
        "auto: each weight is divided by its term's pull, a gradient norm that the run measures, so that "
        "it means the same at any --size and with any --style_loss; none: weights of the raw losses",
        choices=("none", "auto"),
    )
    strength: float | None = _option(
        None,
        "how far the picture moves from the photograph: 0 is the photograph, 1 leaves hardly any of it, "
        "and equal steps look equal. The run corrects the weights until LPIPS to the photograph is "
        f"{TEXTURE} times the strength. It replaces --content_weight and --style_weight, and sets "
        "--loss_balancing=auto",
        low=0,
        high=1,
    )
    content_layers: tuple[str, ...] = _option(("conv4_2",), "layers of the network with commas, or all")
    style_layers: tuple[str, ...] = _option(
        ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"), "layers of the network with commas, or all"
    )
    style_layer_weights: str = _option(
        "uniform",
        "uniform; lower (style 4^(D-d) for term d of D, sum 1, so that low layers weigh most); geometric "
        "(style 2^(D-d), content 2^d, sum 1); a number per style term, normalized to sum 1; or telescoped "
        "(for the tutorial preset)",
    )
    style_loss: str = _option(
        "gram",
        "statistic of the style that the picture matches: gram, each layer's Gram matrix; chain, Gram "
        "matrices between neighboring layers; moments, mean and covariance; wasserstein, the transport "
        "distance of these; histogram, gram and each channel's histogram; nearest, the most similar "
        "position of the style; remd, the same in both directions; patch, the most similar 3x3 patch; "
        "tutorial, for its preset. With the presets gatys and improved also pass --strength, as losses "
        "differ by orders of magnitude",
        choices=STYLE_LOSSES,
    )
    content_loss: str = _option(
        "l2",
        "l2, squared differences of activations; laplacian, also of the colors' Laplacian; "
        "self_similarity, how similar positions within the picture are to each other, whatever their "
        "colors",
        choices=CONTENT_LOSSES,
    )
    activation_shift: float = _option(
        0.0, "s: the style statistics are those of F + s, where F are the activations", low=-1e6, high=1e6
    )
    preserve_color: str = _option(
        "none",
        "keep the content's colors: luma_swap, its chroma on the result; luma, the same, with only luma "
        "optimized; match, the style first takes the content's mean color and covariance; histogram, the "
        "style first takes its histogram, channel by channel",
        choices=COLOR_MODES,
    )
    color_match: str = _option("symmetric", "the linear map of --preserve_color=match", choices=COLOR_MATCHES)
    pooling: str = _option("max", "pooling between the network's blocks", choices=POOLINGS)
    tv_power: float = _option(2.5, "p of the total variation (dx^2 + dy^2)^(p/2)", low=1, high=8)
    init: str = _option("content", "first picture: content, noise, style, or a file")
    seed: int = _option(0, "seed of the noise", low=0, high=2**32 - 1)
    optimizer: str = _option("lbfgs", "lbfgs (with a line search) or adam", choices=OPTIMIZERS)
    parametrization: str = _option(
        "fourier",
        "coordinates of the optimizer's steps: fourier, frequencies scaled so that large areas change as "
        "easily as small strokes; natural, the same with larger steps in lightness than in color, which "
        "leaves fewer specks; pixels",
        choices=PARAMETRIZATIONS,
    )
    effort: str = _option(
        "normal",
        "time of the run, in place of --iterations: draft, 8 steps at every other one of the --scales; "
        "normal, 25 steps at each; fine, 200 at each. The coarsest scale takes twice as many. With one "
        "scale: 48, 150 and 1200",
        choices=EFFORTS,
    )
    iterations: tuple[int, ...] | int = _option(
        (),
        "steps of the optimizer: one total, of which the coarsest scale gets two shares and every other "
        "one; or a number for each scale, with commas; 0 returns the first picture; empty: by --effort",
        low=0,
        high=10**7,
    )
    scales: str = _option(
        "",
        "coarse to fine: longest sides with commas, growing up to --size; auto: by factors of the square "
        f"root of 2, none below {COARSEST}, fewer than --iterations; empty: --size alone",
    )
    ema_decay: float = _option(
        0.0,
        "decay of an exponential moving average of the pictures, which is shown and written in place of "
        "the last picture; 0: off; adam only",
        low=0,
        high=0.99999,
    )
    tile: str = _option(
        "auto",
        "auto: the whole picture at once if it fits into memory, else in windows, with the same result; "
        "off: never in windows; or the longest side of a window in pixels",
    )
    precision: str = _option(
        "auto",
        "precision of the network; statistics and losses are float32. auto: bfloat16 on a GPU, and on a "
        "CPU that multiplies bfloat16 if the native part is built; else float32",
        choices=("auto", *PRECISIONS),
    )
    learning_rate: float = _option(
        0.03, "step size, in units of the picture's range 0..1; adam only", low=1e-8, high=1
    )

    # Of terms that others have put into TERMS, by name; from_preset and flags have them as NAME_weight.
    term_weights: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)

    _given: dataclasses.InitVar[dict[str, Any] | None] = None  # the old Config's, by dataclasses.replace

    def __post_init__(self, _given: dict[str, Any] | None) -> None:
        before = {} if _given is None else _resolve(_given)
        given, weights = dict(_given or {}), self._own_weights()
        for field in fields_of(Config):
            value = weights[field.name] if field.name in weights else getattr(self, field.name)
            value = _as_tuple(field, value)
            if value is None:
                given.pop(field.name, None)
            elif field.name not in before or value != before[field.name]:
                check_option(field, value)
                given[field.name] = value
        resolved = _resolve(given)
        own = {name.removesuffix("_weight"): resolved.pop(name) for name in weights}
        for name, value in (resolved | {"term_weights": own, "_given": given}).items():
            object.__setattr__(self, name, value)
        self._check_together()
        for name, (allowed, came) in self.unused().items():
            if name in given:
                raise InputError(f"`{name}`", allowed, came)

    def _own_weights(self) -> dict[str, Any]:
        """Return what term_weights says of each further term, by option; None where nothing."""
        given, options = self.term_weights or {}, [field.name for field in self.more_options()]
        names = [option.removesuffix("_weight") for option in options]
        for name in given.keys() - set(names):
            allowed = f"of {', '.join(names)}" if names else "of terms put into TERMS: there are none"
            raise InputError("`term_weights`", allowed, f"got {name!r}{did_you_mean(name, names)}")
        return {option: given.get(name) for option, name in zip(options, names, strict=True)}

    def _check_together(self) -> None:
        if not self.init:
            raise InputError("`init`", "content, noise, style or a file", "got nothing")
        for name in ("content_layers", "style_layers"):
            layers = getattr(self, name)
            if not layers:
                raise InputError(f"`{name}`", "at least one layer, or all", "got none")
            if "all" in layers and len(layers) > 1:
                raise InputError(f"`{name}`", "layers, or all by itself", f"got {','.join(layers)}")
            if layers != ("all",):
                check_layers(NETWORKS[self.network], layers, f"`{name}`")
        terms = self._terms()
        if not any(map(self.weight, terms)):
            names = ", ".join(f"`{name}_weight`" for name in terms)
            raise InputError(names, "at least one above 0", "all are 0")
        if self.style_mix and not sum(self.style_mix):
            raise InputError("`style_mix`", "at least one number above 0", "all are 0")
        if self.activation_shift and not STYLE_LOSSES[self.style_loss].shifts:
            allowed = f"0 for `style_loss={self.style_loss}`, which has no shift"
            raise InputError("`activation_shift`", allowed, f"got {self.activation_shift:g}")
        if not self._style_terms():
            allowed = f"at least two layers for `style_loss={self.style_loss}`"
            raise InputError("`style_layers`", allowed, f"got {','.join(self.style_layers)}")
        self._style_layer_weights()
        if self.tile not in ("auto", "off"):
            self._check_tile()
        self.pyramid()
        if self.ema_decay and self.optimizer != "adam":
            raise InputError(
                "`ema_decay`", "0, or `optimizer=adam`", f"got {self.ema_decay:g} for {self.optimizer}"
            )

    @classmethod
    def from_preset(cls, preset: str = DEFAULT, **given: Any) -> "Config":
        """Return Config(preset=preset, ...). By default it is the preset of the programs and of stylize.

        The weight of a term of your own is NAME_weight.
        """
        own = given.keys() & {field.name for field in cls.more_options()}
        weights = {name.removesuffix("_weight"): given.pop(name) for name in own}
        if weights:
            given["term_weights"] = {**(given.get("term_weights") or {}), **weights}
        return cls(preset=preset, **given)

    @staticmethod
    def more_options() -> tuple[Field, ...]:
        """Return the weights of the terms that have no field of their own."""
        there = Config.__dataclass_fields__
        further = {name: term.weight for name, term in own_terms().items() if f"{name}_weight" not in there}
        return _term_weights(tuple(further.items()))

    def values(self) -> dict[str, Any]:
        """Return the value of every option by name; given to from_preset they make the same Config."""
        return _resolve(self.given)

    def weight(self, term: str) -> float:
        """Return the weight of a term."""
        return float(self.values()[f"{term}_weight"])

    def _terms(self) -> tuple[str, ...]:
        own = own_terms().items()
        return tuple(name for name, term in own if not term.when or getattr(self, term.when))

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given; the others follow from these."""
        return dict(vars(self)["_given"])

    def unused(self) -> dict[str, tuple[str, str]]:
        """Return the options that have no effect beside the others, with what is allowed and what came."""
        found = {}
        if self.optimizer == "lbfgs":
            found["learning_rate"] = "for `optimizer=adam`", "lbfgs searches its own step size"
        for name in own_terms().keys() - set(self._terms()):
            option = TERMS[name].when
            found[f"{name}_weight"] = f"for `{option}`", f"got no `{option}`"
        if self.preserve_color != "match":
            found["color_match"] = "for `preserve_color=match`", f"got `preserve_color={self.preserve_color}`"
        steps = tuple(scale.iterations for scale in self.pyramid())
        if self.iterations and self.effort != "normal" and steps != _steps(self.effort, len(steps)):
            found["effort"] = "without `iterations`, whose place it takes", "both were given"
        if self.strength is None:
            found["strength"] = "a number", "got none"
        elif self.loss_balancing != "auto":
            found["strength"] = "with `loss_balancing=auto`", f"got `loss_balancing={self.loss_balancing}`"
        else:  # its own weights, as the settings in a picture have them beside it, say the same
            loss = STYLE_LOSSES[self.style_loss]
            for name, weight in _weights(_first_share(self.strength), loss).items():
                if getattr(self, name) != weight:
                    found["strength"] = f"without `{name}`, whose place it takes", "both were given"
        return found

    @property
    def target_lpips(self) -> float | None:
        """The LPIPS to the photograph that the strength wants (lpips_of). None without a strength."""
        return None if self.strength is None else lpips_of(self.strength)

    @property
    def steps(self) -> int:
        """The steps of all scales."""
        return sum(scale.iterations for scale in self.pyramid())

    def pyramid(self) -> tuple[Scale, ...]:
        """Return the scales from coarse to fine, each with its size and its steps.

        With scales=auto the sizes are round(size / 2^(i/2)), for a draft round(size / 2^i). There is at least
        one step more than there are scales. A total of steps is divided into n + 1 shares for n scales. The
        coarsest gets two shares and the remainder. As in crowsonkb/style-transfer-pytorch. Raises InputError.
        """
        assert isinstance(self.iterations, tuple)  # since __post_init__
        sizes = self._sizes(self.iterations)
        if self.iterations == (0,):
            return (Scale(self.size, 0),)
        count = len(sizes)
        steps = self.iterations or _steps(self.effort, count)
        if len(steps) == 1 and (count == 1 or steps[0] > count):
            share = steps[0] // (count + 1)
            steps = (steps[0] - share * (count - 1), *[share] * (count - 1))
        if len(steps) != count or not all(steps):
            allowed = f"0, {count + 1} or more in all, or {count} numbers from 1, one for each of `scales`"
            allowed = allowed if count > 1 else "one number where there are no `scales`"
            raise InputError("`iterations`", allowed, f"got {','.join(map(str, steps))}")
        return tuple(Scale(*pair) for pair in zip(sizes, steps, strict=True))

    def _sizes(self, steps: tuple[int, ...]) -> list[int]:
        if self.scales == "auto":
            ladder = [round(self.size / 2 ** (i * EFFORTS[self.effort].octaves)) for i in range(32)]
            number = max(1, sum(size >= COARSEST for size in ladder))
            if len(steps) == 1:  # fewer scales where there are few steps: the coarsest has two
                number = min(number, max(1, steps[0] - 1))
            return ladder[:number][::-1]
        try:
            sizes = [int(part) for part in self.scales.split(",")] if self.scales else [self.size]
        except ValueError:
            sizes = []
        grow = all(low < high for low, high in itertools.pairwise(sizes))
        if not sizes or sizes[0] < 1 or not grow or sizes[-1] != self.size:
            allowed = f"auto, or longest sides that grow and end at `size={self.size}`"
            raise InputError("`scales`", allowed, f"got {self.scales!r}{did_you_mean(self.scales, ['auto'])}")
        return sizes

    def spec(self) -> Spec:
        """Return the static options, which change the compiled program."""
        terms = self._terms()
        spec = Spec(
            content_layers=self._layers(self.content_layers),
            style_layers=self._layers(self.style_layers),
            terms=terms,
            style_loss=self.style_loss,
            content_loss=self.content_loss,
            pooling=self.pooling,
            optimizer=self.optimizer,
            parametrization=self.parametrization,
            luminance=COLOR_MODES[self.preserve_color].luminance,
            precision=self.precision,
            tile=int(self.tile) if self.tile.isdecimal() else 0,
            plugged=(
                STYLE_LOSSES[self.style_loss],
                CONTENT_LOSSES[self.content_loss],
                OPTIMIZERS[self.optimizer],
                *(TERMS[name] for name in terms),
            ),
            network=NETWORKS[self.network],
        )
        further = [layer for layer in layers_of(terms, spec) if layer not in spec.layers]
        return spec._replace(other_layers=tuple(further))

    def _check_tile(self) -> None:
        """Raise InputError unless windows of this side have a core between their halos."""
        spec = self.spec()
        least, deepest = least_tile(spec), spec.network.deepest(spec.layers)
        if self.tile.isdecimal() and int(self.tile) >= least:
            return
        sees = f"{deepest.name} sees {deepest.reach} pixels to each side"
        hint = did_you_mean(self.tile, ("auto", "off"))
        raise InputError("`tile`", f"auto, off, or at least {least} ({sees})", f"got {self.tile!r}{hint}")

    def loss_weights(self, styles: int, share: float = 1.0) -> LossWeights:
        """Return the weights as arrays: alpha, beta, gamma ..., w_l of the layers, and the styles' mix.

        share: The scale's share of the last scale's pixels.

        Style: uniform w_l = 1/n over the n layers, geometric 2^(D-d), or numbers, all normalized to sum 1;
        telescoped: 2^-(n-2), 2^-(n-2), 2^-(n-3), ..., 1/2, -1, the sum of the published tutorial's
        (E_i - E_(i+1)) / 2^(n-1-i), i from 1.
        Content: uniform 1 for each layer (a plain sum, as in Gatys et al. 2015); geometric 2^d to sum 1
        (Novak & Nikulin 2016, arXiv 1605.04603, 3.1). Raises InputError if style_mix has another length.
        """
        if self.style_mix and len(self.style_mix) != styles:
            raise InputError("`style_mix`", f"one number per style, {styles}", f"got {len(self.style_mix)}")
        spec = self.spec()
        parts = {name: dict.fromkeys(names(spec), 1.0) for name in spec.terms if (names := TERMS[name].names)}
        if self.style_layer_weights == "geometric":
            shares = _normalized([2.0**d for d in range(1, len(spec.content_layers) + 1)])
            parts["content"] |= dict(zip(spec.content_layers, shares, strict=True))
        parts["style"] = dict(zip(self._style_terms(), self._style_layer_weights(), strict=True))
        asked = {name: self.weight(name) for name in spec.terms}
        return LossWeights(
            terms=_traced(at_scale(asked, share, self.loss_balancing)),
            parts={name: _traced(weights) for name, weights in parts.items()},
            style_mix=jnp.asarray(_normalized(self.style_mix or [1.0] * styles), jnp.float32),
        )

    def _layers(self, names: tuple[str, ...]) -> tuple[str, ...]:
        network = NETWORKS[self.network]
        chosen = network.layers if names == ("all",) else network.select(names)
        return tuple(layer.name for layer in chosen)

    def _style_terms(self) -> tuple[str, ...]:
        return term_names(self.style_loss, NETWORKS[self.network], self._layers(self.style_layers))

    def _style_layer_weights(self) -> list[float]:
        terms = self._style_terms()
        if self.style_layer_weights in RATIOS:
            return _normalized([RATIOS[self.style_layer_weights] ** -d for d in range(len(terms))])
        if self.style_layer_weights == "telescoped":
            if len(terms) < 2:
                came = f"got {','.join(self.style_layers)}"
                raise InputError("`style_layers`", "two or more for `style_layer_weights=telescoped`", came)
            return _telescoped(len(terms))
        return self._numbers(terms)

    def _numbers(self, terms: tuple[str, ...]) -> list[float]:
        """Return style_layer_weights's numbers, given in the order of style_layers, in the order of terms."""
        allowed = (
            f"{', '.join(NAMED)}, or {len(terms)} numbers from 0 to 1e30 (one per style term), not all 0"
        )
        try:
            numbers = [float(part) for part in self.style_layer_weights.split(",")]
        except ValueError:
            hint = did_you_mean(self.style_layer_weights, NAMED)
            raise InputError(
                "`style_layer_weights`", allowed, f"got {self.style_layer_weights!r}{hint}"
            ) from None
        good = all(0 <= number <= 1e30 for number in numbers)
        if len(numbers) != len(terms) or not good or not sum(numbers):
            raise InputError("`style_layer_weights`", allowed, f"got {self.style_layer_weights!r}")
        given = [layer for layer in self.style_layers if layer in terms] or terms  # none of them: all
        named = dict(zip(given, numbers, strict=True))
        return _normalized([named[term] for term in terms])


def _steps(effort: str, count: int) -> tuple[int, ...]:
    """Return the steps of each of count scales."""
    share = EFFORTS[effort].steps
    return (2 * share, *[share] * (count - 1)) if count > 1 else (ALONE * share,)


def _as_tuple(field: Field, value: Any) -> Any:
    """Return a list, a lone layer or a lone number as the tuple that an option of several values holds."""
    if value is None or isinstance(value, tuple) or not is_tuple(field):
        return value
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _resolve(given: dict[str, Any]) -> dict[str, Any]:
    """Return the value of every option: the given one, else the strength's, else the preset's."""
    options: dict[str, Any] = {field.name: field.metadata["default"] for field in fields_of(Config)}
    preset = PRESETS[given.get("preset", options["preset"])]
    options |= preset | ({"loss_balancing": "auto"} if "strength" in given else {}) | given
    if options["loss_balancing"] == "auto":
        options |= {f"{name}_weight": term.weight.balanced for name, term in own_terms().items()}
        loss, strength = STYLE_LOSSES[options["style_loss"]], options["strength"]
        if strength is not None:
            options |= _weights(_first_share(strength), loss)
            if strength == 0:  # the photograph to the bit: nothing smooths it, nothing enlarges it
                loose = [name for name, term in own_terms().items() if not term.of_content]
                options |= dict.fromkeys((f"{name}_weight" for name in loose), 0.0)
                options["scales"] = "" if len(options["iterations"]) < 2 else options["scales"]
        elif options["preset"] in SHARES and not given.keys() & {"content_weight", "style_weight"}:
            options |= _weights(SHARES[options["preset"]], loss)
        options |= given
    return options


def lpips_of(strength: float) -> float:
    """Return the LPIPS to the photograph that a strength wants; NaN at 0, where nothing is corrected."""
    return strength * TEXTURE if strength else math.nan


def _first_share(strength: float) -> float:
    """Return the style's share in the weights with which a run of a strength s begins.

    1 / (1 + exp(a - b s - c s^8)), near the weights that eight pairs came to; 0 at 0.
    """
    odds = SLOPE * strength + LAST * strength**8 - FIRST
    return 1 / (1 + math.exp(-odds)) if strength else 0.0


def _weights(share: float, loss: StyleLoss) -> dict[str, float]:
    """Return the weights of a share u of the style: (2 (1 - u))^k of the content and m (2 u)^k of the style.

    m and k are the StyleLoss's strength_midpoint and strength_exponent, so that about as much of the
    photograph is left with any.
    """
    content, style = ((2.0 * part) ** loss.strength_exponent for part in (1 - share, share))
    # Four digits: they are read in tables and reports.
    return {
        "content_weight": float(f"{content:.4g}"),
        "style_weight": float(f"{loss.strength_midpoint * style:.4g}"),
    }


def _normalized(numbers: Sequence[float]) -> list[float]:
    return [number / sum(numbers) for number in numbers]


def _telescoped(count: int) -> list[float]:
    weights = [0.0] * count
    for i in range(count - 1):  # w (E_i - E_{i+1}), i from 0
        weights[i] += 2.0 ** -(count - 2 - i)
        weights[i + 1] -= 2.0 ** -(count - 2 - i)
    return weights


def _traced(numbers: dict[str, float]) -> dict[str, Any]:
    return {name: jnp.asarray(number, jnp.float32) for name, number in numbers.items()}
