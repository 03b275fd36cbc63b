"""EEG files, by MNE: `read` into a `Recording`, `write` components as a raw FIF file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.adapters._eeg_files import check_companions, check_promises
from sourcesep.adapters._separated import Separated, loadings
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.output import component_name
from sourcesep.reading import suffix_of
from sourcesep.recording import LOWEST_HIGH_PASS, Event, Recording

__all__ = ["EEGOrigin", "from_raw", "original", "read", "scalp_pictures", "sources_raw", "write"]

READERS = {
    ".fif": "read_raw_fif",
    ".fif.gz": "read_raw_fif",
    ".edf": "read_raw_edf",
    ".bdf": "read_raw_bdf",
    ".set": "read_raw_eeglab",
    ".vhdr": "read_raw_brainvision",
}

UNITS = {"eeg": "V", "mag": "T", "grad": "T/m", "seeg": "V", "ecog": "V"}
"""Channel types that are separated, the first that is present alone, and MNE's units.

Types of different units would have to be brought to one scale first: `ComponentAnalysis` does
so, and takes all together.
"""


@dataclass(frozen=True)
class EEGOrigin:
    """The recording as MNE holds it.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        All channels, loaded.
    picks : tuple of int
        Which of its channels are the recording's.
    """

    raw: Any
    picks: tuple[int, ...]


def read(path: Path) -> Recording:
    """Read a continuous EEG recording.

    Parameters
    ----------
    path : pathlib.Path
        A raw .fif or .fif.gz, .edf, .bdf, .set or .vhdr file.

    Returns
    -------
    Recording
        The good channels of the first type present of EEG, magnetometers,
        gradiometers, sEEG and ECoG, in MNE's units (EEG in volts); annotations as
        events; an `EEGOrigin` as origin.

    Raises
    ------
    InputError
        If the file is damaged, truncated or not continuous, or has no such channel.

    Warns
    -----
    SourcesepWarning
        Once for what MNE has to say about the file, once if it was never high-passed.
    """
    import mne

    suffix = suffix_of(path)
    check_promises(path, suffix)
    notes: list[str] = []
    try:
        with _listening(notes):
            reader = getattr(mne.io, READERS[suffix])
            raw = reader(path, preload=True, verbose="warning")
            raw.get_channel_types()  # may not be what MNE knows
    except MemoryError:
        raise
    except Exception as error:  # what MNE raises on a damaged file is of no fixed type
        raise InputError(f"input={path}: {_why_unreadable(path, suffix, error)}") from error
    check_companions(path, raw.filenames)
    if notes:
        warnings.warn(f"{path.name}: {' '.join(notes)}", SourcesepWarning, stacklevel=3)
    return _recording(raw, path)


def from_raw(raw: Any) -> Recording:
    """Make a `Recording` of an MNE Raw object, which is left as it is.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Continuous data, loaded or not.

    Returns
    -------
    Recording
        As `read` gives.

    Raises
    ------
    InputError
        If it has no channel that can be separated.
    """
    return _recording(raw.copy().load_data(verbose="error"), None)


def _recording(raw: Any, path: Path | None) -> Recording:
    kind, picks = _picks(raw, path)
    high_pass = raw.info["highpass"]
    if high_pass < LOWEST_HIGH_PASS:
        warnings.warn(
            f"highpass={high_pass:g} Hz by the header: unless the data were filtered "
            "elsewhere, high-pass at 1 Hz first; slow drifts cost components",
            SourcesepWarning,
            stacklevel=4,
        )
    marks = raw.annotations
    return Recording(
        data=np.asarray(raw.get_data(picks=picks, verbose="error"), dtype=np.float64),
        sfreq=float(raw.info["sfreq"]),
        names=tuple(raw.ch_names[i] for i in picks),
        units=(UNITS[kind],) * len(picks),
        kind="eeg",
        events=tuple(
            Event(float(onset - raw.first_time), float(duration), str(description))
            for onset, duration, description in zip(
                marks.onset, marks.duration, marks.description, strict=True
            )
        ),
        path=path,
        origin=EEGOrigin(raw, tuple(int(i) for i in picks)),
    )


def _picks(raw: Any, path: Path | None) -> tuple[str, list[int]]:
    """Return the type that is separated and its good channels."""
    types = raw.get_channel_types()
    bads = set(raw.info["bads"])
    for kind in UNITS:
        picks = [
            i
            for i, (name, its) in enumerate(zip(raw.ch_names, types, strict=True))
            if its == kind and name not in bads
        ]
        if picks:
            others = {t: types.count(t) for t in types if t in UNITS and t != kind}
            if others:
                warnings.warn(
                    f"{len(picks)} channels of type {kind} are separated; "
                    f"{', '.join(f'{n} {t}' for t, n in others.items())} stay as they are: "
                    "sourcesep.ComponentAnalysis takes them together",
                    SourcesepWarning,
                    stacklevel=5,
                )
            return kind, picks
    counts = ", ".join(f"{types.count(t)} {t}" for t in sorted(set(types))) or "none"
    raise InputError(
        f"{f'input={path}: ' if path else ''}no good {', '.join(UNITS)} channel; there are "
        f"{counts}, {len(bads)} of them marked bad: set the channel types or clear the bads "
        "in MNE and save as .fif"
    )


@contextmanager
def _listening(notes: list[str]) -> Iterator[None]:
    """Gather MNE's warnings about the file into `notes`; those about its name are noise."""
    logger = logging.getLogger("mne")  # may write the same to stdout, where results go
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.disabled = disabled
    for warning in caught:
        text = " ".join(str(warning.message).split())
        about_file = issubclass(warning.category, RuntimeWarning)
        if about_file and "naming conventions" not in text and text not in notes:
            notes.append(text)


def _why_unreadable(path: Path, suffix: str, error: Exception) -> str:
    """Say in one line why MNE could not read the file, and what to do."""
    import mne

    reason = " ".join(str(error).split()) or type(error).__name__
    if suffix.startswith(".fif"):
        try:
            what = mne.what(path)
        except Exception:  # damaged beyond its directory: the first reason is the better one
            what = "unknown"
        if what not in ("raw", "unknown"):
            return (
                f"holds {what}, not a continuous recording; give the raw file it was made "
                "from (*_raw.fif, *_eeg.fif)"
            )
    if suffix == ".set":
        with path.open("rb") as file:
            is_hdf = file.read(10) == b"MATLAB 7.3" or "pymatreader" in reason
        if is_hdf:
            return (
                "is a MATLAB v7.3 file, which MNE reads only with pymatreader: pip install "
                "pymatreader, or save it from EEGLAB as v6 or v7"
            )
        if "number of trials" in reason:
            return "holds epochs, not a continuous recording; save the continuous data set"
    return f"cannot be read ({reason[:200]}); check that it is complete"


def write(
    separation: Separated, folder: Path, *, exclude: Sequence[int] | None = None
) -> dict[str, Any]:
    """Write ``sources_raw.fif``, ``component_maps.png`` and, if asked, ``cleaned_raw.fif``.

    The sources keep the recording's times, annotations and measurement date. The
    cleaned recording is the original one, with all its channels, less the images of
    the excluded components. Both are in double precision.

    Parameters
    ----------
    separation : Separation
        What to write.
    folder : pathlib.Path
        An existing, empty folder.
    exclude : sequence of int, optional
        Components to remove. No cleaned recording is written unless this is given.

    Returns
    -------
    dict
        ``files``, and ``exclude``.

    Raises
    ------
    SettingsError
        If `exclude` names a component that does not exist.
    OSError
        If the files cannot be written.
    """
    from sourcesep.adapters._maps import draw_maps

    excluded = sorted(set(exclude or ()))
    absent = [k for k in excluded if not 0 <= k < separation.n_components]
    if absent:
        given, last = ",".join(map(str, absent)), separation.n_components - 1
        raise SettingsError(f"exclude={given}: no such component; they are 0 to {last}")
    origin = _origin_of(separation.recording)
    files = _save(sources_raw(separation), folder, "sources_raw")
    draw_maps(separation, _info(origin), folder / "component_maps.png")
    files.append("component_maps.png")
    if exclude is not None:
        files += _save(_cleaned(separation, origin, excluded), folder, "cleaned_raw")
    return {"files": files, "exclude": excluded}


def scalp_pictures(separation: Separated) -> list[bytes]:
    """Return a PNG picture of each component on the scalp; none without sensor positions."""
    from sourcesep.adapters._maps import scalp_maps

    return scalp_maps(loadings(separation), _info(_origin_of(separation.recording)))


def _info(origin: EEGOrigin) -> Any:
    """What MNE knows of the recording's channels, in their order."""
    import mne

    return mne.pick_info(origin.raw.info, list(origin.picks))


def _origin_of(recording: Recording) -> EEGOrigin:
    """Return where the recording came from; one made in Python gets plain EEG channels."""
    import mne

    if isinstance(recording.origin, EEGOrigin):
        return recording.origin
    info = mne.create_info(list(recording.names), recording.sfreq, "eeg", verbose="error")
    raw = mne.io.RawArray(recording.data[:].copy(), info, verbose="error")
    return EEGOrigin(raw, tuple(range(recording.n_channels)))


def original(recording: Recording) -> Any:
    """Return the Raw that a recording was made from, with all its channels."""
    return _origin_of(recording).raw


def sources_raw(separation: Separated) -> Any:
    """Return the sources as Raw, a misc channel each, at the recording's own times."""
    import mne

    raw = original(separation.recording)
    names = [component_name(k) for k in range(separation.n_components)]
    info = mne.create_info(names, raw.info["sfreq"], "misc", verbose="error")
    sources = mne.io.RawArray(
        separation.sources, info, first_samp=raw.first_samp, copy="auto", verbose="error"
    )
    sources.set_meas_date(raw.info["meas_date"])
    marks = raw.annotations
    # With no origin in time onsets count from the first sample, whatever the date.
    relative = mne.Annotations(marks.onset - raw.first_time, marks.duration, marks.description)
    return sources.set_annotations(relative, emit_warning=False)


def _cleaned(separation: Separated, origin: EEGOrigin, excluded: Sequence[int]) -> Any:
    """Return a copy of the original with the images of `excluded` subtracted."""
    cleaned = origin.raw.copy()
    picks = list(origin.picks)
    for k in excluded:
        cleaned[picks, :] = cleaned.get_data(picks) - separation.image(k)
    return cleaned


def _save(raw: Any, folder: Path, stem: str) -> list[str]:
    """Save in double precision; MNE splits above 2 GB, so return the names of all parts."""
    raw.save(folder / f"{stem}.fif", fmt="double", verbose="error")
    return sorted(p.name for p in folder.glob(f"{stem}*.fif"))
