"""The report's part about p(z|u): what u says of each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sourcesep.labels import LEFT_OUT
from sourcesep.report import panels
from sourcesep.report.panels import Axis, Panel
from sourcesep.report.sources import time_axis

if TYPE_CHECKING:
    from sourcesep.result import Separation

__all__ = ["MOST_LABELS", "LabelPrior", "TimePrior", "label_prior", "time_prior"]

Array = NDArray[np.float64]

SHARES = (0.1, 0.5, 0.9)
"""Quantiles over time that are written out."""
RANGE = (-30.0, 10.0)
"""Decibels from the darkest to the brightest colour; 0 is the mean power of a source."""
MOST_LABELS = 60
"""Rows of labels that the page shows."""


@dataclass(frozen=True)
class TimePrior:
    """How the sources' power changes from one stretch of time to the next.

    Parameters
    ----------
    n_labels : int
        Number of stretches.
    panel : Panel
        A row a source, time along.
    quantiles : list of (str, list of float)
        Source, and standard deviations exceeded 90, 50 and 10 % of the time.
    scale : str
        Data URI of the colours from quiet to loud.
    """

    n_labels: int
    panel: Panel
    quantiles: list[tuple[str, list[float]]]
    scale: str


@dataclass(frozen=True)
class LabelPrior:
    """Mean and standard deviation of each source given each label.

    Parameters
    ----------
    rows : list of (str, int, list of (float, float))
        Label, its number of samples in the fit, and (mean, SD) of each source.
    n_labels : int
        Number of labels, those that `rows` leaves out included.
    """

    rows: list[tuple[str, int, list[tuple[float, float]]]]
    n_labels: int


def time_prior(separation: Separation, called: Sequence[str]) -> TimePrior:
    """Summarise p(z|u) where u is time, on this recording."""
    recording, u = separation.recording, separation.u
    variance = separation.prior_here[2]
    seen = u.labels != LEFT_OUT
    course = np.where(seen, variance[u.labels].T, 0.0)
    share = panels.binned(seen.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        level = 10 * np.log10(panels.binned(course) / share)
    spread = np.sqrt(np.quantile(variance[u.labels[seen]], SHARES, axis=0)).T
    n = len(called)
    rows = tuple((100 * (n - k - 0.5) / n, name) for k, name in enumerate(called))
    panel = Panel(
        "Power given u",
        f"Power that p(z given u) expects of each of {n} sources over time; the table below has "
        "it in numbers.",
        time_axis(recording),
        Axis("", rows),
        picture=panels.picture(level[::-1], *RANGE),
    )
    if not recording.in_memory:
        axis = panels.seconds_axis(u.n_times / recording.sfreq)
        axis = replace(axis, label=f"{axis.label} of the stretches fitted on, end to end")
        panel = replace(panel, x=axis)
    quantiles = [(name, row.tolist()) for name, row in zip(called, spread, strict=True)]
    return TimePrior(
        len(variance), panel, quantiles, panels.picture(np.linspace(0, 1, 48)[None], 0, 1)
    )


def label_prior(separation: Separation) -> LabelPrior:
    """Read off p(z|u) where u has labels that mean something."""
    names, mean, variance = separation.prior_here
    counts = separation.ivae.label_counts_
    rows = [
        (str(name), int(count), list(zip(m.tolist(), np.sqrt(v).tolist(), strict=True)))
        for name, count, m, v in zip(names, counts, mean, variance, strict=True)
    ]
    return LabelPrior(rows[:MOST_LABELS], len(rows))
