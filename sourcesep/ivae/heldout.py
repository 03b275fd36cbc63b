"""Which samples to hold out: blocks inside every label, so that each part knows each label."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["BAND", "EXCERPT", "FEW_SEGMENTS", "Slowed", "after_splices", "block_folds"]
__all__ += ["draw_halves", "excerpt", "looked_at", "random_halves", "slowed", "stretches"]

SHORTEST_BLOCK = 8
"""Samples; shorter blocks would hold out what their neighbours already tell."""
EXCERPT = 64_000
"""Samples that suffice to choose between fits and to judge one; fits use all there are."""
SECONDS = 4.0
"""That suffice where these are more samples than that: at 44.1 kHz `EXCERPT` lasts 1.5 s, too
short for components that have a source in common to show, which they do at 16 kHz."""
BAND = 8000.0
"""Samples a second at most for what maps on the STFT are compared and told apart by. Above 4 kHz
sound is faint, mostly of one source, and says little of a map, but is most of what there is."""
N_STRETCHES = 20
"""That the excerpt is made of."""
FEW_SEGMENTS = 8
"""With fewer segments than this, halves are drawn inside them."""
STRETCH = 4
"""Of a map that reaches over several samples, what belongs together is this many times as
long as its reach: there is then little that a cut can spoil."""
MOST_ROUNDS = 10
"""How often the folds take turns within one label, at most."""
MOST_LOOKED_AT = 4000
"""Held-out samples by which a training is judged while it runs."""


def _blocks(labels: NDArray[np.int64], n_labels: int, n_parts: int) -> NDArray[np.int64]:
    """Number each sample's block within its label; a multiple of n_parts blocks a label."""
    counts = np.bincount(labels[labels >= 0], minlength=n_labels)
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.searchsorted(ordered, np.arange(n_labels))
    position = np.empty(len(labels), np.int64)
    position[order] = np.where(ordered >= 0, np.arange(len(labels)) - first[ordered], 0)
    rounds = np.clip(counts // (n_parts * SHORTEST_BLOCK), 1, MOST_ROUNDS)
    n_blocks = n_parts * rounds
    blocks: NDArray[np.int64] = position * n_blocks[labels] // np.maximum(counts[labels], 1)
    return blocks


def block_folds(labels: NDArray[np.int64], n_labels: int, n_folds: int) -> NDArray[np.int64]:
    """Assign every sample to one of ``n_folds`` folds, in blocks inside every label.

    Returns
    -------
    ndarray of int, shape (n_times,)
        The fold, -1 where the label is negative.
    """
    # each label begins with another fold, or labels of few samples would leave some empty
    folds = (_blocks(labels, n_labels, n_folds) + labels) % n_folds
    return np.where(labels >= 0, folds, -1)


def random_halves(
    labels: NDArray[np.int64], n_labels: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Assign every sample to half 0 or 1, at random in blocks inside every label.

    Of each two neighbouring blocks one goes to either half.

    Returns
    -------
    ndarray of int, shape (n_times,)
        The half, -1 where the label is negative.
    """
    blocks = _blocks(labels, n_labels, 2)
    flips = rng.integers(0, 2, (n_labels, MOST_ROUNDS))
    return np.where(labels >= 0, (blocks + flips[labels, blocks // 2]) % 2, -1)


def draw_halves(
    x: Array, u: Auxiliary, rank: int, rng: np.random.Generator, *, memory: int = 1
) -> NDArray[np.int64] | None:
    """Assign every sample to half 0 or 1, so that both have at least this rank.

    Whole segments where u is time, since neighbouring samples of one segment are not
    independent; within labels otherwise, or where a source is heard in so few segments
    that one half lacks it. For a map that reaches over several samples, `memory`, they are
    few stretches much longer than that, whatever the labels. None if a half lacks the rank
    even so.
    """
    coarse = u.scales[-1]
    present, index = np.unique(coarse.labels, return_inverse=True)
    draws: list[NDArray[np.int64]] = []
    if memory > 1:
        n_pairs = max(1, len(index) // (2 * STRETCH * memory))
        stretch = np.arange(len(index)) * 2 * n_pairs // len(index)
        draws.append((stretch + rng.integers(0, 2, n_pairs)[stretch // 2]) % 2)
    else:
        if u.is_time and len(present) >= FEW_SEGMENTS:
            draws.append((rng.permutation(len(present)) % 2)[index])
        draws.append(random_halves(coarse.labels, coarse.n_labels, rng))
    for half in draws:
        if min(numerical_rank(x[:, half == which]) for which in (0, 1)) >= rank:
            return half
    return None


def excerpt(
    u: Auxiliary, memory: int = 1, *, sfreq: float = 1.0, most: int | None = None
) -> slice | NDArray[np.int64]:
    """Return which samples to compare or judge fits on: all, or stretches of a long record.

    The stretches lie apart from its beginning to its end, so that few sources are missed.
    They are fewer and longer for a map that reaches over several samples, `memory`. Up to
    `most` samples (by default `EXCERPT`, or `SECONDS` at `sfreq` samples a second if that is
    more) are all taken, and about as many of a longer record.
    """
    if most is None:
        most = max(EXCERPT, round(min(SECONDS * sfreq, u.n_times)))  # of any rate, 1e308 too
    enough = most if memory == 1 else max(most, 4 * STRETCH * memory)
    if u.n_times <= enough:
        return slice(None)
    n_stretches = (
        N_STRETCHES if memory == 1 else min(N_STRETCHES, enough // (2 * STRETCH * memory))
    )
    return stretches(u.n_times, enough // n_stretches, n_stretches)


def after_splices(at: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """Which of the samples taken from the places `at` are less than `reach` after a splice.

    Where stretches meet all signals jump at once: a filter makes of that a sound in common.
    """
    near = np.zeros(len(at), bool)
    for begin in np.flatnonzero(np.diff(at) != 1) + 1:
        near[begin : begin + reach] = True
    return near


def looked_at(begins: NDArray[np.int64], length: int = 1) -> NDArray[np.int64]:
    """Return evenly spread windows of this length, together at most about `MOST_LOOKED_AT`."""
    return begins[:: max(1, -(-len(begins) * length // MOST_LOOKED_AT))]


def stretches(n_times: int, size: int, number: int) -> NDArray[np.int64]:
    """Samples of this many stretches, from the beginning of a record to its end."""
    begins = np.linspace(0, n_times - size, number).astype(np.int64)
    return (begins[:, None] + np.arange(size)).ravel()


class Slowed(NamedTuple):
    """Rows at `BAND` samples a second at most.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_slower)
        Without what is above half of that.
    at : ndarray of int, shape (n_slower,)
        Which of the samples given each of these stands for.
    places : ndarray of int, shape (n_slower,)
        As in `after_splices`.
    """

    rows: Array
    at: NDArray[np.int64]
    places: NDArray[np.int64]


def slowed(rows: Array, places: NDArray[np.int64], sfreq: float) -> Slowed:
    """Bring rows of samples from these places, at `sfreq` a second, to `BAND`, if that is less.

    Stretches that lie apart are brought there one by one.
    """
    if sfreq <= BAND:
        return Slowed(rows, np.arange(rows.shape[1]), places)
    up, down = Fraction(BAND / sfreq).limit_denominator(1000).as_integer_ratio()
    ends = np.flatnonzero(np.diff(places) != 1) + 1
    parts = [resample_poly(part, up, down, axis=1) for part in np.split(rows, ends, axis=1)]
    steps = [np.arange(part.shape[1]) for part in parts]
    at = [begin + own * down // up for begin, own in zip([0, *ends], steps, strict=True)]
    return Slowed(np.concatenate(parts, axis=1), np.concatenate(at), np.concatenate(steps))
