"""Sources at different places between the channels, and more of them than channels.

In most cells of a time-frequency plane one source sounds alone, and the channels' amplitudes
there stand in the ratio of its place: directions that come up again and again are sources.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.cells import Cells, power
from sourcesep.ivae.stft.cepstrum import sparse_cepstrum
from sourcesep.ivae.stft.factorised import Factorised, blended, lasting
from sourcesep.ivae.stft.wiener import wiener

__all__ = [
    "N_ITERATIONS",
    "Peaks",
    "SourcePrior",
    "find_peaks",
    "infer",
    "parts_of",
    "share_alone",
]

MINOR = 0.01
"""Share of a cell's power that may lie off its direction where one source sounds alone."""
PURE = 0.001
"""The same share in cells from which directions are read off."""
WIDTH = 0.02
"""Radians around a peak that count towards it."""
APART = 0.1
"""Radians between two peaks, at least."""
CLEAR = 0.15
"""Share of the highest peak that another must hold to be counted as a source."""
MOST_CANDIDATES = 720
"""Cells whose directions are tried as peaks."""
N_TURNS = 72
"""Parts in which candidates are looked at, so that a processor's cache holds what they take."""
MOST_CELLS = 20_000
"""From which peaks are found: those with the most amplitude."""
BEAM = 0.01
"""Share of a cell's power off a source's direction at which it is first taken for another."""
N_ITERATIONS = 20
"""Of EM, in which variances and the posterior are found in turn."""
N_EARLY = 4
"""Iterations before spectra are learned: what is learned from a wrong start stays wrong."""
RANK = 30
"""Spectra for each source."""
MOST_FRAMES = 1024
"""Looked at at a time, so that long records need no more memory."""


class Peaks(NamedTuple):
    """Directions in which sources lie, the strongest first.

    Parameters
    ----------
    directions : ndarray of shape (n_channels, n_peaks)
        Of unit length, the largest entry positive.
    heights : ndarray of shape (n_peaks,)
        Share of the amplitude of cells with one source that lies within `WIDTH`.
    """

    directions: Array
    heights: Array

    @property
    def n_clear(self) -> int:
        """How many hold at least `CLEAR` of what the highest one holds."""
        return int((self.heights >= CLEAR * self.heights[0]).sum())


def parts_of(cells: Cells) -> list[Cells]:
    """Cells of at most `MOST_FRAMES` frames each."""
    return np.array_split(cells, -(-cells.shape[1] // MOST_FRAMES), axis=1)


def _minor_share(cells: Cells) -> Cells:
    """Share of each cell's power that lies off its principal real direction."""
    total = power(cells).sum(axis=0)
    # Re(x x^T) has rank 2 at most: its two eigenvalues have this sum and this distance
    distance = np.abs(np.square(cells).sum(axis=0))
    minor: Cells = 0.5 * (1 - distance / np.maximum(total, np.finfo(np.float32).tiny))
    return minor


def share_alone(cells: Cells) -> float:
    """Share of the amplitude that lies in cells with one source: higher in a better window.

    There all channels are in phase, or in antiphase.

    Parameters
    ----------
    cells : ndarray of complex, shape (n_channels, n_frames, n_bins)
        Channels, of comparable power.
    """
    alone = total = 0.0
    for part in parts_of(cells):
        amplitude = np.sqrt(power(part).sum(axis=0))
        alone += float(amplitude[_minor_share(part) < MINOR].sum())
        total += float(amplitude.sum())
    return alone / max(total, 1e-30)


def find_peaks(cells: Cells, n: int) -> Peaks:
    """Find the directions that hold the most amplitude of cells with one source.

    Parameters
    ----------
    cells : ndarray of complex, shape (n_channels, n_frames, n_bins)
        Channels, of comparable power.
    n : int
        How many peaks to find, at most; at least one is.
    """
    amplitude = np.concatenate(
        [
            np.sqrt(power(part).sum(axis=0)) * (_minor_share(part) < PURE)
            for part in parts_of(cells)
        ]
    )
    pure = np.flatnonzero(amplitude) if amplitude.any() else np.arange(1)
    loudest = np.argsort(amplitude.reshape(-1)[pure], kind="stable")[::-1]
    chosen = pure[loudest[:MOST_CELLS]]
    frames, bins = np.unravel_index(chosen, amplitude.shape)
    x = cells[:, frames, bins].astype(np.complex128)
    weight = amplitude.reshape(-1)[chosen].astype(np.float64)
    # the phase that makes sum_c x_c^2 real turns x towards its principal real direction
    turned = (x * np.exp(-0.5j * np.angle(np.square(x).sum(axis=0)))).real
    unit = turned / np.maximum(np.linalg.norm(turned, axis=0), 1e-30)
    step = max(1, len(chosen) // MOST_CANDIDATES)
    candidates = unit[:, ::step].T
    height = np.concatenate(
        [_closeness(some, unit) @ weight for some in np.array_split(candidates, N_TURNS)]
    )
    total = max(float(weight.sum()), 1e-30)
    directions: list[Array] = []
    heights: list[float] = []
    while len(directions) < n and len(candidates) and (not directions or height.max() > 0):
        peak = candidates[height.argmax()]
        for _ in range(5):
            near = weight * _closeness(peak[None], unit)[0]
            moments = (unit * near) @ unit.T
            peak = np.linalg.eigh(moments)[1][:, -1] if near.any() else peak
        directions.append(peak * np.sign(peak[np.abs(peak).argmax()]))
        heights.append(float((weight * (_closeness(peak[None], unit)[0] > 0)).sum()) / total)
        far = 1 - np.square(candidates @ peak) > np.sin(APART) ** 2
        candidates, height = candidates[far], height[far]
    order = np.argsort(heights)[::-1]
    return Peaks(np.array(directions)[order].T, np.array(heights)[order])


def _closeness(directions: Array, unit: Array) -> Array:
    """1 where a unit vector has the direction, falling to 0 at `WIDTH`; rows a direction."""
    closeness: Array = directions @ unit
    np.square(closeness, out=closeness)
    # 1 - (1 - cos^2) / sin^2 WIDTH
    closeness += np.sin(WIDTH) ** 2 - 1
    np.maximum(closeness, 0, out=closeness)
    closeness /= np.sin(WIDTH) ** 2
    return np.square(closeness, out=closeness)


class SourcePrior:
    """Variances of sources given u = (f, t), fitted to their power in turn with the posterior.

    The geometric mean of three views, each wrong in its own way: a spectrum that is sparse
    in the cepstrum, power that lasts over a few frames, and a few spectra that come again
    (from the time when sources are known well enough to learn spectra from).
    """

    def __init__(self) -> None:
        self.n_seen = 0
        self.factors: Factorised | None = None

    def __call__(self, powers: Cells) -> Cells:
        """Variances of the shape of `powers`, (n_sources, n_frames, n_bins)."""
        views = [sparse_cepstrum(powers), lasting(powers)]
        self.n_seen += 1
        if self.n_seen > N_EARLY:
            if self.factors is None:
                self.factors = Factorised.of(powers, RANK, n_updates=20)
            else:
                self.factors.update(powers, n_updates=2)
            views.append(self.factors.variances)
        return blended(views, powers)


def infer(cells: Cells, mixing: Array, n_iterations: int = N_ITERATIONS) -> Cells:
    """Fit the variances of sources behind a known matrix: in turn with the posterior (EM).

    Parameters
    ----------
    cells : ndarray of complex64, shape (n_channels, n_frames, n_bins)
        Channels, of a mean power near 1.
    mixing : ndarray of shape (n_channels, n_sources)
        Real gains.
    n_iterations : int
        Fewer are enough for fits that are only compared with each other.

    Returns
    -------
    ndarray of float32, shape (n_sources, n_frames, n_bins)
        The prior's variances.
    """
    # directions of unit length: what is small means the same for every source
    length = np.linalg.norm(mixing, axis=0).astype(np.float32)[:, None, None]
    directions = mixing / length[:, 0, 0]
    parts = [_infer(part, directions, n_iterations) for part in parts_of(cells)]
    variances: Cells = np.concatenate(parts, axis=1)
    variances /= np.square(length)
    return variances


def _infer(cells: Cells, directions: Array, n_iterations: int) -> Cells:
    variances, prior = _beams(cells, directions), SourcePrior()
    for _ in range(n_iterations):
        variances = prior(wiener(cells, directions, variances).power)
    return variances


def _beams(cells: Cells, directions: Array) -> Cells:
    """First variances: what lies in each source's direction, and a little of all else."""
    total = power(cells).sum(axis=0)
    ahead = power(np.tensordot(directions.T.astype(np.float32), cells, 1))
    off = 1 - ahead / np.maximum(total, np.finfo(np.float32).tiny)
    beams: Cells = total * (np.exp(-np.maximum(off, 0) / BEAM) + 1e-3) + 1e-8
    return beams
