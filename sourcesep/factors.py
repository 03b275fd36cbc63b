"""What each term of a SPEC says about the samples of recordings laid end to end.

`FACTORS` has the function for each term; `sourcesep.auxiliary` combines what they return.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep import windows
from sourcesep.dates import year_of
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.labels import Factor, Scale, from_values, named_columns
from sourcesep.messages import first_few
from sourcesep.recording import Event, Recording
from sourcesep.samples import map_npy
from sourcesep.spec import Term, number

__all__ = ["FACTORS", "TOGETHER", "UNLABELLED", "good_samples"]

FRAME_SECONDS = {"audio": 0.02, "eeg": 0.1}
"""Frames in which ``adaptive`` measures power; for tables a four-hundredth of the rows."""
MOST_SAMPLES = 2**53
"""Up to here whole numbers are exact; no recording is longer."""
LONGEST_CELL = 1000
"""Letters. An array of text takes as much memory for each cell as for its longest."""
UNLABELLED = "(none)"
"""The label of samples without an annotation."""
TOGETHER = " & "
"""What joins the descriptions of annotations that overlap."""


# Time: segments and adaptive


def _segments(term: Term, recordings: Sequence[Recording]) -> Factor:
    finest = term.seconds[0]
    multiples = _multiples(term, longest=max(r.seconds for r in recordings))
    lengths = [round(finest * r.sfreq) for r in recordings]
    if min(lengths) < 1:
        raise SettingsError(
            f"aux={str(term)!r}: seconds={number(finest)} is shorter than a sample at "
            f"sfreq={min(r.sfreq for r in recordings):g} Hz; choose longer segments"
        )
    scales = []
    for multiple in multiples:
        bounds = [
            windows.edges(r.n_times, multiple * length)
            for r, length in zip(recordings, lengths, strict=True)
        ]
        scales.append(_stretches(bounds, recordings))
    return Factor(tuple(scales))


def _multiples(term: Term, longest: float) -> list[int]:
    """Each scale as a whole multiple of the finest; a warning where it has to be rounded."""
    finest = term.seconds[0]
    multiples: list[int] = []
    for seconds in term.seconds:
        if seconds > longest * (1 + 1e-9):
            raise SettingsError(
                f"aux={str(term)!r}: seconds={number(seconds)} is longer than the recording of "
                f"{longest:.6g} s; choose shorter segments"
            )
        multiple = int(min(seconds / finest, MOST_SAMPLES) + 0.5)
        if multiple in multiples:
            raise SettingsError(
                f"aux={str(term)!r}: seconds={number(seconds)} is too close to the next finer "
                f"scale; scales must be different multiples of the finest, {number(finest)} s"
            )
        if not np.isclose(seconds, multiple * finest):
            warnings.warn(
                f"aux={str(term)!r}: segments of {number(seconds)} s become "
                f"{multiple * finest:.6g} s, for they are unions of those of {number(finest)} s",
                SourcesepWarning,
                stacklevel=3,
            )
        multiples.append(multiple)
    return multiples


def _adaptive(term: Term, recordings: Sequence[Recording]) -> Factor:
    return Factor((_stretches([_power_changes(r) for r in recordings], recordings),))


def _power_changes(recording: Recording) -> NDArray[np.int64]:
    """Samples at which the log power of the channels changes, with both ends of the recording."""
    data, n_times = recording.data[~recording.summary.constant], recording.n_times
    seconds = FRAME_SECONDS.get(recording.kind, n_times / recording.sfreq / 400)
    size = max(round(seconds * recording.sfreq), 4)
    n_frames = n_times // size
    if n_frames < 2:
        return np.array([0, n_times])
    starts = np.arange(n_frames) * size
    power = np.array([_frame_power(row, starts) for row in data])
    # 60 dB below a channel's mean counts as silence.
    log_power = np.log(power + 1e-6 * power.mean(axis=1, keepdims=True))
    return np.concatenate([[0], windows.change_points(log_power.T) * size, [n_times]])


def _frame_power(row: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean power in each frame; where a frame has no values, interpolated from its neighbours."""
    squares = (row - np.nanmean(row)) ** 2
    known = ~np.isnan(squares)
    counts = np.add.reduceat(known.astype(np.int64), starts)
    energy = np.add.reduceat(np.where(known, squares, 0.0), starts)
    full = counts > 0
    power: NDArray[np.float64] = np.interp(starts, starts[full], energy[full] / counts[full])
    return power


def _stretches(bounds: Sequence[NDArray[np.int64]], recordings: Sequence[Recording]) -> Scale:
    """Label the stretches between each recording's bounds, and name them by their time."""
    labels, names = [], list[str]()
    titles = [f"{title}: " for title in _titles(recordings)] if len(recordings) > 1 else [""]
    for ends, recording, title in zip(bounds, recordings, titles, strict=True):
        labels.append(windows.labels_between(ends) + len(names))
        unit = "rows" if recording.kind == "table" else "s"
        times = [number(t) for t in (ends / recording.sfreq).round(6)]
        names += [f"{title}{a}-{b} {unit}" for a, b in pairwise(times)]
    return Scale(np.concatenate(labels), tuple(names))


# Which recording


def _recording(term: Term, recordings: Sequence[Recording]) -> Factor:
    return _one_each(_titles(recordings), recordings)


def _folder(term: Term, recordings: Sequence[Recording]) -> Factor:
    folders = []
    for recording, title in zip(recordings, _titles(recordings), strict=True):
        if recording.path is None:
            raise SettingsError(
                f"aux={str(term)!r}: {title} was not read from a file; use 'recording' instead"
            )
        folders.append(recording.path.resolve().parent)
    clash = len({f.name for f in folders}) < len(set(folders))
    return _one_each([str(f) if clash else f.name for f in folders], recordings)


def _one_each(titles: Sequence[str], recordings: Sequence[Recording]) -> Factor:
    """Give all samples of a recording its title; equal titles are one label."""
    names = list(dict.fromkeys(titles))
    labels = np.array([names.index(t) for t in titles], dtype=np.int64)
    return Factor((Scale(np.repeat(labels, [r.n_times for r in recordings]), tuple(names)),))


def _titles(recordings: Sequence[Recording]) -> list[str]:
    """A name for each recording, no two the same; stretches of one file have one name."""
    keys = [r.path or i for i, r in enumerate(recordings)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    stems = {key: key.stem if isinstance(key, Path) else "recording" for key in number}
    twice = {stem for stem, count in Counter(stems.values()).items() if count > 1}
    return [f"{stems[k]} ({number[k]})" if stems[k] in twice else stems[k] for k in keys]


# Values: columns


def _column(term: Term, recordings: Sequence[Recording]) -> Factor:
    columns = {name: _named(term, name, recordings) for name in term.arguments}
    return from_values(columns, are_labels=False)


def _named(term: Term, name: str, recordings: Sequence[Recording]) -> NDArray[Any]:
    """One column of all recordings."""
    parts: list[NDArray[Any]] = []
    for recording in recordings:
        if name not in recording.columns:
            close = difflib.get_close_matches(name, recording.columns, n=1)
            known = ", ".join(recording.columns) or "none"
            raise SettingsError(
                f"aux={str(term)!r}: no column {name!r}; "
                f"{f'did you mean {close[0]!r}? There' if close else 'there'} are: {known}"
            )
        if name in recording.names and not parts:
            warnings.warn(
                f"aux={str(term)!r}: column {name!r} is also a channel that is separated, "
                "and u should be known beside the signal; leave it out of columns",
                SourcesepWarning,
                stacklevel=2,
            )
        parts.append(np.asarray(recording.columns[name]))
        if parts[-1].shape != (recording.n_times,):
            raise InputError(
                f"column {name!r} has shape {parts[-1].shape}: must have a value for each of "
                f"the {recording.n_times} samples"
            )
    return np.concatenate(parts)


def _year(term: Term, recordings: Sequence[Recording]) -> Factor:
    name, span = (*term.arguments, "1")[:2]
    years = []
    for row, cell in enumerate(_named(term, name, recordings).tolist(), 1):
        try:
            years.append(year_of(str(cell)))
        except ValueError as error:
            raise InputError(
                f"column {name!r}, row {row} ({cell!r}): no year is read from it; write dates as "
                "1990-03-31, or years as 1990"
            ) from error
    first = np.array(years, dtype=np.int64) // int(span) * int(span)
    begins, labels = np.unique(first, return_inverse=True)
    names = (f"{a}" if int(span) == 1 else f"{a}-{a + int(span) - 1}" for a in begins.tolist())
    return Factor((Scale(labels.astype(np.int64), tuple(names)),))


# Events: annotations and files


def _span(event: Event, recording: Recording) -> tuple[int, int]:
    """The first sample of an event and the one after its last, within the recording."""
    if not (math.isfinite(event.onset) and math.isfinite(event.duration) and event.duration >= 0):
        raise InputError(
            f"event {event.description!r} has onset={event.onset}, duration={event.duration}: "
            "must be finite, and the duration not negative"
        )
    first, last = (
        round(min(max(seconds * recording.sfreq, 0), recording.n_times))
        for seconds in (event.onset, event.onset + event.duration)
    )
    return first, last


def good_samples(recording: Recording) -> NDArray[np.bool_]:
    """Return which samples no annotation calls bad, by a description that begins with ``BAD``."""
    good = np.ones(recording.n_times, dtype=bool)
    for event in recording.events:
        if event.description.lower().startswith("bad"):
            good[slice(*_span(event, recording))] = False
    return good


def _annotations(term: Term, recordings: Sequence[Recording]) -> Factor:
    pattern = re.compile("".join(term.arguments))
    events = [[e for e in r.events if pattern.search(e.description)] for r in recordings]
    scale = _covering(events, recordings)
    if scale is None:
        known = sorted({repr(e.description) for r in recordings for e in r.events})
        raise SettingsError(
            f"aux={str(term)!r}: no such annotation lasts any time; there are: "
            f"{first_few(known, 10) or 'none'}"
        )
    return Factor((scale,))


def _covering(events: Sequence[Sequence[Event]], recordings: Sequence[Recording]) -> Scale | None:
    """Label samples by the events that cover them; None if no event covers any."""
    starts, ends = dict[int, list[str]](), dict[int, list[str]]()
    offset = 0
    for own, recording in zip(events, recordings, strict=True):
        for event in own:
            first, last = _span(event, recording)
            if first < last:
                starts.setdefault(offset + first, []).append(event.description)
                ends.setdefault(offset + last, []).append(event.description)
        offset += recording.n_times
    if not starts:
        return None
    bounds = sorted({0, offset, *starts, *ends})
    active, texts = Counter[str](), []
    for bound in bounds[:-1]:
        active.update(starts.get(bound, ()))
        active -= Counter(ends.get(bound, ()))
        texts.append(TOGETHER.join(sorted(active)) or UNLABELLED)
    names, labels = np.unique(np.array(texts), return_inverse=True)
    labels = np.repeat(labels.astype(np.int64), np.diff(bounds))
    return Scale(labels, tuple(names.tolist()))


def _file(term: Term, recordings: Sequence[Recording]) -> Factor:
    path = Path(term.arguments[0])
    values = _content(term, path)
    is_csv = path.suffix.lower() == ".csv"
    n_times = sum(r.n_times for r in recordings)
    header: list[str] = []
    if is_csv and values.ndim == 2:
        first = [name.strip().lower() for name in values[0].tolist()]
        if {"onset", "duration", "label"} <= set(first):
            events = _listed_events(term, dict(zip(first, values[1:].T, strict=True)))
            return _from_events(term, events, recordings)
        if len(values) == n_times + 1:
            header, values = values[0].tolist(), values[1:]
    if values.ndim not in (1, 2) or len(values) != n_times or not values.size:
        raise InputError(
            f"aux={str(term)!r}: has shape {np.shape(values)}, and a row for each of the "
            f"{n_times} samples is needed, or (.csv) rows under onset,duration,label"
        )
    columns = named_columns(values, path.stem)
    if is_csv:
        columns = dict(zip(header or columns, map(_as_numbers, values.T), strict=True))
    return from_values(columns, are_labels=True)


def _content(term: Term, path: Path) -> NDArray[Any]:
    """What a file holds: the array of a .npy, or the cells of a .csv as text."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"aux={str(term)!r}: no such file; check the path")
    if suffix not in (".npy", ".csv"):
        raise InputError(f"aux={str(term)!r}: cannot read {suffix or 'it'}; use .npy or .csv")
    try:
        return np.array(map_npy(path)) if suffix == ".npy" else _cells(path)
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise InputError(f"aux={str(term)!r}: cannot be read ({error})") from error


def _cells(path: Path) -> NDArray[np.str_]:
    """Read the cells of a .csv, shape (n_rows, n_columns)."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if any(len(cell) > LONGEST_CELL for row in rows for cell in row):
        raise ValueError(f"a cell has more than {LONGEST_CELL} letters")
    if odd := [row for row in rows if len(row) != len(rows[0])]:
        raise ValueError(f"{','.join(odd[0])!r} has other columns than the first row")
    return np.array(rows)


def _listed_events(term: Term, columns: dict[str, NDArray[np.str_]]) -> list[Event]:
    times = []
    for name in ("onset", "duration"):
        try:
            times.append([float(text) for text in columns[name].tolist()])
        except ValueError as error:
            raise InputError(
                f"aux={str(term)!r}: onset and duration must be numbers of seconds, and {name} "
                f"has {str(error).rpartition(': ')[2]}"
            ) from None
    return [Event(*event) for event in zip(*times, columns["label"].tolist(), strict=True)]


def _from_events(term: Term, events: list[Event], recordings: Sequence[Recording]) -> Factor:
    if len(recordings) > 1:
        raise SettingsError(
            f"aux={str(term)!r}: onsets belong to one recording, and there are "
            f"{len(recordings)}; give a row a sample instead"
        )
    scale = _covering([events], recordings)
    if scale is None:
        raise InputError(
            f"aux={str(term)!r}: no row lasts any time within the recording; "
            "onset and duration are in seconds from its beginning"
        )
    return Factor((scale,))


def _as_numbers(texts: NDArray[np.str_]) -> NDArray[np.generic]:
    """Read text as whole numbers, or as numbers, where all of it can be."""
    for dtype in (np.int64, np.float64):
        try:
            return texts.astype(dtype)
        except (ValueError, OverflowError):
            continue
    return texts


FACTORS: dict[str, Callable[[Term, Sequence[Recording]], Factor]] = {
    "segments": _segments,
    "adaptive": _adaptive,
    "annotations": _annotations,
    "column": _column,
    "year": _year,
    "folder": _folder,
    "file": _file,
    "recording": _recording,
}
"""What each term makes of the samples."""
