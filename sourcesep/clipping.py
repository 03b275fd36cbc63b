"""Clipped samples: told by how they pile up, restored to what their neighbours make likely."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sourcesep.samples import Array, Overlapping, Samples, Sliced, Summary, pieces

__all__ = ["Clipping", "Restored"]

SHORTEST_RUN = 3
"""Samples in a row at a peak, of which fewer may be chance."""
BELOW = 1 / 256
"""Share of a peak within which samples below it are large, and not clipped."""
PILE = 2.0
"""Times as many have to be at the peak itself as there. Of what a curve has saturated, however
strongly, most large samples are below it."""
FINE = 1 / 4
"""Share of that which a step of the samples may be: those of quiet recordings make piles too."""
MOST = 0.4
"""Share of a channel that may be clipped: more is a square wave, or lost."""
MEMORY = 1e-3
"""Seconds that linear prediction looks back."""
STRETCH = 20e-3
"""Seconds that are restored at a time, by a prediction fitted to them and as much on each side."""
LARGEST_FIT = 1 / 8
"""Weights of a prediction for every sample that it is fitted to, at most."""
N_ROUNDS = 3
"""How often the prediction is fitted to what it has restored."""
FLOOR = 1e-4
"""Variance that is left to chance of a signal of variance 1."""


class Clipping(NamedTuple):
    """Where samples lie at the peaks of their channels; first the positive, then the negative.

    Parameters
    ----------
    counts : ndarray of int, shape (2, n_channels)
        Samples in runs of `SHORTEST_RUN` or more at the peak.
    rails : ndarray of shape (2, n_channels)
        The peak where a channel was cut off there; infinite where it was not.
    """

    counts: NDArray[np.int64]
    rails: Array

    @classmethod
    def of(cls, samples: Samples, summary: Summary) -> Clipping:
        """Look for it: in one pass, and another where there are runs."""
        peaks, sign = np.stack([summary.high, summary.low]), np.array([[1.0], [-1.0]])
        counts, below = np.zeros((2, *peaks.shape), np.int64)
        size = summary.spans[0].stop
        outer = [tuple(at) for at in np.argwhere((sign * peaks > 0) & ~summary.constant)]
        for x, _, core in pieces(samples, size, margin=SHORTEST_RUN - 1):
            for side, i in outer:
                there = x[i] == peaks[side, i]
                if there.any():
                    counts[side, i] += np.count_nonzero(_in_runs(there)[core])
        step = np.full(samples.shape[0], np.inf)
        with_runs = [at for at in outer if counts[at]]
        for x, *_ in pieces(samples, size) if with_runs else ():
            for side, i in with_runs:
                short = np.abs(x[i] - peaks[side, i])
                near = short <= BELOW * abs(peaks[side, i])
                below[side, i] += np.count_nonzero(near & (short > 0))
                step[i] = min(step[i], np.abs(x[i]).min(initial=np.inf, where=x[i] != 0))
        piled = (counts > PILE * below) & (step <= FINE * BELOW * np.abs(peaks))
        few = counts.sum(axis=0) <= MOST * samples.shape[1]
        return cls(counts, np.where(piled & few, peaks, sign * np.inf))

    @property
    def restorable(self) -> NDArray[np.int64]:
        """How many samples of each channel lie at a rail, (n_channels,)."""
        count: NDArray[np.int64] = np.where(np.isfinite(self.rails), self.counts, 0).sum(axis=0)
        return count


def _in_runs(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which samples belong to a run of at least `SHORTEST_RUN`."""
    begins = np.all(sliding_window_view(np.pad(there, SHORTEST_RUN - 1), SHORTEST_RUN), axis=1)
    within: NDArray[np.bool_] = np.any(sliding_window_view(begins, SHORTEST_RUN), axis=1)
    return within


class Restored(Sliced):
    """Samples in which what lies at a rail is what it most probably was before it was cut off.

    The channels are a vector autoregressive process for the length of a syllable; clipped samples
    are those that it finds likeliest given all others, none within the rails (Janssen, Veldhuis &
    Vries 1986, whose interpolation knows no rails and one channel). A channel that was not
    clipped at a time tells what the other was, as they hear the same sources.

    Parameters
    ----------
    samples : Samples
        In memory or in a file.
    rails : ndarray of shape (2, n_channels)
        As of `Clipping`.
    sfreq : float
        Samples a second.
    """

    def __init__(self, samples: Samples, rails: Array, sfreq: float) -> None:
        self._high, self._low = rails[:, :, None]
        self.shape = samples.shape[0], samples.shape[1]
        self._length = max(1, round(STRETCH * sfreq))
        # a file is read by a reader of its own, as others go through it at the same time
        self._samples = Overlapping(copy.copy(samples), 3 * self._length)
        most = int(LARGEST_FIT * 3 * self._length) // self.shape[0]
        self._order = max(1, min(round(MEMORY * sfreq), most))

    def _read(self, start: int, stop: int) -> Array:
        # whole stretches, each of which is the same whatever is asked for
        first, last = start // self._length, -(-stop // self._length)
        begin = max(0, first - 1) * self._length
        x = self._samples.read(begin, (last + 1) * self._length)
        y = np.array(x)
        clipped = (x >= self._high) | (x <= self._low)
        for k in range(first, last):
            stretch = slice(k * self._length - begin, (k + 1) * self._length - begin)
            if clipped[:, stretch].any():
                around = slice(max(0, stretch.start - self._length), stretch.stop + self._length)
                core = slice(stretch.start - around.start, stretch.stop - around.start)
                found = self._restore(x[:, around], clipped[:, around])[:, core]
                y[:, stretch] = np.where(clipped[:, stretch], found, x[:, stretch])
        return y[:, start - begin : stop - begin]

    def _restore(self, x: Array, clipped: NDArray[np.bool_]) -> Array:
        """Restore what is clipped in x, as far as prediction reaches on both sides of it."""
        if x.shape[1] <= 2 * self._order:
            return x
        clipped = clipped.copy()
        clipped[:, : self._order] = clipped[:, x.shape[1] - self._order :] = False
        scale = x.std(axis=1, keepdims=True)
        scale[scale == 0] = 1.0
        z = rail = x / scale
        for _ in range(N_ROUNDS if clipped.any() else 0):
            z = _likeliest(z, rail, clipped, _prediction(z, self._order))
        restored: Array = z * scale
        return restored


def _prediction(z: Array, order: int) -> Array:
    """Filter that makes z white: (order + 1, n_channels, n_channels), by lag, to, from."""
    d, n = z.shape
    rows = sliding_window_view(z, order + 1, axis=1)[:, :, ::-1]  # the present first
    rows = rows.transpose(1, 2, 0).reshape(n - order, -1)
    now, past = rows[:, :d], rows[:, d:]
    gram = past.T @ past + FLOOR * n * np.eye(past.shape[1])
    weights = np.linalg.solve(gram, past.T @ now)
    error = now - past @ weights
    whiten = np.linalg.inv(np.linalg.cholesky(error.T @ error / n + FLOOR * np.eye(d)))
    by_lag = weights.reshape(order, d, d).transpose(0, 2, 1)
    filters: Array = whiten @ np.concatenate([np.eye(d)[None], -by_lag])
    return filters


def _likeliest(z: Array, rail: Array, where: NDArray[np.bool_], filters: Array) -> Array:
    """Put in z where asked what makes the filtered z least, and nothing smaller than the rail."""
    # the quadratic form of z, by lag: precision[order + t - s, i, j] for z[i, t] and z[j, s]
    order, d = len(filters) - 1, len(z)
    half = [
        np.einsum("qai,qaj->ij", filters[: order + 1 - lag], filters[lag:])
        for lag in range(order + 1)
    ]
    precision = np.stack([h.T for h in half[:0:-1]] + half)
    free, restored = where, np.where(where, rail, z)
    while free.any():
        time, channel = np.nonzero(free.T)
        given = np.where(free, 0.0, restored)
        pull = np.zeros_like(z)
        for i, j in np.ndindex(d, d):
            pull[i] += np.convolve(given[j], precision[:, i, j], "same")
        found = _solved(precision, time, channel, -pull[channel, time])
        at_rail = rail[channel, time]
        within = found * np.sign(at_rail) < np.abs(at_rail)
        restored[channel, time] = np.where(within, at_rail, found)
        if not within.any():
            break
        free = free.copy()
        free[channel[within], time[within]] = False
    return restored


def _solved(
    precision: Array, time: NDArray[np.int64], channel: NDArray[np.int64], b: Array
) -> Array:
    """Solve for samples in order of time; those further apart than the order are independent."""
    from scipy.linalg import solveh_banded

    order = len(precision) // 2
    reach = np.searchsorted(time, time + order, side="right") - np.arange(len(time))
    band = np.zeros((reach.max(), len(time)))
    for k in range(len(band)):
        lag = time[k:] - time[: len(time) - k]
        near = np.minimum(lag, order)
        entry = precision[order + near, channel[k:], channel[: len(time) - k]]
        band[k, : len(time) - k] = np.where(lag <= order, entry, 0.0)
    solution: Array = solveh_banded(band, b, lower=True)
    return solution
