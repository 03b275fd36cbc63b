"""Where the search for unmixing matrices begins, if sources of known kinds are expected.

A prior that has been trained knows which cells of a source belong together over all
frequencies, so it gets out of the dead ends in which whole bands are swapped between
sources, and its evidence tells which of several starts came out right. Its variances are
smoother than any one sound's, so the last sweeps take the geometric mean with those of a
sparse cepstrum.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, combinations_with_replacement
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.level import Level
from sourcesep.ivae.stft.projection import Complex, project
from sourcesep.ivae.stft.trained_variances import (
    Numbers,
    Trained,
    Variances,
    best_lift,
    cepstral,
    evidence_of,
    is_like,
    joint,
    scores_of,
    trained,
)

__all__ = ["Guidance", "Proposal", "guidance_of", "numbers_of", "search"]


N_SCREEN = 10
"""Sweeps by which the labels' starts are compared; after 4 the ranking is often wrong."""
N_KEPT = 3
"""Starts that are carried on, for as many sweeps again."""
N_JOINT = 10
"""Sweeps with trained and cepstral variances together."""
MOST_STARTS = 36
"""Sets of labels that are tried where none is given: 2 sources of 9 labels."""


class Candidate(NamedTuple):
    """A start, as far as it has been carried.

    Parameters
    ----------
    name : str
        Where it began.
    numbers : tuple of int
        The label of each source.
    rows : ndarray of shape (k, k, n_bins)
        Unmixing matrices.
    evidence : float
        Nats a cell and source, up to a constant of the recording.
    """

    name: str
    numbers: Numbers
    rows: Complex
    evidence: float


class Proposal(NamedTuple):
    """What the search has come to.

    Parameters
    ----------
    name : str
        The start that it came from.
    signals : ndarray of shape (k, n_times)
        The sources found.
    scores : dict of str to float
        Evidence of every start that was carried to the end, nats a cell and source.
    """

    name: str
    signals: Array
    scores: dict[str, float]


@dataclass(frozen=True)
class Guidance:
    """What a trained prior says of sources.

    Parameters
    ----------
    labels : tuple of str
        Of each source: those given in their best order, or those that explain it best.
    evidence : float
        Log-density of the mixture, nats a cell and source, up to a constant.
    alternatives : tuple of dict of str to float
        For each source, the evidence of every label less that of its own, nats a cell.
    lift : tuple of float
        How well each source is explained by the label that explains it best (see `lift`).
    is_like : bool
        Whether each is explained about as well as what the prior was trained on.
    start : str
        Where the fit began that was kept.
    scores : dict of str to float
        Evidence of every start, and of each of the two fits that were compared at the end.
    """

    labels: tuple[str, ...]
    evidence: float
    alternatives: tuple[dict[str, float], ...]
    lift: tuple[float, ...]
    is_like: bool
    start: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def choice(self) -> str:
        """Which start was kept, in plain words."""
        return (
            f"with a trained prior, to which the sources are {', '.join(self.labels)}; of all "
            f"starts {self.start} was kept"
        )

    def ordered(self, order: NDArray[np.int64]) -> Guidance:
        """The same with the sources in another order."""
        return replace(
            self,
            labels=tuple(self.labels[i] for i in order),
            alternatives=tuple(self.alternatives[i] for i in order),
            lift=tuple(self.lift[i] for i in order),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, rounded to what the evidence is good for."""

        def rounded(values: dict[str, float]) -> dict[str, float]:
            return {name: round(value, 4) for name, value in values.items()}

        return {
            "labels": list(self.labels),
            "start": self.start,
            "unit": "nats a cell",
            "evidence": rounded(self.scores),
            "label_evidence": [rounded(values) for values in self.alternatives],
            "lift": [round(value, 4) for value in self.lift],
            "like_the_training": self.is_like,
        }


def numbers_of(labels: Sequence[str], known: Sequence[str], k: int | None = None) -> Numbers:
    """The labels' numbers; of as many sources as there are, if that is known.

    Raises
    ------
    SettingsError
        If one is unknown, or their number is not `k`.
    """
    unknown = [label for label in labels if label not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        raise SettingsError(
            f"labels={','.join(labels)}: the prior does not know {', '.join(unknown)}; "
            f"{f'did you mean {close[0]}? It' if close else 'it'} knows {', '.join(known)}"
        )
    if k is not None and len(labels) != k:
        raise SettingsError(
            f"labels={','.join(labels)}: {len(labels)} labels for {k} sources; give one a source, "
            "or leave them out"
        )
    return tuple(known.index(label) for label in labels)


def search(
    prior: Trained, labels: Sequence[str] | None, level: Level, blind: Sequence[Array]
) -> Proposal:
    """Find sources that the prior explains.

    Every set of labels is a start of its own, from the channels as they are: the label
    decides which source each row turns to. What was found blindly is a start too.

    Parameters
    ----------
    prior : Trained
        Knows the cells of `level`.
    labels : sequence of str, optional
        Of the sources, where they are known.
    level : Level
        Cells, and what is needed to unmix them.
    blind : sequence of ndarray of shape (k, n_times)
        Sources as they were found without the prior.

    Raises
    ------
    SettingsError
        If the labels are not the prior's, not one a source, or too many to try.
    """
    k = len(level.rows)
    given = None if labels is None else numbers_of(labels, prior.labels, k)

    def carried(start: Candidate, n: int) -> Candidate:
        rows = swept(level, start.rows, trained(prior, start.numbers), n)
        return start._replace(rows=rows, evidence=evidence_of(prior, level, rows, start.numbers))

    starts = [
        carried(Candidate(_name(prior, numbers), numbers, level.rows, 0.0), N_SCREEN)
        for numbers in ([given] if given else _sets(len(prior.labels), k))
    ]
    starts.sort(key=lambda start: -start.evidence)
    ends = [carried(start, N_SCREEN) for start in starts[:N_KEPT]]
    for i, signals in enumerate(blind):
        rows = level.rows_of(signals)
        numbers = _likeliest(scores_of(prior, level.heard(rows)), given)
        rows = swept(level, rows, trained(prior, numbers), N_SCREEN // 2)
        numbers = _likeliest(scores_of(prior, level.heard(rows)), given)
        ends.append(carried(Candidate(f"blind {i}", numbers, rows, 0.0), 3 * N_SCREEN // 2))
    best = max(ends, key=lambda end: end.evidence)
    last = joint(prior, best.numbers) if is_like(prior, level.heard(best.rows)) else cepstral
    rows = swept(level, best.rows, last, N_JOINT)
    return Proposal(best.name, level.signals(rows), {end.name: end.evidence for end in ends})


def guidance_of(
    prior: Trained, labels: Sequence[str] | None, level: Level, signals: Array
) -> Guidance:
    """What the prior says of sources, however they were found."""
    k = len(level.rows)
    given = None if labels is None else numbers_of(labels, prior.labels, k)
    rows = level.rows_of(signals)
    heard = level.heard(rows)
    table = scores_of(prior, heard)
    numbers = _likeliest(table, given)
    own = table[list(numbers), np.arange(k)]
    return Guidance(
        tuple(prior.labels[i] for i in numbers),
        evidence_of(prior, level, rows, numbers),
        tuple(
            {label: float(v) for label, v in zip(prior.labels, column, strict=True)}
            for column in (table - own).T
        ),
        tuple(map(float, best_lift(prior, heard))),
        is_like(prior, heard),
    )


def _name(prior: Trained, numbers: Numbers) -> str:
    return "+".join(prior.labels[i] for i in numbers)


def _sets(n_labels: int, k: int) -> list[Numbers]:
    """Labels of k sources: different ones, as far as there are so many."""
    if comb(n_labels, k) > MOST_STARTS:
        raise SettingsError(
            f"labels=None: {k} of {n_labels} labels are more sets than are tried, {MOST_STARTS}; "
            "say which talk with --labels, or train a prior of fewer"
        )
    if k <= n_labels:
        return list(combinations(range(n_labels), k))
    return list(combinations_with_replacement(range(n_labels), k))


def swept(level: Level, rows: Complex, variances: Variances, n: int) -> Complex:
    """Rows after n updates, each by the variances of the sources found so far."""
    for _ in range(n):
        rows = project(rows, level.products.covariances(variances(level.heard(rows))))
    return rows


def _likeliest(table: NDArray[np.float64], given: Numbers | None) -> Numbers:
    """The labels that explain the sources best: any, or those given in their best order."""
    if given is None:
        return tuple(int(i) for i in table.argmax(axis=0))
    order = linear_sum_assignment(-table[list(given)])
    found = dict(zip(order[1].tolist(), order[0].tolist(), strict=True))
    return tuple(given[found[i]] for i in range(len(given)))
