"""MNE's plots of ICA, with the reliability of every component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sourcesep.components.artefacts import ArtefactFinder
from sourcesep.exceptions import InputError
from sourcesep.ivae.model import Array
from sourcesep.messages import first_few
from sourcesep.output import component_name

__all__ = ["Plots"]

OF_MAPS = ("plot_components", "plot_properties")
"""Of MNE's plots, those that draw maps and remove nothing."""


class Plots(ArtefactFinder):
    """Components that MNE can draw: linear ones.

    What is clicked away in a window that blocks is in `exclude` afterwards.
    """

    reliability_: Array

    def plot_components(self, picks: Any = None, **options: Any) -> Any:
        """Draw the components' maps.

        Parameters
        ----------
        picks : int, sequence of int, or None
            Which ones.
        **options
            See `mne.preprocessing.ICA.plot_components`.

        Returns
        -------
        matplotlib.figure.Figure, or list of these
            As MNE returns them.
        """
        return self._drawn("plot_components", picks=picks, **options)

    def plot_sources(self, inst: Any, picks: Any = None, **options: Any) -> Any:
        """Draw the components' time courses.

        Parameters
        ----------
        inst : mne.io.BaseRaw, mne.BaseEpochs or mne.Evoked
            Of which recording.
        picks : int, sequence of int, or None
            Which ones.
        **options
            See `mne.preprocessing.ICA.plot_sources`.

        Returns
        -------
        matplotlib.figure.Figure, or mne_qt_browser's window
            As MNE returns it.
        """
        return self._drawn("plot_sources", inst, picks=picks, **options)

    def plot_properties(self, inst: Any, picks: Any = None, **options: Any) -> Any:
        """Draw map, epochs, spectrum and variance of components.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Of which recording.
        picks : int, sequence of int, or None
            Which ones; the first five by default.
        **options
            See `mne.preprocessing.ICA.plot_properties`.

        Returns
        -------
        list of matplotlib.figure.Figure
            One a component.
        """
        return self._drawn("plot_properties", inst, picks=picks, **options)

    def plot_scores(self, scores: Any, **options: Any) -> Any:
        """Draw the scores that components have as artefacts.

        Parameters
        ----------
        scores : ndarray of shape (n_components,), or list of these
            As `find_bads_eog`, `find_bads_ecg` and `find_bads_muscle` return them.
        **options
            See `mne.preprocessing.ICA.plot_scores`.

        Returns
        -------
        matplotlib.figure.Figure
            As MNE returns it.
        """
        return self._drawn("plot_scores", scores, **options)

    def plot_overlay(self, inst: Any, exclude: Sequence[int] | None = None, **options: Any) -> Any:
        """Draw the channels before and after components are removed.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.Evoked
            Of which recording.
        exclude : sequence of int, optional
            Components to remove beside those in the attribute `exclude`.
        **options
            See `mne.preprocessing.ICA.plot_overlay`.

        Returns
        -------
        matplotlib.figure.Figure
            As MNE returns it.
        """
        removed = self._removed(None, exclude)
        return self._drawn("plot_overlay", inst, exclude=removed, **options)

    def _drawn(self, name: str, *arguments: Any, **options: Any) -> Any:
        ica = self.to_mne_ica()
        # what a figure shows as removed is what is removed here
        ica.apply = lambda inst, exclude, **_: self.apply(inst, exclude=exclude)
        if name in OF_MAPS:
            self._check_positions()
            ica.mixing_matrix_ = ica.mixing_matrix_ @ self._correlation
        ica._ica_names = [
            f"{component_name(k)} r={value:.2f}" for k, value in enumerate(self.reliability_)
        ]
        figures = getattr(ica, name)(*arguments, **options)
        self.exclude = [int(k) for k in ica.exclude]
        return figures

    def _check_positions(self) -> None:
        """Refuse to draw maps on a head where it is not known where channels are."""
        lost = [
            channel["ch_name"]
            for channel in self.info["chs"]
            if not (np.isfinite(channel["loc"][:3]).all() and channel["loc"][:3].any())
        ]
        if lost:
            raise InputError(
                f"positions of {first_few(lost)} are not known, so maps cannot be drawn: set a "
                "montage, ca.info.set_montage(...), or see the numbers by get_components()"
            )
