"""`train_prior`: from a folder of clean, labelled recordings to a trained prior of sources."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import whole
from sourcesep.clean_recordings import Clean, gather
from sourcesep.exceptions import (
    InputError,
    ModelFileError,
    SettingsError,
    SourcesepError,
    SourcesepWarning,
)
from sourcesep.ivae.devices import require_torch_for, resolve_device
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.stft.cells import power, to_spectrum, window_size
from sourcesep.ivae.stft.source_prior import Network, SourcePrior
from sourcesep.ivae.stft.trained_variances import best_lift
from sourcesep.output import check_model_output
from sourcesep.persistence import TRAINING, read_file, write_file
from sourcesep.source_priors import save_prior

if TYPE_CHECKING:
    from sourcesep.ivae.stft.source_prior_fit import Example, Examples

__all__ = ["train_prior"]

WINDOW = 0.256
"""Seconds of the windows whose cells the prior knows."""
STEPS = {"fast": 250, "normal": 600, "best": 1800}
"""Minibatches by quality."""
LEARNING_RATE, CLIP, N_CHECKS = 2e-3, 0.05, 20
HELD_OUT = 1 / 8
"""Share of every label that training never sees."""
N_ROOMS = 3
"""Copies of the recordings as rooms would change them, beside the dry ones."""
STRETCHES_A_ROOM = 12
"""Stretches of a copy, each in a room of its own."""
REVERBERATION = (0.08, 0.4)
"""Seconds in which a room's sound falls by 60 dB."""
GAP = (0.02, 0.15)
"""Seconds of silence between two recordings of a label."""
NOISE = 3e-4
"""Added everywhere, as a share of the deviation: no cell is empty."""
LEAST_SECONDS = 20.0
"""Of every label; less does not say what it sounds like."""
MOST_CELLS = 1e8
"""Of all copies together (400 MB): of more sound an equal part of every label is used."""


def train_prior(
    folder: str | Path,
    *,
    aux: str = "folder",
    save_model: str | Path | None = None,
    quality: str = "normal",
    n_steps: int | None = None,
    seconds: float | None = None,
    noisy: float = 0.75,
    condition_decoder: bool = True,
    device: str = "auto",
    random_state: int = 0,
    progress: bool = False,
    on_failure: Callable[[str, SourcesepError], None] | None = None,
) -> SourcePrior:
    """Train a prior of sources on clean recordings with labels.

    The prior is a convolutional iVAE of the power of time-frequency cells, with the label as
    u. `separate` takes it as ``prior=``.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds audio files of one channel and one rate, in each of which one source sounds;
        at least two labels, and 20 s of each.
    aux : str
        Where labels come from: ``"folder"`` (FOLDER/LABEL/...), ``"column:NAME"`` (of the one
        .csv file in the folder, whose column ``file`` names the recordings), or
        ``"annotations[:REGEX]"`` (a .csv of the recording's own name beside it, with the columns
        onset, duration and label).
    save_model : str or pathlib.Path, optional
        Write the prior here (.safetensors). While training runs its state is kept beside it,
        in NAME.training.safetensors: the same call takes up a training that was killed.
    quality : {"fast", "normal", "best"}
        How long to train: 250, 600 or 1800 steps.
    n_steps : int, optional
        The same as a number.
    seconds : float, optional
        Stop after about so many seconds of training; the steps done are told in the card, and
        as many asked for by `n_steps` give the same prior.
    noisy : float
        Share of the windows in which the encoder hears another source too.
    condition_decoder : bool
        Whether the decoder sees the label.
    device : str
        "auto", "cpu", "cuda" or "mps".
    random_state : int
        Seed of every random choice.
    progress : bool
        Whether to show a progress bar on stderr.
    on_failure : callable, optional
        Given the name of a recording that cannot be used and the error, and the recording is
        left out. By default the error is raised.

    Returns
    -------
    SourcePrior
        Its ``card`` says what it was trained on, and the held-out ELBO with and without u.

    Raises
    ------
    InputError
        If the recordings are too few, too short, or do not belong together.
    SettingsError
        If a setting cannot be.
    OutputError
        If the prior cannot be written.
    """
    _check(quality, n_steps, seconds, noisy, device, random_state)
    path = None if save_model is None else Path(save_model)
    if path is not None:
        check_model_output(path)
    require_torch_for("a trained prior")
    from sourcesep.ivae import training
    from sourcesep.ivae.stft.source_prior_fit import PriorObjective

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourcesepWarning)  # of clipped samples and the like
        clean = gather(Path(folder), aux, on_failure)
    size = window_size(WINDOW, clean.sfreq, clean.n_times)
    examples = _examples(clean, size, random_state)
    network = Network(size // 2 + 1, len(clean.labels), condition_decoder=condition_decoder)
    objective = PriorObjective(
        examples, network, random_state, noisy=noisy, device=resolve_device(device)
    )
    schedule = training.Schedule(
        STEPS[quality] if n_steps is None else n_steps,
        learning_rate=LEARNING_RATE,
        clip=CLIP,
        n_checks=N_CHECKS,
        seconds=seconds,
    )
    about = {
        "aux": aux,
        "files": clean.n_files,
        "seconds": {k: round(s, 3) for k, s in clean.seconds.items()},
        "sha256": clean.sha256,
        "random_state": int(random_state),
        "noisy": noisy,
        "condition_decoder": condition_decoder,
    }
    kept = None
    if path is not None:
        asked = about | {"schedule": asdict(schedule), "sfreq": clean.sfreq, "size": size}
        kept = _Kept(path.with_suffix(".training.safetensors"), asked)
    history = training.train(objective, schedule, progress=progress, checkpoint=kept)
    card = about | {
        "n_steps": history.n_steps,
        "elbo": {"unit": "nats a cell, held out", **_rounded(objective.evidence())},
    }
    prior = SourcePrior(network, objective.arrays(), clean.labels, clean.sfreq, size, card=card)
    prior = _with_likeness(prior, examples)
    if path is not None and kept is not None:
        save_prior(prior, path)
        kept.path.unlink(missing_ok=True)
    return prior


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _check(
    quality: str,
    n_steps: int | None,
    seconds: float | None,
    noisy: float,
    device: str,
    random_state: int,
) -> None:
    """Refuse settings that cannot be for any data."""
    Settings(quality=quality, device=device)
    if not 0 <= noisy <= 1:
        raise SettingsError(f"noisy={noisy}: must be a share, 0 to 1")
    whole(0, random_state=random_state)
    if n_steps is not None:
        whole(1, n_steps=n_steps)
    if seconds is not None and not seconds > 0:
        raise SettingsError(f"seconds={seconds}: must be above 0; leave it out for no time budget")


def _examples(clean: Clean, size: int, seed: int) -> Examples:
    """Power of cells of every label, dry and as rooms change it; the end is held out."""
    from sourcesep.ivae.stft.source_prior_fit import LENGTH, Example, Examples

    short = min(clean.seconds, key=lambda label: clean.seconds[label])
    if clean.seconds[short] < LEAST_SECONDS:
        raise InputError(
            f"folder={clean.folder}: {clean.seconds[short]:.3g} s of {short!r}, at least "
            f"{LEAST_SECONDS:g} s of every label are needed; record more, or leave it out"
        )
    hop = size // 4
    most = int(MOST_CELLS / (1 + N_ROOMS) / (size // 2 + 1) / len(clean.labels)) * hop
    train: list[Example] = []
    held: list[Example] = []
    for number, label in enumerate(clean.labels):
        rng = np.random.default_rng([seed, number])
        whole = _strung_together(clean.signals[label], clean.sfreq, rng)[:most]
        cut = len(whole) - round(HELD_OUT * len(whole))
        for copy in range(1 + N_ROOMS):
            for stream, part in ((train, whole[:cut]), (held, whole[cut:])):
                noisy = part + NOISE * part.std() * rng.standard_normal(len(part))
                heard = _in_rooms(noisy, clean.sfreq, rng) if copy else noisy
                stream.append(Example(number, power(to_spectrum(heard[None], size))[0]))
    if min(len(e.power) for e in train) < LENGTH:
        raise InputError(
            f"folder={clean.folder}: too short at {clean.sfreq:g} Hz; give more of every label"
        )
    return Examples(train, held)


def _strung_together(
    signals: list[NDArray[np.float64]], sfreq: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """All signals in random order, with short gaps between them."""
    parts = []
    for i in rng.permutation(len(signals)):
        parts += [signals[i], np.zeros(round(rng.uniform(*GAP) * sfreq))]
    return np.concatenate(parts)


def _in_rooms(
    signal: NDArray[np.float64], sfreq: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Pieces of a signal, each heard in a room: a direct sound, and noise that decays."""
    from scipy.signal import oaconvolve

    heard = []
    for piece in np.array_split(signal, STRETCHES_A_ROOM):
        seconds = rng.uniform(*REVERBERATION)
        times = np.arange(1, round(seconds * sfreq)) / sfreq
        tail = rng.standard_normal(len(times)) * np.exp(-3 * np.log(10) * times / seconds)
        tail *= times > 0.002
        response = np.concatenate([[1.0], tail / np.sqrt(np.square(tail).sum() + 1e-12)])
        response[1:] *= rng.uniform(0.3, 1)
        heard.append(oaconvolve(piece, response)[: len(piece)])
    return np.concatenate(heard)


def _with_likeness(prior: SourcePrior, examples: Examples) -> SourcePrior:
    """The prior with what is usual of sounds like those it was trained on."""
    held = np.stack([window.power for window in examples.windows()])
    lifts = best_lift(prior, held)
    return replace(prior, likeness=(float(lifts.mean()), float(lifts.std())))


@dataclass
class _Kept:
    """A training's state in a file beside the prior it will become."""

    path: Path
    asked: dict[str, Any]

    @property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, NDArray[Any]] | None:
        """The state, where there is one of the same training."""
        if not self.path.exists():
            return None
        try:
            with read_file(self.path, TRAINING) as (facts, tensors):
                if facts["of"] == self._digest:
                    return dict(tensors)
            reason = "is of another training"
        except ModelFileError as error:
            reason = str(error)
        warnings.warn(
            f"{self.path}: {reason}; training begins anew", SourcesepWarning, stacklevel=2
        )
        return None

    def write(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep the state of a training."""
        write_file(self.path, TRAINING, {"of": self._digest}, arrays)
