"""Tables with a known truth: series that are driven by a few factors, with noise and gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import SettingsError
from sourcesep.simulate._checks import RandomState, at_least, generator

__all__ = ["FactorTable", "factors"]


@dataclass(frozen=True)
class FactorTable:
    """Series that a few factors drive, and the truth about them.

    ``observations = sources @ loadings.T + offset + noise``, with entries missing.

    Parameters
    ----------
    sources : ndarray of shape (n_samples, n_factors)
        The factors, of unit variance over all samples.
    observations : ndarray of shape (n_samples, n_series)
        NaN where missing.
    u : ndarray of int, shape (n_samples,)
        The regime of each sample.
    variances : ndarray of shape (n_regimes, n_factors)
        Of the factors in each regime.
    loadings : ndarray of shape (n_series, n_factors)
        Units of a series for one standard deviation of a factor.
    offset : ndarray of shape (n_series,)
        What a series is where all factors are 0.
    noise : ndarray of shape (n_series,)
        Variance of the noise in each series.
    """

    sources: NDArray[np.float64]
    observations: NDArray[np.float64]
    u: NDArray[np.int64]
    variances: NDArray[np.float64]
    loadings: NDArray[np.float64]
    offset: NDArray[np.float64]
    noise: NDArray[np.float64]


def factors(
    n_samples: int = 1500,
    n_series: int = 12,
    n_factors: int = 6,
    n_regimes: int = 8,
    *,
    noise: float = 0.1,
    missing: float = 0.05,
    volatility: Literal["independent", "common", "constant"] = "independent",
    random_state: RandomState = 0,
) -> FactorTable:
    """Simulate a factor model whose factors' volatility changes from regime to regime.

    Factors are white and Gaussian, loadings standard normal. Regimes are contiguous and
    of equal length, and in each a factor's standard deviation is drawn from U(.5, 3).

    Parameters
    ----------
    n_samples, n_series, n_factors, n_regimes : int
        Sizes.
    noise : float
        Variance of the noise in each series, as a share of that series' own.
    missing : float
        Share of the entries that are missing, each by chance.
    volatility : {"independent", "common", "constant"}
        The last two are controls from which factors cannot be told: all have one
        volatility that changes, or it never does.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    FactorTable
        Observations and truth.

    Examples
    --------
    >>> import sourcesep
    >>> table = sourcesep.simulate.factors(200, random_state=0)
    >>> table.observations.shape, table.sources.shape
    ((200, 12), (200, 6))
    """
    whole(2, n_samples=n_samples)
    whole(1, n_series=n_series, n_factors=n_factors, n_regimes=n_regimes)
    one_of(("independent", "common", "constant"), volatility=volatility)
    at_least(0, noise=noise, missing=missing)
    if missing >= 1:
        raise SettingsError(f"missing={missing}: must be from 0 to below 1")
    rng = generator(random_state)
    u = np.arange(n_samples, dtype=np.int64) * n_regimes // n_samples
    deviations = rng.uniform(0.5, 3, (n_regimes, n_factors))
    if volatility == "common":
        deviations[:] = deviations[:, :1]
    elif volatility == "constant":
        deviations[:] = 1.0
    sources = rng.standard_normal((n_samples, n_factors)) * deviations[u]
    scale = sources.std(axis=0)
    sources, variances = sources / scale, (deviations / scale) ** 2
    loadings = rng.standard_normal((n_series, n_factors))
    offset = rng.standard_normal(n_series)
    clean = sources @ loadings.T
    variance = noise * clean.var(axis=0)
    observations = clean + offset + np.sqrt(variance) * rng.standard_normal(clean.shape)
    observations[rng.random(clean.shape) < missing] = np.nan
    return FactorTable(sources, observations, u, variances, loadings, offset, variance)
