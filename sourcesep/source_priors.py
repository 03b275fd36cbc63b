"""Trained priors of sources: their file, and whether one fits a recording."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.devices import require_torch_for
from sourcesep.ivae.stft.guided import numbers_of
from sourcesep.ivae.stft.source_prior import Network, SourcePrior
from sourcesep.persistence import SOURCE_PRIOR, read_file, write_file
from sourcesep.recording import Recording, longest_in_memory
from sourcesep.samples import Resampled, Samples

__all__ = ["guided_by", "load_prior", "prepared", "save_prior"]

LARGEST_FACTOR = 2000
"""Up to which rates are brought to each other as a ratio of whole numbers."""


def save_prior(prior: SourcePrior, path: str | Path) -> None:
    """Write a trained prior to one file; equal ones make equal bytes.

    Parameters
    ----------
    prior : SourcePrior
        As `train_prior` returns it.
    path : str or pathlib.Path
        Ends in ``.safetensors``; replaced if it exists.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    facts = {
        "network": asdict(prior.network),
        "labels": list(prior.labels),
        "sfreq": prior.sfreq,
        "stft": {"size": prior.size, "hop": prior.size // 4, "window": "root of Hann"},
        "likeness": list(prior.likeness),
        "card": prior.card,
    }
    write_file(Path(path), SOURCE_PRIOR, facts, prior.tensors)


def load_prior(path: str | Path) -> SourcePrior:
    """Read a trained prior.

    Parameters
    ----------
    path : str or pathlib.Path
        Written by `train_prior` or ``sourcesep train --kind prior``.

    Returns
    -------
    SourcePrior
        For ``separate(prior=...)``.

    Raises
    ------
    ModelFileError
        If it is no trained prior, damaged, or of a newer format.
    """
    with read_file(Path(path), SOURCE_PRIOR) as (facts, tensors):
        stft = facts["stft"]
        network = Network(**facts["network"])
        if stft["hop"] * 4 != stft["size"] or stft["size"] // 2 + 1 != network.n_features:
            raise ValueError(f"stft={stft} has other cells than the network knows")
        mean, deviation = map(float, facts["likeness"])
        return SourcePrior(
            network,
            tensors,
            tuple(map(str, facts["labels"])),
            float(facts["sfreq"]),
            stft["size"],
            (mean, deviation),
            dict(facts["card"]),
        )


def guided_by(
    prior: Any,
    labels: str | Sequence[str] | None,
    mixing: str,
    n_components: int | None,
    model: Any,
) -> tuple[SourcePrior | None, tuple[str, ...] | None]:
    """The prior and the labels that are asked for, before anything else is read.

    Raises
    ------
    SettingsError
        If they do not go with each other, or with the other settings of `separate`.
    ModelFileError
        If the prior's file holds none.
    """
    if prior is None:
        return None, None
    if model is not None:
        raise SettingsError(f"prior={prior}: a fitted model is used as it is; give one of the two")
    if mixing not in ("auto", "convolutive"):
        raise SettingsError(
            f"mixing={mixing}: a trained prior is for convolutive mixing only; leave "
            "mixing or the prior out"
        )
    require_torch_for("a trained prior")
    trained = load_prior(prior) if isinstance(prior, str | Path) else prior
    if not isinstance(trained, SourcePrior):
        raise SettingsError(f"prior={prior!r}: must be a file of train_prior, or what it returns")
    if labels is None:
        return trained, None
    names = labels.split(",") if isinstance(labels, str) else labels
    kinds = tuple(name.strip() for name in names)
    numbers_of(kinds, trained.labels, n_components)
    return trained, kinds


def prepared(recording: Recording, prior: SourcePrior | None, resample: bool) -> Recording:
    """Return a recording of the prior's rate.

    A polyphase filter changes the rate (`samples.Resampled`): its error is far below what
    separation leaves. A long file is resampled when it is sliced.

    Raises
    ------
    InputError
        If it has another rate, and may not be resampled.
    """
    if prior is None:
        return recording
    if recording.n_channels < 2:
        raise InputError(
            "n_channels=1: a trained prior separates recordings of two or more channels; it does "
            "not help with one"
        )
    if recording.sfreq == prior.sfreq:
        return recording
    if not resample:
        raise InputError(
            f"sfreq={recording.sfreq:g}: the prior knows sounds at {prior.sfreq:g} Hz; ask for "
            "--resample, or train one at the recording's rate"
        )
    ratio = Fraction(prior.sfreq / recording.sfreq).limit_denominator(LARGEST_FACTOR)
    if not np.isclose(float(ratio) * recording.sfreq, prior.sfreq, rtol=1e-6):
        raise InputError(
            f"sfreq={recording.sfreq:g}: cannot be brought to the prior's {prior.sfreq:g} Hz by a "
            "ratio of small numbers; resample it first"
        )
    warnings.warn(
        f"resampled from {recording.sfreq:g} Hz to the prior's {prior.sfreq:g} Hz: the sources "
        "have that rate, and add up to the resampled recording",
        SourcesepWarning,
        stacklevel=3,
    )
    data: Samples = Resampled(recording.data, ratio)
    if recording.in_memory or data.shape[1] <= longest_in_memory(recording.n_channels):
        data = data[:]
    return replace(recording, data=data, sfreq=prior.sfreq, columns={}, origin=None)
