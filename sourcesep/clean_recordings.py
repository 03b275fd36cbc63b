"""Clean recordings of labelled sources, gathered from a folder: what a prior is trained on."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.recording import Recording, kind_of, read
from sourcesep.spec import parse

__all__ = ["Clean", "gather"]


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


def gather(folder: Path, aux: str) -> Clean:
    """Read the recordings of a folder, and what labels each.

    Parameters
    ----------
    folder : pathlib.Path
        Looked through with all its subfolders.
    aux : str
        ``folder``, ``column:NAME`` or ``annotations[:REGEX]``; see `sourcesep.train_prior`.

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
            f"aux={aux!r}: clean recordings have labels from folder, column:NAME or annotations"
        )
    if not folder.is_dir():
        raise InputError(f"folder={folder}: no such folder; check the path")
    paths = sorted(
        p
        for p in folder.rglob("*")
        if kind_of(p) == "audio" and not p.name.startswith(".") and p.is_file()
    )
    if not paths:
        raise InputError(f"folder={folder}: holds no audio files; name the folder of recordings")
    found: dict[str, list[NDArray[np.float64]]] = {}
    first: Recording | None = None
    used = set()
    for path, label, span in _LABELLED[terms[0].name](folder, paths, terms[0].arguments):
        recording = read(path)
        first = first or recording
        _check(recording, first)
        begin, end = (round(min(s * recording.sfreq, recording.n_times)) for s in span)
        if end > begin:
            found.setdefault(label, []).append(recording.data[0, begin:end])
            used.add(path)
    labels = sorted(found)
    if first is None or len(labels) < 2:
        raise InputError(
            f"folder={folder}: {'one label, ' + repr(labels[0]) if labels else 'no label'}: at "
            "least two are needed to tell sources apart; see --aux"
        )
    return Clean(folder, first.sfreq, {label: found[label] for label in labels}, len(used))


def _check(recording: Recording, first: Recording) -> None:
    """Refuse a recording that does not go with the first."""
    if recording.n_channels != 1:
        raise InputError(
            f"{recording.path}: n_channels={recording.n_channels}, clean recordings have one; "
            "extract a channel first"
        )
    if recording.sfreq != first.sfreq:
        raise InputError(
            f"{recording.path}: {recording.sfreq:g} Hz, {first.path} has {first.sfreq:g} Hz; all "
            "must have one rate: resample them first"
        )


Labelled = Iterator[tuple[Path, str, tuple[float, float]]]
"""A recording, its label, and from when to when it has it, in seconds."""
WHOLE = (0.0, math.inf)


def _by_folder(folder: Path, paths: list[Path], _: tuple[str, ...]) -> Labelled:
    """FOLDER/LABEL/...: the first folder below names the label."""
    for path in paths:
        parts = path.relative_to(folder).parts
        if len(parts) < 2:
            raise InputError(
                f"{path}: lies in no folder that names its label; put it into "
                f"{folder}/LABEL/, or use --aux column:NAME"
            )
        yield path, parts[0], WHOLE


def _by_column(folder: Path, paths: list[Path], names: tuple[str, ...]) -> Labelled:
    """The table in the folder says which file has which label."""
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(
            f"folder={folder}: {len(tables)} .csv files; --aux column needs one, with the columns "
            "file and the one named"
        )
    for row in _rows(tables[0], ("file", *names)):
        path = folder / row["file"]
        if path not in paths:
            raise InputError(f"{tables[0]}: file={row['file']}: no such recording in {folder}")
        yield path, ", ".join(row[name] for name in names), WHOLE


def _by_annotations(folder: Path, paths: list[Path], regex: tuple[str, ...]) -> Labelled:
    """A table beside each recording says when it has which label."""
    for path in paths:
        table = path.with_suffix(".csv")
        if not table.is_file():
            raise InputError(
                f"{path}: no {table.name} beside it; --aux annotations needs one, with the "
                "columns onset, duration (in seconds) and label"
            )
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
                yield path, row["label"], (onset, onset + duration)


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
                    raise InputError(f"{table}: line {reader.line_num} lacks a value")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); save it as UTF-8 text") from error


_LABELLED = {"folder": _by_folder, "column": _by_column, "annotations": _by_annotations}
