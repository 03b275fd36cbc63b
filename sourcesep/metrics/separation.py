"""How close estimates come to the truth: MCC, SI-SDR, SDR and the Amari distance."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import finite
from sourcesep.exceptions import InputError, SettingsError

__all__ = ["Correlation", "Match", "amari_distance", "match_sources", "mcc", "pair_by_ratio"]
__all__ += ["sdr", "si_sdr"]

MOST_DECIBELS = 1e6
"""What infinite ratios count as in a total: float64 holds no finite one as large."""

Correlation = Literal["pearson", "spearman"]


class Match(NamedTuple):
    """Which estimated component is which source; one entry a pair, by source.

    Parameters
    ----------
    sources, components : ndarray of int, shape (n_pairs,)
        Columns of `S` and of `S_hat` that belong together.
    signs : ndarray of float, shape (n_pairs,)
        1 or -1: what to multiply the component by.
    correlations : ndarray of float, shape (n_pairs,)
        Their absolute correlations.
    """

    sources: NDArray[np.intp]
    components: NDArray[np.intp]
    signs: NDArray[np.float64]
    correlations: NDArray[np.float64]


def match_sources(S: ArrayLike, S_hat: ArrayLike, method: Correlation = "pearson") -> Match:
    """Pair sources and components one to one, by the largest total |correlation|.

    Parameters
    ----------
    S : array-like of shape (n_samples, n_sources)
        The true sources.
    S_hat : array-like of shape (n_samples, n_components)
        The estimates. Where the numbers differ, the larger set keeps columns
        without a partner.
    method : {"pearson", "spearman"}
        Spearman's is blind to monotone changes of a component.

    Returns
    -------
    Match
        ``min(n_sources, n_components)`` pairs; ``S_hat[:, components] * signs``
        lines up with ``S[:, sources]``.

    Raises
    ------
    InputError
        If a matrix is not two-dimensional or finite, if their numbers of samples
        differ, or if a column is constant.
    """
    from scipy.optimize import linear_sum_assignment

    if method not in ("pearson", "spearman"):
        raise SettingsError(f"method={method!r}: must be 'pearson' or 'spearman'")
    true, estimate = _columns("S", S, method), _columns("S_hat", S_hat, method)
    if len(true) != len(estimate):
        raise InputError(
            f"S has {len(true)} samples and S_hat {len(estimate)}: they must have the same rows; "
            "arrays are (n_samples, n_components), transpose (channels, times)"
        )
    correlation = true.T @ estimate
    sources, components = linear_sum_assignment(-np.abs(correlation))
    paired = correlation[sources, components]
    signs = np.where(paired < 0, -1.0, 1.0)
    return Match(sources, components, signs, np.minimum(np.abs(paired), 1.0))


def pair_by_ratio(decibels: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair references and estimates one to one, by the largest total ratio.

    Parameters
    ----------
    decibels : array-like of shape (n_references, n_estimates)
        SI-SDR, say, of every estimate as one of every reference; it may be infinite.

    Returns
    -------
    references, estimates : ndarray of int, shape (n_pairs,)
        Rows and columns that belong together, by row.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-np.clip(decibels, -MOST_DECIBELS, MOST_DECIBELS))
    return rows, columns


def mcc(S: ArrayLike, S_hat: ArrayLike, method: Correlation = "pearson") -> float:
    """Mean correlation coefficient of sources and components, matched one to one.

    The mean of |correlation| over the pairs of `match_sources`. With unequal numbers
    the smaller set is matched completely and columns without a partner do not count:
    compare the numbers themselves too.

    Parameters
    ----------
    S, S_hat, method
        As for `match_sources`.

    Returns
    -------
    float
        From 0 to 1; 1 if the sources are found up to order and scale.

    References
    ----------
    Khemakhem, Kingma, Monti & Hyvärinen (2020), Variational autoencoders and
    nonlinear ICA, section 5.
    """
    return float(match_sources(S, S_hat, method).correlations.mean())


def si_sdr(reference: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Scale-invariant signal-to-distortion ratio in dB.

    Both signals' means are removed first, as Le Roux et al. (2019) assume, so neither
    gain nor offset counts.

    Parameters
    ----------
    reference, estimate : array-like of shape (..., n_times)
        Leading axes broadcast against each other.

    Returns
    -------
    ndarray of shape (...)
        ``inf`` for a perfect, ``-inf`` for a constant estimate.

    Raises
    ------
    InputError
        If the shapes do not fit, samples are not finite, or a reference is silent.

    References
    ----------
    Le Roux, Wisdom, Erdogan & Hershey (2019), SDR: half-baked or well done?
    """
    true, guess = _signals(reference, estimate)
    true = true - true.mean(-1, keepdims=True)
    guess = guess - guess.mean(-1, keepdims=True)
    gain = (true * guess).sum(-1, keepdims=True) / (true**2).sum(-1, keepdims=True)
    return _decibel(gain * true, guess)


def sdr(reference: ArrayLike, estimate: ArrayLike) -> NDArray[np.float64]:
    """Signal-to-distortion ratio in dB: ``10 log10(|s|^2 / |s - e|^2)``.

    The plain ratio: nothing is removed first, so a wrong gain, an offset, a delay or a
    filter count as errors. (BSS Eval's SDR forgives a 512-tap filter and is higher.)

    Parameters
    ----------
    reference, estimate : array-like of shape (..., n_times)
        Leading axes broadcast against each other.

    Returns
    -------
    ndarray of shape (...)
        ``inf`` for a perfect estimate, 0 for a silent one.

    Raises
    ------
    InputError
        If the shapes do not fit, samples are not finite, or a reference is silent.
    """
    return _decibel(*_signals(reference, estimate))


def amari_distance(W: ArrayLike, A: ArrayLike) -> float:
    """How far an unmixing matrix is from inverting a mixing matrix.

    Parameters
    ----------
    W : array-like of shape (n_sources, n_channels)
        Unmixing matrix.
    A : array-like of shape (n_channels, n_sources)
        Mixing matrix.

    Returns
    -------
    float
        0 if ``W @ A`` only reorders and scales, 1 if all its entries are equal in size.

    Raises
    ------
    InputError
        If the shapes do not fit, values are not finite, or ``W @ A`` has a zero row or
        column, so that a source is lost.

    References
    ----------
    Amari, Cichocki & Yang (1996), A new learning algorithm for blind signal separation.
    """
    unmixing, mixing = finite("W", W), finite("A", A)
    if unmixing.ndim != 2 or mixing.ndim != 2 or unmixing.shape != mixing.shape[::-1]:
        raise InputError(
            f"W.shape={unmixing.shape}, A.shape={mixing.shape}: W must be "
            "(n_sources, n_channels) and A (n_channels, n_sources)"
        )
    product = np.abs(unmixing @ mixing)
    n_sources = len(product)
    rows, columns = product.max(1, initial=0.0), product.max(0, initial=0.0)
    if n_sources == 0 or not (rows.all() and columns.all()):
        raise InputError("W @ A has a row or column of zeros: a source is lost; check W and A")
    if n_sources == 1:
        return 0.0
    excess = (product / rows[:, None]).sum() + (product / columns).sum() - 2 * n_sources
    return float(excess / (2 * n_sources * (n_sources - 1)))


def _columns(name: str, values: ArrayLike, method: Correlation) -> NDArray[np.float64]:
    """Return the columns centred (their ranks, for Spearman) and of unit norm."""
    array = finite(name, values)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name}.shape={array.shape}: must be (n_samples, n_components)")
    constant = np.flatnonzero(np.ptp(array, axis=0) == 0)
    if constant.size:
        raise InputError(
            f"{name}: column {constant[0]} is constant (silent): it correlates with nothing; "
            "leave it out"
        )
    if method == "spearman":
        from scipy.stats import rankdata

        array = rankdata(array, axis=0)
    array = array - array.mean(0)
    array = array / np.abs(array).max(0)
    unit: NDArray[np.float64] = array / np.linalg.norm(array, axis=0)
    return unit


def _signals(
    reference: ArrayLike, estimate: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both signals checked; a reference must have power about its mean."""
    true, guess = finite("reference", reference), finite("estimate", estimate)
    if true.ndim == 0 or guess.ndim == 0 or true.shape[-1] != guess.shape[-1]:
        raise InputError(
            f"reference.shape={true.shape}, estimate.shape={guess.shape}: the last axis is time "
            "and must be equally long; trim the longer one"
        )
    try:
        np.broadcast_shapes(true.shape, guess.shape)
    except ValueError as error:
        raise InputError(
            f"reference.shape={true.shape}, estimate.shape={guess.shape}: the leading axes must "
            "be equal or broadcast"
        ) from error
    if true.size == 0 or not np.ptp(true, axis=-1).all():
        raise InputError(
            "reference is constant (silent): the ratio is not defined; leave that source out"
        )
    return true, guess


def _decibel(target: NDArray[np.float64], estimate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 10 log10 of the target's power over the error's."""
    error = ((estimate - target) ** 2).sum(-1)
    power = (target**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10 * (np.log10(power) - np.log10(error))
    decibel = np.where(error == 0, np.inf, decibel)
    return np.asarray(np.where(power == 0, -np.inf, decibel))
