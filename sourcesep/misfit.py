"""Misfit: what components that should be independent still say of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.label_means import finest_reliable_scale, remove_label_means
from sourcesep.ivae.matrices.coherence import N_STRONGEST, QUIET, SHORTEST, SURE
from sourcesep.ivae.matrices.contrast import innovations, prediction_filter
from sourcesep.ivae.model import Array

__all__ = ["N_TAPS", "RIDGE", "Misfit", "correlation_within_labels", "misfit"]

N_TAPS, RIDGE = 32, 1e-4
"""Of the linear prediction that makes components white."""
CONSTANT = 1e-9
"""Standard deviation within labels, of a component's own, of one that only labels move."""
FAINT = 1e-3
"""Standard deviations of a component that another's square or cube may leave in it, however sure
that is: in development .0002 at most in true talkers, mostly above .005 where a matrix was fitted
to bent ones."""
LOUD = 4.0
"""Variances; a square that is larger counts as this, or few wild samples would decide."""


class Misfit(NamedTuple):
    """How much one component still says of another, in standard errors but for the last two.

    Parameters
    ----------
    delay : float
        Largest cross-correlation at any lag but 0.
    power : float
        Largest correlation with another's square or cube, or of two with each other's cubes
        together.
    energy : float
        Largest correlation between the squares of two.
    correlation : float
        Least correlation within labels that is beyond chance, of the two that go together
        most: 0 to 1. Only looked for where restarts are compared, and where rows have no past.
    coherence : float
        The same within bands of frequencies. Only looked for in sound that a map without memory
        separates.
    """

    delay: float
    power: float
    energy: float = 0.0
    correlation: float = 0.0
    coherence: float = 0.0

    @property
    def bent(self) -> float:
        """What curves and other bends of single samples leave, in units of what right fits may."""
        return max(self.power, self.correlation)

    def in_units_of(self, most: Misfit) -> Misfit:
        """Each value as a multiple of another."""
        return Misfit(*(value / bound for value, bound in zip(self, most, strict=True)))


def misfit(
    z: Array,
    sfreq: float,
    u: Auxiliary | None = None,
    unsure: float = 0.0,
    spliced: NDArray[np.bool_] | None = None,
    ridge: float = RIDGE,
) -> Misfit:
    """How much one component still says of another, in standard errors.

    Each component is whitened by linear prediction and divided by its envelope, which
    makes it noise of unit variance. Independent components are then uncorrelated, about
    N(0, 1) in standard errors, (a) at every lag, less what a matrix would mend: a room or any
    filter that was not fitted shows here; (b) with the squares and cubes of the others, seen
    through the same whitening: saturation shows here; and (c) in their squares, less the mean
    of these nearby: any bend shows here, also where it is the same to both sides. Correlation
    without lag or power is left out, as every fit makes it 0.

    Rows that are no series (`sourcesep.ivae.order.is_series`) have no lags, no past and no
    envelope: there means and deviations are those of labels, and chance is what any other
    order of the rows within their labels would do.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components; the strongest first, of which `N_STRONGEST` are compared.
    sfreq : float
        Samples a second. Lags go up to 50 ms, or 32 samples if that is more.
    u : Auxiliary, optional
        Of rows that are no series: their labels.
    unsure : float
        Share of the components' variance that is known to be error. Where a component is
        quieter than that, it says nothing of the model.
    spliced : ndarray of bool, shape (n_times,), optional
        Which samples of a series come within `N_TAPS` after a splice; they say nothing.
    ridge : float
        Share of a component's power, of white noise, to which its spectrum is not whitened.

    Returns
    -------
    Misfit
        The largest of each.
    """
    if z.shape[1] < SHORTEST:
        return Misfit(0.0, 0.0)
    z = z[:N_STRONGEST]
    z = z[np.ptp(z, axis=1) > 0]  # what is constant depends on nothing
    z = z - z.mean(axis=1, keepdims=True)
    z = z / z.std(axis=1, keepdims=True)
    if u is not None:
        labels = finest_reliable_scale(u).labels
        z = z[remove_label_means(z, labels).std(axis=1) > CONSTANT]
        flat: list[_Flattening] = [_ByLabel(row, labels, unsure) for row in z]
        return Misfit(0.0, _power_dependence(flat, z), _energy_by_label(flat, z, labels))
    if spliced is None:
        spliced = np.zeros(z.shape[1], bool)
    width = min(max(16, round(0.02 * sfreq)), z.shape[1])
    flat = [_InTime(row, width, unsure, spliced, ridge) for row in z]
    n_lags = min(max(32, round(0.05 * sfreq)), max(4, z.shape[1] // 64))
    return Misfit(
        _lagged_dependence(flat, z, n_lags),
        _power_dependence(flat, z),
        _energy_in_time(flat, z, n_lags),
    )


def correlation_within_labels(z: Array, u: Auxiliary, unsure: float, *, series: bool) -> float:
    """How strongly two components go together within labels, if not over all of them.

    Given u, components of the right model are independent. Where there are more sources than
    channels two components have one of them in common. A fit makes their correlation 0
    over all samples, not within each label, where one or another of the sources is louder.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components; the strongest first, of which `N_STRONGEST` are compared.
    u : Auxiliary
        Every sample has a label.
    unsure : float
        Share of the components' variance that is known to be error: see `misfit`.
    series : bool
        Whether samples have a past, which is then taken out of each first.

    Returns
    -------
    float
        Root mean square over the labels of the correlation, less what chance makes of it
        and `SURE` standard errors of that, for the worst pair; 0 to 1.
    """
    if z.shape[1] < SHORTEST:
        return 0.0
    labels = finest_reliable_scale(u).labels
    z = z[:N_STRONGEST]
    z = z[remove_label_means(z, labels).std(axis=1) > CONSTANT]
    if series:
        z = innovations(z, N_TAPS, RIDGE)
    flat = [_ByLabel(row, labels, unsure)(row) for row in z]
    powers = [np.bincount(labels, row**2) for row in flat]
    counts = np.bincount(labels)
    worst = 0.0
    for i, j in combinations(range(len(flat)), 2):
        # the variance over all orders of one component's samples within their labels
        chance = powers[i] * powers[j] / np.maximum(counts - 1, 1) / np.maximum(counts, 1)
        square = np.bincount(labels, flat[i] * flat[j]) ** 2 / np.maximum(counts, 1)
        beyond = (square - chance).sum() - SURE * np.sqrt(2 * (chance**2).sum())
        worst = max(worst, float(beyond) / len(labels))
    return float(np.sqrt(worst))


class _Flattening(ABC):
    """What makes one component noise of unit variance, and does the same to other signals."""

    envelope: Array

    @abstractmethod
    def _whiten(self, y: Array) -> Array:
        """Less what the signal's own past or label tells of it."""

    @abstractmethod
    def centred(self, y: Array) -> Array:
        """Less its mean nearby."""

    def __call__(self, y: Array) -> Array:
        flat: Array = self._whiten(y) / self.envelope
        return flat

    def energy(self, y: Array) -> Array:
        """Squares, the largest cut off, less their mean nearby."""
        squares = self(y) ** 2
        cut: Array = np.minimum(squares / squares.mean(), LOUD)
        return self.centred(cut)


class _InTime(_Flattening):
    """Whitening and division by the envelope, as one component calls for."""

    def __init__(
        self, y: Array, width: int, unsure: float, spliced: NDArray[np.bool_], ridge: float
    ) -> None:
        self.taps = prediction_filter(y, N_TAPS, ridge)
        self.width, self.spliced = width, spliced
        errors = self._whiten(y)
        power = self._nearby(errors**2) + max(unsure, QUIET) * errors.var()
        self.envelope = np.sqrt(np.maximum(power, 0)) + 1e-6 * errors.std()

    def _whiten(self, y: Array) -> Array:
        from scipy.signal import lfilter

        errors: Array = lfilter(self.taps, [1.0], y)
        errors[self.spliced] = 0
        return errors

    def _nearby(self, y: Array) -> Array:
        from scipy.ndimage import uniform_filter1d

        mean: Array = uniform_filter1d(y, self.width, mode="constant")
        return mean

    def centred(self, y: Array) -> Array:
        return y - self._nearby(y)


class _ByLabel(_Flattening):
    """Mean and deviation of every label set to 0 and 1, as one component calls for."""

    def __init__(self, y: Array, labels: NDArray[np.int64], unsure: float) -> None:
        self.labels = labels
        rest = self._whiten(y)
        power = np.bincount(labels, rest**2)[labels] / np.bincount(labels)[labels]
        self.envelope = np.sqrt(power + unsure * rest.var()) + 1e-6 * rest.std()

    def _whiten(self, y: Array) -> Array:
        return self.centred(y)

    def centred(self, y: Array) -> Array:
        rest: Array = remove_label_means(y[None], self.labels)[0]
        return rest


def _lagged_dependence(flat: list[_Flattening], z: Array, n_lags: int) -> float:
    worst, own = 0.0, [f(row) for f, row in zip(flat, z, strict=True)]
    for i, j in combinations(range(len(z)), 2):
        both = [_less_leak(own[a], flat[a](z[b])) for a, b in ((i, j), (j, i))]
        (correlation,) = _correlations(both)
        near = np.concatenate([correlation[1:n_lags], correlation[-n_lags + 1 :]])
        worst = max(worst, _beyond_chance(np.abs(near).max(), correlation, n_lags))
    return worst


def _less_leak(own: Array, leak: Array) -> Array:
    """One component flattened, less the best multiple of another that was flattened likewise.

    Where a component has next to no power, whitening shows what a matrix has left there of the
    other, 60 dB below it: filtered as that is, it would look like an echo.
    """
    power = leak @ leak
    return own - leak * (leak @ own / power) if power > 0 else own


def _correlations(rows: list[Array]) -> list[Array]:
    """Cross-correlation of every two rows at all lags, negative ones from the end."""
    n_fft = 1 << (2 * len(rows[0]) - 1).bit_length() if rows else 0
    spectra = [np.fft.rfft(row, n_fft) for row in rows]
    return [np.fft.irfft(a * b.conj(), n_fft) for a, b in combinations(spectra, 2)]


def _beyond_chance(value: float, correlation: Array, n_lags: int) -> float:
    """In standard errors, read off lags so far apart that nothing connects them."""
    far = np.concatenate(
        [correlation[10 * n_lags : 20 * n_lags], correlation[-20 * n_lags : -10 * n_lags]]
    )
    error = np.sqrt((far**2).mean())
    return float(value / error) if error > 0 else 0.0


def _power_dependence(flat: list[_Flattening], z: Array) -> float:
    worst = 0.0
    for i, j in combinations(range(len(z)), 2):
        here, there = _said_by_powers(flat[i], z[i], z[j]), _said_by_powers(flat[j], z[j], z[i])
        # a fit by shapes makes both the same, and chance does not: it shows better together
        of_both = (here[1] + there[1]) / np.sqrt(2)
        worst = max(worst, float(np.abs([*here, *there, of_both]).max()))
    return worst


def _said_by_powers(flatten: _Flattening, y: Array, other: Array) -> Array:
    """What the other's square and cube say of y, in standard errors, (2,)."""
    # a constant tells where the envelope is small, as it is on one side of a skewed y
    target, powers = flatten(y), np.stack([other**p for p in (0, 1, 2, 3)], axis=1)
    basis, weights = np.linalg.qr(np.stack([flatten(power) for power in powers.T], axis=1))
    found = basis[:, 2:].T @ target * np.sign(np.diag(weights)[2:])
    # where one component rests the least of another is sure, and may still be nothing
    leak = (powers @ np.linalg.pinv(weights)[:, 2:]).std(axis=0) * np.abs(found)
    heard: Array = found / target.std() * (1 - FAINT / np.maximum(leak, FAINT))
    return heard


def _energy_in_time(flat: list[_Flattening], z: Array, n_lags: int) -> float:
    energies = [f.energy(row) for f, row in zip(flat, z, strict=True)]
    found = [_beyond_chance(abs(c[0]), c, n_lags) for c in _correlations(energies)]
    return max(found, default=0.0)


def _energy_by_label(flat: list[_Flattening], z: Array, labels: NDArray[np.int64]) -> float:
    energies = [f.energy(row) for f, row in zip(flat, z, strict=True)]
    spread = [np.bincount(labels, energy**2) for energy in energies]
    # the variance over all orders of one component's rows within their labels
    freedom = np.maximum(np.bincount(labels) - 1, 1)
    worst = 0.0
    for i, j in combinations(range(len(z)), 2):
        error = np.sqrt((spread[i] * spread[j] / freedom).sum())
        if error > 0:
            worst = max(worst, float(abs(energies[i] @ energies[j]) / error))
    return worst
