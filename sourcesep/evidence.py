"""Evidence that components are real: what tells them apart, and whether fits agree on them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.heldout import random_halves
from sourcesep.ivae.label_means import finest_reliable_scale, remove_label_means
from sourcesep.ivae.matrices.contrast import heldout_log_likelihood, innovations
from sourcesep.ivae.matrices.sound import told_by_spectrum
from sourcesep.ivae.matrices.starts import band_signals
from sourcesep.ivae.model import Array, Model
from sourcesep.modulation import standard_errors, variance_ratios

__all__ = [
    "CrossFit",
    "agreement",
    "agreement_of_means",
    "channels_alone",
    "cross_fit",
    "replica_agreement",
    "richness",
    "richness_of_variances",
]

N_LIKEST = 3
"""Others that a component is compared with for richness."""
REACH = 32
"""Taps on either side of the filter that maps with memory leave open for every component."""
RIDGE = 1e-6
"""Share of a component's power that keeps that filter finite."""
IN_COMMON = 0.01
"""Share of a channel's variance from which on another component counts as heard in it."""
N_ERRORS = 2.0
"""Times what fits on halves differ by: less may be in a channel by the error of the fit alone."""
UNHEARD = 1e-6
"""A share that never counts, however sure a fit is of it."""
QUICK_SHAPES = (1.0, 2.0, 5.0)
"""Exponents that tell shapes apart well enough for evidence."""


@dataclass(frozen=True)
class CrossFit:
    """Two fits on the halves of the data, and what each makes of all of it.

    Parameters
    ----------
    half : ndarray of int, shape (n_times,)
        Which half each sample is in.
    outputs : tuple of two ndarray of shape (n_components, n_times)
        Components found by the fit on half 0 and on half 1, in the model's order.
    reach : int
        Taps on either side of the filter up to which a component is known; 0 if that is a scale.
    """

    half: NDArray[np.int64]
    outputs: tuple[Array, Array]
    reach: int = 0


def cross_fit(
    model: Model, x: Array, u: Auxiliary, half: NDArray[np.int64], rng: np.random.Generator
) -> CrossFit | None:
    """Fit on both halves, and bring their components into the model's order.

    None if so many components cannot be found in one of the halves.
    """
    from scipy.optimize import linear_sum_assignment

    z = model.posterior(x, u).mean
    reach = REACH if model.up_to_filters else 0
    outputs = []
    for which in (0, 1):
        chosen = half == which
        try:
            fit = model.rough().fit(x[:, chosen], u.take(chosen), rng)
        except (InputError, SettingsError):  # what suits all of the data does not suit their half
            return None
        if not fit.needs_u:
            other = fit.posterior(x).mean
        else:  # its prior knows this half's labels only
            other = fit.refit_prior(x, u).posterior(x, u).mean
        if reach:
            alike = np.array([[_up_to_filters(a, b, reach) for b in other] for a in z])
        else:
            alike = np.abs(np.corrcoef(z, other)[: len(z), len(z) :])
        match = linear_sum_assignment(-alike)[1]
        outputs.append(other[match] / other[match].std(axis=1, keepdims=True))
    return CrossFit(half, (outputs[0], outputs[1]), reach)


def agreement(fits: list[CrossFit]) -> Array:
    """Correlation between the components of fits on random halves, (n_components,).

    Where components are known up to a filter only, one is filtered first so that it is as like
    the other as it can be.
    """
    both = []
    for fit in fits:
        a, b = (out - out.mean(axis=1, keepdims=True) for out in fit.outputs)
        if fit.reach:
            both.append([_up_to_filters(*rows, fit.reach) for rows in zip(a, b, strict=True)])
            continue
        scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        both.append(np.abs((a * b).sum(axis=1)) / scale)
    mean: Array = np.mean(both, axis=0)
    return mean


def _up_to_filters(a: Array, b: Array, reach: int) -> float:
    """Correlation of one with the image of the other that is nearest to it; the lesser of both.

    The image is that by a filter of `reach` taps to either side. What so many taps explain
    by chance is taken off.
    """
    from scipy.linalg import solve_toeplitz

    n_times, n_taps = len(a), 2 * reach + 1
    n_fft = 1 << (n_times + n_taps).bit_length()
    spectra = [np.fft.rfft(row - row.mean(), n_fft) for row in (a, b)]
    power = [np.fft.irfft(np.abs(spectrum) ** 2, n_fft)[:n_taps] for spectrum in spectra]
    cross = np.fft.irfft(spectra[1] * spectra[0].conj(), n_fft)
    ahead = np.concatenate([cross[n_fft - reach :], cross[: reach + 1]])
    shares = []
    for (auto, whole), taps in zip((power, power[::-1]), (ahead, ahead[::-1]), strict=True):
        column = auto * np.where(np.arange(n_taps), 1, 1 + RIDGE)
        explained = taps @ solve_toeplitz(column, taps) / whole[0]
        shares.append(1 - (1 - explained) * n_times / max(n_times - n_taps, 1))
    return float(np.sqrt(max(min(shares), 0)))


def channels_alone(z: Array, x: Array, agree: Array) -> NDArray[np.bool_]:
    """Which channels are a component as they stand, that no other channel hears.

    Such a channel has not been separated from anything. Whether it is one source, or noise, or a
    mixture that no other microphone heard, nothing in it can tell.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components of a map without memory.
    x : ndarray of shape (n_channels, n_times)
        Channels.
    agree : ndarray of shape (n_components,)
        `agreement` of fits on halves, which says how far another component that is found in the
        channel may be an error.

    Returns
    -------
    ndarray of bool, shape (n_channels,)
    """
    z, x = (rows - rows.mean(axis=1, keepdims=True) for rows in (z, x))
    mixing = np.linalg.lstsq(z @ z.T, z @ x.T, rcond=None)[0]
    powers = np.square(mixing) * (z**2).sum(axis=1, keepdims=True)
    shares = powers / np.maximum((x**2).sum(axis=1), 1e-300)
    most = np.clip(N_ERRORS * (1 - agree**2).max(), UNHEARD, IN_COMMON)
    others = shares > most
    heard_once, holds_one = others.sum(axis=1) == 1, others.sum(axis=0) == 1
    own = (shares > 1 - IN_COMMON) & heard_once[:, None] & holds_one
    alone: NDArray[np.bool_] = own.any(axis=0)
    return alone


def replica_agreement(replicas: Array) -> Array:
    """Mean correlation between every two replicas of each component, (n_components,).

    NaN for a single replica.
    """
    n_replicas = len(replicas)
    if n_replicas == 1:
        return np.full(replicas.shape[1], np.nan)
    z = replicas - replicas.mean(axis=2, keepdims=True)
    z = z / z.std(axis=2, keepdims=True)
    # the variance of a sum is the sum of all covariances
    agreed: Array = (z.sum(axis=0).var(axis=1) / n_replicas - 1) / (n_replicas - 1)
    return agreed


def agreement_of_means(of_two: Array, n_replicas: int) -> Array:
    """How well the mean over the replicas agrees with that over as many others.

    What is used is the mean over all, so that is what has to come out again. By Spearman and
    Brown's formula (1910), from `replica_agreement`.
    """
    agreed: Array = n_replicas * of_two / (1 + (n_replicas - 1) * of_two)
    return agreed


def richness(
    z: Array,
    u: Auxiliary,
    fits: list[CrossFit],
    rng: np.random.Generator,
    spliced: NDArray[np.bool_] | None = None,
    spectra: NDArray[np.complex128] | None = None,
) -> Array:
    """Evidence that tells every two components apart, in standard errors.

    Were two components not identifiable, turning the pair by 45 degrees would give two
    others that are as good. The evidence is how much more likely the pair is as it
    stands than turned, on data that neither the map (fitted on the other half) nor the
    prior (fitted on the rest of this half) has seen, where the prior knows modulation by
    u, spectrum and shape (`heldout_log_likelihood`). Only each component's likest others
    are compared.

    Where u is labels rows may come in any order, and what precedes a row says nothing:
    spectra do not count then. Rows whose neighbours are alike only lower the evidence. Nor
    does it count that some components are more of them what labels' means differ in:
    turned are components of unit variance within labels.

    Lines in a spectrum are predicted away, and a mixture of tones as well as the tones. So
    where spectra of sound are given they may tell a pair apart as they are, too
    (`told_by_spectrum`). Where the prediction leaves of lines what neighbours have in common,
    samples then count by how many of them are independent.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components of unit variance.
    u : Auxiliary
        The auxiliary variable.
    fits : list of CrossFit
        Fits on halves of the data.
    rng : numpy.random.Generator
        Halves the halves.
    spliced : ndarray of bool, shape (n_times,), optional
        Which samples follow a splice so closely that spectra say nothing there.
    spectra : ndarray of complex, shape (n_windows, n_components, n_bins), optional
        Of z, as `short_spectra` gives them.

    Returns
    -------
    ndarray of shape (n_components,)
        For each component the evidence against the component that it is most easily
        confused with: about N(0, 1) or less where there is nothing to find.
    """
    parts: list[tuple[Array, NDArray[np.int64], NDArray[np.int64]]] = []
    if spliced is None:
        spliced = np.zeros(z.shape[1], bool)
    for fit in fits:
        for which in (0, 1):
            unseen = np.flatnonzero((fit.half != which) & ~spliced)
            inner = random_halves(u.labels[unseen], u.n_labels, rng)
            output = fit.outputs[which]
            if not u.is_time:
                labels = finest_reliable_scale(u).labels
                within = remove_label_means(output, labels).std(axis=1, keepdims=True)
                output = output / np.where(within > 0, within, 1)
            parts.append((output, unseen, inner))

    independent = np.ones(len(z))
    if spectra is not None:
        independent = _independent_share(innovations(z)[:, ~spliced])

    def likelihood(part: tuple[Array, NDArray[np.int64], NDArray[np.int64]], turn: Array) -> Array:
        output, unseen, inner = part
        turned = turn @ output
        errors = (innovations(turned) if u.is_time else turned)[:, unseen]
        values = np.empty_like(errors)
        for which in (0, 1):
            held = inner == which
            values[:, held] = heldout_log_likelihood(
                errors,
                u.labels[unseen],
                u.n_labels,
                held,
                with_mean=not u.is_time,
                shapes=QUICK_SHAPES,
            )
        return values

    own = [likelihood(part, np.eye(len(z))) for part in parts]
    weakest = np.full(len(z), np.inf)
    for i, j in _likest_pairs(z, u):
        turn = np.zeros((2, len(z)))
        turn[:, [i, j]] = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
        gain = np.zeros(z.shape[1])
        for part, value in zip(parts, own, strict=True):
            turned = likelihood(part, turn).sum(axis=0)
            gain[part[1]] += (value[[i, j]].sum(axis=0) - turned) / len(fits)
        told = _standard_errors(gain, u, independent[[i, j]].min())
        if spectra is not None:
            told = max(told, told_by_spectrum(spectra[:, [i, j]]))
        weakest[[i, j]] = np.minimum(weakest[[i, j]], told)
    return weakest


def richness_of_variances(u: Auxiliary, fits: list[CrossFit]) -> Array:
    """Evidence that the variances of every two components change with u in different ways.

    For models in which nothing else tells components apart; on samples that the map has
    not seen. See `sourcesep.modulation.variance_ratios`.

    Returns
    -------
    ndarray of shape (n_components,)
        In standard errors, against the component that it is most easily confused with.
    """
    errors = []
    for fit in fits:
        found = [
            variance_ratios(fit.outputs[which][:, fit.half != which], u.take(fit.half != which))
            for which in (0, 1)
        ]
        scatter, freedom = found[0][0] + found[1][0], found[0][1] + found[1][1]
        errors.append(standard_errors(scatter, freedom) if freedom else 0 * scatter)
    mean = np.mean(errors, axis=0)
    np.fill_diagonal(mean, np.inf)
    weakest: Array = mean.min(axis=1)
    return weakest


def _likest_pairs(z: Array, u: Auxiliary) -> list[tuple[int, int]]:
    """Each component with the `N_LIKEST` others whose modulation and spectrum are nearest."""
    d = len(z)
    if d <= N_LIKEST + 1:
        return list(combinations(range(d), 2))
    power = np.stack([np.bincount(u.labels, row**2, u.n_labels) for row in z])
    profile = np.log(power + 1e-9)
    if u.is_time:
        spectra = np.stack([(s**2).mean(axis=1) for s in band_signals(z)], axis=1)
        profile = np.concatenate([profile, np.log(spectra + 1e-9)], axis=1)
    distance = np.square(profile[:, None] - profile[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :N_LIKEST]
    return sorted({(min(i, j), max(i, j)) for i in range(d) for j in map(int, nearest[i])})


def _independent_share(errors: Array) -> Array:
    """Share of samples that are independent, by what squares of neighbours have in common.

    The correlation of even functions of two samples of a Gaussian series is that of the samples
    squared, or less; the sum of squares over all lags follows from the periodogram.
    """
    power = np.square(np.abs(np.fft.rfft(errors, axis=1)))[:, 1:]
    total = np.maximum(power.sum(axis=1), np.finfo(float).tiny) ** 2
    # by chance alone a periodogram has twice the squares of the spectrum
    correlated = power.shape[1] * np.square(power).sum(axis=1) / total / 2
    share: Array = 1 / np.maximum(correlated, 1)
    return share


def _standard_errors(gain: Array, u: Auxiliary, independent: float = 1.0) -> float:
    """Mean of dependent samples in units of its standard error, from block means.

    What labels differ in is no dependence: rows sorted by label count as much as others. No
    more samples count than the share that is independent.
    """
    n_blocks = int(np.clip(len(gain) // 32, 4, 100))
    size = len(gain) // n_blocks
    if size == 0:
        return 0.0
    rest, least = gain, 0.0
    if not u.is_time or independent < 1:
        least = gain.std(ddof=1) / np.sqrt(independent * len(gain))
    if not u.is_time:
        rest = remove_label_means(gain[None], u.labels)[0]
    blocks = rest[: n_blocks * size].reshape(n_blocks, size).mean(axis=1)
    error = max(blocks.std(ddof=1) / np.sqrt(n_blocks), least)
    return float(gain[: n_blocks * size].mean() / error) if error > 0 else 0.0
