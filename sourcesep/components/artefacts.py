"""Which components are eyes, heart or muscle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import signal
from scipy.special import expit

from sourcesep.components.channels import kind_of
from sourcesep.components.decomposition import Decomposition
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.ivae.model import Array

__all__ = ["ArtefactFinder"]

EYES = (1.0, 10.0)
"""Hz in which blinks and eye movements have their power."""
FRONTAL = ("Fp1", "Fpz", "Fp2", "AF7", "AF8")
"""Channels that see the eyes where no EOG was recorded."""
QRS = (8.0, 30.0)
"""Hz in which heartbeats stand out of an ECG."""
FASTEST_BEAT = 0.4
"""Seconds between two heartbeats, at least."""
BEAT = (-0.15, 0.35)
"""Seconds about a heartbeat that are averaged."""
MUSCLE = (7.0, 45.0)
"""Hz over which a spectrum's slope tells muscle from brain."""
FAST = (30.0, 45.0)
"""Hz in which muscles wax and wane, above the brain's beta rhythm."""
TENSION = 0.5
"""Seconds over which a muscle's power is followed."""


class ArtefactFinder(Decomposition):
    """Components that can be compared with what eyes, heart and muscles do."""

    def find_bads_eog(
        self, inst: Any, ch_name: str | Sequence[str] | None = None, threshold: float = 0.5
    ) -> tuple[list[int], Array]:
        """Find components that follow the eyes.

        Components do not correlate, so their squared scores are the shares that each
        explains of an EOG channel.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Recording with the channels of the fit, and EOG if there is any.
        ch_name : str or sequence of str, optional
            Channels that see the eyes; by default all of type EOG, and if there are none,
            the mean of the frontal electrodes, where a warning says so.
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
        sources, sfreq = self._traces(inst)
        eyes = _filtered(self._eyes(inst, ch_name), sfreq, EYES)
        sources = _filtered(sources, sfreq, EYES)
        scores = np.abs(np.corrcoef(sources, eyes)[: len(sources), len(sources) :]).max(axis=1)
        return self._labelled("eog", scores, threshold)

    def find_bads_ecg(
        self, inst: Any, ch_name: str | None = None, threshold: float = 0.3
    ) -> tuple[list[int], Array]:
        """Find components that beat with the heart.

        Parameters
        ----------
        inst : mne.io.BaseRaw or mne.BaseEpochs
            Recording with the channels of the fit, and an ECG.
        ch_name : str, optional
            The ECG; by default the first channel of that type, and without one the mean
            of the magnetometers.
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
        sources, sfreq = self._traces(inst)
        beats = _beats(self._heart(inst, ch_name)[0], sfreq)
        window = np.arange(round(BEAT[0] * sfreq), round(BEAT[1] * sfreq))
        beats = beats[(beats + window[0] >= 0) & (beats + window[-1] < sources.shape[1])]
        if len(beats) < 10:
            raise InputError(
                f"{len(beats)} heartbeats found: 10 at least are needed; check the ECG channel"
            )
        pieces = signal.detrend(sources, axis=1, type="constant")[:, beats[:, None] + window]
        total = pieces.var(axis=(1, 2))
        locked = pieces.mean(axis=1).var(axis=1) - total / len(beats)
        scores = np.sqrt(np.clip(locked, 0, None) / np.where(total > 0, total, 1))
        return self._labelled("ecg", scores, threshold)

    def find_bads_muscle(self, inst: Any, threshold: float = 0.5) -> tuple[list[int], Array]:
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
        low_pass = min(inst.info["lowpass"], inst.info["sfreq"] / 2)
        if low_pass < MUSCLE[1]:
            raise InputError(
                f"lowpass={low_pass:g} Hz: muscles are told by frequencies up to {MUSCLE[1]:g} "
                "Hz; give data that still have them"
            )
        sources, sfreq = self._traces(inst)
        frequency, power = signal.welch(
            sources, sfreq, nperseg=min(int(2 * sfreq), len(sources.T))
        )
        inside = (frequency >= MUSCLE[0]) & (frequency <= MUSCLE[1])
        slope = np.polyfit(np.log10(frequency[inside]), np.log10(power[:, inside]).T, 1)[0]
        size = int(TENSION * sfreq)
        fast = _filtered(sources, sfreq, FAST)[:, : sources.shape[1] // size * size]
        tension = np.log(np.square(fast).reshape(len(fast), -1, size).mean(axis=2))
        chance = 1 / ((FAST[1] - FAST[0]) * TENSION)  # of a log variance: 2 / degrees of freedom
        modulation = np.sqrt(np.clip(tension.var(axis=1) - chance, 0, None))
        scores = expit((slope + 0.5) / 0.25) * expit((modulation - 0.25) / 0.05)
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
        if not 0 < threshold < 1:
            raise SettingsError(f"threshold={threshold!r}: must be between 0 and 1")
        falling = np.argsort(-scores, kind="stable")
        indices = [int(k) for k in falling if scores[k] >= threshold]
        self.labels_[name] = indices
        return indices, scores

    def _traces(self, inst: Any) -> tuple[Array, float]:
        """Time courses without what is marked bad, (n_components, n_times), and their rate."""
        if kind_of(inst) == "evoked":
            raise InputError("inst is an Evoked: artefacts are found in Raw or Epochs")
        return _good(self.get_sources(inst), None), float(inst.info["sfreq"])

    def _eyes(self, inst: Any, ch_name: str | Sequence[str] | None) -> Array:
        """Signals of the channels that see the eyes, (n_channels, n_times)."""
        if ch_name is not None:
            return _good(inst, [ch_name] if isinstance(ch_name, str) else list(ch_name))
        eog = _of_type(inst, "eog")
        if eog:
            return _good(inst, eog)
        frontal = [name for name in FRONTAL if name in inst.ch_names]
        frontal = frontal or _most_frontal(inst)
        if not frontal:
            raise InputError(
                "no EOG channel, and no electrode known to be frontal: name one as ch_name, or "
                "set a montage"
            )
        warnings.warn(
            f"no EOG channel: the mean of {', '.join(frontal)} is taken for one; frontal brain "
            "sources may be mistaken for eyes",
            SourcesepWarning,
            stacklevel=4,
        )
        return _mean(_good(inst, frontal))

    def _heart(self, inst: Any, ch_name: str | None) -> Array:
        """The ECG, (1, n_times)."""
        names = [ch_name] if ch_name is not None else _of_type(inst, "ecg")[:1]
        if names:
            return _good(inst, names)
        magnetometers = _of_type(inst, "mag")
        if not magnetometers:
            raise InputError("no ECG channel: name the one that sees the heart as ch_name")
        return _mean(_good(inst, magnetometers))


def _good(inst: Any, names: list[str] | None) -> Array:
    """Samples that are not marked bad, (n_channels, n_times)."""
    missing = [name for name in names or () if name not in inst.ch_names]
    if missing:
        raise SettingsError(f"ch_name={missing[0]!r}: no such channel in this recording")
    picks = range(len(inst.ch_names)) if names is None else map(inst.ch_names.index, names)
    if kind_of(inst) == "raw":
        data = inst.get_data(list(picks), reject_by_annotation="omit", verbose="error")
    else:
        epochs = inst.get_data(list(picks), verbose="error")
        data = epochs.swapaxes(0, 1).reshape(epochs.shape[1], -1)
    samples: Array = np.asarray(data, np.float64)
    return samples


def _mean(x: Array) -> Array:
    mean: Array = x.mean(axis=0, keepdims=True)
    return mean


def _of_type(inst: Any, kind: str) -> list[str]:
    """Good channels of a type."""
    types = inst.get_channel_types()
    bads = inst.info["bads"]
    return [n for n, t in zip(inst.ch_names, types, strict=True) if t == kind and n not in bads]


def _most_frontal(inst: Any) -> list[str]:
    """The three electrodes farthest to the front, where positions are known."""
    places = {
        channel["ch_name"]: channel["loc"][1]
        for channel in inst.info["chs"]
        if channel["ch_name"] in _of_type(inst, "eeg")
        and np.isfinite(channel["loc"][:3]).all()
        and channel["loc"][:3].any()
    }
    return sorted(places, key=lambda name: -places[name])[:3] if len(places) > 3 else []


def _filtered(x: Array, sfreq: float, band: tuple[float, float]) -> Array:
    """Pass a band, without shifting anything in time."""
    sections = signal.butter(
        4, [band[0], min(band[1], 0.45 * sfreq)], "band", fs=sfreq, output="sos"
    )
    passed: Array = signal.sosfiltfilt(sections, x, axis=-1)
    return passed


def _beats(ecg: Array, sfreq: float) -> Array:
    """Samples at which the heart beats."""
    strength = np.abs(signal.hilbert(_filtered(ecg, sfreq, QRS)))
    size = int(2 * sfreq)
    usual = np.median(
        [piece.max() for piece in np.array_split(strength, max(1, len(ecg) // size))]
    )
    peaks: Array = signal.find_peaks(strength, 0.5 * usual, distance=int(FASTEST_BEAT * sfreq))[0]
    return peaks
