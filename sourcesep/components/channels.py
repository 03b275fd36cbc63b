"""Which channels of MNE's objects are analysed, and their samples as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import moments_of, rank_of_moments
from sourcesep.messages import first_few

__all__ = [
    "DATA_TYPES",
    "any_samples",
    "kind_of",
    "pick",
    "refuse_broken",
    "samples",
    "to_one_scale",
    "with_drops",
]

DATA_TYPES = ("mag", "grad", "eeg", "seeg", "ecog", "dbs")
"""Channel types that are analysed if none are named."""
ALLOWED_TYPES = (*DATA_TYPES, "eog")
GROUPS = {"data": DATA_TYPES, "meg": ("mag", "grad")}


def kind_of(inst: Any) -> str:
    """Return "raw", "epochs" or "evoked".

    Raises
    ------
    InputError
        If it is none of MNE's objects.
    """
    import mne

    classes = {"raw": mne.io.BaseRaw, "epochs": mne.BaseEpochs, "evoked": mne.Evoked}
    for kind, its in classes.items():
        if isinstance(inst, its):
            return kind
    raise InputError(
        f"inst of type {type(inst).__name__}: must be MNE's Raw, Epochs or Evoked; make one of an "
        "array with mne.io.RawArray"
    )


def with_drops(inst: Any) -> Any:
    """Return `inst`, or of Epochs that are not loaded a loaded copy: how many are good is open."""
    if kind_of(inst) != "epochs" or inst.preload:
        return inst
    import mne

    with mne.use_log_level("error"):
        return inst.copy().load_data()


def pick(info: Any, picks: Any = None) -> list[str]:
    """Return the names of the channels to analyse.

    Parameters
    ----------
    info : mne.Info
        Of the recording.
    picks : str, int, slice, sequence of str or int, or None
        Channel types, ``"data"``, ``"meg"``, ``"all"``, names or numbers. Channels marked bad are
        left out unless named one by one. None: all good channels of `DATA_TYPES`.

    Raises
    ------
    SettingsError
        If `picks` names what is not there, or a type that has no sources.
    InputError
        If nothing is left.
    """
    names, types = list(info["ch_names"]), info.get_channel_types()
    if isinstance(picks, slice):
        picks = list(range(len(names))[picks])
    items = ["data"] if picks is None else [picks] if isinstance(picks, str | int) else list(picks)
    chosen: set[int] = set()
    for item in items:
        chosen.update(_matching(item, names, types, set(info["bads"])))
    if not chosen:
        counts = ", ".join(f"{types.count(t)} {t}" for t in sorted(set(types))) or "none"
        raise InputError(
            f"picks={picks!r}: no good channel to analyse; there are {counts}, "
            f"{len(info['bads'])} of them marked bad: set channel types, or clear the bads"
        )
    odd = sorted({types[i] for i in chosen} - set(ALLOWED_TYPES))
    if odd:
        raise SettingsError(
            f"picks={picks!r}: channels of type {', '.join(odd)} hold no mixed sources; allowed "
            f"are {', '.join(ALLOWED_TYPES)}"
        )
    return [names[i] for i in sorted(chosen)]


def _matching(item: Any, names: list[str], types: list[str], bads: set[str]) -> list[int]:
    if isinstance(item, int | np.integer) and -len(names) <= item < len(names):
        return [int(item) % len(names)]
    if item in names:
        return [names.index(item)]
    groups = GROUPS | {"all": tuple(types)}
    wanted = groups.get(item, (item,)) if isinstance(item, str) else ()
    if item in groups or item in types:
        return [
            i
            for i, (name, kind) in enumerate(zip(names, types, strict=True))
            if kind in wanted and name not in bads
        ]
    raise SettingsError(
        f"picks={item!r}: no such channel or type; types are {', '.join(sorted(set(types)))}, "
        f"channels {first_few(names)}"
    )


def samples(inst: Any, names: Sequence[str]) -> Array:
    """Return these channels' samples, (n_channels, n_times); epochs follow each other.

    Raises
    ------
    InputError
        If a channel is missing, or a sample of one is not finite.
    """
    data = any_samples(inst, names)
    refuse_broken(names, ~np.isfinite(data.sum(axis=1)))  # finite if all it is of is
    return data


def refuse_broken(names: Sequence[str], is_broken: NDArray[np.bool_]) -> None:
    """Name the channels that hold what is not finite, if there are any (InputError)."""
    broken = [name for name, its in zip(names, is_broken, strict=True) if its]
    if broken:
        raise InputError(
            f"NaN or infinite samples in channel {first_few(broken)}: mark it bad, or "
            "interpolate it; or annotate where they are as BAD for the fit"
        )


def any_samples(inst: Any, names: Sequence[str], start: int = 0, stop: int | None = None) -> Array:
    """Do as `samples`, whether they are finite or not; of a Raw from `start` to `stop`."""
    missing = [name for name in names if name not in inst.ch_names]
    if missing:
        which, are = ("channels", "are") if len(missing) > 1 else ("channel", "is")
        raise InputError(
            f"{which} {first_few(missing)} {are} missing: all {len(names)} channels of the fit "
            "are needed; interpolate, or fit without them"
        )
    order = [inst.ch_names.index(name) for name in names]
    if kind_of(inst) == "evoked":
        data = inst.data[order]
    elif kind_of(inst) == "raw":
        data = inst.get_data(order, start=start, stop=stop, verbose="error")
    else:
        epochs = inst.get_data(order, verbose="error")
        data = epochs.swapaxes(0, 1).reshape(len(order), -1)
    own: Array = np.asarray(data, np.float64)
    return own


def to_one_scale(x: Array, types: Sequence[str], most: int) -> tuple[Array, tuple[Array, Array]]:
    """Divide channels, in place, by what makes volts and teslas comparable.

    Channels of one type stay as they are to each other. One type alone is divided by its
    standard deviation; each of several by that of its noise, so that components are what stands
    out of it, and noise can be taken to be as loud in all channels.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Samples.
    types : sequence of str
        Of each channel.
    most : int
        The rank by the headers.

    Returns
    -------
    scale : ndarray of shape (n_channels,)
        What channels were divided by.
    moments : tuple of ndarray
        Mean and covariance of the result.
    """
    mean, covariance = moments_of(x)
    variances = np.diag(covariance)
    if len(set(types)) > 1:
        variances = _unexplained(covariance, min(rank_of_moments(mean, covariance), most))
    kinds: NDArray[np.str_] = np.array(types)
    scale = np.ones(len(x))
    for kind in set(types):
        if (varies := (kinds == kind) & (variances > 0)).any():
            scale[kinds == kind] = np.sqrt(np.median(variances[varies]))
    x /= scale[:, None]
    return scale, (mean / scale, covariance / np.outer(scale, scale))


def _unexplained(covariance: Array, rank: int) -> Array:
    """The variance of each channel's noise: what all others leave of it, if they are many.

    Of white noise that a projector P has been through (reference, SSS), the inverse of the
    covariance within the rank has P's diagonal over the noise's variance, not 1 over it.
    """
    variances = np.diag(covariance)
    deviations = np.sqrt(np.where(variances > 0, variances, 1))
    values, vectors = np.linalg.eigh(covariance / np.outer(deviations, deviations))
    shares = np.square(vectors[:, -rank:])
    precision = (shares / values[-rank:]).sum(axis=1)
    unexplained: Array = variances * shares.sum(axis=1) / np.where(precision > 0, precision, 1)
    return unexplained
