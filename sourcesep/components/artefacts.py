"""Which components are eyes, heart or muscle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from sourcesep.components.artefact_scores import (
    THRESHOLDS,
    above,
    ecg_scores,
    eog_scores,
    muscle_scores,
)
from sourcesep.components.decomposition import Decomposition
from sourcesep.exceptions import MissingDependencyError, SourcesepWarning
from sourcesep.ivae.model import Array

__all__ = ["ArtefactFinder"]


class ArtefactFinder(Decomposition):
    """Components that can be compared with what eyes, heart and muscles do."""

    def find_bads_eog(
        self,
        inst: Any,
        ch_name: str | Sequence[str] | None = None,
        threshold: float = THRESHOLDS["eog"],
    ) -> tuple[list[int], Array]:
        """Find components that follow the eyes.

        Components do not correlate, so their squared scores are the shares that each
        explains of an EOG channel.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Recording with the channels of the fit, and EOG if there is any.
        ch_name : str or sequence of str, optional
            Channels that see the eyes; by default all of type EOG, or else with EOG in their
            names; if there are none, the mean of the frontal electrodes, where a warning
            says so.
        threshold : float
            Least score.

        Returns
        -------
        indices : list of int
            Components found, the clearest first; also ``labels_["eog"]``.
        scores : ndarray of shape (n_components,)
            Largest absolute correlation with any of the channels, from 1 to 10 Hz.

        Raises
        ------
        InputError
            If no channel sees the eyes.
        """
        scores = eog_scores(self.get_sources(inst), inst, ch_name)
        return self._labelled("eog", scores, threshold)

    def find_bads_ecg(
        self, inst: Any, ch_name: str | None = None, threshold: float = THRESHOLDS["ecg"]
    ) -> tuple[list[int], Array]:
        """Find components that beat with the heart.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Recording with the channels of the fit, and an ECG.
        ch_name : str, optional
            The ECG; by default the first channel of that type, or else with ECG or EKG in its
            name, and without one the mean of the magnetometers.
        threshold : float
            Least score.

        Returns
        -------
        indices : list of int
            Components found, the clearest first; also ``labels_["ecg"]``.
        scores : ndarray of shape (n_components,)
            Share of the component's standard deviation about heartbeats that is the same
            at every beat, beyond what averaging leaves of noise.

        Raises
        ------
        InputError
            If there is no ECG, or no heartbeat in it.
        """
        scores = ecg_scores(self.get_sources(inst), inst, ch_name)
        return self._labelled("ecg", scores, threshold)

    def find_bads_muscle(
        self, inst: Any, threshold: float = THRESHOLDS["muscle"]
    ) -> tuple[list[int], Array]:
        """Find components that are muscle.

        The power of brain sources falls with frequency, that of muscles does not; and
        unlike the noise of electrodes, which is as flat, muscles wax and wane.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Recording with the channels of the fit, at 100 Hz or more, not low-passed below
            45 Hz.
        threshold : float
            Least score.

        Returns
        -------
        indices : list of int
            Components found, the clearest first; also ``labels_["muscle"]``.
        scores : ndarray of shape (n_components,)
            From 0 to 1, by slope (half at -.5, in log power over log frequency from 7 to 45
            Hz) and modulation (half at .25, standard deviation of the log power from 30
            to 45 Hz beyond chance).

        Raises
        ------
        InputError
            If the rate or the low-pass is too low.
        """
        scores = muscle_scores(self.get_sources(inst), inst)
        return self._labelled("muscle", scores, threshold)

    def label_components(self, inst: Any) -> list[tuple[str, float]]:
        """Label all components by ICLabel; needs ``pip install mne-icalabel``.

        ICLabel was trained on EEG under the average reference, from 1 to 100 Hz. A warning
        says what of this is unmet.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            The recording of the fit, with positions of the electrodes.

        Returns
        -------
        list of (str, float)
            For each component its likeliest class and the probability; `labels_` gets the
            components by class.

        Raises
        ------
        MissingDependencyError
            If mne-icalabel is not installed.
        SettingsError
            If the mixing is not linear.
        """
        try:
            from mne_icalabel import label_components
        except ImportError as error:
            raise MissingDependencyError(
                "label_components needs mne-icalabel: pip install mne-icalabel onnxruntime"
            ) from error
        self._say_what_iclabel_misses(inst.info)
        ica = self.to_mne_ica()
        ica.labels_ = {}
        with warnings.catch_warnings():
            # what concerns the recording has been said; the algorithm it asks for is replaced
            warnings.simplefilter("ignore", RuntimeWarning)
            found = label_components(inst, ica, method="iclabel")
        self.labels_ |= {name: [int(k) for k in which] for name, which in ica.labels_.items()}
        return list(zip(found["labels"], map(float, found["y_pred_proba"]), strict=True))

    def _say_what_iclabel_misses(self, info: Any) -> None:
        referenced = any(
            proj["active"] and "average" in proj["desc"].lower() for proj in info["projs"]
        )
        unmet = [
            text
            for text, is_met in (
                ("the average reference", bool(info["custom_ref_applied"]) or referenced),
                ("a high-pass at 1 Hz", info["highpass"] == 1),
                ("a low-pass at 100 Hz", info["lowpass"] == 100),
            )
            if not is_met
        ]
        if unmet:
            warnings.warn(
                f"ICLabel was trained on data with {', '.join(unmet)}, which by the header these "
                "have not: its labels are less sure",
                SourcesepWarning,
                stacklevel=3,
            )

    def _labelled(self, name: str, scores: Array, threshold: float) -> tuple[list[int], Array]:
        self.labels_[name] = above(scores, threshold)
        return list(self.labels_[name]), scores
