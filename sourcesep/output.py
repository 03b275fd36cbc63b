"""Results: what they are called; folders refused early, written aside, renamed when whole."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.exceptions import OutputError, SettingsError

__all__ = [
    "check_model_output",
    "check_output",
    "component_name",
    "folders_for",
    "plain",
    "read_result",
    "replacing",
    "sha256",
]

RESULT = "result.json"


def component_name(k: int) -> str:
    """Return the name that component `k` goes by in written files."""
    return f"IVAE{k:03d}"


def folders_for(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """Return a folder in `output` for each input.

    It is called as the input is, without suffix. Inputs that share a name keep the folders
    that tell them apart; those that differ in nothing but the suffix keep that as well.

    Raises
    ------
    SettingsError
        If one input's result would lie in another's.
    """
    alike: dict[str, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(map(Path, inputs)):
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
    return {path: folders[path] for path in map(Path, inputs)}


def _stem(path: Path) -> str:
    """The file's name without suffix; never a way up the tree."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    candidates = (stem, path.name, "input")
    return next(name for name in candidates if name.strip("."))


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that may not or cannot be written, before any work is done."""
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
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"output={folder}: {parent} cannot be written; choose another with -o")


def check_model_output(path: Path, overwrite: bool = True) -> None:
    """Refuse a path that no model can be written to, before any work is done."""
    if path.suffix != ".safetensors":
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
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(facts, dict):
        raise ValueError(f"holds a {type(facts).__name__}, not an object")
    return facts


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"output={folder}: cannot be written ({error.strerror or error}); free some space or "
        "choose another with -o"
    )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once all is written.

    Until then an earlier `folder` stays as it is; whatever goes wrong leaves no trace.
    """
    folder = Path(os.path.realpath(folder))  # what a link names is replaced, not the link
    temporary = folder.with_name(f".{folder.name[:40]}.{secrets.token_hex(4)}")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        old = temporary.with_name(temporary.name + ".old")
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Make a number or array of numpy's JSON-ready, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
