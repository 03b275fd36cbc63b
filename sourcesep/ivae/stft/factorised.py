"""Variances of low rank: a few spectra, each with a course over time; and their blend with others.

What is played again sounds alike: one note, one drum, one vowel is a spectrum that comes and
goes. Itakura-Saito NMF is the maximum-likelihood fit of such variances to Gaussian cells
(Fevotte, Bertin & Durrieu 2009, "Nonnegative matrix factorization with the Itakura-Saito
divergence").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.ndimage import uniform_filter1d

from sourcesep.ivae.stft.cells import Cells

__all__ = ["LEAST", "Factorised", "blended", "lasting"]

FLOOR = 1e-7
"""Least variance, as a share of the mean power."""
TINY = 1e-12
"""Keeps products of silence from 0 / 0; cells have a mean power near 1."""
CONTINUITY = 5
"""Frames over which a source's power changes little."""
LEAST = 1e-10
"""Variance of silence, as a share of the mean power; cells have one near 1."""


class Factorised:
    """lambda(t, f) = sum_r activation(t, r) spectrum(r, f) for each of several sources.

    Parameters
    ----------
    activations : ndarray of float32, shape (n_sources, n_frames, rank)
        Above 0.
    spectra : ndarray of float32, shape (n_sources, rank, n_bins)
        Above 0.
    """

    def __init__(self, activations: Cells, spectra: Cells) -> None:
        self.activations = activations
        self.spectra = spectra

    @classmethod
    def of(cls, power: Cells, rank: int, n_updates: int) -> Self:
        """Begin with the mean spectra of stretches of equal energy, and fit.

        Parameters
        ----------
        power : ndarray of float32, shape (n_sources, n_frames, n_bins)
            To be fitted.
        rank : int
            Number of spectra a source, at most one a frame.
        n_updates : int
            See `update`.
        """
        n_frames = power.shape[1]
        rank = min(rank, n_frames)
        by_frame = power.mean(axis=2) + TINY
        share = np.cumsum(by_frame, axis=1) / by_frame.sum(axis=1, keepdims=True)
        stretch = np.minimum((share * rank).astype(int), rank - 1)
        inside = (stretch[:, :, None] == np.arange(rank)).astype(np.float32) + np.float32(0.1)
        spectra = inside.transpose(0, 2, 1) @ power + TINY
        spectra /= spectra.mean(axis=2, keepdims=True)
        activations = inside * by_frame[:, :, None] / inside.sum(axis=2, keepdims=True)
        model = cls(activations, spectra)
        model.update(power, n_updates)
        return model

    @property
    def variances(self) -> Cells:
        """The product, shape (n_sources, n_frames, n_bins)."""
        variances: Cells = self.activations @ self.spectra
        return variances

    def update(self, power: Cells, n_updates: int, *, learn_spectra: bool = True) -> None:
        """Fit to the power of cells; no update makes the fit worse.

        Parameters
        ----------
        power : ndarray of float32, shape (n_sources, n_frames, n_bins)
            To be fitted.
        n_updates : int
            Multiplicative updates, each of activations and of spectra.
        learn_spectra : bool
            Whether spectra are fitted too.
        """
        floor = np.float32(FLOOR * float(power.mean()) + TINY)
        for _ in range(n_updates):
            precision = 1 / (self.variances + floor)
            ratio = (power + floor) * precision * precision
            across = self.spectra.transpose(0, 2, 1)
            self.activations *= np.sqrt((ratio @ across) / (precision @ across + TINY))
            if learn_spectra:
                precision = 1 / (self.variances + floor)
                ratio = (power + floor) * precision * precision
                along = self.activations.transpose(0, 2, 1)
                self.spectra *= np.sqrt((along @ ratio) / (along @ precision + TINY))


def lasting(powers: Cells) -> Cells:
    """Mean power over `CONTINUITY` frames, of the shape of `powers`, (..., n_frames, n_bins)."""
    mean: Cells = uniform_filter1d(powers, CONTINUITY, axis=-2)
    return mean


def blended(views: Sequence[Cells], powers: Cells) -> Cells:
    """Geometric mean of several views of the variances of cells, each wrong in its own way.

    Scaled so that ``powers`` over variances, (n_sources, n_frames, n_bins), is 1 on average.
    """
    floor = np.float32(LEAST * powers.mean() + LEAST**2)
    variances: Cells = np.exp(sum(np.log(view + floor) for view in views) / len(views))
    variances *= (powers / variances).mean(axis=(1, 2), keepdims=True)
    return variances
