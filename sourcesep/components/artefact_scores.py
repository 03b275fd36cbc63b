"""How much components look like eyes, heart or muscle."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import signal
from scipy.special import expit

from sourcesep.components.channels import kind_of
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.model import Array
from sourcesep.messages import first_few

__all__ = ["THRESHOLDS", "above", "ecg_scores", "eog_scores", "find_artefacts", "muscle_scores"]

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
FEWEST_BEATS = 10
MUSCLE = (7.0, 45.0)
"""Hz over which a spectrum's slope tells muscle from brain."""
FAST = (30.0, 45.0)
"""Hz in which muscles wax and wane, above the brain's beta rhythm."""
TENSION = 0.5
"""Seconds over which a muscle's power is followed."""
THRESHOLDS = {"eog": 0.5, "ecg": 0.3, "muscle": 0.5}
"""Least score of a component that is taken for one of these."""


def find_artefacts(
    kinds: Sequence[str], sources: Any, inst: Any
) -> dict[str, dict[str, list[Any]]]:
    """Find components of each kind: those whose scores reach its usual threshold.

    Parameters
    ----------
    kinds : sequence of {"eog", "ecg", "muscle"}
        What is looked for.
    sources : mne.io.BaseRaw or mne.BaseEpochs
        A channel a component.
    inst : mne.io.BaseRaw or mne.BaseEpochs
        The recording that they were found in.

    Returns
    -------
    dict of str to dict
        For each kind the ``components`` found, the clearest first, and the ``scores`` of all.

    Raises
    ------
    SettingsError
        If a kind is unknown.
    InputError
        If the recording does not show what is looked for.

    Warns
    -----
    SourcesepWarning
        If no component is of a kind.
    """
    unknown = [kind for kind in kinds if kind not in THRESHOLDS]
    if unknown:
        raise SettingsError(
            f"exclude={unknown[0]}: must be numbers of components, or of {', '.join(THRESHOLDS)}"
        )
    scores_of: dict[str, Callable[[Any, Any], Array]] = {
        "eog": eog_scores,
        "ecg": ecg_scores,
        "muscle": muscle_scores,
    }
    found = {}
    for kind in kinds:
        try:
            scores = scores_of[kind](sources, inst)
        except InputError as error:
            raise InputError(f"exclude={kind}: {error}; or leave {kind} out") from error
        components = above(scores, THRESHOLDS[kind])
        found[kind] = {"components": components, "scores": scores.round(4).tolist()}
        if not components:
            warnings.warn(
                f"exclude={kind}: no component scores {THRESHOLDS[kind]:g} or more (the highest "
                f"has {scores.max():.2f}): none is removed for it",
                SourcesepWarning,
                stacklevel=4,
            )
    return found


def above(scores: Array, threshold: float) -> list[int]:
    """Return the components that score at least `threshold`, the clearest first."""
    if not (isinstance(threshold, Real) and 0 < threshold < 1):
        raise SettingsError(
            f"threshold={threshold!r}: must be a number between 0 and 1, as the scores are; MNE's "
            "thresholds are for other scores"
        )
    return [int(k) for k in np.argsort(-scores, kind="stable") if scores[k] >= threshold]


def eog_scores(sources: Any, inst: Any, ch_name: str | Sequence[str] | None = None) -> Array:
    """Return the largest correlation of each component with a channel that sees the eyes.

    Parameters
    ----------
    sources, inst : mne.io.BaseRaw or mne.BaseEpochs
        Components, and the recording they were found in.
    ch_name : str or sequence of str, optional
        Channels that see the eyes; by default those of type EOG or with EOG in their names,
        else frontal ones.

    Raises
    ------
    InputError
        If no channel sees the eyes.
    """
    traces, sfreq = _traces(sources, inst)
    eyes = _filtered(_eyes(inst, ch_name), sfreq, EYES)
    traces = _filtered(traces, sfreq, EYES)
    scores: Array = np.abs(np.corrcoef(traces, eyes)[: len(traces), len(traces) :]).max(axis=1)
    return scores


def ecg_scores(sources: Any, inst: Any, ch_name: str | None = None) -> Array:
    """Return the share of each component's standard deviation that is locked to heartbeats.

    Parameters
    ----------
    sources, inst : mne.io.BaseRaw or mne.BaseEpochs
        Components, and the recording they were found in.
    ch_name : str, optional
        The ECG; by default the first channel of that type or name, else the mean magnetometer.

    Raises
    ------
    InputError
        If there is no ECG, or no heartbeat in it.
    """
    traces, sfreq = _traces(sources, inst)
    beats = _beats(_heart(inst, ch_name)[0], sfreq)
    window = np.arange(round(BEAT[0] * sfreq), round(BEAT[1] * sfreq))
    beats = beats[(beats + window[0] >= 0) & (beats + window[-1] < traces.shape[1])]
    if len(beats) < FEWEST_BEATS:
        raise InputError(
            f"{len(beats)} heartbeats found: {FEWEST_BEATS} at least are needed; check the ECG "
            "channel"
        )
    pieces = signal.detrend(traces, axis=1, type="constant")[:, beats[:, None] + window]
    total = pieces.var(axis=(1, 2))
    locked = pieces.mean(axis=1).var(axis=1) - total / len(beats)
    scores: Array = np.sqrt(np.clip(locked, 0, None) / np.where(total > 0, total, 1))
    return scores


def muscle_scores(sources: Any, inst: Any) -> Array:
    """Return how flat the spectrum of each component is, and how much it waxes and wanes.

    Parameters
    ----------
    sources, inst : mne.io.BaseRaw or mne.BaseEpochs
        Components, and the recording they were found in.

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
    traces, sfreq = _traces(sources, inst)
    frequency, power = signal.welch(traces, sfreq, nperseg=min(int(2 * sfreq), len(traces.T)))
    inside = (frequency >= MUSCLE[0]) & (frequency <= MUSCLE[1])
    slope = np.polyfit(np.log10(frequency[inside]), np.log10(power[:, inside]).T, 1)[0]
    size = int(TENSION * sfreq)
    fast = _filtered(traces, sfreq, FAST)[:, : traces.shape[1] // size * size]
    tension = np.log(np.square(fast).reshape(len(fast), -1, size).mean(axis=2))
    chance = 1 / ((FAST[1] - FAST[0]) * TENSION)  # of a log variance: 2 / degrees of freedom
    modulation = np.sqrt(np.clip(tension.var(axis=1) - chance, 0, None))
    scores: Array = expit((slope + 0.5) / 0.25) * expit((modulation - 0.25) / 0.05)
    return scores


def _traces(sources: Any, inst: Any) -> tuple[Array, float]:
    """Time courses without what is marked bad, (n_components, n_times), and their rate."""
    if kind_of(inst) == "evoked":
        raise InputError("inst is an Evoked: artefacts are found in Raw or Epochs; give these")
    return _good(sources, None), float(inst.info["sfreq"])


def _eyes(inst: Any, ch_name: str | Sequence[str] | None) -> Array:
    """Signals of the channels that see the eyes, (n_channels, n_times)."""
    if ch_name is not None:
        return _good(inst, [ch_name] if isinstance(ch_name, str) else list(ch_name))
    eog = _of_type(inst, "eog") or _named(inst, "eog")
    if eog:
        return _good(inst, eog)
    frontal = [name for name in FRONTAL if name in inst.ch_names]
    frontal = frontal or _most_frontal(inst)
    if not frontal:
        raise InputError(
            "no EOG channel, and no electrode known to be frontal: give the channel that sees the "
            "eyes the type EOG or a name with EOG in it, or set a montage"
        )
    warnings.warn(
        f"no EOG channel: the mean of {', '.join(frontal)} is taken for one; frontal brain "
        "sources may be mistaken for eyes",
        SourcesepWarning,
        stacklevel=5,
    )
    return _mean(_good(inst, frontal))


def _heart(inst: Any, ch_name: str | None) -> Array:
    """The ECG, (1, n_times)."""
    seen = _of_type(inst, "ecg") or _named(inst, "ecg", "ekg")
    names = [ch_name] if ch_name is not None else seen[:1]
    if names:
        return _good(inst, names)
    magnetometers = _of_type(inst, "mag")
    if not magnetometers:
        raise InputError(
            "no ECG channel: give the channel that sees the heart the type ECG or a name with ECG "
            "in it"
        )
    return _mean(_good(inst, magnetometers))


def _good(inst: Any, names: list[str] | None) -> Array:
    """Samples that are not marked bad, (n_channels, n_times)."""
    missing = [name for name in names or () if name not in inst.ch_names]
    if missing:
        raise SettingsError(
            f"ch_name={missing[0]!r}: no such channel in this recording; there are "
            f"{first_few(inst.ch_names)}"
        )
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


def _named(inst: Any, *words: str) -> list[str]:
    """Good channels of whatever type whose names say what they are, as files without types do."""
    bads = inst.info["bads"]
    return [n for n in inst.ch_names if n not in bads and any(w in n.lower() for w in words)]


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
