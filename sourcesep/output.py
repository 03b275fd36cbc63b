"""Folders of results: refused early, written aside, renamed when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.exceptions import OutputError

__all__ = ["check_output", "plain", "replacing", "sha256"]


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that may not or cannot be written, before any work is done."""
    if folder.exists() and not overwrite:
        raise OutputError(
            f"output={folder}: exists already; name another folder with -o, or replace it with -f"
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output={folder}: is a file; name another folder with -o")
    if folder.exists() and any(folder.iterdir()) and not (folder / "result.json").is_file():
        raise OutputError(
            f"output={folder}: is not the result of an earlier run (no result.json in it) and "
            "will not be replaced; name another folder with -o"
        )
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"output={folder}: {parent} cannot be written; choose another with -o")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once all is written."""
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(
            f"output={folder}: cannot be written ({error.strerror}); choose another with -o"
        ) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        if folder.exists():
            old = temporary.with_name(temporary.name + ".old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"output={folder}: cannot be written ({error.strerror or error}); free some space or "
            "choose another with -o"
        ) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Make a number or array of numpy's JSON-ready, for `json.dumps(default=...)`."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
