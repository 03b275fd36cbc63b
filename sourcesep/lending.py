"""What one recording gives to a fit of several: stretches of it, and moments of all of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sourcesep import auxiliary
from sourcesep.contracts import contract_of
from sourcesep.exceptions import SourcesepWarning
from sourcesep.ivae.heldout import stretches
from sourcesep.ivae.moments import Moments
from sourcesep.recording import Recording
from sourcesep.separation import as_recording

__all__ = ["Shared", "Task", "lend", "moments_of"]

FEWEST_LENT = 2000
"""The fewest samples that each of them lends."""
N_STRETCHES = 20
"""How many stretches a recording lends, unless its segments are too long for that."""
WITHOUT_MEAN = ("audio", "eeg")
"""Kinds of recording whose mean comes from the amplifier: it is removed from each recording."""


class Shared(NamedTuple):
    """What one recording gives to the fit.

    Parameters
    ----------
    name : str
        What messages call the recording.
    contract : dict
        What it would have to be to go with the others; see `contracts`.
    parts : list of Recording
        The stretches that it lends, in order of time.
    is_whole : bool
        Whether they are the whole recording.
    moments : Moments or None
        Moments of all its segments, where a matrix may be fitted to them.
    notes : tuple of str
        The warnings that reading it gave.
    """

    name: str
    contract: dict[str, Any]
    parts: list[Recording]
    is_whole: bool
    moments: Moments | None
    notes: tuple[str, ...]


class Task(NamedTuple):
    """A recording to read: its number, the most values it may lend, and the SPEC within it."""

    number: int
    source: Any
    most: int
    aux: str | None


def lend(task: Task, *, columns: str | Sequence[str] | None, with_moments: bool) -> Shared:
    """Read a recording, compute its moments, and lend stretches of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SourcesepWarning)
        recording = as_recording(task.source, columns, aux=task.aux)
        recording.check_missing(
            "several recordings are fitted together without gaps only: fill them, or leave those "
            "columns out"
        )
        named = recording.path or Path(f"recording {task.number}")
        spans = _lent(recording, task.most, task.aux)
        parts = [_centred(recording, span, named) for span in spans]
        moments, whole = None, [slice(0, recording.n_times)]
        if with_moments:
            pieces = whole if recording.in_memory else recording.summary.spans
            moments = Moments.joined(
                [moments_of(_centred(recording, span, named), task.aux) for span in pieces]
            )
    notes = tuple(str(w.message) for w in caught if issubclass(w.category, SourcesepWarning))
    return Shared(named.name, contract_of(recording), parts, spans == whole, moments, notes)


def _centred(recording: Recording, span: slice, path: Path) -> Recording:
    """A stretch in memory, without what only its reader needs."""
    part = recording.part(span)
    data = part.data[:]
    if recording.kind in WITHOUT_MEAN:
        data = data - recording.summary.mean[:, None]
    return dataclasses.replace(part, data=data, path=path, origin=None)


def _lent(recording: Recording, most: int, aux: str | None) -> list[slice]:
    """Which samples a recording lends: all, or stretches longer than its longest segment."""
    if most == 0:
        return []
    n_times = recording.n_times
    enough = max(most // recording.n_channels, FEWEST_LENT)
    if n_times <= enough:
        return [slice(0, n_times)]
    longest = max(_seconds(recording, aux), default=0.0) * recording.sfreq
    size = min(max(enough // N_STRETCHES, int(np.ceil(2 * longest))), n_times)
    begins = stretches(n_times - size + 1, 1, max(1, enough // size))
    return [slice(begin, begin + size) for begin in begins.tolist()]


def moments_of(recording: Recording, aux: str | None) -> Moments:
    """Moments of one recording; a segment longer than the recording is the whole of it."""
    if aux is None:
        u = auxiliary.from_array(np.zeros(recording.n_times, np.int64), recording.n_times)
    else:
        u = auxiliary.build(_fitting(recording, aux), recording)
    return Moments.of(recording.data[:], u)


def _terms(recording: Recording, aux: str) -> tuple[auxiliary.Term, ...]:
    return auxiliary.resolve(aux, recording.kind, recording.n_times, recording.sfreq)


def _seconds(recording: Recording, aux: str | None) -> list[float]:
    """Lengths, in seconds, of the segments that the SPEC asks for."""
    terms = () if aux is None else _terms(recording, aux)
    return [seconds for term in terms if term.name == "segments" for seconds in term.seconds]


def _fitting(recording: Recording, aux: str) -> str:
    """The SPEC without segments longer than the recording."""
    terms = []
    for term in _terms(recording, aux):
        if term.name == "segments":
            known = [s for s in term.seconds if s <= recording.seconds] or [recording.seconds]
            term = auxiliary.Term("segments", tuple(auxiliary.number(s) for s in known))
        terms.append(term)
    return auxiliary.canonical(tuple(terms))
