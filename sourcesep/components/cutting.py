"""Samples cut out of MNE's Raw and Epochs: what `ComponentAnalysis.fit` is asked to fit on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import whole
from sourcesep.components.channels import any_samples, kind_of, refuse_broken
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.factors import good_samples
from sourcesep.ivae.model import Array
from sourcesep.recording import Event, Recording

__all__ = ["Cut", "Part", "part_of"]

MOST_VALUES = 100_000_000
"""Samples times channels that a fit holds of one Raw, .8 GB at a time."""
STRETCH_SECONDS = 64.0
"""Length of those that it is fitted on if it has more."""


@dataclass(frozen=True)
class Cut:
    """Which samples to fit on, as `mne.preprocessing.ICA.fit` has it."""

    start: float | None = None
    stop: float | None = None
    decim: int | None = None
    reject: dict[str, float] | None = None
    flat: dict[str, float] | None = None
    tstep: float = 2.0
    reject_by_annotation: bool = True

    def __post_init__(self) -> None:
        if self.decim is not None:
            whole(1, decim=self.decim)
        if not self.tstep > 0:
            raise SettingsError(f"tstep={self.tstep!r}: must be seconds above 0")

    @property
    def step(self) -> int:
        """Samples of the recording for each one that is used."""
        return int(self.decim or 1)


@dataclass(frozen=True)
class Part:
    """One recording of a fit.

    Parameters
    ----------
    recording : Recording
        Its samples.
    used : ndarray of bool, shape (n_times,)
        Those to fit on.
    stretch : int
        Samples between two gaps in time: an epoch's length, or all.
    """

    recording: Recording
    used: NDArray[np.bool_]
    stretch: int


def part_of(inst: Any, names: Sequence[str], cut: Cut) -> Part:
    """Cut the samples to fit on out of a Raw or Epochs.

    Raises
    ------
    InputError
        If it is neither, has no epochs, or has samples that cannot be used.
    SettingsError
        If the cut cannot be made.
    """
    kind = kind_of(inst)
    if kind == "evoked":
        raise InputError("inst is an Evoked: an average is too little to fit on; give its epochs")
    if kind == "epochs" and len(inst) == 0:
        raise InputError("inst has no epochs left, so there is nothing to fit; see its drop_log")
    rate = float(inst.info["sfreq"]) / cut.step
    take = _of_raw if kind == "raw" else _of_epochs
    data, stretch, events, columns = take(inst, names, cut, rate)
    lost = None if np.isfinite(data.sum()) else ~np.isfinite(data)
    if lost is not None:
        data[lost] = 0.0
    recording = Recording(
        data, rate, tuple(names), ("",) * len(names), "eeg", events=events, columns=columns
    )
    skip_bad = cut.reject_by_annotation
    used = good_samples(recording) if skip_bad else np.ones(recording.n_times, bool)
    if lost is not None:
        refuse_broken(names, np.any(lost[:, used], axis=1))
    if cut.reject or cut.flat:
        size = stretch if kind == "epochs" else max(1, round(cut.tstep * rate))
        used = _within_limits(data, used, inst.get_channel_types(list(names)), size, cut)
    return Part(recording, used, stretch)


class _Taken(NamedTuple):
    """Samples (n_channels, n_times), how many lie between two gaps, and what is known of them."""

    data: Array
    stretch: int
    events: tuple[Event, ...]
    columns: dict[str, Any]


def _of_raw(raw: Any, names: Sequence[str], cut: Cut, rate: float) -> _Taken:
    """Cut samples at this rate out of a Raw: one stretch, or several of a long recording."""
    first, last = _limits(raw.n_times, cut, float(raw.info["sfreq"]))
    begins, size = _stretches(first, last, cut.step, len(names), rate)
    stretch = -(-size // cut.step)
    if len(begins) == cut.step == 1:
        data = any_samples(raw, names, first, last)
    else:  # written into one array: a long file is never held twice
        data = np.empty((len(names), len(begins) * stretch))
        for k, begin in enumerate(begins):
            piece = any_samples(raw, names, begin, begin + size)
            data[:, k * stretch : (k + 1) * stretch] = piece[:, :: cut.step]
    events = _annotations(raw, begins, size / raw.info["sfreq"], stretch / rate)
    return _Taken(data, stretch, events, {})


def _of_epochs(epochs: Any, names: Sequence[str], cut: Cut, rate: float) -> _Taken:
    """Lay the samples of Epochs, at this rate, end to end."""
    if cut.start is not None or cut.stop is not None:
        raise SettingsError("start, stop: cut a Raw only; crop the epochs instead")
    data = any_samples(epochs, names)
    by_epoch = data.reshape(len(data), len(epochs), -1)[:, :, :: cut.step]
    stretch = by_epoch.shape[2]
    events, columns = _conditions(epochs, stretch, rate)
    return _Taken(by_epoch.reshape(len(data), -1), stretch, events, columns)


def _limits(n_times: int, cut: Cut, sfreq: float) -> tuple[int, int]:
    """The numbers of the first sample and of the one after the last; floats are seconds."""
    for name, value in (("start", cut.start), ("stop", cut.stop)):
        if value is not None and not isinstance(value, int | float | np.integer):
            raise SettingsError(f"{name}={value!r}: must be a sample, or seconds as a float")
    first, last = (
        default if value is None else round(value * sfreq) if isinstance(value, float) else value
        for value, default in ((cut.start, 0), (cut.stop, n_times))
    )
    if not 0 <= first < last <= n_times:
        raise SettingsError(
            f"start={cut.start}, stop={cut.stop}: must lie in this order within the recording's "
            f"{n_times} samples ({n_times / sfreq:.6g} s); floats are seconds"
        )
    return int(first), int(last)


def _stretches(
    first: int, last: int, step: int, n_channels: int, rate: float
) -> tuple[list[int], int]:
    """Where the stretches to fit on begin, and their length, in samples of the file.

    All in one; of a recording that is too long to hold, some from its beginning to its end.
    """
    most = MOST_VALUES // n_channels
    if last - first <= most * step:
        return [first], last - first
    size = min(round(STRETCH_SECONDS * rate), most) * step
    number = max(1, most * step // size)
    return np.linspace(first, last - size, number).astype(int).tolist(), size


def _annotations(
    raw: Any, begins: Sequence[int], seconds: float, kept: float
) -> tuple[Event, ...]:
    """What is annotated within stretches of so many seconds, at the times they are kept at."""
    marks = raw.annotations
    events = []
    for k, begin in enumerate(begins):
        since = marks.onset - (raw.first_time + begin / raw.info["sfreq"])
        for onset, duration, description in zip(
            since, marks.duration, marks.description, strict=True
        ):
            from_, until = float(onset), float(onset + duration)
            if len(begins) > 1:  # what lasts longer goes on in the next stretch, or is not seen
                if until < 0 or from_ >= seconds:
                    continue
                from_, until = max(from_, 0.0), min(until, seconds)
            events.append(Event(k * kept + from_, until - from_, str(description)))
    return tuple(events)


def _conditions(
    epochs: Any, stretch: int, rate: float
) -> tuple[tuple[Event, ...], dict[str, Any]]:
    """Each epoch as an event called by its condition, and its metadata for every sample."""
    names = {code: name for name, code in epochs.event_id.items()}
    seconds = stretch / rate
    events = tuple(
        Event(k * seconds, seconds, names.get(code, str(code)))
        for k, code in enumerate(epochs.events[:, 2].tolist())
    )
    table = epochs.metadata
    if table is None:
        return events, {}
    return events, {str(c): np.repeat(table[c].to_numpy(), stretch) for c in table.columns}


def _within_limits(
    data: Array, used: NDArray[np.bool_], types: Sequence[str], size: int, cut: Cut
) -> NDArray[np.bool_]:
    """Leave out pieces of `size` used samples that swing too much or too little."""
    kinds, inside = np.array(types), used.copy()
    for name, limits in (("reject", cut.reject or {}), ("flat", cut.flat or {})):
        if not (isinstance(limits, dict) and all(isinstance(v, Real) for v in limits.values())):
            raise SettingsError(
                f"{name}={limits!r}: must give volts or teslas by type, as in {{'eeg': 150e-6}}"
            )
        odd = sorted(set(limits) - set(types))
        if odd:
            raise SettingsError(
                f"{name}={limits}: no picked channel is of type {', '.join(odd)}; there are "
                f"{', '.join(sorted(set(types)))}"
            )
    where = np.flatnonzero(used)
    for piece in np.split(where, range(size, len(where), size)):
        swing = np.ptp(data[:, piece], axis=1)
        if any(swing[kinds == kind].max() > most for kind, most in (cut.reject or {}).items()) or (
            any(swing[kinds == kind].min() < least for kind, least in (cut.flat or {}).items())
        ):
            inside[piece] = False
    return inside
