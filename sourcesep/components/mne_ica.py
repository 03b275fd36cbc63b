"""The same components as a fitted `mne.preprocessing.ICA`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array

__all__ = ["as_mne_ica"]

EXACT = 1e-9
"""Largest part of the unmixing matrix that may lie outside of the maps' span."""


def as_mne_ica(
    unmixing: Array, mixing: Array, mean: Array, scale: Array, info: Any, n_samples: int
) -> Any:
    """Fill an ICA object by hand.

    MNE takes components to be a square matrix times orthonormal principal components:
    ``unmixing = unmixing_matrix_ @ pca_components_[:n]``, and the mixing its transpose.

    Parameters
    ----------
    unmixing : ndarray of shape (n_components, n_channels)
        From channels, each divided by its scale and less its mean, to sources.
    mixing : ndarray of shape (n_channels, n_components)
        Back.
    mean, scale : ndarray of shape (n_channels,)
        See above.
    info : mne.Info
        Of these channels.
    n_samples : int
        How many the fit had.

    Raises
    ------
    SettingsError
        If MNE's form cannot hold these components exactly.
    """
    import mne

    n_components = len(unmixing)
    basis, deviations, _ = np.linalg.svd(mixing, full_matrices=True)
    kept = basis[:, :n_components]
    outside = unmixing - unmixing @ kept @ kept.T
    if np.abs(outside).max() > EXACT * np.abs(unmixing).max():
        raise SettingsError(
            "channels differ in scale so far that they had to be whitened one by one, which MNE's "
            "ICA cannot express: leave out those that are all but flat"
        )
    ica = mne.preprocessing.ICA(n_components, method="picard", verbose="error")
    ica.info, ica.ch_names = _plain(info), list(info["ch_names"])
    ica.pre_whitener_ = scale[:, None].copy()
    ica.pca_mean_ = mean.copy()
    ica.pca_components_ = basis.T
    ica.pca_explained_variance_ = np.concatenate(
        [deviations**2, np.zeros(len(mean) - n_components)]
    )
    ica.unmixing_matrix_ = unmixing @ kept
    ica.mixing_matrix_ = kept.T @ mixing
    ica.n_components_, ica.n_samples_, ica.n_iter_ = n_components, n_samples, 1
    ica.current_fit, ica.reject_ = "raw", None
    ica._update_ica_names()
    return ica


def _plain(info: Any) -> Any:
    """`info` without projectors: they have been applied, and would be once more."""
    plain = info.copy()
    with plain._unlock():
        plain["projs"] = []
    return plain
