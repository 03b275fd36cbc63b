"""WAV files, written so that every bit of them is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import OutputError

__all__ = ["BLOCK", "Codec", "blocks", "forget_time", "open_wav", "telling_why", "write_wav"]

Array = NDArray[np.float64]

BLOCK = 2**18
"""Samples (of all channels together) that are read, converted or written at once."""

MAX_WAV_BYTES = 2**32 - 2**16
"""Files whose samples take more are written as RF64; WAV's sizes have 32 bits."""


@dataclass(frozen=True)
class Codec:
    """The samples of a WAV file: which values they hold, and how libsndfile is handed them.

    Parameters
    ----------
    subtype : {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
        libsndfile's name of the encoding.
    """

    subtype: str

    @property
    def bits(self) -> int | None:
        """Bits of an integer sample; None for floats."""
        return int(self.subtype[-2:].lstrip("U")) if self.subtype.startswith("PCM") else None

    @property
    def name(self) -> str:
        """The value of ``bit_depth`` that asks for it."""
        return str(self.bits or self.subtype.lower())

    @property
    def width(self) -> int:
        """Bytes a sample."""
        return self.bits // 8 if self.bits else {"FLOAT": 4, "DOUBLE": 8}[self.subtype]

    def quantise(self, x: Array) -> Array:
        """Return `x` rounded to this codec's grid, in float64."""
        if self.bits:
            scale = 2.0 ** (self.bits - 1)
            grid: Array = np.rint(x * scale)
            grid /= scale
            return grid
        if self.subtype == "FLOAT":
            with np.errstate(over="ignore"):  # what becomes infinite does not fit
                return x.astype(np.float32).astype(np.float64)
        return x.copy()

    def fits(self, values: Array) -> bool:
        """Whether the codec holds these values of its grid without clipping."""
        if self.bits:
            return bool(values.min() >= -1 and values.max() <= 1 - 2.0 ** (1 - self.bits))
        return bool(np.isfinite(values).all())

    def encode(self, values: Array) -> NDArray[Any]:
        """Return values of the grid in the type from which libsndfile writes them exactly."""
        if self.bits:
            return (values * 2.0**31).astype(np.int32)
        return values.astype(np.float32 if self.subtype == "FLOAT" else np.float64)


def blocks(x: Array) -> Iterator[slice]:
    """Return slices of time that cut `x`, (channels, times), into blocks of bounded size."""
    n_channels, n_times = x.shape
    step = max(1, BLOCK // n_channels)
    return (slice(start, start + step) for start in range(0, n_times, step))


def open_wav(path: Path, shape: tuple[int, ...], sfreq: float, codec: Codec) -> Any:
    """Open a WAV file, or an RF64 file where WAV's 32-bit sizes do not reach."""
    import soundfile

    if sfreq != round(sfreq):
        raise OutputError(
            f"sfreq={sfreq}: a WAV file holds whole rates; resample the recording to "
            f"{max(1, round(sfreq))} Hz"
        )
    n_channels, n_times = shape
    container = "RF64" if n_channels * n_times * codec.width > MAX_WAV_BYTES else "WAV"
    return soundfile.SoundFile(
        path, "w", round(sfreq), n_channels, subtype=codec.subtype, format=container
    )


def forget_time(path: Path) -> None:
    """Zero the time of writing that libsndfile puts in a float file: same input, same bytes."""
    with path.open("r+b") as file:
        head = file.read(256)
        peak, samples = head.find(b"PEAK"), head.find(b"data")
        if 0 < peak < samples or (peak > 0 and samples < 0):
            file.seek(peak + 12)  # chunk name, size and version come first
            file.write(bytes(4))


@contextmanager
def telling_why(files: Sequence[Path]) -> Iterator[None]:
    """Say what keeps these files from being written as the system says it (OSError)."""
    import soundfile

    try:
        yield
    except soundfile.SoundFileError as error:
        raise _told_by_system(files) or OSError(str(error)) from error


def _told_by_system(files: Sequence[Path]) -> OSError | None:
    """What the system says to writing more there: libsndfile says "System error" of anything."""
    try:
        for file in files:
            with file.open("ab") as more:
                more.write(bytes(BLOCK))
    except OSError as error:
        return error
    return None


def write_wav(path: Path, x: Array, sfreq: float, subtype: str = "PCM_16") -> None:
    """Write signals, (channels, times), rounded to the subtype's grid; OSError if it cannot be."""
    codec = Codec(subtype)
    with telling_why([path]):
        with open_wav(path, x.shape, sfreq, codec) as file:
            for block in blocks(x):
                file.write(codec.encode(codec.quantise(x[:, block])).T)
        forget_time(path)
