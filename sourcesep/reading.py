"""`read`: from a file to a Recording, by the adapter that its suffix asks for."""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.recording import Kind, Recording
from sourcesep.samples import Stamp, check_unchanged, identical_channels

__all__ = ["SUFFIXES", "adapter_for", "kind_of", "read", "suffix_of"]

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "audio": (
        *(".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
        *(".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    ),
    "eeg": (".fif", ".fif.gz", ".edf", ".bdf", ".set", ".vhdr"),
    "table": (".csv", ".npy", ".parquet"),
}
"""Adapter name -> the file suffixes it reads (lower case)."""

CURES = {
    ".m4a": "convert it first: ffmpeg -i INPUT.m4a OUTPUT.wav",
    ".aac": "convert it first: ffmpeg -i INPUT.aac OUTPUT.wav",
    ".wma": "convert it first: ffmpeg -i INPUT.wma OUTPUT.wav",
    ".mp4": "extract the sound first: ffmpeg -i INPUT.mp4 OUTPUT.wav",
    ".mat": "save the matrix as .npy (numpy.save) or .csv; EEGLAB's files end in .set",
    ".xlsx": "save the sheet as .csv",
    ".eeg": "open the .vhdr header that belongs to it",
    ".fdt": "open the .set file that belongs to it",
}
"""What to do about the files people try most and that no adapter reads."""


def suffix_of(path: Path) -> str:
    """Return the lower-case suffix of `path`, counting ``.fif.gz`` as one."""
    name = path.name.lower()
    return ".fif.gz" if name.endswith(".fif.gz") else path.suffix.lower()


def kind_of(path: Path) -> Kind | None:
    """Return what kind of recording the file's suffix promises; None where none is known."""
    suffix = suffix_of(path)
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def adapter_for(kind: str) -> ModuleType:
    """Return the adapter module that reads and writes recordings of `kind`."""
    return importlib.import_module(f"sourcesep.adapters.{'table' if kind == 'array' else kind}")


def read(path: str | Path, **options: Any) -> Recording:
    """Read a recording, choosing the adapter by the file's suffix.

    Parameters
    ----------
    path : str or pathlib.Path
        Audio (everything libsndfile reads), EEG (.fif .edf .bdf .set .vhdr) or a
        table (.csv .npy .parquet).
    **options
        Passed to the adapter: tables take ``columns`` (names of the columns to
        separate).

    Returns
    -------
    Recording
        The samples in float64 with names, units, events and sampling rate.

    Raises
    ------
    InputError
        If the file is missing, of an unknown kind, unreadable, or holds nothing
        that can be separated.
    SettingsError
        If an option is not one of this kind of file.
    """
    path = Path(path)
    _check_path(path)
    kind = kind_of(path)
    if kind is None:
        suffix = suffix_of(path)
        known = " ".join(s for suffixes in SUFFIXES.values() for s in suffixes)
        cure = CURES.get(suffix, f"known are {known}")
        raise InputError(f"input={path}: cannot read {suffix or 'a file without suffix'}; {cure}")
    if path.stat().st_size == 0:
        raise InputError(f"input={path}: the file is empty (0 bytes); was it copied completely?")
    adapter = adapter_for(kind)
    for name, value in options.items():
        if name not in inspect.signature(adapter.read).parameters:
            raise SettingsError(f"{name}={value}: is no option for {kind} files; leave it out")
    stamp = Stamp.of(path)
    recording: Recording = adapter.read(path, **options)
    check_unchanged(path, stamp)
    _warn_about_channels(recording)
    return recording


def _check_path(path: Path) -> None:
    """Refuse a path that does not lead to a file."""
    try:
        str(path).encode()  # libraries in C take no other names
        exists, is_file = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is not valid Unicode"
        raise InputError(
            f"input={str(path)[:200]!a}: cannot be opened ({reason}); check the path"
        ) from error
    if not exists:
        unmatched = "no file matches; check the pattern" if {"*", "?"} & set(str(path)) else ""
        raise InputError(f"input={path}: {unmatched or 'no such file; check the path'}")
    if not is_file:
        what = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"input={path}: is {what}; name a file, or several")
    if not os.access(path, os.R_OK):
        raise InputError(f"input={path}: may not be read; change its permissions, or its owner")


def _warn_about_channels(recording: Recording) -> None:
    """Warn once about constant and once about identical channels; both are handled."""
    names, constant = recording.names, recording.summary.constant
    notes = [
        f"channels {', '.join(names[i] for i in same)} are identical: they count as one when "
        "sources are found"
        for same in identical_channels(recording.data, recording.summary)
    ]
    if constant.any():
        which = ", ".join(n for n, is_constant in zip(names, constant, strict=True) if is_constant)
        said = "is constant (silent): it carries no source, and no source is heard in it"
        notes.insert(0, f"channel {which} {said}")
    for note in notes:
        warnings.warn(note, SourcesepWarning, stacklevel=3)
