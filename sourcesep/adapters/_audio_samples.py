"""Audio files by libsndfile: what they hold, and their samples, read when they are sliced."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.adapters._wav import BLOCK
from sourcesep.exceptions import InputError, SourcesepWarning
from sourcesep.samples import Sliced, Stamp, check_unchanged

__all__ = ["AudioFormat", "AudioSamples"]

Array = NDArray[np.float64]

MAX_SAMPLES_PER_BYTE = 2**15
"""More samples than any codec packs into a byte: FLAC has 65535 x 8 of silence in 26 bytes."""

SLACK = 64
"""Bytes by which sizes in headers may be off: careless writers miscount what is not sound."""

MP3_SLACK = 2304
"""Frames by which an MP3 may end before its header says: two of the codec's own frames."""


@dataclass(frozen=True)
class AudioFormat:
    """How the samples were stored.

    Parameters
    ----------
    subtype : str
        libsndfile's name of the encoding, e.g. ``"PCM_16"``.
    bits : int or None
        Bits of an integer sample; None for floats and lossy codecs.
    container : str
        libsndfile's name of the file format, e.g. ``"FLAC"``.
    lossy : bool
        Whether the encoding loses information.
    """

    subtype: str
    bits: int | None
    container: str
    lossy: bool

    @property
    def width(self) -> int | None:
        """Bytes a sample; None where they are packed."""
        if self.lossy or self.container == "FLAC" or self.subtype.startswith("ALAC"):
            return None
        return (self.bits or {"FLOAT": 32, "DOUBLE": 64}[self.subtype]) // 8


class AudioSamples(Sliced):
    """Samples of an audio file, shape (channels, times), read when they are sliced.

    They are decoded in order and always in the same blocks, as some codecs seek wrongly, or
    decode what is asked for in other parts to other samples. So slices in order of time read
    the file once; one that lies before the last one reads it anew from its beginning.

    Parameters
    ----------
    path : pathlib.Path
        Any file that libsndfile reads.

    Attributes
    ----------
    shape : tuple of int
        Number of channels and of samples in each.
    sfreq : float
        Samples a second.
    format : AudioFormat
        How they are stored.

    Raises
    ------
    InputError
        If the file is not audio, or promises more than it can hold. When it is sliced: if
        it ends too early, or was changed since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, Stamp.of(path)
        with _opened(path) as file:
            self.format = _format_of(file)
            _check_promises(file, self.format, path)
            _warn_about_rest(file, self.format, path)
            self.sfreq = float(file.samplerate)
            self.shape = file.channels, _n_times(file, self.format)
        self._file: Any = None
        self._begin, self._block = 0, np.zeros((0, file.channels))

    def __getstate__(self) -> dict[str, Any]:
        # an open file goes nowhere
        return self.__dict__ | {"_file": None, "_begin": 0, "_block": self._block[:0]}

    def _read(self, start: int, stop: int) -> Array:
        n_channels = self.shape[0]
        try:
            data = np.empty((n_channels, stop - start))
        except MemoryError as error:
            raise InputError(
                f"input={self._path}: {stop - start} frames of {n_channels} channels do not fit "
                "in memory; go through them in parts, or cut the recording"
            ) from error
        at = start
        while at < stop:
            self._go_to(at)
            part = self._block[at - self._begin : stop - self._begin]
            data[:, at - start : at - start + len(part)] = part.T
            at += len(part)
        return data

    def _go_to(self, at: int) -> None:
        """Decode until the block that holds this sample."""
        if at < self._begin or (self._file is None and len(self._block) == 0):
            self._open()
        while at >= self._begin + len(self._block):
            self._begin += len(self._block)
            self._block = self._decoded()
        if self._begin + len(self._block) == self.shape[1]:
            self._close()

    def _decoded(self) -> Array:
        """Decode the next block, shape (frames, channels)."""
        import soundfile

        n_channels, n_times = self.shape
        size = min(max(1, BLOCK // n_channels), n_times - self._begin)
        reason = ""
        try:
            block: Array = self._file.read(size, "float64", always_2d=True)
        except (soundfile.LibsndfileError, ValueError) as error:  # either, of a damaged MP3
            told = getattr(error, "error_string", str(error)).strip()
            block, reason = np.empty((0, 0)), f" ({told or 'decoder error'})"
        if len(block) == 0:
            check_unchanged(self._path, self._stamp)
            raise InputError(
                f"input={self._path}: the file is truncated: {self._begin} of {n_times} frames "
                f"can be read{reason}; copy or encode it again"
            )
        return block

    def _open(self) -> None:
        """Begin a pass through the file."""
        self._close()
        check_unchanged(self._path, self._stamp)
        self._file, self._begin, self._block = _opened(self._path), 0, self._block[:0]

    def _close(self) -> None:
        """End a pass through the file, which must have been one file all the time."""
        if self._file is not None:
            self._file.close()
            self._file = None
            check_unchanged(self._path, self._stamp)


def _opened(path: Path) -> Any:
    import soundfile

    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".") or "libsndfile gives no reason"
        raise InputError(
            f"input={path}: not readable as audio ({reason}); it may be truncated or of "
            "another format: convert it to WAV"
        ) from error


def _format_of(file: Any) -> AudioFormat:
    match = re.fullmatch(r"(?:PCM_[SU]?|ALAC_)(\d+)", file.subtype)
    bits = int(match[1]) if match else None
    lossy = bits is None and file.subtype not in ("FLOAT", "DOUBLE")
    return AudioFormat(file.subtype, bits, file.format, lossy)


def _check_promises(file: Any, how: AudioFormat, path: Path) -> None:
    """Refuse headers that promise what the file cannot hold, before memory is taken."""
    size = path.stat().st_size
    samples = file.frames * file.channels
    if file.frames >= 2**62:
        raise InputError(
            f"input={path}: the header does not say how long the recording is; write the file "
            f"anew: ffmpeg -i INPUT{path.suffix} OUTPUT.wav"
        )
    for promised, there in re.findall(r": (\d+) \(should be (\d+)\)", file.extra_info):
        # a size of 2**31 or 2**32 (less a header) is how a pipe says "until the end"
        piped = int(promised) & 0x7FFFF000 == 0x7FFFF000
        if int(promised) > int(there) + SLACK and not piped:
            raise InputError(
                f"input={path}: the file is truncated: its header promises {promised} bytes, "
                f"{there} are there; copy it again"
            )
    most = size // how.width if how.width else size * MAX_SAMPLES_PER_BYTE
    if samples > most:
        raise InputError(
            f"input={path}: the header promises {file.frames} frames of {file.channels} "
            f"channels, more than {size} bytes can hold; the file is truncated or damaged"
        )


def _warn_about_rest(file: Any, how: AudioFormat, path: Path) -> None:
    """Warn if what follows the samples that a WAV file's header promises looks like samples."""
    # libsndfile, where no chunk begins after the samples
    end = re.search(r"Unknown chunk marker \(\w+\) at position (\w+)", file.extra_info)
    if end is None or how.width is None:
        return
    rest = path.stat().st_size - int(end[1], 0)
    if rest > SLACK:
        rate = file.samplerate * file.channels * how.width
        warnings.warn(
            f"{path.name}: read are the {file.frames / file.samplerate:.3g} s of sound that its "
            f"header promises; {rest / rate:.3g} s more seem to follow: if they belong to it, "
            "write the file anew",
            SourcesepWarning,
            stacklevel=4,
        )


def _n_times(file: Any, how: AudioFormat) -> int:
    """Frames in the file: what its header says, but for MP3s that end a little earlier."""
    import soundfile

    n_times: int = file.frames
    if how.container == "MP3":
        try:
            start = file.seek(max(0, n_times - 2 * MP3_SLACK))
            end = int(start + len(file.read(always_2d=True)))
        except (soundfile.LibsndfileError, ValueError):
            return n_times  # cut short: where exactly shows when it is read
        if n_times - end <= MP3_SLACK:
            return end
    return n_times
