"""Audio files, by libsndfile: `read` into a `Recording`, `write` the sources as WAV.

Integer samples become ``integer / 2**(bits - 1)``, which float64 holds exactly, and
so are sums and differences of them: the files written add up to the input bit by bit.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.adapters._separated import Separated
from sourcesep.adapters._wav import BLOCK, Codec, blocks, forget_time, open_wav
from sourcesep.exceptions import InputError, OutputError, SettingsError, SourcesepWarning
from sourcesep.recording import Recording

__all__ = ["AudioFormat", "read", "write"]

Array = NDArray[np.float64]

MAX_SAMPLES = 2**33
"""Largest frames x channels that is read: 64 GiB as float64."""

MAX_SAMPLES_PER_BYTE = 2**15
"""More than any codec packs into a byte: a FLAC block of silence is 65535 x 8 in 26."""

MP3_SLACK = 2304
"""Frames by which an MP3 may end before its header says: two of the codec's own frames."""

CLIP_LEVEL = 0.97
"""Runs at a channel's peak count as clipped from here: a clipped track is often turned down."""

DC_RATIO = 0.1
"""A mean above this share of the standard deviation is worth a warning."""

DEPTHS = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}


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


def read(path: Path) -> Recording:
    """Read an audio file.

    Parameters
    ----------
    path : pathlib.Path
        Any file that libsndfile reads.

    Returns
    -------
    Recording
        Channels ``ch0``, ``ch1``, ... ; integer samples as ``integer / 2**(bits - 1)``,
        floats as they are, also above 1. ``origin`` is an `AudioFormat`.

    Raises
    ------
    InputError
        If the file is not audio, is truncated, or promises more than it can hold.

    Warns
    -----
    SourcesepWarning
        Once if samples are clipped, once if a channel has a large DC offset.
    """
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".") or "libsndfile gives no reason"
        raise InputError(
            f"input={path}: not readable as audio ({reason}); it may be truncated or of "
            "another format: convert it to WAV"
        ) from error
    with file:
        how = _format_of(file)
        _check_promises(file, how, path)
        data = _read_samples(file, how, path)
        sfreq = float(file.samplerate)
    recording = Recording(
        data=data,
        sfreq=sfreq,
        names=tuple(f"ch{i}" for i in range(len(data))),
        units=("",) * len(data),
        kind="audio",
        path=path,
        origin=how,
    )
    _warn_about_clipping(recording)
    _warn_about_offset(recording)
    return recording


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
        # A size of 2**31 or 2**32 (less a header) is how a pipe says "until the end"; a
        # size that is off by a few bytes is a careless writer's, and all samples are there.
        piped = int(promised) & 0x7FFFF000 == 0x7FFFF000
        if int(promised) > int(there) + 64 and not piped:
            raise InputError(
                f"input={path}: the file is truncated: its header promises {promised} bytes, "
                f"{there} are there; copy it again"
            )
    packed = how.lossy or how.container == "FLAC" or how.subtype.startswith("ALAC")
    width = 0 if packed else (how.bits or {"FLOAT": 32, "DOUBLE": 64}[how.subtype]) // 8
    most = size * MAX_SAMPLES_PER_BYTE if packed else size // width
    if samples > most:
        raise InputError(
            f"input={path}: the header promises {file.frames} frames of {file.channels} "
            f"channels, more than {size} bytes can hold; the file is truncated or damaged"
        )
    if samples > MAX_SAMPLES:
        raise InputError(
            f"input={path}: frames x channels = {samples}; at most {MAX_SAMPLES} are read: "
            "cut the recording into parts"
        )


def _read_samples(file: Any, how: AudioFormat, path: Path) -> Array:
    """Return all samples as (channels, times), or say where the file breaks off."""
    import soundfile

    try:
        data = np.empty((file.channels, file.frames))
    except MemoryError as error:
        raise InputError(
            f"input={path}: {file.frames} frames of {file.channels} channels do not fit in "
            "memory; cut the recording into parts"
        ) from error
    filled, reason = 0, ""
    step = max(1, BLOCK // file.channels)
    try:
        while filled < file.frames:
            block = file.read(min(step, file.frames - filled), "float64", always_2d=True)
            if len(block) == 0:
                break
            data[:, filled : filled + len(block)] = block.T
            filled += len(block)
    except soundfile.LibsndfileError as error:
        reason = f" ({error.error_string.strip() or 'decoder error'})"
    slack = MP3_SLACK if how.container == "MP3" else 0
    if reason or file.frames - filled > slack:
        raise InputError(
            f"input={path}: the file is truncated: {filled} of {file.frames} frames can be "
            f"read{reason}; copy or encode it again"
        )
    return data[:, :filled]


def _warn_about_clipping(recording: Recording) -> None:
    clipped = {
        name: n
        for name, row in zip(recording.names, recording.data, strict=True)
        if (n := _n_clipped(row)) > 0
    }
    if clipped:
        which = ", ".join(f"{name} ({n})" for name, n in clipped.items())
        warnings.warn(
            f"{sum(clipped.values())} samples are clipped, in {which}: clipping is not linear "
            "and limits how well sources come apart; record at a lower level",
            SourcesepWarning,
            stacklevel=4,
        )


def _n_clipped(row: Array) -> int:
    """Count the samples in runs of three or more at a positive or negative peak."""
    n_clipped = 0
    for peak in (row.max(), row.min()):
        if abs(peak) < CLIP_LEVEL or np.ptp(row) == 0:
            continue
        at_peak = np.concatenate(([False], row == peak, [False]))
        edges = np.flatnonzero(at_peak[1:] != at_peak[:-1])
        runs = edges[1::2] - edges[::2]
        n_clipped += int(runs[runs >= 3].sum())
    return n_clipped


def _warn_about_offset(recording: Recording) -> None:
    mean, spread = recording.data.mean(axis=1), recording.data.std(axis=1)
    shifted = np.flatnonzero((np.abs(mean) > DC_RATIO * spread) & (spread > 0))
    if len(shifted):
        which = ", ".join(f"{recording.names[i]} ({mean[i]:.3g})" for i in shifted)
        warnings.warn(
            f"DC offset in {which}: it is removed before sources are found and kept in the "
            "residual",
            SourcesepWarning,
            stacklevel=4,
        )


def write(separation: Separated, folder: Path, *, bit_depth: str | None = None) -> dict[str, Any]:
    """Write ``source00.wav ...`` and ``residual.wav``, which add up to the input.

    Each source is written as the input's channels heard it, with the same channels,
    rate and length. The residual is the input less the sources *as written*. For
    integer formats the sum is the input bit by bit, or, where `bit_depth` is below the
    input's, the input rounded to that depth; for floats it is within -120 dB.

    Where the model undid a distortion of the microphones, the input means the mixture
    before that distortion, and ``adds_up_to`` says so.

    If a source or the residual would exceed full scale the whole set is written as
    float, with a line in ``separation.warnings``: nothing is clipped or rescaled.

    Parameters
    ----------
    separation : Separation
        What to write.
    folder : pathlib.Path
        An existing, empty folder.
    bit_depth : {"16", "24", "float"} or None
        Depth of the files; None for the input's own (float for lossy input).

    Returns
    -------
    dict
        ``files``, ``subtype``, ``bit_depth``, ``written_as_float`` and ``adds_up_to``.

    Raises
    ------
    SettingsError
        If `bit_depth` is none of these.
    OutputError
        If the files cannot be written.
    """
    import soundfile

    asked = Codec(_subtype_for(separation.recording.origin, bit_depth))
    wider = [Codec(s) for s in ("FLOAT", "DOUBLE") if asked.subtype != "DOUBLE"]
    files = _file_names(separation.n_components)
    try:
        used = next((c for c in (asked, *wider) if _write_set(separation, folder, files, c)), None)
    except (soundfile.SoundFileError, OSError) as error:
        raise OutputError(
            f"output={folder}: cannot write WAV files ({error}); check space and permissions"
        ) from error
    if used is None:
        raise OutputError(
            f"output={folder}: a source has NaN or infinite samples and is not written; "
            "fit with other settings"
        )
    written_as_float = used != asked and asked.bits is not None
    if written_as_float:
        separation.warnings.append(
            f"a source or the residual exceeds full scale at {asked.bits} bits: all files are "
            f"written as {used.name}, not clipped or rescaled"
        )
    return {
        "files": files,
        "subtype": used.subtype,
        "bit_depth": used.name,
        "written_as_float": written_as_float,
        "adds_up_to": "the input"
        if separation.mixture is separation.recording.data
        else "the mixture before the distortion that was undone",
    }


def _subtype_for(origin: object, bit_depth: str | None) -> str:
    if bit_depth is not None:
        if bit_depth not in DEPTHS:
            raise SettingsError(
                f"bit_depth={bit_depth}: must be one of {', '.join(DEPTHS)}; leave it out for "
                "the input's own"
            )
        return DEPTHS[bit_depth]
    if not isinstance(origin, AudioFormat) or origin.lossy:
        return "FLOAT"
    if origin.bits is None:
        return origin.subtype
    # WAV holds 8 (unsigned), 16, 24 or 32 bits: the next that holds the input exactly.
    return "PCM_U8" if origin.bits <= 8 else f"PCM_{-(-origin.bits // 8) * 8}"


def _file_names(n_components: int) -> list[str]:
    digits = max(2, len(str(n_components - 1)))
    return [*(f"source{k:0{digits}d}.wav" for k in range(n_components)), "residual.wav"]


def _write_set(separation: Separated, folder: Path, files: list[str], codec: Codec) -> bool:
    """Write all files in `codec`; stop and return False at the first that does not fit."""
    data, sfreq = separation.mixture, separation.recording.sfreq
    residual = codec.quantise(data)
    for k, name in enumerate(files[:-1]):
        image = separation.image(k)
        with open_wav(folder / name, image.shape, sfreq, codec) as file:
            for part in blocks(image):
                values = codec.quantise(image[:, part])
                if not codec.fits(values):
                    return False
                residual[:, part] -= values
                file.write(codec.encode(values).T)
        forget_time(folder / name)
    with open_wav(folder / files[-1], residual.shape, sfreq, codec) as file:
        error = 0.0
        for part in blocks(residual):
            values = codec.quantise(residual[:, part])
            if not codec.fits(values):
                return False
            error += float(np.square(values - residual[:, part]).sum())
            file.write(codec.encode(values).T)
    forget_time(folder / files[-1])
    # Only where large sources cancel do floats round by more than -120 dB of the input.
    return error <= 1e-12 * float(np.square(data).sum())
