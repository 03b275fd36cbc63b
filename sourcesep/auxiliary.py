"""The auxiliary variable u: what the prior p(z|u) is conditioned on.

`sourcesep.spec` has the grammar by which users ask for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.factors import FACTORS, TOGETHER, UNLABELLED, good_samples
from sourcesep.labels import (
    FEW_SAMPLES,
    LEFT_OUT,
    Factor,
    Scale,
    combine,
    from_values,
    named_columns,
    renumber,
    where_fitted,
)
from sourcesep.messages import first_few
from sourcesep.recording import Recording
from sourcesep.samples import unchanged
from sourcesep.spec import Term, canonical, default_spec, number, parse, resolve

__all__ = [
    "IN_TIME",
    "LEFT_OUT",
    "TOGETHER",
    "UNLABELLED",
    "Auxiliary",
    "Scale",
    "Term",
    "build",
    "build_many",
    "canonical",
    "check",
    "default_spec",
    "from_array",
    "from_arrays",
    "is_in_time",
    "number",
    "parse",
    "renumbered",
    "resolve",
]


IN_TIME = ("segments", "adaptive")
"""Terms whose labels are stretches of time; they need nothing but the samples."""
SILENCE, SHORTEST_SILENCE = 0.5, 100
"""Seconds, and samples, that nothing changes in any channel of a sound or signal, for it to be
called silence. What is held out or judged by would else be silence now and then."""


@dataclass(frozen=True)
class Auxiliary:
    """What is known about each sample besides the sample itself.

    Parameters
    ----------
    scales : tuple of Scale
        Labellings from the finest to the coarsest; the prior lives on the finest.
    covariates : ndarray of float, shape (n_times, n_covariates), or None
        Continuous values behind the labels, for priors that are networks of u.
    is_time : bool
        Whether the labels are stretches of this recording's time. They mean nothing
        in another recording, whose segments get variances of their own; and a
        segment's mean is signal, not a property of u, so the prior's mean is 0.
    spec : str
        How it was asked for.
    """

    scales: tuple[Scale, ...]
    covariates: NDArray[np.float64] | None
    is_time: bool
    spec: str

    @property
    def labels(self) -> NDArray[np.int64]:
        """The finest labelling, shape (n_times,)."""
        return self.scales[0].labels

    @property
    def n_labels(self) -> int:
        """Number of labels of the finest scale."""
        return self.scales[0].n_labels

    @property
    def n_times(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which samples have a label on every scale, shape (n_times,)."""
        used: NDArray[np.bool_] = np.all([s.labels != LEFT_OUT for s in self.scales], axis=0)
        return used

    def in_use(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], Auxiliary]:
        """Return x, (n_channels, n_times), and u of the samples that are `used`."""
        used = self.used
        return (x, self) if used.all() else (x[:, used], self.take(used))

    def take(self, keep: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Auxiliary:
        """Return u of some of the samples; labels keep their meaning."""
        return Auxiliary(
            tuple(Scale(s.labels[keep], s.names) for s in self.scales),
            None if self.covariates is None else self.covariates[keep],
            self.is_time,
            self.spec,
        )


def build(spec: str | None, recording: Recording) -> Auxiliary:
    """Build u for one recording; see `build_many`."""
    return build_many(spec, [recording])


def build_many(
    spec: str | None, recordings: Sequence[Recording], *, reject_by_annotation: bool = True
) -> Auxiliary:
    """Build u for recordings that are laid end to end.

    Parameters
    ----------
    spec : str or None
        Where u comes from (see `sourcesep.spec`); None: `default_spec` of the first
        recording's kind and the shortest one's length.
    recordings : sequence of Recording
        In the order in which their samples follow each other. Segments never cross from
        one to the next; values, annotations and columns mean the same in all.
    reject_by_annotation : bool
        Whether samples annotated as ``BAD...`` (in any case) are `LEFT_OUT`.

    Returns
    -------
    Auxiliary
        Every label has at least one sample.

    Raises
    ------
    SettingsError
        If the SPEC cannot be read, or asks for what the recordings do not have.
    InputError
        If a column, an event or a file that it names cannot be used.
    """
    if not recordings:
        raise SettingsError("recordings=[]: at least one is needed")
    shortest = min(recordings, key=lambda r: r.n_times)
    terms = resolve(spec, recordings[0].kind, shortest.n_times, shortest.sfreq)
    for term in terms:
        if term.name in ("recording", "folder") and len(recordings) == 1:
            raise SettingsError(
                f"aux={spec!r}: {term.name!r} needs several recordings; "
                "give more, or use segments instead"
            )
    # A segment lies in one recording, and so in one folder: naming these adds nothing.
    in_time = [term for term in terms if term.name in IN_TIME]
    telling = [t for t in terms if not (in_time and t.name in ("recording", "folder"))]
    factors = [FACTORS[term.name](term, recordings) for term in telling]
    used = np.concatenate([_used(r, reject_by_annotation) for r in recordings])
    covariates = [f.covariates for f in factors if f.covariates is not None]
    return Auxiliary(
        scales=_product(factors, used),
        covariates=np.concatenate(covariates, axis=1) if covariates else None,
        is_time=len(telling) == len(in_time),
        spec=canonical(terms),
    )


def is_in_time(spec: str | None) -> bool:
    """Whether a SPEC asks for stretches of time alone, as the default does."""
    return spec is None or all(term.name in IN_TIME for term in parse(spec))


def from_array(u: ArrayLike, n_times: int) -> Auxiliary:
    """Build u from an array.

    Parameters
    ----------
    u : array_like, shape (n_times,) or (n_times, n_covariates)
        Whole numbers, text or truth values, one a sample, are labels; the whole number
        -1 leaves a sample out. Floats are covariates: rows that take at most `MAX_LEVELS`
        values get a label each, others are cut at quantiles: see docs/auxiliary.md.
    n_times : int
        Number of samples that u must describe.

    Raises
    ------
    InputError
        If u does not have such a shape, type or values.
    """
    values = _unmasked(u)
    if values.ndim not in (1, 2) or values.shape[0] != n_times or values.size == 0:
        raise InputError(
            f"u of shape {values.shape}: must be ({n_times},) for labels or "
            f"({n_times}, n_covariates) for covariates, a row for each of the {n_times} samples"
        )
    factor = from_values(named_columns(values, "u"), are_labels=True)
    scales = _product([factor], np.ones(n_times, dtype=bool))
    return Auxiliary(scales, factor.covariates, is_time=False, spec="array")


def _unmasked(u: ArrayLike) -> NDArray[Any]:
    """Return u as an array; InputError where a mask says that values of it are not known."""
    if lost := np.count_nonzero(np.ma.getmask(u)):
        raise InputError(
            f"u has {lost} masked values: every sample needs one; fill them in (-1 among labels "
            "leaves a sample out)"
        )
    return np.asarray(u)


def from_arrays(us: Sequence[ArrayLike], lengths: Sequence[int]) -> Auxiliary:
    """Build u of recordings laid end to end, from an array for each.

    A label means something within its recording only.

    Parameters
    ----------
    us : sequence of array_like, each of shape (n_times,) or (n_times, n_covariates)
        As for `from_array`.
    lengths : sequence of int
        Samples of each recording.

    Raises
    ------
    InputError
        If there is not one for each recording, or one does not have such a shape, type or values.
    """
    if len(us) != len(lengths):
        raise InputError(
            f"u of {len(us)} arrays: X has {len(lengths)} recordings; give one for each"
        )
    columns = [_unmasked(u) for u in us]
    for i, (values, n_times) in enumerate(zip(columns, lengths, strict=True)):
        if len(values) != n_times or values.shape[1:] != columns[0].shape[1:]:
            raise InputError(
                f"u[{i}] of shape {values.shape}: must have a row for each of the {n_times} "
                "samples of its recording, and as many columns as the others"
            )
    u = from_array(np.concatenate(columns), sum(lengths))
    which = Scale(
        np.repeat(np.arange(len(lengths)), lengths),
        tuple(f"recording {i}" for i in range(len(lengths))),
    )
    return Auxiliary((combine([which, u.scales[0]]),), u.covariates, is_time=False, spec="array")


def renumbered(u: Auxiliary, names: tuple[str, ...]) -> Auxiliary:
    """Return u on its finest scale, with labels numbered by these names.

    Covariates belong where the bins of the names say, whatever their own quantiles are.

    Raises
    ------
    InputError
        If u has a label that is not among them.
    """
    known = {name: i for i, name in enumerate(names)}
    unknown = [name for name in u.scales[0].names if name not in known]
    if unknown and u.covariates is not None:
        labels = where_fitted(u.covariates, names)
        if labels is not None and (labels >= 0).all():
            return Auxiliary((Scale(labels, names),), u.covariates, False, u.spec)
    if unknown:
        raise InputError(
            f"{unknown[0]}: a label that the fit has not seen; known are {first_few(names, 10)}"
        )
    number = np.array([known[name] for name in u.scales[0].names] + [LEFT_OUT])
    return Auxiliary((Scale(number[u.labels], names),), u.covariates, False, u.spec)


def check(u: Auxiliary, n_components: int | None = None) -> None:
    """Refuse u that cannot tell sources apart, going by its counts alone.

    Parameters
    ----------
    u : Auxiliary
        What to look at: its finest labels.
    n_components : int, optional
        Labels should have as many samples, or their covariances are singular.

    Raises
    ------
    SettingsError
        If fewer than two labels have two samples.

    Warns
    -----
    SourcesepWarning
        If the median label has fewer than `FEW_SAMPLES` or `n_components` samples.
    """
    counts = np.bincount(u.labels[u.used], minlength=u.n_labels)
    counts = counts[counts > 0]
    n_usable = int((counts >= 2).sum())
    if n_usable < 2:
        raise SettingsError(
            f"aux={u.spec!r}: labels with two samples or more: {n_usable}, and at least 2 are "
            "needed, for sources are told apart by what changes from label to label; "
            "choose shorter segments, or another u"
        )
    need, median = max(FEW_SAMPLES, n_components or 0), float(np.median(counts))
    if median < need:
        warnings.warn(
            f"aux={u.spec!r}: half of the {len(counts)} labels have {median:g} samples or "
            f"fewer, and {need} are wanted; longer segments or fewer labels are safer",
            SourcesepWarning,
            stacklevel=2,
        )


def _product(factors: Sequence[Factor], used: NDArray[np.bool_]) -> tuple[Scale, ...]:
    """Combine factors scale by scale; a factor with a single scale is the same on each."""
    scales = []
    for i in range(max(len(f.scales) for f in factors)):
        scale = combine([f.scales[min(i, len(f.scales) - 1)] for f in factors])
        if not used.all():
            labels, found = renumber(np.where(used, scale.labels, LEFT_OUT), scale.n_labels)
            scale = Scale(labels, tuple(scale.names[label] for label in found))
        scales.append(scale)
    return tuple(scales)


def _used(recording: Recording, reject_by_annotation: bool) -> NDArray[np.bool_]:
    """Which samples to fit on: those that no annotation calls bad, without digital silence."""
    used = good_samples(recording) if reject_by_annotation else np.ones(recording.n_times, bool)
    if recording.kind in ("audio", "array") and recording.in_memory:
        used &= ~_silent(recording.data[:], round(SILENCE * recording.sfreq))
    return used


def _silent(x: NDArray[np.float64], shortest: int) -> NDArray[np.bool_]:
    """Which samples lie in a run of `shortest` or more in which no channel changes."""
    same = np.append(unchanged(x), False)
    silent = np.zeros(x.shape[1], bool)
    if shortest >= SHORTEST_SILENCE:
        for first, last in np.flatnonzero(np.diff(same, prepend=False)).reshape(-1, 2):
            silent[first - 1 : last] = last - first + 1 >= shortest
    return silent
