"""Whether u moves each component in its own way: the condition under which they are unique."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.given_u import (
    CONVERGED,
    LEFT,
    N_STEPS,
    bases,
    log_variance_given_u,
    mean_given_u,
    regression,
)
from sourcesep.ivae.label_means import remove_label_means
from sourcesep.ivae.model import Array

__all__ = ["labels_wanted", "own_modulation", "standard_errors", "variance_ratios"]

SILENCE = 1e-12
"""Least power of a label, where a component's overall power is near 1."""
FEW = 4
"""Of so many samples or fewer that the fit has seen, a label's variance may be anything."""
MOST_SAMPLES = 100_000
"""Are enough, where there is a row of polynomials for each."""
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

    Nonlinear mixing is undone only if the natural parameters of the sources given u vary in as
    many directions as there are of them (Khemakhem et al. 2020, theorem 1). A Gaussian's are its
    precision and, where u is not time, precision times mean. So the samples that the fit has seen
    say what precision each component has given u, and which would be likeliest if it were a
    weighted sum of the others' parameters. What they differ by has to come back in the samples
    that the fit has not seen: there nothing but u can have put it. Means are treated alike, and
    the stronger evidence counts.

    By chance some would come back, as the others' parameters have errors, which are in both
    precisions that are compared with the unseen samples. So what these samples say of the same
    errors, in the others, is taken off; then errors of what was seen no longer matter, to first
    order (Neyman 1959).

    Moments given u are those of its labels or, where this describes the seen samples better,
    polynomials in the ranks of covariates.

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
        labels, or polynomials, than parameters.
    """
    with_mean = not u.is_time
    n_seen, n_held = (np.bincount(u.labels[of], minlength=u.n_labels) for of in (~held, held))
    firm = ((n_seen > FEW + with_mean) & (n_held > 0))[u.labels]
    if u.covariates is not None:
        firm &= np.arange(u.n_times) % (1 + u.n_times // MOST_SAMPLES) == 0
    z, u, held = z[:, firm], u.take(firm), held[firm]
    found = [_Given.describe(z, held, b, with_mean=with_mean) for b in bases(u, held)]
    if not found:
        return np.zeros(len(z))
    given = min(found, key=lambda given: given.criterion)
    if given.n_terms < labels_wanted(len(z), u):
        return np.zeros(len(z))
    return np.array([max(given.evidence(i)) for i in range(len(z))])


class _Given(NamedTuple):
    """Components, and what they are given u by the samples that the fit has seen.

    Parameters
    ----------
    z, mean, log_variance : ndarray of shape (n_components, n_times)
        Components, and their moments at every sample's u.
    squares : ndarray of shape (n_components, n_times)
        Of what is left of z without the mean, as large as if the mean were known.
    held : ndarray of bool, shape (n_times,)
        Samples that the fit has not seen.
    with_mean : bool
        Whether u moves means too.
    n_terms : int
        Functions of u that the moments are sums of.
    """

    z: Array
    mean: Array
    log_variance: Array
    squares: Array
    held: NDArray[np.bool_]
    with_mean: bool
    n_terms: int

    @classmethod
    def describe(cls, z: Array, held: NDArray[np.bool_], basis: Any, *, with_mean: bool) -> _Given:
        """Regress components, and the logarithm of their squares, on functions of u."""
        mean, squares = np.zeros_like(z), z**2
        log_variance = np.stack([log_variance_given_u(basis, row, held) for row in squares])
        if with_mean:
            for i, weight in enumerate(np.exp(-log_variance)):
                # what is loud would else move the mean where the component is quiet
                mean[i], leverage = mean_given_u(basis, z[i], weight, held)
                left = np.where(held, 1 + leverage, np.maximum(1 - leverage, LEFT))
                squares[i] = (z[i] - mean[i]) ** 2 / left
                log_variance[i] = log_variance_given_u(basis, squares[i], held)
        return cls(z, mean, log_variance, squares, held, with_mean, basis.shape[1])

    @property
    def criterion(self) -> float:
        """Akaike's (1974), of the seen samples: the less, the better others are described too."""
        seen = ~self.held
        log_variance = self.log_variance[:, seen]
        cost = (log_variance + self.squares[:, seen] * np.exp(-log_variance)).sum()
        n_parameters = len(self.z) * self.n_terms * (1 + self.with_mean)
        return float(cost + 2 * n_parameters)

    def evidence(self, i: int) -> list[float]:
        """What comes back of the variance, and perhaps of the mean, that only i has."""
        seen, held = ~self.held, self.held
        others = np.flatnonzero(np.arange(len(self.z)) != i)
        precision = np.exp(-self.log_variance)
        parameters = [np.ones((1, len(held))), precision[others]]
        if self.with_mean:
            parameters.append((precision * self.mean)[others])
        known = np.concatenate(parameters)
        weights = _likeliest_precision(known[:, seen], self.squares[i, seen])
        shared = weights @ known
        shared = np.maximum(shared, shared[seen].min() / 2)
        own = (self.log_variance[i] + np.log(shared))[held]
        returned, error = _returned(own, self.squares[i, held], -np.log(shared[held]))
        for j, weight in zip(others, weights[1 : len(self.z)], strict=True):
            share = np.clip(weight * precision[j, held] / shared[held], -1, 1)
            theirs = _returned(own * share, self.squares[j, held], self.log_variance[j, held])
            returned, error = returned - theirs[0], error - theirs[1]
        found = [_in_standard_errors(returned, error)]
        if self.with_mean:
            found.append(self._evidence_of_mean(i, others, precision, known))
        return found

    def _evidence_of_mean(
        self, i: int, others: NDArray[np.int64], precision: Array, known: Array
    ) -> float:
        held, scale = self.held, np.sqrt(precision)
        scaled = known / scale[i]
        weights = np.linalg.lstsq(scaled[:, ~held].T, (scale * self.z)[i, ~held], rcond=None)[0]
        shared = weights @ scaled[:, held]
        own = (scale * self.mean)[i, held] - shared
        left = (scale * self.z)[i, held] - shared
        for j, weight in zip(others, weights[len(self.z) :], strict=True):
            share = np.clip(weight * (scale[j] / scale[i])[held], -1, 1)
            left = left - share * (scale * (self.z - self.mean))[j, held]
        return _in_standard_errors(own @ left, own * left)


def _in_standard_errors(value: float, errors: Array) -> float:
    """A sum in units of its error, of what each sample adds to it."""
    size = float(np.sqrt(errors @ errors))
    return float(value) / size if size > 0 else 0.0


def _returned(own: Array, squares: Array, log_variance: Array) -> tuple[float, Array]:
    """How far squares follow what is added to a log-variance, and what each adds to the error.

    That is the sum over the samples of `own` times what the log-variance is further, by a
    regression on `own`.
    """
    own = own - own.mean()
    size = np.sqrt(own @ own)
    if size < SILENCE:
        return 0.0, np.zeros(len(own))
    a = np.stack([np.full(len(own), len(own) ** -0.5), own / size], axis=1)
    weights = regression(a, squares, log_variance)
    relative = squares * np.exp(-log_variance - a @ weights)
    influence = np.linalg.solve((a * relative[:, None]).T @ a, a.T)
    left = np.maximum(1 - (a.T * influence).sum(axis=0) * relative, LEFT)
    return size * weights[1], size * influence[1] * (relative - 1) / left


def _likeliest_precision(known: Array, squares: Array) -> Array:
    """Weights of the rows for which Gaussians of that precision are likeliest, by Newton steps."""
    size = np.abs(known).mean(axis=1) + SILENCE
    known = known / size[:, None]
    weights = np.zeros(len(known))
    weights[0] = 1 / squares.mean()

    def cost(precision: Array) -> float:
        if precision.min() <= 0:
            return np.inf
        return float((squares * precision - np.log(precision)).sum())

    now = cost(weights @ known)
    for _ in range(N_STEPS):
        precision = weights @ known
        relative = known / precision
        step = np.linalg.lstsq(relative.T, 1 - squares * precision, rcond=None)[0]
        step /= max(1.0, -2 * (step @ relative).min())  # at most half of any is taken off
        before = now
        for _halved in range(N_STEPS):
            now = cost((weights + step) @ known)
            if now <= before:
                break
            step /= 2
        else:
            break
        weights = weights + step
        if before - now < CONVERGED * len(squares):
            break
    unscaled: Array = weights / size
    return unscaled


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
