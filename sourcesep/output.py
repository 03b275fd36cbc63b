"""Folders of results: named, checked early, written under another name, renamed when whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.exceptions import OutputError, SettingsError
from sourcesep.messages import in_brief

__all__ = [
    "RESULT",
    "alone",
    "beside",
    "check_model_output",
    "check_output",
    "check_resumable",
    "component_name",
    "explained",
    "folders_for",
    "plain",
    "read_result",
    "recover",
    "replacing",
    "sha256",
    "write_result",
]

RESULT = "result.json"
PATIENCE = 60
"""Seconds for which a process waits for another one that writes to the same place."""


def component_name(k: int) -> str:
    """Return the name that component `k` goes by in written files."""
    return f"IVAE{k:03d}"


def folders_for(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """Return a folder in `output` for each input; one that is named twice is one.

    It has the input's name without its suffix. Inputs of the same name get the parts of their
    paths that tell them apart; inputs that differ in their suffix only keep the suffix.

    Raises
    ------
    SettingsError
        If one input's result would lie in another's.
    """
    alike: dict[str, list[Path]] = defaultdict(list)
    unique: dict[Path, Path] = {}
    for path in map(Path, inputs):
        unique.setdefault(path.absolute(), path)
    for path in unique.values():
        alike[_stem(path)].append(path)
    folders = {}
    for stem, paths in alike.items():
        parents = [os.path.abspath(path.parent) for path in paths]  # noqa: PTH100, links stay
        shared = os.path.commonpath(parents)
        for path, parent in zip(paths, parents, strict=True):
            name = path.name if parents.count(parent) > 1 else stem
            folders[path] = output / os.path.relpath(parent, shared) / name
    for path, folder in folders.items():
        for other, place in folders.items():
            if path != other and folder.is_relative_to(place):
                raise SettingsError(
                    f"input={path}: its result would lie in {place}, which is the place of "
                    f"input={other}; separate them one by one, each with its own -o"
                )
    return {path: folders[path] for path in unique.values()}


def _stem(path: Path) -> str:
    """The file's name without suffix; never a way up the tree."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    candidates = (stem, path.name, "input")
    return next(name for name in candidates if name.strip("."))


def check_resumable(folder: Path) -> None:
    """Say why there is a result in a folder and yet none to go on from."""
    if (folder / RESULT).exists():
        raise OutputError(
            f"output={folder}: exists already, but not whole or from another input, version or "
            "settings, so it is not resumed; name another folder with -o, or replace it with -f"
        )


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that may not or cannot be written, before any work is done."""
    if "\0" in str(folder):
        raise OutputError(f"output={folder}: has a NUL in its name; choose another with -o")
    try:
        exists = folder.exists()
        if exists and not overwrite:
            raise OutputError(
                f"output={folder}: exists already; name another folder with -o, or replace it "
                "with -f"
            )
        if exists and not folder.is_dir():
            raise OutputError(f"output={folder}: is a file; name another folder with -o")
        if exists and any(folder.iterdir()) and not _is_result(folder):
            raise OutputError(
                f"output={folder}: is not the result of an earlier run (no {RESULT} of one in "
                "it) and will not be replaced; name another folder with -o"
            )
        parent = folder.absolute().parent
        while not parent.exists():
            parent = parent.parent
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from error
    if not parent.is_dir():
        raise OutputError(f"output={folder}: {parent} is no folder; name another with -o")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"output={folder}: {parent} cannot be written; choose another with -o")


def check_model_output(path: Path, overwrite: bool = True) -> None:
    """Refuse a path that no model can be written to, before any work is done."""
    if path.suffix != ".safetensors" or "\0" in str(path):
        raise OutputError(f"path={path}: a model file must end in .safetensors")
    if os.path.lexists(path) and (not overwrite or path.is_dir()):
        raise OutputError(f"path={path}: exists already; name another file, or replace it with -f")


def _is_result(folder: Path) -> bool:
    """Whether the folder was written by us, and so may be replaced."""
    try:
        facts = read_result(folder / RESULT)
    except ValueError:
        return False
    versions = facts.get("versions")
    return isinstance(versions, dict) and "sourcesep" in versions


def write_result(folder: Path, facts: dict[str, Any]) -> str:
    """Write a result.json, and return its text."""
    text = json.dumps(facts, indent=2, allow_nan=False, default=plain)
    (folder / RESULT).write_text(text + "\n", encoding="utf-8")
    return text


def read_result(path: Path) -> dict[str, Any]:
    """Read a result.json.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, RecursionError) as error:
        raise ValueError(in_brief(error)) from error
    if not isinstance(facts, dict):
        raise ValueError(f"holds a {type(facts).__name__}, not an object")
    return facts


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"output={folder}: cannot be written ({in_brief(error)}); free some space or choose "
        "another with -o"
    )


def beside(path: Path, what: str) -> Path:
    """Return the hidden place beside `path` where what is to take its place is written."""
    name = path.name
    if len(os.fsencode(name)) > 200:  # what is added must still make a valid name
        name = name[:40] + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return path.with_name(f".{name}.{what}")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that writes `path`; wait a while for another that does.

    The lock is one on a file beside it, which no crash outlives. Where the system has none,
    nothing is locked.

    Raises
    ------
    OutputError
        If another process still writes it after `PATIENCE` seconds.
    """
    try:
        import fcntl
    except ImportError:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        return
    lock, until = beside(path, "lock"), time.monotonic() + PATIENCE
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:
            mine = True  # a file system without locks
        # whoever had it before may have removed the file that is locked now
        if mine and lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor)):
            break
        os.close(descriptor)
        if time.monotonic() > until:
            raise OutputError(
                f"output={path}: another process is writing it; wait until it has ended, or "
                "choose another with -o"
            )
        time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def recover(folder: Path) -> None:
    """Tidy up after a run that was killed while it wrote `folder`: what was whole is not lost."""
    folder = Path(os.path.realpath(folder))
    if any(beside(folder, what).exists() for what in ("new", "old", "lock")):
        with explained(folder), alone(folder):
            _recover(folder)


def _recover(folder: Path) -> None:
    new, old = beside(folder, "new"), beside(folder, "old")
    if old.exists() and not folder.exists():  # killed between the two steps of a replacement
        (new if new.exists() else old).rename(folder)
    for rest in (new, old):
        if rest.exists():
            shutil.rmtree(rest)


@contextmanager
def replacing(folder: Path, overwrite: bool = True) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once all is written.

    Until then an earlier `folder` stays as it is; whatever goes wrong leaves no trace, and
    what a killed process leaves is removed by the next. One process writes at a time.

    Raises
    ------
    OutputError
        If something cannot be written; or if `folder` is there by now and not to be
        overwritten.
    """
    folder = Path(os.path.realpath(folder))  # what a link names is replaced, not the link
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        with explained(folder), alone(folder):
            _recover(folder)
            new, old = beside(folder, "new"), beside(folder, "old")
            try:
                new.mkdir()
                yield new
                if folder.exists() and not overwrite:
                    raise OutputError(
                        f"output={folder}: exists by now, written by another process; name "
                        "another folder with -o, or replace it with -f"
                    )
                if folder.exists():
                    folder.rename(old)
                try:
                    new.rename(folder)
                except OSError:
                    if old.exists():
                        old.rename(folder)
                    raise
            finally:
                with suppress(OSError):  # or the next run does it
                    _recover(folder)
    finally:
        for parent in made:
            with suppress(OSError):  # there is something in it
                parent.rmdir()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that says in one line what happened."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from error


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Make a number or array of numpy's JSON-ready, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
