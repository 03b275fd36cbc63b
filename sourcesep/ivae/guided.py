"""Where the search for unmixing matrices begins, if sources of known kinds are expected.

A prior that has been trained knows which cells of a source belong together over all
frequencies, so it gets out of the dead ends in which whole bands are swapped between
sources, and its evidence tells which of several starts came out right. Its variances are
smoother than any one sound's, so the last sweeps take the geometric mean with those of a
sparse cepstrum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement
from math import comb
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sourcesep.exceptions import SettingsError
from sourcesep.ivae.cepstrum import cepstral_variances
from sourcesep.ivae.level import FLOOR, Level
from sourcesep.ivae.model import Array
from sourcesep.ivae.projection import Complex, project

__all__ = ["Candidate", "Guidance", "Trained", "lift", "numbers_of", "search"]

Numbers = tuple[int, ...]
Variances = Callable[[NDArray[Any]], NDArray[Any]]
"""From the power of sources as they are heard to the variances of their cells."""

N_SCREEN = 10
"""Sweeps by which the labels' starts are compared; after 4 the ranking is often wrong."""
N_KEPT = 3
"""Starts that are carried on, for as many sweeps again."""
N_JOINT = 10
"""Sweeps with trained and cepstral variances together."""
MOST_STARTS = 36
"""Sets of labels that are tried where none is given: 2 sources of 9 labels."""


class Trained(Protocol):
    """A prior of sources, each of one label (see `source_prior.SourcePrior`)."""

    @property
    def sfreq(self) -> float:
        """Samples a second of the sounds it knows."""
        ...

    @property
    def size(self) -> int:
        """Samples in the windows whose cells it knows."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What a source can be."""
        ...

    @property
    def likeness(self) -> tuple[float, float]:
        """`lift` of sources that the prior knows: mean and deviation."""
        ...

    def explain(self, power: NDArray[Any], labels: NDArray[np.int64]) -> Any:
        """Variances (n, n_frames, n_bins) and penalties (n,) of sources of these labels."""
        ...


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


@dataclass(frozen=True)
class Guidance:
    """What a trained prior made of a recording.

    Parameters
    ----------
    signals : ndarray of shape (k, n_times)
        The sources found.
    labels : tuple of str
        Of each source.
    scores : dict of str to float
        Evidence of every start that was carried to the end, nats a cell and source.
    alternatives : tuple of dict of str to float
        For each source, the evidence of every label less that of its own.
    lift : tuple of float
        How well each source is explained (see `lift`).
    is_like : bool
        Whether all are explained about as well as what the prior was trained on.
    """

    signals: Array
    labels: tuple[str, ...]
    scores: dict[str, float]
    alternatives: tuple[dict[str, float], ...]
    lift: tuple[float, ...]
    is_like: bool

    @property
    def choice(self) -> str:
        """Which start was kept, in plain words."""
        best = max(self.scores, key=lambda name: self.scores[name])
        kept = f"begun with a trained prior of {', '.join(self.labels)}"
        return f"{kept}: the start {best} has the best evidence of {len(self.scores)}"

    def ordered(self, order: NDArray[np.int64]) -> Guidance:
        """The same with the sources in another order."""
        return replace(
            self,
            signals=self.signals[order],
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
            "unit": "nats a cell",
            "evidence": rounded(self.scores),
            "labels_evidence": [rounded(values) for values in self.alternatives],
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
        raise SettingsError(
            f"labels={','.join(labels)}: the prior does not know {', '.join(unknown)}; it knows "
            f"{', '.join(known)}"
        )
    if k is not None and len(labels) != k:
        raise SettingsError(
            f"labels={','.join(labels)}: {len(labels)} labels for {k} sources; give one a source, "
            "or leave them out"
        )
    return tuple(known.index(label) for label in labels)


def search(
    prior: Trained, labels: Sequence[str] | None, level: Level, blind: Sequence[Array]
) -> Guidance:
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
    n_labels = len(prior.labels)
    given = None if labels is None else numbers_of(labels, prior.labels, k)

    def carried(start: Candidate, n: int, variances: Variances | None = None) -> Candidate:
        rows = swept(level, start.rows, variances or _trained(prior, start.numbers), n)
        evidence = evidence_of(prior, level, rows, start.numbers)
        return start._replace(rows=rows, evidence=evidence)

    starts = [
        carried(Candidate(_name(prior, numbers), numbers, level.rows, 0.0), N_SCREEN)
        for numbers in ([given] if given else _sets(n_labels, k))
    ]
    starts.sort(key=lambda start: -start.evidence)
    ends = [carried(start, N_SCREEN) for start in starts[:N_KEPT]]
    for i, signals in enumerate(blind):
        rows = level.rows_of(signals)
        numbers = _likeliest(prior, level, rows, given)
        rows = swept(level, rows, _trained(prior, numbers), N_SCREEN // 2)
        numbers = _likeliest(prior, level, rows, given)
        ends.append(carried(Candidate(f"blind {i}", numbers, rows, 0.0), 3 * N_SCREEN // 2))
    best = max(ends, key=lambda end: end.evidence)
    heard = level.heard(best.rows)
    table = scores_of(prior, heard)
    own = table[list(best.numbers), np.arange(k)]
    lifts = lift(prior, heard, np.array(best.numbers))
    mean, deviation = prior.likeness
    is_like = bool((lifts > mean - 3 * deviation).all())
    last = _joint(prior, best.numbers) if is_like else _cepstral
    rows = swept(level, best.rows, last, N_JOINT)
    return Guidance(
        level.signals(rows),
        tuple(prior.labels[i] for i in best.numbers),
        {end.name: end.evidence for end in ends},
        tuple(
            {label: float(v) for label, v in zip(prior.labels, column, strict=True)}
            for column in (table - own).T
        ),
        tuple(map(float, lifts)),
        is_like,
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


def _trained(prior: Trained, numbers: Numbers) -> Variances:
    def variances(heard: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = prior.explain(heard, np.array(numbers)).variances
        by_bin = heard.mean(axis=1, keepdims=True)
        found += FLOOR * by_bin + 1e-6 * by_bin.mean(axis=2, keepdims=True) + 1e-12
        return found

    return variances


def _cepstral(heard: NDArray[Any]) -> NDArray[Any]:
    return cepstral_variances(heard, FLOOR)


def _joint(prior: Trained, numbers: Numbers) -> Variances:
    trained = _trained(prior, numbers)
    return lambda heard: np.sqrt(trained(heard) * _cepstral(heard))


def evidence_of(prior: Trained, level: Level, rows: Complex, numbers: Numbers) -> float:
    """Log-density of the mixture under the prior, nats a cell and source, up to a constant.

    Every source has its best gain in every bin: the filter by which it arrives is unknown.
    Latents are at the mean of q, their prior counts.
    """
    heard = level.heard(rows)
    values = _log_densities(prior, heard, np.array(numbers))
    # the filters' part of the volume cancels with that of the gains
    k, _, n_bins = heard.shape
    filters = np.log(np.maximum(level.responses(rows), 1e-30)).sum()
    volume = 2 * np.linalg.slogdet(rows.transpose(2, 0, 1))[1].sum() + filters
    return float(values.mean() + volume / (k * n_bins))


def _log_densities(
    prior: Trained, heard: NDArray[Any], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of every source, nats a cell."""
    variances, penalty = prior.explain(heard, numbers)
    gain = (heard / variances).mean(axis=1, keepdims=True)
    logarithm = np.log(variances).mean(axis=1) + np.log(np.maximum(gain, 1e-30))[:, 0]
    values: NDArray[np.float64] = -logarithm.mean(axis=1) - 1 - penalty / heard[0].size
    return values


def scores_of(prior: Trained, heard: NDArray[Any]) -> NDArray[np.float64]:
    """Log-density of every source given every label, (n_labels, k), nats a cell."""
    k = len(heard)
    return np.stack(
        [_log_densities(prior, heard, np.full(k, label)) for label in range(len(prior.labels))]
    )


def _likeliest(prior: Trained, level: Level, rows: Complex, given: Numbers | None) -> Numbers:
    """The labels that explain the sources best: any, or those given in their best order."""
    table = scores_of(prior, level.heard(rows))
    if given is None:
        return tuple(int(i) for i in table.argmax(axis=0))
    order = linear_sum_assignment(-table[list(given)])
    found = dict(zip(order[1].tolist(), order[0].tolist(), strict=True))
    return tuple(given[found[i]] for i in range(len(given)))


def lift(prior: Trained, heard: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much better the prior explains sources than a spectrum that only gets louder.

    Parameters
    ----------
    heard : ndarray of shape (n, n_frames, n_bins)
        Power of the sources.
    numbers : ndarray of int, shape (n,)
        Their labels.

    Returns
    -------
    ndarray of shape (n,)
        Nats a cell.
    """
    explained = _log_densities(prior, heard, numbers)
    spectrum = heard.mean(axis=1, keepdims=True) + 1e-12
    loudness = (heard / spectrum).mean(axis=2, keepdims=True) + 1e-6
    gain = (heard / loudness).mean(axis=1)
    plain = np.log(loudness).mean(axis=(1, 2)) + np.log(np.maximum(gain, 1e-30)).mean(axis=1)
    lifted: NDArray[np.float64] = explained + plain + 1
    return lifted
