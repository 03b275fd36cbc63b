"""Clean recordings of labelled sources, gathered from a folder: what a prior is trained on."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import mode
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError, SettingsError, SourcesepError
from sourcesep.reading import kind_of, read
from sourcesep.spec import parse

__all__ = ["Clean", "gather"]

Parts = list[tuple[str, tuple[float, float]]]
"""What is heard of a recording: a label, and from when to when, in seconds."""
WHOLE = (0.0, math.inf)


@dataclass(frozen=True)
class Clean:
    """Recordings of single sources by their labels.

    Parameters
    ----------
    folder : Path
        Where they were found.
    sfreq : float
        Samples a second, of all.
    signals : dict of str to list of ndarray of shape (n_times,)
        By label, labels and recordings in sorted order.
    n_files : int
        From which they come.
    """

    folder: Path
    sfreq: float
    signals: dict[str, list[NDArray[np.float64]]]
    n_files: int

    @property
    def labels(self) -> tuple[str, ...]:
        """In sorted order."""
        return tuple(self.signals)

    @property
    def seconds(self) -> dict[str, float]:
        """How much there is of every label."""
        return {k: sum(map(len, parts)) / self.sfreq for k, parts in self.signals.items()}

    @property
    def n_times(self) -> int:
        """Samples of all labels."""
        return sum(len(part) for parts in self.signals.values() for part in parts)

    @property
    def sha256(self) -> str:
        """Of samples and labels, as hexadecimal text."""
        digest = hashlib.sha256()
        for label, parts in self.signals.items():
            digest.update(label.encode() + b"\0")
            for part in parts:
                digest.update(part.tobytes())
        return digest.hexdigest()


def gather(
    folder: Path, aux: str, on_failure: Callable[[str, SourcesepError], None] | None = None
) -> Clean:
    """Read the recordings of a folder, and what labels each.

    Parameters
    ----------
    folder : pathlib.Path
        Looked through with all its subfolders.
    aux : str
        ``folder``, ``column:NAME`` or ``annotations[:REGEX]``; see `sourcesep.train_prior`.
    on_failure : callable, optional
        Given the name of a recording that cannot be used and the error; raised by default.

    Raises
    ------
    InputError
        If there is nothing to read, something that does not belong to the rest, or one
        label only.
    SettingsError
        If `aux` is none of these.
    """
    terms = parse(aux)
    if len(terms) != 1 or terms[0].name not in _LABELLED:
        raise SettingsError(
            f"aux={aux!r}: clean recordings have labels from folder, column:NAME or annotations; "
            "ask for one of these"
        )
    paths = _audio_files(folder)
    parts_of = _LABELLED[terms[0].name](folder, paths, terms[0].arguments)

    def left_out(path: Path, error: InputError) -> None:
        if on_failure is None:
            raise error
        on_failure(str(path), error)

    heard: dict[Path, _Heard] = {}
    for path in paths:
        try:
            if parts := parts_of(path):
                heard[path] = _heard(path, parts)
        except InputError as error:
            left_out(path, error)
    used = [one for one in _of_one_rate(heard, left_out) if one.signals]
    found = defaultdict(list)
    for label, signal in chain.from_iterable(one.signals for one in used):
        found[label].append(signal)
    if len(found) < 2:
        raise InputError(
            f"folder={folder}: {'one label, ' + repr(*found) if found else 'no label'}: at least "
            "two are needed to tell sources apart; see --aux"
        )
    return Clean(folder, used[0].sfreq, dict(sorted(found.items())), len(used))


def _audio_files(folder: Path) -> list[Path]:
    """The audio files in a folder and all below it, in sorted order."""
    if not folder.is_dir():
        raise InputError(f"folder={folder}: no such folder; check the path")
    paths = sorted(
        p
        for p in folder.rglob("*")
        if kind_of(p) == "audio" and not p.name.startswith(".") and p.is_file()
    )
    if not paths:
        raise InputError(f"folder={folder}: holds no audio files; name the folder of recordings")
    return paths


class _Heard(NamedTuple):
    """What is heard in a recording, label by label, and its rate."""

    sfreq: float
    signals: list[tuple[str, NDArray[np.float64]]]


def _heard(path: Path, parts: Parts) -> _Heard:
    """Read the labelled parts of a recording of one channel."""
    recording = read(path)
    if recording.n_channels != 1:
        raise InputError(
            f"{path}: n_channels={recording.n_channels}, clean recordings have one; extract a "
            "channel first"
        )
    signals = []
    for label, span in parts:
        begin, end = (round(min(s * recording.sfreq, recording.n_times)) for s in span)
        if end > begin:
            signals.append((label, recording.data[0, begin:end]))
    return _Heard(recording.sfreq, signals)


def _of_one_rate(
    heard: dict[Path, _Heard], left_out: Callable[[Path, InputError], None]
) -> Iterator[_Heard]:
    """Pass on the recordings of the rate that most of them have."""
    rates = [one.sfreq for one in heard.values()]
    usual = mode(rates) if rates else 0.0
    for path, one in heard.items():
        if one.sfreq == usual:
            yield one
        else:
            like = list(heard)[rates.index(usual)]
            text = f"{path}: {one.sfreq:g} Hz, {like} has {usual:g} Hz; all must have one rate"
            left_out(path, InputError(f"{text}: resample them first"))


def _by_folder(folder: Path, paths: list[Path], _: tuple[str, ...]) -> Callable[[Path], Parts]:
    """FOLDER/LABEL/...: the first folder below names the label."""
    if paths and all(path.parent == folder for path in paths):
        raise InputError(
            f"folder={folder}: no recording in it lies in a folder that names its label; put each "
            f"into {folder}/LABEL/, or use --aux column:NAME"
        )

    def parts_of(path: Path) -> Parts:
        parts = path.relative_to(folder).parts
        if len(parts) < 2:
            raise InputError(
                f"{path}: lies in no folder that names its label; put it into "
                f"{folder}/LABEL/, or use --aux column:NAME"
            )
        return [(parts[0], WHOLE)]

    return parts_of


def _by_column(folder: Path, paths: list[Path], names: tuple[str, ...]) -> Callable[[Path], Parts]:
    """The table in the folder says which file has which label."""
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(
            f"folder={folder}: {len(tables)} .csv files; --aux column needs one, with the columns "
            "file and the one named"
        )
    parts: dict[Path, Parts] = {path: [] for path in paths}
    for row in _rows(tables[0], ("file", *names)):
        path = folder / row["file"]
        if path not in parts:
            raise InputError(
                f"{tables[0]}: file={row['file']}: no such recording in {folder}; correct the "
                "row, or take it out"
            )
        parts[path].append((", ".join(row[name] for name in names), WHOLE))
    return parts.__getitem__


def _by_annotations(_: Path, __: list[Path], regex: tuple[str, ...]) -> Callable[[Path], Parts]:
    """A table beside each recording says when it has which label."""

    def parts_of(path: Path) -> Parts:
        table = path.with_suffix(".csv")
        if not table.is_file():
            raise InputError(
                f"{path}: no {table.name} beside it; --aux annotations needs one, with the "
                "columns onset, duration (in seconds) and label"
            )
        parts = []
        for row in _rows(table, ("onset", "duration", "label")):
            try:
                onset, duration = float(row["onset"]), float(row["duration"])
            except ValueError:
                onset, duration = math.nan, math.nan
            if not (0 <= onset < math.inf and 0 <= duration < math.inf):
                raise InputError(
                    f"{table}: onset={row['onset']}, duration={row['duration']}: must be seconds, "
                    "0 or more"
                )
            if not regex or re.search(regex[0], row["label"]):
                parts.append((row["label"], (onset, onset + duration)))
        return parts

    return parts_of


def _rows(table: Path, names: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{table}: no column {', '.join(missing)}; it has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                if any(not row[name] for name in names):
                    raise InputError(
                        f"{table}: line {reader.line_num} lacks a value; give one for each of "
                        f"{', '.join(names)}"
                    )
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); save it as UTF-8 text") from error


_LABELLED = {"folder": _by_folder, "column": _by_column, "annotations": _by_annotations}
