"""Audio files, by libsndfile: `read` into a `Recording`, `write` the sources as WAV.

Integer samples become ``integer / 2**(bits - 1)``, which float64 holds exactly, and
so are sums and differences of them: the files written add up to the input bit by bit.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.adapters._audio_samples import AudioFormat, AudioSamples
from sourcesep.adapters._separated import Separated
from sourcesep.adapters._wav import Codec, forget_time, open_wav, telling_why
from sourcesep.exceptions import OutputError, SettingsError, SourcesepWarning
from sourcesep.messages import counted
from sourcesep.recording import Recording, longest_in_memory

__all__ = ["AudioFormat", "read", "write"]

CLIP_LEVEL = 0.97
"""Runs at a channel's peak count as clipped if the peak is above this. It is below 1 because a
clipped track is often turned down afterwards."""

DC_RATIO = 0.1
"""A mean above this share of the standard deviation is worth a warning."""

DEPTHS = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}


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
        floats as they are, also above 1. ``origin`` is an `AudioFormat`. If the file is
        longer than `longest_in_memory`, ``data`` is read when it is sliced.

    Raises
    ------
    InputError
        If the file is not audio, is truncated, or promises more than it can hold.

    Warns
    -----
    SourcesepWarning
        Once if samples are clipped, once if a channel has a large DC offset.
    """
    samples = AudioSamples(path)
    n_channels, n_times = samples.shape
    recording = Recording(
        data=samples[:] if n_times <= longest_in_memory(n_channels) else samples,
        sfreq=samples.sfreq,
        names=tuple(f"ch{i}" for i in range(n_channels)),
        units=("",) * n_channels,
        kind="audio",
        path=path,
        origin=samples.format,
    )
    _warn_about_clipping(recording)
    _warn_about_offset(recording)
    return recording


def _warn_about_clipping(recording: Recording) -> None:
    peaks = np.stack([recording.summary.high, recording.summary.low])
    near = np.abs(peaks) >= CLIP_LEVEL
    if not near.any():
        return
    counts = np.where(near, recording.clipping.counts, 0).sum(axis=0).tolist()
    if any(counts):
        which = ", ".join(counted(recording.names, counts))
        warnings.warn(
            f"{sum(counts)} samples are clipped, in {which}: clipping is not linear "
            "and limits how well sources come apart; record at a lower level",
            SourcesepWarning,
            stacklevel=4,
        )


def _warn_about_offset(recording: Recording) -> None:
    summary = recording.summary
    mean, spread = summary.mean, np.sqrt(summary.variance)
    shifted = np.flatnonzero((np.abs(mean) > DC_RATIO * spread) & ~summary.constant)
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
        If a source is not finite, or no WAV file holds the rate.
    OSError
        If the files cannot be written.
    """
    asked = Codec(_subtype_for(separation.recording.origin, bit_depth))
    wider = [Codec(s) for s in ("FLOAT", "DOUBLE") if asked.subtype != "DOUBLE"]
    files = _file_names(separation.n_components)
    with telling_why([folder / name for name in files]):
        used = next((c for c in (asked, *wider) if _write_set(separation, folder, files, c)), None)
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
        if separation.keeps_input
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
    """Write all files in `codec`, block by block; return False where it does not fit."""
    recording = separation.recording
    shape = recording.n_channels, recording.n_times
    error = power = 0.0
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_wav(folder / name, shape, recording.sfreq, codec))
            for name in files
        ]
        for mixture, images in separation.blocks():
            residual = codec.quantise(mixture)
            for file, image in zip(opened[:-1], images, strict=True):
                values = codec.quantise(image)
                if not codec.fits(values):
                    return False
                residual -= values
                file.write(codec.encode(values).T)
            values = codec.quantise(residual)
            if not codec.fits(values):
                return False
            residual -= values
            error += float(np.vdot(residual, residual))
            power += float(np.vdot(mixture, mixture))
            opened[-1].write(codec.encode(values).T)
    for name in files:
        forget_time(folder / name)
    # Only where large sources cancel do floats round by more than -120 dB of the input.
    return error <= 1e-12 * power
