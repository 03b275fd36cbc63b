"""How well latents stand for known factors, one for one: DCI and the mutual information gap."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import finite, one_of, real, whole
from sourcesep.exceptions import InputError

__all__ = ["DCI", "dci", "mig"]

Array = NDArray[np.float64]

FEWEST = 20
"""The fewest samples from which a factor can be predicted."""
MOST_SAMPLES = 5000
"""The most samples that predictors are fitted on, and tested on. More change little."""
MOST_CLASSES = 50
"""Whole numbers that take more values than this are predicted as numbers, not as classes."""
N_TREES = 50
LEAF = 5
"""The fewest samples in a leaf of a tree, so that trees do not fit noise."""
N_FOLDS = 5
N_BINS = 20
"""Bins of a factor or latent for mutual information, as in Locatello et al. (2019)."""


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness; each 1 at best.

    Parameters
    ----------
    disentanglement : float
        1 if each latent serves one factor only; latents count by how much they serve.
    completeness : float
        1 if each factor is served by one latent only; the mean over factors.
    informativeness : float
        How well all latents together predict the factors of samples not fitted on: the
        mean over factors of R2, or of how far the accuracy is from chance to 1.
    importance : ndarray of shape (n_latents, n_factors)
        How much each latent serves each factor; columns add up to 1, or are 0 where a
        factor is not predicted at all.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Array


def dci(
    latents: ArrayLike,
    factors: ArrayLike,
    *,
    method: Literal["forest", "lasso"] = "forest",
    random_state: int = 0,
) -> DCI:
    """Disentanglement, completeness and informativeness of a representation.

    Every factor is predicted from all latents by a random forest, or by lasso regression,
    on a random half of the samples (at most 5000) and tried on the others. How much the
    prediction relies on each latent (the forest's importances; the sizes of the lasso's
    weights on standardised latents) makes the table from which the first two are read as
    one minus an entropy. Informativeness is R2 here, where the paper has the error.

    Parameters
    ----------
    latents : array-like of shape (n_samples, n_latents)
        The representation, e.g. what ``IVAE.transform`` gives.
    factors : array-like of shape (n_samples, n_factors)
        The truth. Floats are predicted as values. Whole numbers of up to 50 values, truth
        values and text are classes to a forest; the lasso takes numbers only.
    method : {"forest", "lasso"}
        The forest finds factors that are any function of latents, the lasso those that are
        a weighted sum.
    random_state : int
        Seeds the halves and the forests.

    Returns
    -------
    DCI
        All three, and the table of importances.

    Raises
    ------
    InputError
        If a matrix is not two-dimensional or finite, if their numbers of samples differ or
        are below 20, or if a factor is constant.
    SettingsError
        If `method` or `random_state` is not one of the allowed values.

    References
    ----------
    Eastwood & Williams (2018), A framework for the quantitative evaluation of disentangled
    representations, ICLR.
    """
    one_of(("forest", "lasso"), method=method)
    whole(0, random_state=random_state)
    rng = np.random.default_rng(random_state)
    if method == "lasso":
        factors = _numbers(factors)
    z, columns = _checked(latents, factors)
    order = rng.permutation(len(z))
    fit, test = order[: len(z) // 2][:MOST_SAMPLES], order[len(z) // 2 :][:MOST_SAMPLES]
    spread = z[fit].std(axis=0)
    z = (z - z[fit].mean(axis=0)) / np.where(spread > 0, spread, 1)
    predict = _by_forest if method == "forest" else _by_lasso
    pairs = [predict(z[fit], c[fit], z[test], c[test], random_state) for c in columns]
    # what is not predicted at all relies on nothing, whatever the fit made of noise
    importance = np.stack([weights * (score > 0) for weights, score in pairs], axis=1)
    total = importance.sum(axis=0)
    importance = importance / np.where(total > 0, total, 1)
    served = importance.sum(axis=1)
    pure = _one_less_entropy(importance.T)
    return DCI(
        float(pure @ served / served.sum()) if served.any() else 0.0,
        float(_one_less_entropy(importance).mean()),
        float(np.mean([score for _, score in pairs])),
        importance,
    )


def mig(latents: ArrayLike, factors: ArrayLike, *, n_bins: int = N_BINS) -> float:
    """Mutual information gap: how far each factor's best latent is ahead of the second.

    For every factor, the mutual information with the latent that has most of it, less that
    with the next one, as a share of the factor's entropy; the mean over factors. Values
    are put into bins with the same number of samples, so an increasing function of a
    latent or factor changes nothing.

    Parameters
    ----------
    latents : array-like of shape (n_samples, n_latents)
        The representation; at least two latents.
    factors : array-like of shape (n_samples, n_factors)
        The truth. Whole numbers of up to 50 values, truth values and text are classes, and so
        are floats that take no more than `n_bins` values.
    n_bins : int
        Bins of every continuous latent and factor. Information is overestimated by about
        ``n_bins**2 / (2 n_samples)`` nats.

    Returns
    -------
    float
        From 0 to 1; 1 if each factor is known from one latent, and no other says anything
        of it.

    Raises
    ------
    InputError
        If a matrix is not two-dimensional or finite, if their numbers of samples differ or
        are below 20, if a factor is constant, or if there is one latent only.
    SettingsError
        If `n_bins` is no whole number above 1.

    References
    ----------
    Chen, Li, Grosse & Duvenaud (2018), Isolating sources of disentanglement in variational
    autoencoders, NeurIPS. Bins as in Locatello et al. (2019), Challenging common
    assumptions in the unsupervised learning of disentangled representations, ICML.
    """
    from sklearn.metrics import mutual_info_score

    whole(2, n_bins=n_bins)
    z, columns = _checked(latents, factors)
    if z.shape[1] < 2:
        raise InputError(
            "latents has one column: the gap is between two of them; give two or more"
        )
    binned = [_bins(column, n_bins) for column in z.T]
    gaps = []
    for column in columns:
        classes = _bins(column, n_bins)
        information = np.sort([mutual_info_score(classes, b) for b in binned])
        gaps.append((information[-1] - information[-2]) / mutual_info_score(classes, classes))
    return float(np.mean(gaps))


def _scaled(values: NDArray[np.generic]) -> Array:
    """Values between -1 and 1, whose squares are numbers whatever their unit."""
    column = values.astype(np.float64)
    return column / (np.abs(column).max() or 1.0)


def _numbers(factors: ArrayLike) -> Array:
    try:
        return real(factors)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"factors: method='lasso' takes numbers only ({error}); use method='forest'"
        ) from error


def _checked(latents: ArrayLike, factors: ArrayLike) -> tuple[Array, list[NDArray[np.generic]]]:
    """Latents as numbers, and each factor: float, or whole numbers for classes."""
    z = finite("latents", latents)
    truth = np.asarray(factors)
    if truth.dtype.kind in "Oc":  # what are no real numbers is text
        try:
            truth = real(truth)
        except (TypeError, ValueError):
            truth = truth.astype(str)
    for name, array in (("latents", z), ("factors", truth)):
        if array.ndim != 2 or array.size == 0:
            raise InputError(
                f"{name}.shape={array.shape}: must be (n_samples, n_{name}), a column each"
            )
    if truth.dtype.kind == "f":
        finite("factors", truth)
    if len(z) != len(truth):
        raise InputError(
            f"latents has {len(z)} samples and factors {len(truth)}: they must have the same "
            "rows; arrays are (n_samples, n_columns)"
        )
    if len(z) < FEWEST:
        raise InputError(f"{len(z)} samples: at least {FEWEST} are needed")
    columns = [_factor(k, column) for k, column in enumerate(truth.T)]
    return np.stack([_scaled(row) for row in z.T], axis=1), columns


def _factor(k: int, column: NDArray[np.generic]) -> NDArray[np.generic]:
    """Column k of the factors: numbers as floats, few whole numbers and text as classes."""
    values, classes = np.unique(column, return_inverse=True)
    if len(values) == 1:
        raise InputError(
            f"factors: column {k} is constant: there is nothing to predict; leave it out"
        )
    kind = column.dtype.kind
    is_value = kind == "f" or (kind in "iu" and len(values) > MOST_CLASSES)
    return _scaled(column) if is_value else classes.astype(np.int64)


def _by_forest(
    z: Array,
    factor: NDArray[np.generic],
    unseen: Array,
    truth: NDArray[np.generic],
    seed: int,
) -> tuple[Array, float]:
    """Importance of each latent, and how well the factor is predicted on unseen samples."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    settings = {"n_estimators": N_TREES, "min_samples_leaf": LEAF, "random_state": seed}
    if factor.dtype.kind == "f":
        forest = RandomForestRegressor(**settings).fit(z, factor)
        score = float(forest.score(unseen, truth))
    else:
        forest = RandomForestClassifier(max_features=None, **settings).fit(z, factor)
        chance = float(np.bincount(truth.astype(np.int64)).max() / len(truth))
        accuracy = float(forest.score(unseen, truth))
        score = (accuracy - chance) / (1 - chance) if chance < 1 else 0.0
    return forest.feature_importances_, max(score, 0.0)


def _by_lasso(
    z: Array,
    factor: NDArray[np.generic],
    unseen: Array,
    truth: NDArray[np.generic],
    seed: int,
) -> tuple[Array, float]:
    """The same by the lasso, whose penalty is chosen by cross-validation."""
    from sklearn.linear_model import LassoCV

    lasso = LassoCV(cv=N_FOLDS).fit(z, factor)
    return np.abs(lasso.coef_), max(float(lasso.score(unseen, truth)), 0.0)


def _one_less_entropy(shares: Array) -> Array:
    """One minus the entropy of each column, in units of the largest possible."""
    n = len(shares)
    if n == 1:
        return np.ones(shares.shape[1])
    total = shares.sum(axis=0)
    p = np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / n)
    entropy: Array = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=0) / np.log(n)
    return 1 - entropy


def _bins(values: NDArray[np.generic], n_bins: int) -> NDArray[np.intp]:
    """Classes as they are; numbers in bins that hold the same number of samples."""
    binned: NDArray[np.intp]
    distinct, binned = np.unique(values, return_inverse=True)
    if values.dtype.kind != "f" or len(distinct) <= n_bins:
        return binned
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")
