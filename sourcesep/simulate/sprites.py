"""Small images of one object whose place, size, turn and brightness follow a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import SettingsError
from sourcesep.simulate._checks import RandomState, at_least, generator, positive
from sourcesep.simulate.protocols import Modulation

__all__ = ["ImageSimulation", "images"]

Array = NDArray[np.float64]


class Factor(NamedTuple):
    """What a source moves: middle + reach tanh(source / 2), or the exponential of that."""

    middle: float
    reach: float
    is_log: bool = False

    def of(self, source: Array, reach: float) -> Array:
        """The factor's values where its sources have these."""
        value = self.middle + reach * self.reach * np.tanh(source / 2)
        return np.exp(value) if self.is_log else value


FACTORS = {
    "x": Factor(0.0, 0.35),
    "y": Factor(0.0, 0.35),
    "scale": Factor(np.log(0.4), 0.3, is_log=True),
    "rotation": Factor(0.0, 0.8),
    "brightness": Factor(np.log(0.6), 0.4, is_log=True),
}
ASPECT = 2.0
"""An object is this many times as wide as high: else its rotation would not show."""
EXPONENTS = {"ellipse": 2.0, "rectangle": 8.0}
SOFTNESS = 0.3
"""Width of an object's edge as a share of its size: several pixels, so that images change
smoothly with the place."""
MEAN_SPREAD = 1.0
SCALES = (0.3, 1.2)
"""Range of the sources' standard deviation given a label; their mean is N(0, `MEAN_SPREAD`)."""
MOST_AT_ONCE = 2**22
"""Pixels drawn at once."""


@dataclass(frozen=True)
class ImageSimulation:
    """Images, and the factors that they were drawn from.

    Parameters
    ----------
    images : ndarray of shape (n_samples, size, size)
        From black, 0, to white, 1; rows from the top. Noise may leave that range.
    sources : ndarray of shape (n_samples, n_factors)
        The truth: Gaussian given u, one for each factor.
    factors : ndarray of shape (n_samples, n_factors)
        What they make of the object, each an increasing function of its source: place in
        half widths of the image from its middle (x to the right, y downwards), scale as
        the object's half width in the same unit, rotation in radians (clockwise, for y
        points down), brightness from 0 to 1.
    names : tuple of str
        Of the factors.
    u : ndarray of int, shape (n_samples,)
        The label of each image, ``0 .. n_labels - 1``.
    means, scales : ndarray of shape (n_labels, n_factors)
        The sources' mean and standard deviation given each label.
    """

    images: Array
    sources: Array
    factors: Array
    names: tuple[str, ...]
    u: NDArray[np.int64]
    means: Array
    scales: Array

    @property
    def pixels(self) -> Array:
        """A row an image, (n_samples, size * size): what an estimator is fitted to."""
        return self.images.reshape(len(self.images), -1)


def images(
    n_labels: int = 40,
    samples_per_label: int = 500,
    factors: Sequence[str] = tuple(FACTORS),
    *,
    size: int = 16,
    shape: Literal["ellipse", "rectangle"] = "ellipse",
    reach: float = 1.0,
    noise: float = 0.0,
    modulation: Modulation = "independent",
    random_state: RandomState = 0,
) -> ImageSimulation:
    """Simulate images of one object, in the manner of dSprites, with labels.

    Given its label a source is Gaussian, with a mean from N(0, 1) and a standard deviation
    from U(0.3, 1.2), drawn for each source and label. Each source moves one factor of the
    object, within bounds. Pixels are a smooth and nonlinear function of all of them.

    Parameters
    ----------
    n_labels, samples_per_label : int
        Sizes.
    factors : sequence of str
        Which of "x", "y", "scale", "rotation" and "brightness" vary; the others stand at
        their middle.
    size : int
        Width and height in pixels.
    shape : {"ellipse", "rectangle"}
        Of the object; both are twice as wide as high.
    reach : float
        How far the factors move, 1 for at most .35 half widths, 35 % in scale, 46 degrees
        and 49 % in brightness. From about 1.7 on, objects leave the image in part.
    noise : float
        Standard deviation of white noise in every pixel.
    modulation : {"independent", "common", "none"}
        The last two are negative controls that nothing can separate: all sources have mean
        0 and share one standard deviation in each label, or have 1 in all of them.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    ImageSimulation
        Images in the order of their labels, and the truth.

    References
    ----------
    Matthey, Higgins, Hassabis & Lerchner (2017), dSprites: disentanglement testing sprites
    dataset, github.com/google-deepmind/dsprites-dataset.
    """
    whole(1, n_labels=n_labels)
    whole(2, samples_per_label=samples_per_label)
    whole(4, size=size)
    one_of(tuple(EXPONENTS), shape=shape)
    one_of(get_args(Modulation), modulation=modulation)
    positive(reach=reach)
    at_least(0, noise=noise)
    names = (factors,) if isinstance(factors, str) else tuple(factors)
    if not names or len(set(names)) < len(names) or not set(names) <= set(FACTORS):
        raise SettingsError(
            f"factors={names}: must be some of {', '.join(FACTORS)}, each of them once"
        )
    rng = generator(random_state)
    wanted = (n_labels, len(names))
    means, scales = rng.normal(0, MEAN_SPREAD, wanted), rng.uniform(*SCALES, wanted)
    if modulation != "independent":
        means = np.zeros(wanted)
        scales = np.repeat(scales[:, :1], len(names), 1) if modulation == "common" else means + 1
    u = np.repeat(np.arange(n_labels), samples_per_label)
    sources = means[u] + scales[u] * rng.standard_normal((len(u), len(names)))
    moved = {name: FACTORS[name].of(s, reach) for name, s in zip(names, sources.T, strict=True)}
    still = {name: factor.of(np.zeros(len(u)), reach) for name, factor in FACTORS.items()}
    drawn = _draw(still | moved, size, EXPONENTS[shape])
    if noise > 0:
        drawn += noise * rng.standard_normal(drawn.shape)
    values = np.stack([moved[name] for name in names], axis=1)
    return ImageSimulation(drawn, sources, values, names, u, means, scales)


def _draw(factors: dict[str, Array], size: int, exponent: float) -> Array:
    """Draw the objects, (n_samples, size, size), from factors of shape (n_samples,)."""
    n = len(factors["x"])
    drawn = np.empty((n, size, size))
    middle = (np.arange(size) + 0.5) * 2 / size - 1
    step = max(1, MOST_AT_ONCE // size**2)
    for begin in range(0, n, step):
        part = slice(begin, begin + step)
        f = {name: value[part, None, None] for name, value in factors.items()}
        right, down = middle - f["x"], middle[:, None] - f["y"]
        cosine, sine = np.cos(f["rotation"]), np.sin(f["rotation"])
        along = np.abs(cosine * right + sine * down) / f["scale"]
        across = np.abs(cosine * down - sine * right) / f["scale"] * ASPECT
        radius = (along**exponent + across**exponent) ** (1 / exponent)
        drawn[part] = f["brightness"] / (1 + np.exp((radius - 1) / SOFTNESS))
    return drawn
