"""EEG and MEG: a matrix fitted to what brains, bodies and electrodes do.

Two things set it apart from other instantaneous mixtures. Every electrode has noise of its
own, so that no matrix undoes the mixing; and rhythms have bands that are known beforehand.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import FEW_SEGMENTS
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.brain_covariances import Seen, see
from sourcesep.ivae.matrices.brain_rows import find_rows, loudest_noise, signal_shares
from sourcesep.ivae.matrices.jointdiag import MANY_CHANNELS, Triangles
from sourcesep.ivae.model import Array
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.ivae.priors import LabelPrior, smoothed
from sourcesep.ivae.reproducibility import counterparts
from sourcesep.ivae.settings import GAUSSIAN, Settings
from sourcesep.ivae.whitening import Whitening, moments_of, whiten_moments

__all__ = ["BrainModel", "Halves"]


PIECE = 4096
"""Samples that are whitened at a time."""


class BrainModel(LinearModel):
    """`LinearModel` with the fit that EEG and MEG want.

    In a file and to the rest of the package it is a linear model like any other.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of x by default.
    bands : bool
        Whether sources are also told apart by how each rhythm's power changes. If not,
        they are estimated in view of the electrodes' noise (`under_noise`).
    sfreq : float
        Samples a second.
    shapes : tuple of float
        Exponents the prior may take.

    Attributes
    ----------
    correlation : ndarray of shape (n_components, n_components)
        Of the components of the last fit, which share the electrodes' noise. Not kept in files.
    signal : ndarray of shape (n_components,)
        The share of each one's power that is a source's own (`signal_shares`). Nor is it.
    """

    correlation: Array
    signal: Array

    _evidence: tuple[Seen, Array] | None = None

    def __init__(
        self,
        n_components: int | None = None,
        *,
        bands: bool = False,
        sfreq: float = 1.0,
        shapes: tuple[float, ...] = GAUSSIAN,
    ) -> None:
        super().__init__(n_components, starts=("bands" if bands else "segments",), shapes=shapes)
        self.bands = bands
        self.sfreq = sfreq

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            bands="bands" in settings.starts,
            sfreq=settings.sfreq,
            shapes=settings.shapes,
        )

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made."""
        return type(self)(
            self.n_components, bands=self.bands, sfreq=self.sfreq, shapes=self.shapes
        )

    def fit(
        self,
        x: Array,
        u: Auxiliary,
        rng: np.random.Generator,
        moments: tuple[Array, Array] | None = None,
    ) -> Self:
        """Fit matrix and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on.
        rng : numpy.random.Generator
            Not needed: nothing is drawn.
        moments : tuple of ndarray, optional
            Mean and covariance of x where u is used, if they are known.

        Raises
        ------
        SettingsError
            If more components are asked for than the rank of x.
        """
        x, u = u.in_use(x)
        white = whiten_moments(*(moments or moments_of(x)), self.requested)
        seen = see(_whitened(white, x), u, self.sfreq if self.bands else None)
        rows = find_rows(seen)
        # a component's map is what the channels have in common with it (Haufe et al. 2014)
        rows = self._set_map(white, rows, white.inverse @ rows.T)
        self._evidence = seen, rows
        self.correlation = rows @ rows.T
        finest = seen.groups[0].covariances
        powers = Triangles.of(finest).powers(rows.astype(finest.dtype))
        # of directions that were set aside, their mean: what no component can tell from noise
        quietest = np.linalg.norm(np.concatenate([white.matrix, white.complement]), 2) ** -2
        noise = loudest_noise(float(quietest), powers, self.unmixing)
        self.signal = signal_shares(self.unmixing, self.correlation, noise)
        self.scores, self.start = {}, self.starts[0]
        if u.is_time and seen.is_whole and self.shapes == GAUSSIAN:
            self.prior = _prior(powers, seen.groups[0].counts, u)
        else:
            self.prior = self.fit_prior(self._unmix(x), u)
        return self

    def rows(self, y: Array, u: Auxiliary, rng: np.random.Generator) -> Array:
        """Find the rows that make sources of unit variance of whitened signals.

        Parameters
        ----------
        y : ndarray of shape (n_components, n_times)
            Uncorrelated, of unit variance.
        u : Auxiliary
            Every sample has a label.
        rng : numpy.random.Generator
            Not needed.

        Returns
        -------
        ndarray of shape (n_components, n_components)
            Of unit length.
        """
        return find_rows(see(y, u, self.sfreq if self.bands else None))

    def halves(self, rng: np.random.Generator, n_splits: int) -> Halves | None:
        """Draw random halves of the data, to be fitted when it is asked how they agree.

        Of the covariances that the fit has made, which are handed over: so once only.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws the halves: whole segments of the coarsest scale.
        n_splits : int
            Number of random halvings.

        Returns
        -------
        Halves or None
            None where halves have to be drawn otherwise, within segments.
        """
        if self._evidence is None:
            return None
        (seen, rows), self._evidence = self._evidence, None
        groups = seen.groups if seen.rhythms is None else [*seen.groups, seen.rhythms]
        segments = [group.segment for group in groups if group.segment is not None]
        if len(segments) < len(groups) or not seen.is_time:
            return None
        n_segments = 1 + max(int(segment.max()) for segment in segments)
        if n_segments < FEW_SEGMENTS:
            return None
        draws = [rng.permutation(n_segments) % 2 == 0 for _ in range(n_splits)]
        if not all(seen.holds_all(half) and seen.holds_all(~half) for half in draws):
            return None
        return Halves(seen, rows, draws)


class Halves(NamedTuple):
    """Random halves of what a fit has seen: which of the coarsest labels are in the first."""

    seen: Seen
    rows: Array
    draws: list[NDArray[np.bool_]]

    def reliability(self) -> Array:
        """Correlate each component's two counterparts in halves, mean over the draws.

        As `split_half_correlations`, to rounding but for rhythms, and without another look at
        the samples.
        """
        found = [
            counterparts(self.rows, *(find_rows(self.seen.within(k)) for k in (half, ~half)))
            for half in self.draws
        ]
        mean: Array = np.mean(found, axis=0)
        return mean


def _whitened(white: Whitening, x: Array) -> Array:
    """Whiten x some samples at a time, which stay in the processor's memory."""
    offset = (white.matrix @ white.mean)[:, None]
    dtype = np.float32 if len(white.matrix) >= MANY_CHANNELS else np.float64
    y = np.empty((len(white.matrix), x.shape[1]), dtype)
    for k in range(0, x.shape[1], PIECE):
        y[:, k : k + PIECE] = white.matrix @ x[:, k : k + PIECE] - offset
    return y


def _prior(powers: Array, sizes: NDArray[np.int64], u: Auxiliary) -> LabelPrior:
    """Fit Gaussians to the components' powers in all labels that there are.

    As `LabelPrior.fit` does, to rounding, without the samples.
    """
    counts = np.bincount(u.labels, minlength=u.n_labels).astype(float)
    sums = np.zeros((u.n_labels, powers.shape[1]))
    sums[counts > 0] = powers * sizes[:, None]
    overall = sums.sum(axis=0) / counts.sum()
    return gaussian_prior(np.zeros_like(sums), smoothed(sums, counts, overall))
