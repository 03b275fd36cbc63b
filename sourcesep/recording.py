"""`Recording`: what an adapter hands to the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.clipping import Clipping
from sourcesep.exceptions import InputError
from sourcesep.messages import counted, first_few
from sourcesep.samples import (
    Samples,
    Stamp,
    Summary,
    check_unchanged,
    masked_as_nan,
    summarise,
)

__all__ = [
    "LARGEST",
    "LOWEST_HIGH_PASS",
    "SMALLEST",
    "Event",
    "Kind",
    "Recording",
    "check_magnitude",
    "from_array",
    "longest_in_memory",
]

Kind = Literal["audio", "eeg", "table", "array"]

LARGEST, SMALLEST = 1e100, 1e-150
"""Peaks beyond are refused: the sum of the squares must be a finite float, and above zero."""

MOST_IN_MEMORY = 2**22
"""An audio file with more samples, all channels together, is not held in memory: 48 s of stereo at
44.1 kHz. It is fitted on as many samples from all over it; more than 40 s of talkers did not
separate them better."""
FEWEST_TIMES = 2**18
"""Samples of a channel that are held at least: 6 s at 44.1 kHz separated 32 channels well."""

N_STRETCHES = 20
"""How many stretches of a long recording a model is fitted on."""

QUIET = 1e-4
"""Stretches with less than this share of the mean power are silent: they are not fitted on."""

LOWEST_HIGH_PASS = 0.5
"""Hz; below it slow drifts dominate the variance that sources of EEG are told apart by."""


def check_magnitude(low: float, high: float, where: str = "", least: float = SMALLEST) -> None:
    """Refuse samples that reach beyond `LARGEST`, or of which none reaches `least`, but zeros."""
    if (peak := max(-low, high)) > LARGEST or 0 < peak < least:
        bound = f"{LARGEST:g} is the largest" if peak > LARGEST else f"{least:g} is the smallest"
        raise InputError(
            f"{where}samples up to {peak:.3g}: {bound} that can be computed with; rescale the "
            "channels"
        )


@dataclass(frozen=True)
class Event:
    """A stretch of time with a name.

    Parameters
    ----------
    onset, duration : float
        In seconds from the first sample of the recording.
    description : str
        The label, e.g. ``"sleep stage 2"``.
    """

    onset: float
    duration: float
    description: str


@dataclass(frozen=True)
class Recording:
    """A multichannel signal and what is known about it.

    Parameters
    ----------
    data : ndarray, or Samples, of shape (n_channels, n_times)
        Samples as float64; audio in [-1, 1], EEG in volts, tables as given, NaN where a table
        or an array has no value. A long audio file's are read when they are sliced;
        ``data[:]`` reads them all.
    sfreq : float
        Samples a second (1 for tables: a row is a step).
    names : tuple of str
        One name a channel.
    units : tuple of str
        One unit a channel (``""`` where unknown).
    kind : {"audio", "eeg", "table", "array"}
        Which defaults apply, and which adapter writes the result.
    events : tuple of Event
        Annotations, used by ``aux="annotations"``.
    columns : mapping of str to ndarray of shape (n_times,)
        Further columns that ``aux="column:NAME"`` may name.
    path : pathlib.Path or None
        Where it was read from.
    origin : object
        What the adapter needs to write results in the input's own form.

    Raises
    ------
    InputError
        If the samples cannot be separated: not two-dimensional, empty, a single
        sample, not finite, beyond `LARGEST`, or silent throughout.
    """

    data: Samples
    sfreq: float
    names: tuple[str, ...]
    units: tuple[str, ...]
    kind: Kind
    events: tuple[Event, ...] = ()
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    path: Path | None = None
    origin: Any = None
    _stamp: Stamp | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        stamp = None if self.path is None else Stamp.of(self.path)
        object.__setattr__(self, "_stamp", stamp)
        self._check_shape()
        self._check_samples()

    @property
    def _where(self) -> str:
        """What messages begin with."""
        return "" if self.path is None else f"{self.path.name}: "

    def _check_shape(self) -> None:
        """Refuse what has no samples, or not a name and a unit for each channel."""
        shape = self.data.shape
        if len(shape) != 2:
            raise InputError(
                f"{self._where}shape={shape}: a recording has two axes, (channels, times)"
            )
        n_channels, n_times = shape
        if len(self.names) != n_channels or len(self.units) != n_channels:
            raise InputError(
                f"{self._where}{n_channels} channels but {len(self.names)} names and "
                f"{len(self.units)} units: give one of each a channel"
            )
        if not (np.isfinite(self.sfreq) and self.sfreq > 0):
            raise InputError(
                f"{self._where}sfreq={self.sfreq}: the sampling rate must be above 0 Hz"
            )
        if n_channels == 0 or n_times < 2:
            raise InputError(
                f"{self._where}n_channels={n_channels}, n_times={n_times}: at least one channel "
                "and two samples are needed; is this the right file?"
            )

    def _check_samples(self) -> None:
        """Refuse samples that no fit can work with."""
        low, high = self.summary.low, self.summary.high
        good = np.isfinite(low) & np.isfinite(high)
        if self.kind in ("audio", "eeg"):
            good &= self.summary.missing == 0
        bad = [n for n, is_good in zip(self.names, good, strict=True) if not is_good]
        if bad:
            raise InputError(
                f"{self._where}NaN or infinite samples in channel {first_few(bad)}: all must be "
                "finite; repair or leave out those channels"
            )
        check_magnitude(low.min(), high.max(), self._where)
        if self.summary.constant.all():
            raise InputError(
                f"{self._where}every channel is constant (silent): there is nothing to separate; "
                "check the recording"
            )

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.names)

    @property
    def n_times(self) -> int:
        """Number of samples in each channel."""
        return self.data.shape[1]

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.n_times / self.sfreq

    @property
    def in_memory(self) -> bool:
        """Whether `data` is an array; else it is read from a file whenever it is sliced."""
        return isinstance(self.data, np.ndarray)

    @cached_property
    def summary(self) -> Summary:
        """Extremes, mean and variance of each channel, computed piece by piece."""
        return summarise(self.data, max(1, longest_in_memory(self.n_channels) // N_STRETCHES))

    @cached_property
    def clipping(self) -> Clipping:
        """Where a sound was cut off at a peak."""
        return Clipping.of(self.data, self.summary)

    @cached_property
    def stretches(self) -> list[slice]:
        """Which samples to fit on: all, or of a long file stretches in which something sounds."""
        if self.in_memory:
            return [slice(0, self.n_times)]
        spans, power = self.summary.spans, self.summary.power
        lengths = np.array([span.stop - span.start for span in spans])
        sounding = np.flatnonzero(power > QUIET * np.average(power, weights=lengths))
        count = min(N_STRETCHES, len(sounding))
        chosen = np.linspace(0, len(sounding) - 1, count).round().astype(int)
        return [spans[i] for i in sounding[chosen]]

    def excerpt(self) -> NDArray[np.float64]:
        """Return the stretches to fit on, end to end."""
        if self.in_memory:
            return self.data[:]
        return np.concatenate([self.data[:, span] for span in self.stretches], axis=1)

    def part(self, span: slice) -> Recording:
        """Return a stretch of the recording, in memory."""
        if span == slice(0, self.n_times) and self.in_memory:
            return self
        moved = tuple(replace(e, onset=e.onset - span.start / self.sfreq) for e in self.events)
        columns = {name: values[span] for name, values in self.columns.items()}
        return replace(self, data=self.data[:, span], events=moved, columns=columns)

    def check_missing(self, cure: str) -> None:
        """Refuse missing values, naming the channels that have some."""
        missing = self.summary.missing
        if missing.any():
            named = first_few(counted(self.names, missing.tolist()))
            raise InputError(f"{self._where}NaN or missing values in channel {named}: {cure}")

    def check_unchanged(self) -> None:
        """Refuse to go on if the file has changed since it was read."""
        if self.path is not None:
            check_unchanged(self.path, self._stamp)


def longest_in_memory(n_channels: int) -> int:
    """Return the most samples of each channel with which a file is held in memory."""
    return max(MOST_IN_MEMORY // n_channels, FEWEST_TIMES)


def from_array(values: ArrayLike, sfreq: float) -> Recording:
    """Return a recording of an array of shape (n_channels, n_times) and its rate in hertz."""
    try:
        data, rate = np.asarray(masked_as_nan(values)), float(sfreq)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"type {data.dtype}")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"source: not an array of real numbers and its rate ({error}); give (array of shape "
            "(channels, times), sfreq)"
        ) from error
    count = len(data) if data.ndim else 0
    names = tuple(f"ch{i}" for i in range(count))
    return Recording(data.astype(np.float64), rate, names, ("",) * count, "array")
