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
from sourcesep.messages import in_brief

__all__ = ["check_companions", "check_promises"]

DIR_POINTER, DIR, REF_FILE_NUM, REF_FILE_NAME = 101, 102, 117, 118
"""FIF's tags: two for the directory of all tags, two that name a recording's next file."""
SHORT = "a tag promises more than the file holds: it is truncated"


def check_promises(path: Path, suffix: str) -> None:
    """Refuse a file that does not hold what its header says, or that would be read without end.

    Raises
    ------
    InputError
        Naming what is wrong. MNE finds other damage itself.
    """
    check = CHECKS.get(suffix)
    if check is not None:
        try:
            check(path)
        except (OSError, EOFError, struct.error, zlib.error) as error:
            raise InputError(
                f"input={path}: cannot be read ({in_brief(error)}); check that it is complete"
            ) from error


def check_companions(path: Path, files: Any) -> None:
    """Refuse a recording whose samples lie in another folder than the file that was named."""
    allowed = (path.parent, path.resolve().parent)  # links may be followed or not
    elsewhere = [
        file
        for file in files
        if file is not None and not any(Path(file).parent.samefile(p) for p in allowed)
    ]
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
            n_header, n_records = _whole_number(head[184:192]), _whole_number(head[236:244])
            n_channels = _whole_number(head[252:256])
            file.seek(256 + 216 * n_channels)
            widths = [_whole_number(file.read(8)) for _ in range(n_channels)]
        except (ValueError, OSError):
            return  # MNE says what is wrong with the header
    if min(widths, default=0) < 1:
        raise InputError(
            f"input={path}: cannot be read ({n_channels} channels, the shortest with "
            f"{min(widths, default=0)} samples a record); check that it is complete"
        )
    record = sum(widths) * (2 if path.suffix.lower() == ".edf" else 3)
    there = path.stat().st_size - n_header
    # -1 records means that the recording was not stopped properly: all there is counts.
    if n_records > 0 and there < n_records * record:
        raise InputError(
            f"input={path}: the file is truncated: its header promises {n_records} records "
            f"of {record} bytes, {max(0, there)} bytes are there; copy it again"
        )


def _whole_number(field: bytes) -> int:
    """Read a field as MNE does."""
    return int(field.decode("latin-1").partition("\0")[0])


def _check_header(path: Path) -> None:
    """Refuse a BrainVision header whose files do not lie beside it, or hold less than it says."""
    head = path.read_bytes().decode("latin-1")
    rows = r"(?im)^\s*(\w+)\s*[=:]\s*(.*?)\s*$"
    said = {key.lower(): (key, value) for key, value in reversed(re.findall(rows, head))}
    for key, name in (said[k] for k in ("datafile", "markerfile") if k in said):
        beside = path.parent / name
        if Path(name).name != name or (beside.exists() and not beside.is_file()):
            raise InputError(
                f"input={path}: {key}={name[:200]}: must be the name of a file in the same "
                "folder; put them side by side and correct the header"
            )
    n_channels, n_times = (
        int(value) if (value := said.get(key, ("", "1"))[1]).isdecimal() else 1
        for key in ("numberofchannels", "datapoints")
    )
    data = path.parent / said.get("datafile", ("", ""))[1]
    by_channel = said.get("dataorientation", ("", ""))[1].upper() == "VECTORIZED"
    there = data.stat().st_size if data.is_file() and by_channel else n_channels * n_times
    if n_channels > len(head) or n_channels * n_times > there:
        raise InputError(
            f"input={path}: the header promises {n_channels} channels of {n_times} samples, more "
            "than the files hold; copy them again"
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
    following: Path | None = None
    with gzip.open(part) if part.suffix == ".gz" else part.open("rb") as file:
        total = file.seek(0, 2)
        visited, at = set[int](), 0
        while at >= 0:
            file.seek(at)
            head = file.read(16)
            if not head and at == total:
                break  # not closed properly, and whole
            if len(head) < 16:
                raise InputError(f"input={path}: cannot be read ({SHORT}); copy it again")
            kind, form, size, after = struct.unpack(">iiii", head)
            _check_tag(path, at, size, total, again=at in visited)
            visited.add(at)
            if kind == DIR_POINTER and size == 4:
                (place,) = struct.unpack(">i", file.read(4))
                _check_directory(path, file, place, total)
            elif kind == REF_FILE_NAME and size < 1000:
                following = part.parent / file.read(size).decode("latin-1")
            elif kind == REF_FILE_NUM and form == 3 and size == 4 and following is None:
                (number,) = struct.unpack(">i", file.read(4))
                stem, dot, rest = part.name.partition(".")
                following = part.with_name(f"{re.sub(r'-[0-9]+$', '', stem)}-{number}{dot}{rest}")
            at = after or at + 16 + size
    there = following is not None and "\0" not in following.name and following.is_file()
    return following if there else None


def _check_directory(path: Path, file: Any, at: int, total: int) -> None:
    """Refuse a directory of tags, if one lies there, that promises more than the file holds."""
    if at > 0:
        file.seek(at)
        head = file.read(16)
        kind, _, size, _ = struct.unpack(">iiii", head) if len(head) == 16 else (0, 0, 0, 0)
        if kind == DIR and 0 <= size <= total - at:
            for _, _, length, place in struct.iter_unpack(">iiii", file.read(size // 16 * 16)):
                if place >= 0:
                    _check_tag(path, place, length, total)


def _check_tag(path: Path, at: int, size: int, total: int, again: bool = False) -> None:
    if again or size < 0:
        raise InputError(
            f"input={path}: cannot be read (the tag at byte {at} has length {size}, or comes "
            "again); check that it is complete"
        )
    if at + 16 + size > total:
        raise InputError(f"input={path}: cannot be read ({SHORT}); copy it again")


CHECKS: dict[str, Callable[[Path], None]] = {
    ".fif": _check_tags,
    ".fif.gz": _check_tags,
    ".edf": _check_records,
    ".bdf": _check_records,
    ".set": _check_matlab,
    ".vhdr": _check_header,
}
