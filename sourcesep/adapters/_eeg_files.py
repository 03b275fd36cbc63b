"""What EEG files promise, checked before MNE takes them at their word."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sourcesep.adapters._matlab import check_matlab
from sourcesep.exceptions import InputError

__all__ = ["check_companions", "check_promises"]

REF_FILE_NUM, REF_FILE_NAME = 117, 118
"""FIF's tags that say which file comes next, by a number or by its name."""


def check_promises(path: Path, suffix: str) -> None:
    """Refuse a file that says of itself what cannot be, or that would be read without end.

    Raises
    ------
    InputError
        Naming what is wrong. What else is damaged MNE finds.
    """
    check = CHECKS.get(suffix)
    if check is not None:
        try:
            check(path)
        except (OSError, EOFError, struct.error, zlib.error) as error:
            raise InputError(
                f"input={path}: cannot be read ({' '.join(str(error).split())[:200]}); check that "
                "it is complete"
            ) from error


def check_companions(path: Path, files: Any) -> None:
    """Refuse what was read from files that do not lie beside the one that was named."""
    elsewhere = [f for f in files if f is not None and Path(f).parent != path.absolute().parent]
    if elsewhere:
        raise InputError(
            f"input={path}: takes its samples from {elsewhere[0]}, in another folder; put the "
            "files side by side, and name that one without its folder in the header"
        )


def _check_records(path: Path) -> None:
    """Refuse an EDF or BDF file that ends before the records its header counts."""
    with path.open("rb") as file:
        head = file.read(256)
        try:
            n_header, n_records = int(head[184:192]), int(head[236:244])
            n_channels = int(head[252:256])
            file.seek(256 + 216 * n_channels)
            widths = [int(file.read(8)) for _ in range(n_channels)]
        except (ValueError, OSError):
            return  # MNE says what is wrong with the header
    record = sum(widths) * (2 if path.suffix.lower() == ".edf" else 3)
    there = path.stat().st_size - n_header
    # -1 records means that the recording was not stopped properly: all there is counts.
    if n_records > 0 and there < n_records * record:
        raise InputError(
            f"input={path}: the file is truncated: its header promises {n_records} records "
            f"of {record} bytes, {max(0, there)} bytes are there; copy it again"
        )


def _check_header(path: Path) -> None:
    """Refuse a BrainVision header whose samples or marks are no files beside it."""
    head = path.read_bytes().decode("latin-1")
    for key, name in re.findall(r"(?im)^\s*(DataFile|MarkerFile)\s*[=:]\s*(.*?)\s*$", head):
        beside = path.parent / name
        if Path(name).name != name or (beside.exists() and not beside.is_file()):
            raise InputError(
                f"input={path}: {key}={name[:200]}: must be the name of a file in the same "
                "folder; put them side by side and correct the header"
            )


def _check_matlab(path: Path) -> None:
    """Refuse a file of EEGLAB's that SciPy cannot read; one of MATLAB 7.3 is not its business."""
    with path.open("rb") as file:
        if file.read(10) == b"MATLAB 7.3":
            return
    try:
        check_matlab(path)
    except ValueError as error:
        raise InputError(
            f"input={path}: cannot be read ({error}); save it from EEGLAB anew"
        ) from error


def _check_tags(path: Path) -> None:
    """Refuse a FIF file whose tags, or whose parts, lead back to where they came from."""
    seen: set[Path] = set()
    part: Path | None = path
    while part is not None:
        if part in seen:
            raise InputError(f"input={path}: its parts lead back to {part.name}; copy it again")
        seen.add(part)
        part = _next_part(part, path)


def _next_part(part: Path, path: Path) -> Path | None:
    """Go through the tags of one file; return the part that it says comes next, if it is there."""
    visited, at, following = set[int](), 0, None
    with gzip.open(part) if part.suffix == ".gz" else part.open("rb") as file:
        while True:
            file.seek(at)
            head = file.read(16)
            if len(head) < 16:
                break
            kind, form, size, after = struct.unpack(">iiii", head)
            if at in visited or size < 0:
                raise InputError(
                    f"input={path}: cannot be read (the tag at byte {at} has length {size}, or "
                    "comes again); check that it is complete"
                )
            visited.add(at)
            if kind == REF_FILE_NAME and size < 1000:
                following = part.parent / file.read(size).decode("latin-1")
            elif kind == REF_FILE_NUM and form == 3 and size == 4 and following is None:
                (number,) = struct.unpack(">i", file.read(4))
                stem, dot, rest = part.name.partition(".")
                following = part.with_name(f"{re.sub(r'-[0-9]+$', '', stem)}-{number}{dot}{rest}")
            if after < 0:
                break
            at = after or at + 16 + size
    there = following is not None and "\0" not in following.name and following.is_file()
    return following if there else None


CHECKS: dict[str, Callable[[Path], None]] = {
    ".fif": _check_tags,
    ".fif.gz": _check_tags,
    ".edf": _check_records,
    ".bdf": _check_records,
    ".set": _check_matlab,
    ".vhdr": _check_header,
}
