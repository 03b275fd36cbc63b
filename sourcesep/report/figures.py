"""Figures of a fitted `IVAE`: what each component does, and what u says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.report.panels import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sourcesep.estimator import IVAE

__all__ = ["traversals"]

Array = NDArray[np.float64]

MOST_NAMED = 12
"""The most labels, or features, that a panel has room to name."""
MOST_COMPONENTS = 12
"""The most rows of a figure."""
DARK_AND_BRIGHT = (0.005, 0.995)
"""Quantiles of all pixels drawn in black and white: single ones may lie far out."""
TILE = 0.62
"""Inches of one image."""
ROW = 1.2
"""Inches of a row."""
ASIDE = 2.6
"""Inches of the panel of p(z|u)."""
BLUE, GREY = "#2a6fb0", "#8a8f98"


def traversals(
    ivae: IVAE,
    image_shape: tuple[int, int] | None = None,
    *,
    values: ArrayLike | None = None,
) -> Figure:
    """Draw what each component does to x, beside what u says of it.

    A row for each component. On the left x, as the decoder makes it, while this component
    moves and the others stay at their prior mean (`IVAE.effect`), and the change from the
    first step to the last. On the right p(z|u): the component's mean and its spread given
    each label.

    Parameters
    ----------
    ivae : IVAE
        Fitted.
    image_shape : (int, int), optional
        Rows and columns of the images that the features are the pixels of. Without it the
        change of each feature is shown, as a share of the largest that any component makes.
    values : array-like of shape (n_values,), optional
        Where components are moved to, from the first step to the last; -2 to 2 standard
        deviations in 9 steps by default.

    Returns
    -------
    matplotlib.figure.Figure
        Save it by ``figure.savefig("traversals.png")``. At most 12 components are drawn.

    Raises
    ------
    InputError
        If `values` are fewer than two, or not finite.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    SettingsError
        If the features are not as many as the pixels of such an image.

    Examples
    --------
    >>> import sourcesep
    >>> from sourcesep.report import traversals
    >>> data = sourcesep.simulate.images(20, 50, ["x", "y"], size=8, random_state=0)
    >>> ivae = sourcesep.IVAE(2, mixing="linear", random_state=0).fit(data.pixels, u=data.u)
    >>> figure = traversals(ivae, image_shape=(8, 8))
    >>> len(figure.axes)  # 2 components: 9 images, their change, and p(z|u)
    22
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from sklearn.utils.validation import check_is_fitted

    steps = np.linspace(-2, 2, 9) if values is None else np.asarray(values, np.float64)
    if steps.ndim != 1 or len(steps) < 2 or not np.isfinite(steps).all():
        raise InputError(
            f"values of shape {steps.shape}: must be (n_values,), two or more finite numbers"
        )
    check_is_fitted(ivae)
    n = min(ivae.model_.n_components, MOST_COMPONENTS)
    moved = np.stack([ivae.effect(k, steps) for k in range(n)])
    n_features = moved.shape[2]
    if image_shape is not None and not _is_shape(image_shape, n_features):
        raise SettingsError(
            f"image_shape={image_shape!r}: must be (rows, columns) of an image that has as many "
            f"pixels as x has features, {n_features}"
        )
    tiles = len(steps) + 1 if image_shape is not None else 1
    width = TILE * (len(steps) + 1)
    narrow = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.02, hspace=0.03)
    figure = Figure(figsize=(width + ASIDE + 0.9, ROW * n + 0.75), layout=narrow)
    grid = figure.add_gridspec(
        n, tiles + 1, width_ratios=[width / tiles] * tiles + [ASIDE], figure=figure
    )
    for k in range(n):
        places = [figure.add_subplot(grid[k, i]) for i in range(tiles)]
        if image_shape is not None:
            _images(places, moved, k, image_shape, steps)
        else:
            _features(places[0], moved, k, _feature_names(ivae, n_features), steps)
        places[0].set_ylabel(f"component {k}", fontsize=9)
        _prior(figure.add_subplot(grid[k, tiles]), ivae, k, is_first=k == 0, is_last=k == n - 1)
    return figure


def _is_shape(image_shape: Any, n_features: int) -> bool:
    sides = np.asarray(image_shape)
    right = sides.shape == (2,) and sides.dtype.kind in "iu" and (sides > 0).all()
    return bool(right) and int(sides.prod()) == n_features


def _feature_names(ivae: IVAE, n_features: int) -> list[str]:
    names = getattr(ivae, "feature_names_in_", None)
    return list(map(str, names)) if names is not None else [f"x{i}" for i in range(n_features)]


def _images(
    places: list[Axes], moved: Array, k: int, shape: tuple[int, int], steps: Array
) -> None:
    """One image a step, all on one scale of greys; then the change, in colours."""
    change = moved[:, -1] - moved[:, 0]
    reach = np.abs(change).max() or 1.0
    black, white = np.quantile(moved, DARK_AND_BRIGHT)
    shown: list[tuple[Array, dict[str, Any], str]] = [
        (image, {"cmap": "gray", "vmin": black, "vmax": white}, number(step, 1))
        for image, step in zip(moved[k], steps, strict=True)
    ]
    shown.append((change[k], {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}, "change"))
    for place, (image, colours, title) in zip(places, shown, strict=True):
        place.imshow(image.reshape(shape), interpolation="nearest", **colours)
        place.set_xticks([])
        place.set_yticks([])
        if k == 0:
            place.set_title(title, fontsize=8, color="black" if title == "change" else GREY)


def _features(place: Axes, moved: Array, k: int, names: list[str], steps: Array) -> None:
    """The change of each feature, as a share of the largest that any component makes."""
    change = moved - moved.mean(axis=1, keepdims=True)
    largest = np.abs(change).max(axis=(0, 1))
    share = change[k] / np.where(largest > 0, largest, 1)
    place.imshow(share.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    place.set_xticks(range(len(steps)), [number(step, 1) for step in steps], fontsize=7)
    if len(names) <= MOST_NAMED:
        place.set_yticks(range(len(names)), names, fontsize=6)
    else:
        place.set_yticks([])
    if k == 0:
        place.set_title("change of each feature (rows)", fontsize=8)


def _prior(place: Axes, ivae: IVAE, k: int, *, is_first: bool, is_last: bool) -> None:
    """Mean, and one and two standard deviations to either side, given each label."""
    mean, variance = ivae.model_.prior_moments()
    names = ivae.u_names_
    are_named = names is not None and len(names) <= MOST_NAMED
    order = np.arange(len(mean)) if are_named else np.argsort(mean[:, k], kind="stable")
    mean, spread = mean[order, k], np.sqrt(variance[order, k])
    rows = np.arange(len(mean))
    dot = float(np.clip(60 / len(rows), 1.5, 5))
    place.hlines(rows, mean - 2 * spread, mean + 2 * spread, color=GREY, lw=max(0.5, 0.15 * dot))
    place.hlines(rows, mean - spread, mean + spread, color=BLUE, lw=max(0.9, 0.5 * dot))
    place.plot(mean, rows, ".", color=BLUE, ms=dot)
    place.axvline(0, color=GREY, lw=0.5, zorder=0)
    place.set_xlim(-3.2, 3.2)
    place.set_ylim(len(rows) - 0.4, -0.6)
    if names is not None and are_named:
        place.set_yticks(rows, list(names), fontsize=min(8, 72 * ROW / len(rows) - 1))
    else:
        place.set_yticks([])
        place.set_ylabel(f"{len(rows)} labels,\nby mean", fontsize=7, color=GREY)
    place.tick_params(axis="y", length=0, pad=2)
    place.tick_params(axis="x", labelsize=7, labelbottom=is_last)
    place.spines[["top", "right", "left"]].set_visible(False)
    if is_first:
        place.set_title("p(z|u): mean, ±1 and ±2 SD", fontsize=8)
    if is_last:
        place.set_xlabel("z, standard deviations", fontsize=8)
