"""Rank first: means removed, the numerical rank found, the rest set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.model import Array

__all__ = ["Basis", "Whitening", "moments_of", "numerical_rank"]
__all__ += ["rank_of_moments", "whiten", "whiten_moments"]

RANK_TOLERANCE = 1e-7
"""Eigenvalues of the channels' correlation below this share of the largest are rounding."""

FAR_APART = np.log(1e6)
"""Channels whose scales differ by more have a covariance of which little but rounding is left."""

PIECE = 2**17
"""Values that are summed up at a time: they stay in the processor's memory."""

QUIET = 0.2
"""Of the loudest channel's amplitude; a channel below is no reference."""


@dataclass(frozen=True)
class Whitening:
    """An affine map of x onto uncorrelated coordinates of unit variance.

    Parameters
    ----------
    mean : ndarray of shape (n_channels,)
        Removed from x first.
    scale : ndarray of shape (n_channels,)
        Standard deviations of the channels, 0 for those that are constant.
    matrix : ndarray of shape (n_components, n_channels)
        Onto the coordinates that are kept.
    inverse : ndarray of shape (n_channels, n_components)
        Back, so that ``matrix @ inverse`` is the identity.
    complement : ndarray of shape (rank - n_components, n_channels)
        Onto the coordinates set aside when fewer components than the rank are asked
        for, scaled to what an isotropic Gaussian there makes of variance 1.
    complement_inverse : ndarray of shape (n_channels, rank - n_components)
        Back from there, so that ``complement @ complement_inverse`` is the identity and
        ``matrix @ complement_inverse`` is 0.
    """

    mean: Array
    scale: Array
    matrix: Array
    inverse: Array
    complement: Array
    complement_inverse: Array

    @property
    def rank(self) -> int:
        """Numerical rank of x."""
        return len(self.matrix) + len(self.complement)


def moments_of(x: Array) -> tuple[Array, Array]:
    """Mean and covariance of the channels."""
    mean = x.mean(axis=1)
    covariance = np.zeros((len(x), len(x)))
    size = max(1, PIECE // len(x))
    for k in range(0, x.shape[1], size):
        centred = x[:, k : k + size] - mean[:, None]
        covariance += centred @ centred.T
    return mean, covariance / x.shape[1]


def _correlation(mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Standard deviation (0 for constant channels) and correlation of the channels."""
    scale = np.sqrt(np.diag(covariance))
    # a constant channel is left with the rounding error of its own mean
    scale[scale <= 1e-12 * np.abs(mean)] = 0
    safe = np.where(scale > 0, scale, 1)
    correlation = covariance / np.outer(safe, safe)
    correlation[scale == 0] = correlation[:, scale == 0] = 0
    return scale, correlation


def numerical_rank(x: Array) -> int:
    """Return how many linearly independent signals the channels of x hold.

    Judged on the correlation matrix, so that channels in different units count alike.
    """
    return rank_of_moments(*moments_of(x))


def rank_of_moments(mean: Array, covariance: Array) -> int:
    """Return the rank of what has this mean and covariance; see `numerical_rank`."""
    return _rank(_correlation(mean, covariance)[1])


def _rank(correlation: Array) -> int:
    values = np.linalg.eigvalsh(correlation)
    return int((values > RANK_TOLERANCE * values[-1]).sum()) if values[-1] > 0 else 0


def _with_rank(mean: Array, covariance: Array) -> tuple[Array, Array, int]:
    """`_correlation`, and the rank; InputError if there is nothing in any channel."""
    scale, correlation = _correlation(mean, covariance)
    rank = _rank(correlation)
    if rank == 0:
        raise InputError("every channel is constant (silent): there is nothing to separate")
    return scale, correlation, rank


def whiten(
    x: Array, n_components: int | None = None, *, standardise_channels: bool = False
) -> Whitening:
    """Whiten x within its numerical rank.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Signals.
    n_components : int, optional
        Number of principal components to keep; the rank by default.
    standardise_channels : bool
        Whether principal components are those of the channels at unit variance (for
        channels in different units) rather than as they are.

    Raises
    ------
    InputError
        If x is constant.
    SettingsError
        If more components are asked for than the rank.
    """
    return whiten_moments(*moments_of(x), n_components, standardise_channels=standardise_channels)


def whiten_moments(
    mean: Array,
    covariance: Array,
    n_components: int | None = None,
    *,
    standardise_channels: bool = False,
) -> Whitening:
    """Whiten what has this mean and covariance; see `whiten`."""
    scale, correlation, rank = _with_rank(mean, covariance)
    keep = rank if n_components is None else n_components
    if not 1 <= keep <= rank:
        raise SettingsError(
            f"n_components={keep}: the {len(mean)} channels hold {rank} linearly independent "
            f"signal{'s' * (rank > 1)}; ask for 1 to {rank}"
        )
    unit = np.where(scale > 0, scale, 1)
    # where all are kept any coordinates will do, and rounding decides between these
    standardise_channels |= keep == rank and np.ptp(np.log(unit[scale > 0])) > FAR_APART
    if not standardise_channels:
        correlation = correlation * np.outer(unit, unit)
        unit = np.ones_like(unit)
    values, vectors = np.linalg.eigh(correlation)
    values = np.maximum(values[::-1][:rank], np.finfo(float).eps * values[-1])
    vectors = vectors[:, ::-1][:, :rank]
    deviations = np.sqrt(values)
    kept, rest = vectors[:, :keep], vectors[:, keep:]
    noise = np.sqrt(values[keep:].mean()) if keep < rank else 1.0
    return Whitening(
        mean,
        scale,
        (kept / deviations[:keep]).T / unit,
        kept * deviations[:keep] * unit[:, None],
        (rest / noise).T / unit,
        rest * noise * unit[:, None],
    )


class Basis(NamedTuple):
    """Independent channels, and all others as their sums: x = mean + span @ y.

    Parameters
    ----------
    channels : ndarray of int, shape (rank,)
        Which channels are independent; their signals at unit variance are y.
    mean : ndarray of shape (n_channels,)
        Of x.
    span : ndarray of shape (n_channels, rank)
        Units of x per unit of y.
    """

    channels: NDArray[np.int64]
    mean: Array
    span: Array

    @classmethod
    def of(cls, x: Array) -> Self:
        """Find as many channels as the rank of x that span all others."""
        mean, covariance = moments_of(x)
        scale, correlation, rank = _with_rank(mean, covariance)
        if rank == len(x):
            return cls(np.arange(rank), mean, np.diag(scale))
        channels = np.sort(qr(correlation, mode="r", pivoting=True)[1][:rank]).astype(np.int64)
        among = correlation[np.ix_(channels, channels)]
        span = np.linalg.solve(among, correlation[channels]).T * scale[:, None]
        return cls(channels, mean, span)

    def coordinates(self, x: Array) -> Array:
        """The independent channels at zero mean and unit variance, (rank, n_times)."""
        centred = x[self.channels] - self.mean[self.channels, None]
        return centred / self.span[self.channels].diagonal()[:, None]

    @property
    def reference(self) -> int:
        """The first channel that is not much quieter than the loudest."""
        scale = self.span[self.channels].diagonal()
        return int(self.channels[np.argmax(scale > QUIET * scale.max())])

    @property
    def log_volume(self) -> float:
        """Log-density of x less that of its coordinates, nats a sample."""
        return -0.5 * float(np.linalg.slogdet(self.span.T @ self.span)[1])
