"""Whether u moves each component in its own way: the condition under which they are unique."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import block_folds
from sourcesep.ivae.label_means import remove_label_means
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import label_sums

__all__ = ["labels_wanted", "own_modulation", "standard_errors", "variance_ratios"]

SILENCE = 1e-12
"""Least power of a label, where a component's overall power is near 1."""
NOISE_ALONE = 2.0
"""Singular values of profiles may be this many times what noise is expected to make of them,
and still be noise: weights on such a direction would only amplify it."""
WILD = 4
"""Of so many samples or fewer the reciprocal of a standard deviation has no fourth moment, so that
chance makes of it what it likes."""
LONGEST_BLOCK = 8
"""Samples that may hang together; what varies from one such block to the next is noise."""
BLOCKS_A_LABEL = 4
"""At least, on average, however short they then are."""


def labels_wanted(n_components: int, u: Auxiliary) -> int:
    """Fewest labels of u whose moments could tell nonlinear components apart (theorem 1).

    One more than components have profiles: a variance in every label each, and a mean where u
    is not time.
    """
    return n_components * (1 if u.is_time else 2) + 1


def own_modulation(z: Array, u: Auxiliary, held: NDArray[np.bool_]) -> Array:
    """Evidence that u moves each component in its own way, in standard errors.

    Nonlinear mixing is undone only if the moments of the sources given u vary in as many
    directions as there are sources (Khemakhem et al. 2020, theorem 1). A component's
    profile is its variance in every label, and its mean where u is not time. What the
    profiles of the others do not explain of it, in the samples that the fit has seen, has
    to come back in those it has not: there nothing but u can have put it.

    Variances count by their logarithm, whose errors are the same everywhere, or by the
    reciprocal of the standard deviation. The theorem is about precisions: log-variances that
    are linear in two covariates have two directions, however many sources there are, while
    any power of the variances has as many as there are sources. The stronger evidence counts,
    of reciprocals only in labels of enough samples.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components of unit variance.
    u : Auxiliary
        Every sample has a label.
    held : ndarray of bool, shape (n_times,)
        Samples that the fit has not seen.

    Returns
    -------
    ndarray of shape (n_components,)
        About N(0, 1) or less where there is nothing to find; 0 where there are not more
        labels than profiles.
    """
    half = block_folds(u.labels[held], u.n_labels, 2)
    unseen = np.flatnonzero(held)
    parts = [np.flatnonzero(~held), unseen[half == 0], unseen[half == 1]]
    counts = np.stack([np.bincount(u.labels[part], minlength=u.n_labels) for part in parts])
    with_mean = not u.is_time
    present = (counts > with_mean).all(axis=0)  # a single sample is its own mean
    profiles = [
        _profiles(z[:, part], u.labels[part], u.n_labels, with_mean=with_mean)[present]
        for part in parts
    ]
    n_labels, n_profiles = profiles[0].shape
    if n_labels < labels_wanted(len(z), u):
        return np.zeros(len(z))
    d, known = len(z), counts[:, present].astype(np.float64)
    evidence = [_unexplained(profiles, range(d), known, d)]
    if with_mean:
        # their errors are those of the samples
        errors = np.exp(profiles[0][:, :d]).mean(axis=1)
        evidence.append(_unexplained(profiles, range(d, 2 * d), known / errors, d))
    firm = (known > WILD + with_mean).all(axis=0)
    if firm.sum() > n_profiles:
        reciprocals = [_as_reciprocals(p[firm], d) for p in profiles]
        # their errors are in proportion to themselves
        errors = np.square(reciprocals[0][:, :d].mean(axis=1))
        evidence.append(_unexplained(reciprocals, range(d), known[:, firm] / errors, d))
    strongest: Array = np.max(evidence, axis=0)
    return strongest


def _as_reciprocals(profiles: Array, d: int) -> Array:
    """Profiles with 1 over the standard deviation of each of d components for its log-variance.

    Precisions of labels with few samples would be too wild.
    """
    reciprocals: Array = np.concatenate([np.exp(-profiles[:, :d] / 2), profiles[:, d:]], axis=1)
    return reciprocals


def _unexplained(profiles: list[Array], of: range, counts: Array, d: int) -> Array:
    """Evidence for what no other component's profiles explain of some, in standard errors.

    Profiles are those of seen samples and of two halves of the unseen ones; a label counts by
    how many of them it has, less where errors are larger: `counts`, (3, n_labels).
    """
    n_labels, n_profiles = profiles[0].shape
    n_seen, n_unseen = counts[0], counts[1:].sum(axis=0)
    # a label counts as much as it has samples: few say little of its moments
    seen, first, second = (p - np.average(p, axis=0, weights=n_seen) for p in profiles)
    again, noise = (first + second) / 2, (first - second) / 2
    # from here on in units of a profile's noise, were a label a single sample
    unit = np.sqrt(np.mean(n_unseen[:, None] * noise**2, axis=0)) + SILENCE
    seen, again, noise = seen / unit, again / unit, noise / unit
    weight, least = np.sqrt(n_seen), NOISE_ALONE * np.sqrt(n_labels)
    evidence = np.empty(len(of))
    for i, j in enumerate(of):
        others = np.arange(n_profiles) % d != j % d
        weights = _regression(weight[:, None] * seen[:, others], weight * seen[:, j], least)
        own, returned, error = (p[:, j] - p[:, others] @ weights for p in (seen, again, noise))
        variance = np.mean(n_unseen * error**2)
        spread = np.sqrt((n_unseen * own**2).sum() * variance)
        evidence[i] = (n_unseen * own) @ returned / spread if spread > 0 else 0.0
    return evidence


def _regression(a: Array, b: Array, least: float) -> Array:
    """Weights of the columns of a that explain b, by those directions that are no noise."""
    left, size, right = np.linalg.svd(a, full_matrices=False)
    kept = size > least
    weights: Array = right[kept].T @ (left[:, kept].T @ b / size[kept])
    return weights


def _profiles(
    z: Array, labels: NDArray[np.int64], n_labels: int, *, with_mean: bool
) -> NDArray[np.float64]:
    """Log-variance, and perhaps mean, of each component in each label: (n_labels, n_profiles)."""

    def means(rows: Array) -> Array:
        counts = np.maximum(np.bincount(labels, minlength=n_labels), 1)
        return label_sums(rows, labels, n_labels) / counts[:, None]

    mean, power = means(z), means(z**2)
    if not with_mean:
        return np.log(np.maximum(power, SILENCE))
    variance = np.maximum(power - mean**2, SILENCE)
    return np.concatenate([np.log(variance), mean], axis=1)


def variance_ratios(z: Array, u: Auxiliary) -> tuple[Array, int]:
    """Test for every two components whether the ratio of their variances changes with u.

    A linear mixture of sources that are Gaussian given u is undone if and only if it does
    for every two (Belouchrani et al. 1997; Pham & Cardoso 2001). How far the ratio's
    logarithm scatters from label to label is compared with how far it would by noise alone,
    which is read off blocks of neighbouring samples: heavy tails and samples that hang
    together for less than a block count as noise.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components, by a map that was fitted to other samples and does not know u.
    u : Auxiliary
        Every sample has a label.

    Returns
    -------
    scatter : ndarray of shape (n_components, n_components)
        About chi-squared where there is nothing to find.
    freedom : int
        Its degrees of freedom; 0 where fewer than two labels have samples enough.
    """
    with_mean = not u.is_time
    counts = np.bincount(u.labels, minlength=u.n_labels)
    chosen = np.flatnonzero(counts[u.labels] >= 2 + with_mean)
    order = chosen[np.argsort(u.labels[chosen], kind="stable")]
    labels, z = np.unique(u.labels[order], return_inverse=True)[1], z[:, order]
    counts = np.bincount(labels)
    if len(counts) < 2:
        return np.zeros((len(z), len(z))), 0
    if with_mean:
        z = remove_label_means(z, labels)
    size = int(np.clip(len(labels) // (BLOCKS_A_LABEL * len(counts)), 1, LONGEST_BLOCK))
    position = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels]
    begins = np.flatnonzero(position % size == 0)
    blocks, owner = np.add.reduceat(z**2, begins, axis=1) + SILENCE, labels[begins]
    power: Array = np.stack([np.bincount(owner, block, len(counts)) for block in blocks])
    freedom = counts - with_mean
    log_variance = np.log(power / freedom)
    ratio = log_variance[:, None] - log_variance
    ratio -= (ratio @ freedom / freedom.sum())[:, :, None]
    noise = _jackknife(blocks, power, owner, freedom)
    noise = np.diag(noise)[:, None] + np.diag(noise) - 2 * noise
    return ratio**2 @ freedom / np.maximum(noise, SILENCE), len(counts) - 1


def _jackknife(
    blocks: Array, power: Array, owner: NDArray[np.int64], freedom: NDArray[np.int64]
) -> Array:
    """Covariance of log-variances, were a label a single sample, (n_components, n_components).

    By how much leaving out a block of a label changes it (Miller 1974): this counts one
    large value in full, as its share of the variance that it makes itself does not.
    """
    number = np.bincount(owner)
    several = number[owner] > 1
    blocks, owner = blocks[:, several], owner[several]
    if not len(owner):
        return np.zeros((len(blocks), len(blocks)))
    left = np.log(power[:, owner] - blocks)
    left = remove_label_means(left, owner)
    weight = freedom[owner] * (1 - 1 / number[owner])
    covariance: Array = (weight * left) @ left.T / np.count_nonzero(number > 1)
    return covariance


def standard_errors(scatter: Array, freedom: int) -> Array:
    """Chi-squared values as standard normal ones (Wilson & Hilferty 1931)."""
    spread = 2 / (9 * freedom)
    errors: Array = (np.cbrt(scatter / freedom) - 1 + spread) / np.sqrt(spread)
    return errors
