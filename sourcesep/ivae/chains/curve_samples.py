"""Which samples curves are fitted on, and under which labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.heldout import block_folds
from sourcesep.ivae.model import Array

__all__ = [
    "Data",
    "Labels",
    "loudest_and_others",
    "middle",
    "split",
    "telling_labels",
    "thinned",
]

N_FOLDS = 5
"""One of which is held out, to choose among curves."""
PIECES, SHORTEST_PIECE = 4, 32
"""An instantaneous curve is fitted to variances of quarters of a stretch of time, none of fewer
samples than these. Voices are no Gaussian noise for 20 ms, and a curve would bend to make them
that: in development SI-SDR was 4 to 7 dB higher for tanh with 5 ms, not higher with 1."""
MOST_LABELS = 200
"""And on so many such stretches, or four times as many quarters: the loudest and random ones."""
MOST_SAMPLES = 32_000
"""And on this many samples of them at most; the choice sees all."""
LONGEST_EXCERPT = 200_000
"""Longer recordings are fitted on their middle."""
QUIETEST = 1e-4
"""Labels of less than this share of the mean power say nothing about a curve."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """What is fitted on: x of about unit peak, its labels, whether labels have means."""

    x: Array
    labels: Labels
    with_mean: bool

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return int(self.labels.max()) + 1

    @property
    def at_ends(self) -> NDArray[np.int64]:
        """Where each channel is least and largest: without these a curve's ends are anything."""
        used = np.flatnonzero(self.labels >= 0)
        x = self.x[:, used]
        ends: NDArray[np.int64] = used[np.concatenate([x.argmin(axis=1), x.argmax(axis=1)])]
        return ends

    def take(self, which: NDArray[np.int64] | slice, labels: Labels) -> Data:
        """Return some of the samples, under other labels."""
        return Data(self.x[:, which], labels[which], self.with_mean)

    def without(self, held: NDArray[np.bool_]) -> Data:
        """Return the same record with some samples not to be fitted on."""
        return replace(self, labels=np.where(held, -1, self.labels))


def split(data: Data) -> NDArray[np.bool_]:
    """Which samples are held out: blocks inside every label."""
    held: NDArray[np.bool_] = block_folds(data.labels, data.n_labels, N_FOLDS) == 0
    return held


def loudest_and_others(data: Data, rng: np.random.Generator, most: int = MOST_LABELS) -> Labels:
    """Return up to so many labels in order, half the loudest and half random.

    The loud ones reach the ends of the curves.
    """
    used = data.labels >= 0
    counts = np.bincount(data.labels[used], minlength=data.n_labels)
    energy = np.bincount(data.labels[used], np.square(data.x[:, used]).sum(axis=0), data.n_labels)
    power = energy / np.maximum(counts, 1)
    audible = np.flatnonzero(power > QUIETEST * energy.sum() / used.sum())
    if len(audible) > most:
        loudest = audible[np.argsort(-power[audible], kind="stable")]
        half = most // 2
        audible = np.concatenate([loudest[:half], rng.permutation(loudest[half:])[:half]])
    return np.sort(audible)


def telling_labels(data: Data, rng: np.random.Generator) -> Data:
    """The samples of `loudest_and_others`, and `Data.at_ends`, under labels that count from 0."""
    most = MOST_LABELS
    if not data.with_mean:
        most *= PIECES
        data = replace(data, labels=_in_pieces(data.labels, data.n_labels))
    number = np.full(data.n_labels, -1)
    kept = np.union1d(loudest_and_others(data, rng, most), data.labels[data.at_ends])
    number[kept] = np.arange(len(kept))
    labels = np.where(data.labels >= 0, number[data.labels], -1)
    return data.take(np.flatnonzero(labels >= 0), labels)


def _in_pieces(labels: Labels, n_labels: int) -> Labels:
    """Cut every label into `PIECES`, each of neighbours in time."""
    counts = np.bincount(labels[labels >= 0], minlength=n_labels)
    order = np.argsort(labels, kind="stable")
    position = np.empty(len(labels), np.int64)
    ordered = labels[order]
    position[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    pieces = np.clip(counts // SHORTEST_PIECE, 1, PIECES)
    number = position * pieces[labels] // np.maximum(counts[labels], 1)
    return np.where(labels >= 0, labels * PIECES + number, -1)


def thinned(data: Data) -> Data:
    """Every so many-th of the samples to be fitted on, `MOST_SAMPLES` at most, and the ends."""
    keep = np.flatnonzero(data.labels >= 0)
    every = keep[:: max(1, -(-len(keep) // MOST_SAMPLES))]
    return data.take(np.union1d(every, data.at_ends), data.labels)


def middle(data: Data) -> Data:
    """The middle of the record, whole unless it is long."""
    spare = max(0, len(data.labels) - LONGEST_EXCERPT)
    part = slice(spare // 2, len(data.labels) - (spare - spare // 2))
    return data.take(part, data.labels)
