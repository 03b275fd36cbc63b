"""`separate`: from a recording to its sources, and `Separation`, which holds the result."""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sourcesep import auxiliary
from sourcesep._version import __version__
from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.model import Array
from sourcesep.output import check_output, plain, replacing, sha256
from sourcesep.recording import Recording, adapter_for, from_array, read

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE
    from sourcesep.verdict import Verdict

__all__ = ["Separation", "separate"]

LINEAR = ("eeg", "table")
"""Kinds of recording for which ``auto`` does not look beyond linear mixing."""
EEG_STARTS = ("segments",)
"""Brain sources are told apart by their activity; measured better than other starts."""


@dataclass
class Separation:
    """The sources of a recording, the model that found them, and the verdict.

    Parameters
    ----------
    recording : Recording
        What was separated.
    ivae : IVAE
        Fitted estimator.
    sources : ndarray of shape (n_components, n_times)
        Posterior means, of unit variance; ordered by the power they explain.
    u : Auxiliary
        The auxiliary variable.
    settings : dict
        What was asked for, resolved.
    candidates : dict
        Held-out scores behind every choice made.
    elbo : tuple of float
        Reconstruction and KL on this recording, nats a sample.
    warnings : list of str
        What was handled on the way.
    seconds : float
        How long it took.
    """

    recording: Recording
    ivae: IVAE
    sources: Array
    u: Auxiliary
    settings: dict[str, Any]
    elbo: tuple[float, float]
    candidates: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return len(self.sources)

    @property
    def mixing(self) -> Array | None:
        """Mixing matrix (n_channels, n_components) where the decoder is linear, else None."""
        matrices = self.ivae.model_.matrices
        return None if matrices is None else matrices[1]

    @property
    def verdict(self) -> Verdict:
        """How far to trust it."""
        verdict: Verdict = self.ivae.verdict_
        return verdict

    @cached_property
    def mixture(self) -> Array:
        """What images and residual add up to: the recording, less a distortion undone."""
        return self.ivae.model_.mixture(self.recording.data)

    def image(self, k: int) -> Array:
        """Source k as the channels hear it, shape (n_channels, n_times)."""
        return self.ivae.model_.image(self.recording.data, k, self.u)

    @property
    def images(self) -> Array:
        """All images, shape (n_components, n_channels, n_times)."""
        return np.stack([self.image(k) for k in range(self.n_components)])

    @property
    def residual(self) -> Array:
        """What no source explains: mixture - sum of images, (n_channels, n_times)."""
        residual = self.mixture.copy()
        for k in range(self.n_components):
            residual -= self.image(k)
        return residual

    def result(self) -> dict[str, Any]:
        """Everything that result.json says, but for what writing adds."""
        model, recording = self.ivae.model_, self.recording
        power = [float(np.square(self.image(k)).mean()) for k in range(self.n_components)]
        total = float(recording.data.var(axis=1).mean())
        rank = getattr(model, "rank", model.n_components)
        return {
            "input": {
                "name": recording.path.name if recording.path else None,
                "sha256": sha256(recording.path) if recording.path else None,
                "kind": recording.kind,
                "n_channels": recording.n_channels,
                "n_times": recording.n_times,
                "sfreq": recording.sfreq,
            },
            "settings": self.settings,
            "versions": {"sourcesep": __version__, "numpy": np.__version__},
            "rank": rank,
            "n_components": self.n_components,
            "family": model.family,
            "reason": self.ivae.reason_,
            "candidates": self.candidates,
            "explained_power": [round(p / total, 6) if total else None for p in power],
            "elbo": {
                "unit": "nats a sample",
                "reconstruction": self.elbo[0],
                "kl": self.elbo[1],
            },
            **self.verdict.as_dict(),
            "judged_on": "this recording" if self.settings["model"] is None else "the model's fit",
            "warnings": self.warnings,
        }

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        bit_depth: str | None = None,
        exclude: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Write the sources in the recording's own form, with result.json.

        Everything is written under a temporary name beside `folder` and renamed at the
        end: a run that is killed leaves nothing half-done.

        Parameters
        ----------
        folder : str or pathlib.Path
            Must not exist, unless `overwrite`.
        overwrite : bool
            Whether an earlier result there is replaced.
        bit_depth : {"16", "24", "float"}, optional
            Of audio files; the input's own by default.
        exclude : sequence of int
            Components to remove from a copy of an EEG recording.

        Returns
        -------
        dict
            What result.json holds.

        Raises
        ------
        OutputError
            If the folder exists or cannot be written.
        SettingsError
            If an option is not one of this kind of recording.
        """
        folder = Path(folder)
        check_output(folder, overwrite)
        options: dict[str, Any] = {}
        if bit_depth is not None:
            if self.recording.kind != "audio":
                raise SettingsError(f"bit_depth={bit_depth}: only audio has one; leave it out")
            options["bit_depth"] = bit_depth
        if len(exclude):
            if self.recording.kind != "eeg":
                raise SettingsError(
                    f"exclude={list(exclude)}: components are removed from EEG only; leave it out"
                )
            options["exclude"] = tuple(exclude)
        with replacing(folder) as temporary:
            written = adapter_for(self.recording.kind).write(self, temporary, **options)
            if self.recording.kind == "eeg":
                self.save_model(temporary / "model.safetensors")
                written["files"] = [*written["files"], "model.safetensors"]
            result = self.result() | {"output": written}
            result["run"] = {
                "seconds": round(self.seconds, 3),
                "python": sys.version.split()[0],
                "platform": platform.platform(),
            }
            text = json.dumps(result, indent=2, allow_nan=False, default=plain)
            (temporary / "result.json").write_text(text + "\n", encoding="utf-8")
        written_result: dict[str, Any] = json.loads(text)
        return written_result

    def save_model(self, path: str | Path) -> None:
        """Write the fitted model, with what it needs of a recording: see `sourcesep.save`."""
        from sourcesep.persistence import contract_of, save

        save(self.ivae, path, contract=contract_of(self.recording))


def separate(
    source: str | Path | Recording | tuple[ArrayLike, float] | Any,
    *,
    n_components: int | None = None,
    mixing: str = "auto",
    aux: str | ArrayLike | None = None,
    model: str | Path | IVAE | None = None,
    columns: str | Sequence[str] | None = None,
    kernel_size: int | None = None,
    quality: str = "normal",
    device: str = "auto",
    random_state: int = 0,
) -> Separation:
    """Separate a recording into its sources.

    Parameters
    ----------
    source : str, pathlib.Path, Recording, mne.io.BaseRaw or (array, float)
        A file, a recording, or an array of shape (n_channels, n_times) with its rate.
    n_components : int, optional
        Number of sources. By default the numerical rank; for tables the number with the
        best held-out ELBO.
    mixing : {"auto", "linear", "post-nonlinear", "convolutive", "underdetermined", "nonlinear"}
        Family of the decoder (see `IVAE`); ``"auto"`` is linear for EEG and tables.
    aux : str or array-like, optional
        Where u comes from: ``segments[:SECONDS[,SECONDS...]]``, ``adaptive``,
        ``annotations[:REGEX]``, ``column:NAME[,NAME]``, ``file:PATH``, joined by ``+``;
        or labels or covariates themselves. By default segments of a length that suits
        the kind of recording.
    model : str, pathlib.Path or IVAE, optional
        Use this fitted model instead of fitting one; the recording must have the same
        channels, units and rate.
    columns : str or sequence of str, optional
        Of a table, the columns to separate.
    kernel_size : int, optional
        Taps of the mixing, for families that have memory (see `IVAE`).
    quality : {"fast", "normal", "best"}
        How much time a fit may take for how good a result.
    device : str
        "auto", "cpu", "cuda" or "mps", for families that are trained.
    random_state : int
        Seed of every random choice.

    Returns
    -------
    Separation
        Sources, images, residual, model and verdict.

    Raises
    ------
    InputError
        If the source cannot be read or separated.
    SettingsError
        If a setting is unknown or cannot be for this recording.

    Examples
    --------
    >>> import sourcesep
    >>> voices = [sourcesep.simulate.speech(3, random_state=s) for s in (1, 2)]
    >>> mixture = sourcesep.simulate.instantaneous(voices, sfreq=16000)
    >>> separation = sourcesep.separate((mixture.data, 16000))
    >>> separation.sources.shape
    (2, 48000)
    >>> separation.verdict.label
    'trusted'
    """
    from sourcesep.estimator import IVAE
    from sourcesep.ivae.starts import STARTS
    from sourcesep.persistence import contract_of
    from sourcesep.selection import choose_n_components

    begin = time.perf_counter()
    if isinstance(random_state, bool) or not (
        isinstance(random_state, int | np.integer) and random_state >= 0
    ):
        raise SettingsError(f"random_state={random_state!r}: must be a whole number, 0 or more")
    if isinstance(aux, str):
        auxiliary.parse(aux)  # a SPEC that cannot be is said before anything is read
    with _noting() as notes:
        recording = _recording(source, columns)
        u = _build(aux, recording)
        candidates: dict[str, Any] = {}
        if model is not None:
            ivae = _given(model, recording, n_components)
            keep = excerpt(u, ivae.model_.memory)
            with np.errstate(over="ignore", invalid="ignore"):
                elbo = ivae.elbo(recording.data.T[keep], u=u.take(keep))
            if not np.isfinite(elbo).all():
                raise InputError("the model makes infinite values of this recording: rescale it")
        else:
            table = recording.kind in ("table", "array")
            wanted = n_components
            if wanted is None and recording.kind == "table":
                wanted, numbers = choose_n_components(
                    recording.data, u, np.random.default_rng(random_state)
                )
                candidates["n_components"] = numbers
            ivae = IVAE(
                wanted,
                # volume conduction is linear, and tables' columns are no saturated sensors
                mixing="linear" if mixing == "auto" and recording.kind in LINEAR else mixing,
                sfreq=recording.sfreq,
                standardise=table,
                kernel_size=kernel_size,
                quality=quality,
                device=device,
                random_state=random_state,
                starts=EEG_STARTS if recording.kind == "eeg" else tuple(STARTS),
            ).fit(recording.data.T, u=u)
            ivae.contract_ = contract_of(recording)
            candidates |= ivae.scores_
            elbo = (ivae.history_["reconstruction"][-1], ivae.history_["kl"][-1])
        fitted = ivae.model_
        sources = fitted.posterior(recording.data, None if fitted.is_invertible else u).mean
    settings = {
        "n_components": n_components,
        "mixing": mixing,
        "aux": u.spec,
        "model": str(model) if isinstance(model, str | Path) else model and "IVAE",
        "columns": list(columns) if isinstance(columns, list | tuple) else columns,
        "kernel_size": kernel_size,
        "quality": quality,
        "device": device,
        "random_state": int(random_state),
    }
    seconds = time.perf_counter() - begin
    return Separation(recording, ivae, sources, u, settings, elbo, candidates, notes, seconds)


def _recording(source: Any, columns: str | Sequence[str] | None) -> Recording:
    """Whatever was given, as a Recording."""
    options = {} if columns is None else {"columns": columns}
    if isinstance(source, str | Path):
        return read(source, **options)
    if options:
        raise SettingsError(f"columns={columns!r}: only files of tables have named columns")
    if isinstance(source, Recording):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        return from_array(*source)
    if hasattr(source, "info") and hasattr(source, "first_samp"):
        recording: Recording = adapter_for("eeg").from_raw(source)
        return recording
    raise InputError(
        f"source of type {type(source).__name__}: give a path, a Recording, an MNE Raw, or "
        "(array of shape (channels, times), sfreq)"
    )


def _given(model: Any, recording: Recording, n_components: int | None) -> IVAE:
    """The fitted estimator to use, where it fits what was asked for."""
    from sourcesep.estimator import IVAE
    from sourcesep.persistence import check_contract, load

    ivae = load(model) if isinstance(model, str | Path) else model
    if not isinstance(ivae, IVAE):
        raise SettingsError(f"model={model!r}: must be a model file or a fitted IVAE")
    check_contract(ivae, recording)
    if n_components not in (None, ivae.model_.n_components):
        raise SettingsError(
            f"n_components={n_components}: the model has {ivae.model_.n_components}; leave it "
            "out, or fit anew without a model"
        )
    return ivae


def _build(aux: Any, recording: Recording) -> Auxiliary:
    if aux is None or isinstance(aux, str):
        return auxiliary.build(aux, recording)
    if isinstance(aux, Auxiliary):
        return aux
    return auxiliary.from_array(aux, recording.n_times)


@contextmanager
def _noting() -> Iterator[list[str]]:
    """Collect sourcesep's warnings as lines, and pass all warnings on at the end."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SourcesepWarning)
        try:
            yield notes
        finally:
            ours = (str(w.message) for w in caught if issubclass(w.category, SourcesepWarning))
            notes += dict.fromkeys(ours)
    for w in {(w.category, str(w.message)): w for w in caught}.values():
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
