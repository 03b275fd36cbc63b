"""Samples of several channels, in memory or in a file: read and summed up piece by piece."""

from __future__ import annotations

import hashlib
import math
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError
from sourcesep.messages import in_brief
from sourcesep.windows import edges

__all__ = ["Array", "Overlapping", "Resampled", "Samples", "Sliced", "Stamp", "Summary"]
__all__ += ["check_unchanged", "identical_channels", "map_npy", "masked_as_nan", "pieces"]
__all__ += ["summarise", "unchanged"]

Array = NDArray[np.float64]


class Samples(Protocol):
    """An array of shape (channels, times), or a file that is read when it is sliced.

    ``samples[:]`` is all of it as an array.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of channels and of samples in each."""

    def __getitem__(self, key: Any, /) -> Array:
        """Some of the samples, as an array: ``samples[channels, start:stop]``."""


def masked_as_nan(values: Any) -> Any:
    """Return values as they are, but a masked array with NaN where it is masked."""
    if not np.ma.isMaskedArray(values):
        return values
    return np.ma.filled(values.astype(np.float64), np.nan)


class Sliced(ABC):
    """`Samples` of a file: a subclass reads them from one time to another."""

    shape: tuple[int, int]

    @abstractmethod
    def _read(self, start: int, stop: int) -> Array:
        """All channels from start up to stop, which is not below it."""

    def __getitem__(self, key: Any) -> Array:
        channels, times = key if isinstance(key, tuple) else (key, slice(None))
        start, stop, step = times.indices(self.shape[1])
        if step != 1:
            raise IndexError(f"times={times}: such samples are sliced in steps of 1")
        samples: Array = self._read(start, max(start, stop))[channels]
        return samples

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


class Stamp(NamedTuple):
    """Size and time of change of a file, by which it is known to be the one that was opened."""

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Return the stamp of a file, None if there is none."""
        try:
            facts = path.stat()
        except OSError:
            return None
        return cls(facts.st_size, facts.st_mtime_ns)


def check_unchanged(path: Path, stamp: Stamp | None) -> None:
    """Refuse a file that is not what it was when this stamp was taken."""
    if Stamp.of(path) != stamp:
        raise InputError(
            f"input={path}: the file was changed or removed since it was opened; run again once "
            "it is complete"
        )


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array in a .npy file into memory, unless its header promises more than it holds.

    Raises
    ------
    InputError
        If it is no file of numbers, text or dates, damaged, or empty.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # what NumPy raises on a damaged header is of no fixed type
        raise InputError(
            f"not a readable .npy file of numbers ({in_brief(error)}); write it with numpy.save, "
            "without Python objects"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError("is an .npz archive: save one array with numpy.save")
    if array.dtype.itemsize == 0:
        raise InputError(f"type {str(array.dtype)[:100]}: holds no values; save numbers")
    for part in [array[name] for name in array.dtype.names or ()] or [array]:
        if part.dtype.kind == "U" and part.size:
            code = np.dtype("u4").newbyteorder(part.dtype.byteorder)
            if np.ascontiguousarray(part).view(code).max() > sys.maxunicode:
                raise InputError(
                    "holds text that is no valid Unicode: write it with numpy.save anew"
                )
    return array


class Overlapping:
    """Reads slices that overlap: in order of time, each sample is read once.

    Parameters
    ----------
    samples : Samples
        In memory or in a file.
    margin : int
        Samples that the next slice may begin before the end of this one.
    """

    def __init__(self, samples: Samples, margin: int) -> None:
        self._samples, self._margin = samples, margin
        self._begin, self._part = 0, np.zeros((samples.shape[0], 0))

    def read(self, first: int, last: int) -> Array:
        """Samples from first up to last, or the end of all."""
        last = min(last, self._samples.shape[1])
        end = self._begin + self._part.shape[1]
        if self._begin <= first < end <= last:
            kept = self._part[:, first - self._begin :]
            part = np.concatenate([kept, self._samples[:, end:last]], axis=1)
        else:
            part = self._samples[:, first:last]
        tail = max(first, last - self._margin)
        self._begin, self._part = tail, part[:, tail - first :].copy()
        return part


class Resampled(Sliced):
    """Samples brought to another rate when they are sliced.

    A polyphase filter (`scipy.signal.resample_poly`) changes the rate; parts are those of the
    whole, as each is computed with as much on either side as the filter reaches over. Slices in
    order of time read the samples in order, each once.

    Parameters
    ----------
    samples : Samples
        In memory or in a file.
    ratio : fractions.Fraction
        New rate over the old one.

    Attributes
    ----------
    shape : tuple of int
        Number of channels and of samples in each.
    """

    def __init__(self, samples: Samples, ratio: Fraction) -> None:
        self._ratio = ratio
        n_channels, n_times = samples.shape
        self.shape = n_channels, math.ceil(n_times * ratio)
        # resample_poly's filter reaches over 10 periods of the lower rate
        reach = math.ceil(10 * max(1.0, float(1 / ratio))) + 1
        self._margin = -(-reach // ratio.denominator) * ratio.denominator
        self._samples = Overlapping(samples, 2 * self._margin + ratio.denominator)

    def _read(self, start: int, stop: int) -> Array:
        from scipy.signal import resample_poly

        if start == stop:
            return np.zeros((self.shape[0], 0))
        up, down = self._ratio.numerator, self._ratio.denominator
        # begins where a sample of either rate lies
        first = max(0, start // up * down - self._margin)
        part = self._samples.read(first, -(-stop * down // up) + self._margin)
        offset = first // down * up
        resampled: Array = resample_poly(part, up, down, axis=1)
        return resampled[:, start - offset : stop - offset]


def pieces(data: Samples, size: int, margin: int = 0) -> Iterator[tuple[Array, slice, slice]]:
    """Go through samples in order.

    Parameters
    ----------
    data : Samples
        Read in order, each sample once.
    size : int
        Samples of a channel in a piece; the last one may have half as many more.
    margin : int
        Samples on each side that come along, where there are any.

    Yields
    ------
    x : ndarray of shape (channels, times)
        The piece and its margins.
    span : slice
        Where the piece lies in the whole.
    core : slice
        Where the piece lies in x.
    """
    n_times, reader = data.shape[1], Overlapping(data, 2 * margin)
    for start, stop in pairwise(edges(n_times, size).tolist()):
        first, last = max(0, start - margin), min(n_times, stop + margin)
        yield reader.read(first, last), slice(start, stop), slice(start - first, stop - first)


@dataclass(frozen=True)
class Summary:
    """What one pass through the samples tells of each channel.

    Parameters
    ----------
    low, high : ndarray of shape (n_channels,)
        Least and largest sample; infinite if any is, NaN if all are.
    mean, variance : ndarray of shape (n_channels,)
        Of all samples that are not NaN.
    missing : ndarray of int, shape (n_channels,)
        How many are NaN.
    spans : list of slice
        The pieces it was summed up from.
    power : ndarray of shape (n_spans,)
        Variance within each piece, summed over channels.
    """

    low: Array
    high: Array
    mean: Array
    variance: Array
    missing: NDArray[np.int64]
    spans: list[slice]
    power: Array

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which channels are silent, shape (n_channels,)."""
        same: NDArray[np.bool_] = self.low == self.high
        return same


def summarise(data: Samples, size: int) -> Summary:
    """Sum up samples in one pass, in pieces of `size` samples of each channel."""
    spans, facts = [], []
    with np.errstate(invalid="ignore", over="ignore"):  # whoever reads it looks at low and high
        for x, span, _ in pieces(data, size):
            spans.append(span)
            count = np.full(len(x), x.shape[1])
            mean = x.mean(axis=1)
            rest = x - mean[:, None]
            gaps = np.isnan(mean)
            if gaps.any():  # missing, or both infinities
                there = ~np.isnan(x[gaps])
                count[gaps] = there.sum(axis=1)
                total = np.where(there, x[gaps], 0.0).sum(axis=1)
                mean[gaps] = total / np.maximum(count[gaps], 1)
                rest[gaps] = np.where(there, x[gaps] - mean[gaps, None], 0.0)
            variance = np.einsum("ct,ct->c", rest, rest) / np.maximum(count, 1)
            low, high = np.fmin.reduce(x, axis=1), np.fmax.reduce(x, axis=1)
            facts.append([low, high, mean, variance, count])
        low, high, means, variances, counts = np.array(facts).transpose(1, 0, 2)
        shares = counts / np.maximum(counts.sum(axis=0), 1)
        mean = (shares * means).sum(axis=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(axis=0)
    missing = data.shape[1] - counts.sum(axis=0).astype(np.int64)
    low, high = np.fmin.reduce(low, axis=0), np.fmax.reduce(high, axis=0)
    return Summary(low, high, mean, variance, missing, spans, variances.sum(axis=1))


def unchanged(x: Array) -> NDArray[np.bool_]:
    """Which samples equal the one before in every channel, as in digital silence, (n_times,)."""
    same = np.zeros(x.shape[1], bool)
    same[1:] = (x[:, 1:] == x[:, :-1]).all(axis=0)
    return same


def identical_channels(data: Samples, summary: Summary) -> list[list[int]]:
    """Return the groups of channels, none constant, that hold the same samples.

    Only channels whose summaries are equal are read.
    """
    facts = np.stack([summary.low, summary.high, summary.mean, summary.variance], axis=1)
    alike: dict[Any, list[int]] = defaultdict(list)
    for i in np.flatnonzero(~summary.constant).tolist():
        alike[tuple(facts[i])].append(i)
    digests = {i: hashlib.blake2b() for same in alike.values() if len(same) > 1 for i in same}
    if not digests:
        return []
    for x, *_ in pieces(data, summary.spans[0].stop):
        for i, digest in digests.items():
            digest.update(x[i].tobytes())
    twins: dict[bytes, list[int]] = defaultdict(list)
    for i, digest in digests.items():
        twins[digest.digest()].append(i)
    return [same for same in twins.values() if len(same) > 1]
