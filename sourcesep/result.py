"""`Separation`: the sources of a recording and how far to trust them, and how it is written."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sourcesep._version import __version__
from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array
from sourcesep.output import check_output, plain, replacing, sha256
from sourcesep.recording import Recording, adapter_for

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE
    from sourcesep.verdict import Verdict

__all__ = ["Separation"]


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
        report: bool = False,
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
        report : bool
            Whether to write report.html too, a page to look at and listen to.

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
            written["options"] = options | ({"report": True} if report else {})
            if self.recording.kind == "eeg":
                self.save_model(temporary / "model.safetensors")
                written["files"] = [*written["files"], "model.safetensors"]
            result = self.result() | {"output": written}
            if report:
                from sourcesep.report.page import write_report

                written["files"] = [*written["files"], write_report(self, result, temporary)]
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
