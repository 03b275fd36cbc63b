"""What the commands `evaluate`, `simulate` and `info` do to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep import metrics, simulate
from sourcesep._version import __version__
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.messages import in_brief
from sourcesep.metrics.separation import pair_by_ratio
from sourcesep.output import RESULT, check_output, read_result, replacing, write_result
from sourcesep.persistence import read_metadata
from sourcesep.reading import read
from sourcesep.recording import Recording, from_array

__all__ = ["Score", "describe", "evaluate_files", "simulate_files"]


@dataclass(frozen=True)
class Score:
    """How well one estimate matches the reference it was paired with."""

    reference: str
    estimate: str
    si_sdr: float
    sdr: float
    correlation: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; what is infinite becomes text."""
        return {
            k: v if isinstance(v, str) or np.isfinite(v) else str(v)
            for k, v in asdict(self).items()
        }


def evaluate_files(references: Sequence[str], estimates: Sequence[str]) -> list[Score]:
    """Match estimates to references and score them.

    Parameters
    ----------
    references, estimates : sequence of str
        Files; an estimate may be a result folder, which stands for its sources. A
        reference of one channel is compared with each channel of the estimate, others
        channel by channel; scores are means over channels.

    Returns
    -------
    list of Score
        One a reference.

    Raises
    ------
    InputError
        If a file cannot be read, or lengths or rates do not fit.
    SettingsError
        If there are fewer estimates than references.
    """
    files = [file for path in estimates for file in _source_files(Path(path))]
    true = [read(path) for path in references]
    found = [read(path) for path in files]
    if len(found) < len(true):
        raise SettingsError(
            f"estimates={len(found)}, references={len(true)}: give an estimate for each reference"
        )
    for recording in [*true, *found]:
        if (recording.n_times, recording.sfreq) != (true[0].n_times, true[0].sfreq):
            raise InputError(
                f"{recording.path}: {recording.n_times} samples at {recording.sfreq:g} Hz, "
                f"{true[0].path} has {true[0].n_times} at {true[0].sfreq:g} Hz; they must agree"
            )
    table = np.array([[_scores(t, f) for f in found] for t in true])
    pairs = zip(*pair_by_ratio(table[:, :, 0]), strict=True)
    return [Score(str(references[i]), str(files[j]), *map(float, table[i, j])) for i, j in pairs]


def _source_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("source*.wav"))
    if not files:
        raise InputError(f"estimates={path}: no source*.wav in this folder; name a result folder")
    return files


def _scores(reference: Recording, estimate: Recording) -> tuple[float, float, float]:
    if reference.n_channels not in (1, estimate.n_channels):
        raise InputError(
            f"{reference.path}: {reference.n_channels} channels, {estimate.path} has "
            f"{estimate.n_channels}; a reference must have one channel or as many"
        )
    # a channel in which the source cannot be heard has nothing to score
    heard = ~(reference.summary.constant | estimate.summary.constant)
    if not heard.any():
        return -np.inf, -np.inf, 0.0
    data = estimate.data[heard]
    truth = np.broadcast_to(reference.data[:], estimate.data.shape)[heard]
    correlation = np.mean([abs(np.corrcoef(t, e)[0, 1]) for t, e in zip(truth, data, strict=True)])
    return (
        float(metrics.si_sdr(truth, data).mean()),
        float(metrics.sdr(truth, data).mean()),
        float(correlation),
    )


def simulate_files(
    folder: Path,
    sources: Sequence[str] = (),
    *,
    kind: simulate.MixtureKind = "instantaneous",
    n_sources: int | None = None,
    seconds: float | None = None,
    rt60: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Write a mixture and its true images.

    Parameters
    ----------
    folder : pathlib.Path
        Gets mixture.wav, image00.wav ... (each source as the microphones hear it; they
        add up to the mixture, before any saturation) and result.json.
    sources : sequence of str
        Recordings to mix; simulated talkers where there are none.
    kind, seed
        See `sourcesep.simulate`.
    n_sources, seconds
        Number and length of simulated talkers: 2 of 8 s. Recordings have their own.
    rt60
        Seconds in which the sound of a room falls by 60 dB: .3. No other kind has it.
    overwrite : bool
        Whether an earlier simulation there is replaced.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    SettingsError
        If a setting would change nothing, or `sources` has one recording only.
    """
    from sourcesep.adapters._wav import write_wav

    check_output(folder, overwrite)
    if len(sources) == 1:
        raise SettingsError(
            f"sources={sources[0]}: one recording makes no mixture; give two or more"
        )
    for name, value in {"n_sources": n_sources, "seconds": seconds}.items():
        if sources and value is not None:
            raise SettingsError(f"{name}={value}: is of simulated talkers only; leave it out")
    if rt60 is not None and kind != "room":
        raise SettingsError(f"rt60={rt60}: is of rooms only; ask for one, or leave it out")
    if rt60 is None:
        rt60 = 0.3
    if sources:
        recordings = [read(path) for path in sources]
    else:
        length, number = 8.0 if seconds is None else seconds, 2 if n_sources is None else n_sources
        talkers = (simulate.speech(length, random_state=1000 * seed + k) for k in range(number))
        recordings = [from_array(talker[None], 16000) for talker in talkers]
    mixture = simulate.from_recordings(recordings, kind, rt60=rt60, random_state=seed)
    names = ["mixture.wav"] + [f"image{k:02d}.wav" for k in range(len(recordings))]
    with replacing(folder, overwrite) as temporary:
        for name, signal in zip(names, [mixture.data, *mixture.images], strict=True):
            write_wav(temporary / name, signal, mixture.sfreq, "FLOAT")
        facts: dict[str, Any] = {"kind": kind, "from": list(sources), "seed": seed}
        if kind == "room":
            facts["rt60"] = rt60
        if mixture.mixing is not None:
            facts["mixing"] = mixture.mixing
        write_result(temporary, {"simulation": facts, "versions": {"sourcesep": __version__}})
    return [folder / name for name in names]


def describe(path: Path) -> dict[str, Any]:
    """Return what a model file, a result folder or a result.json says.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if path.suffix == ".safetensors":
        return read_metadata(path)
    try:
        if not path.exists():
            raise ValueError("no such file or folder")
        file = path / RESULT if path.is_dir() else path
        if file.suffix != ".json":
            raise ValueError(f"ends in {path.suffix or 'nothing'}")
        if not file.exists():
            raise ValueError(f"has no {RESULT}")
        return read_result(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"path={path}: is neither a model nor a result ({in_brief(error)}); name a "
            ".safetensors file or a result folder"
        ) from error
