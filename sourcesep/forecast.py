"""How much memory and time a long recording will take, told before any of it is taken.

The constants were measured on whole processes (`docs/figures.md`, "Scale and reliability"), and
are for orientation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sourcesep.exceptions import SettingsError
from sourcesep.reading import kind_of, suffix_of
from sourcesep.recording import longest_in_memory

__all__ = ["Forecast", "check_memory", "check_restarts_and_taps", "forecast"]

SMALL = 10_000_000
"""Bytes. For smaller files nothing is forecast."""
BYTES_A_VALUE = {".edf": 2, ".bdf": 3}
"""Bytes a sample in EEG files, by suffix; other EEG files have 4."""
MOST_FITTED = 92e6
"""Bytes of a table. The fit to a larger one takes no longer."""
RESTART = 4_000_000
"""Bytes of each fit that is trained side by side, at least: 64 of them took twice as much."""
TAP = 1024
"""Bytes of each sample of a column that networks see, at least: a weight, its gradient and both
its moments for 64 hidden units."""
LONG, LARGE = 60, 2**30
"""Seconds, and bytes of memory, below which a forecast is not worth saying."""


@dataclass(frozen=True)
class Forecast:
    """What separating a recording takes: at least, if a matrix will do, and at most.

    Parameters
    ----------
    memory : tuple of float
        Least and most, bytes.
    seconds : tuple of float
        Least and most, seconds of CPU.
    """

    memory: tuple[float, float]
    seconds: tuple[float, float]

    def __str__(self) -> str:
        memory = _span(*(round(m / 2**20, -1) for m in self.memory))
        minutes = _span(*(max(0.1, round(s / 60, 1 if s < 600 else 0)) for s in self.seconds))
        return f"expects about {memory} MB and {minutes} minutes"


def _span(low: float, high: float) -> str:
    return f"{low:g}" if f"{low:g}" == f"{high:g}" else f"{low:g} to {high:g}"


def forecast(path: Path, mixing: str = "auto") -> Forecast | None:
    """Say what a long recording will take.

    Parameters
    ----------
    path : pathlib.Path
        A file that `sourcesep.read` reads; nothing but its size and its header is looked at.
    mixing : str
        As for `sourcesep.separate`.

    Returns
    -------
    Forecast or None
        None if it is little, or not known: for families that are trained, for compressed
        tables, and for files that cannot be read.
    """
    kind, suffix = kind_of(path), suffix_of(path)
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    if kind is None or size < SMALL or mixing not in ("auto", "linear"):
        return None
    if kind == "audio":
        found = _audio(path, mixing)
    elif kind == "eeg":
        values = size / BYTES_A_VALUE.get(suffix, 4)
        found = _both(350e6 + 60 * values, 5 + 2e-6 * values)
    else:
        found = _csv(size) if suffix == ".csv" else None
    if found is None or (found.seconds[1] < LONG and found.memory[1] < LARGE):
        return None
    return found


def check_memory(n_bytes: int, asked: str) -> None:
    """Refuse what takes more memory than the machine has (SettingsError).

    Parameters
    ----------
    n_bytes : int
        At least so much will be taken.
    asked : str
        What for, as ``name=value``.
    """
    there = _memory_of_machine()
    if there is not None and n_bytes > there:
        raise SettingsError(
            f"{asked}: takes {n_bytes // 2**30} GiB of memory or more, and this machine has "
            f"{there // 2**30}; ask for fewer"
        )


def check_restarts_and_taps(
    n_channels: int, *, n_restarts: int | None = None, kernel_size: int | None = None
) -> None:
    """Refuse more fits side by side, or samples in sight, than the machine has memory for."""
    check_memory(RESTART * int(n_restarts or 0), f"n_restarts={n_restarts}")
    check_memory(TAP * n_channels * int(kernel_size or 0), f"kernel_size={kernel_size}")


def _memory_of_machine() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _both(memory: float, seconds: float) -> Forecast:
    return Forecast((memory, memory), (seconds, seconds))


def _csv(size: int) -> Forecast:
    """Fit and verdict stop growing at some length; reading and writing do not."""
    fitted = min(size, MOST_FITTED)
    return _both(230e6 + 6.5 * fitted + 1.1 * size, 3 + 0.17e-6 * fitted + 0.022e-6 * size)


def _audio(path: Path, mixing: str) -> Forecast | None:
    import soundfile

    try:
        header = soundfile.info(path)
    except (soundfile.SoundFileError, OSError):
        return None
    n, n_times = header.channels, header.frames
    fitted = n * min(n_times, longest_in_memory(n))  # values
    low = 3 + 0.3e-6 * fitted * n + 0.028e-6 * n_times * n * (n + 1)
    high = low if mixing == "linear" else low + 3e-6 * fitted * n**2
    most = 80 if mixing == "linear" else 125
    return Forecast((180e6 + 80 * fitted, 180e6 + most * fitted), (low, high))
