"""The report's part about levels: what each component does to the channels at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.report.prior import MOST_LABELS

if TYPE_CHECKING:
    from sourcesep.result import Separation

__all__ = ["Cell", "Effect", "effects"]

MOST_CHANNELS = 8
"""Columns of one table: the channels that the component moves most."""


class Cell(NamedTuple):
    """What a component adds to a channel at a level, in the channel's standard deviations."""

    shift: float
    spread: float


@dataclass(frozen=True)
class Effect:
    """What one component does at each level of u.

    Parameters
    ----------
    component : str
        Its name.
    channels : list of str
        Those that it moves most, the most moved first.
    rows : list of (str, list of Cell)
        Level, and a cell for each channel.
    """

    component: str
    channels: list[str]
    rows: list[tuple[str, list[Cell]]]


def effects(separation: Separation, called: list[str]) -> list[Effect]:
    """Move each component to its prior mean at each level, the others where they are on average.

    ``shift`` is how far that moves a channel from where all components are at their
    average, ``spread`` half of what lies between one standard deviation of the component
    below its mean at that level and one above.
    """
    ivae, recording = separation.ivae, separation.recording
    mean, variance = (moment[:MOST_LABELS] for moment in ivae.model_.prior_moments())
    levels = [str(name) for name in (ivae.u_names_ or ())[:MOST_LABELS]]
    deviation = np.sqrt(recording.summary.variance)
    width = np.where(deviation > 0, deviation, 1)
    average = np.average(ivae.model_.prior_moments()[0], axis=0, weights=ivae.label_counts_)
    found = []
    for k, name in enumerate(called):
        middle = ivae.effect(k, average[k : k + 1])
        spread = np.sqrt(variance[:, k])
        low, at, high = (
            ivae.effect(k, mean[:, k] + step * spread) / width for step in (-1.0, 0.0, 1.0)
        )
        shift, reach = at - middle / width, np.abs(high - low) / 2
        channels = _most_moved(shift, reach)
        rows = [
            (level, [Cell(float(shift[i, c]), float(reach[i, c])) for c in channels])
            for i, level in enumerate(levels)
        ]
        found.append(Effect(name, [recording.names[c] for c in channels], rows))
    return found


def _most_moved(shift: NDArray[np.float64], reach: NDArray[np.float64]) -> list[int]:
    """Channels by the square that the component adds to them, on average over levels."""
    moved = (shift**2 + reach**2).mean(axis=0)
    order: list[int] = np.argsort(-moved, kind="stable")[:MOST_CHANNELS].tolist()
    return order
