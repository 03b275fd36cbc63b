"""`Separation`: the sources of a recording and how far to trust them, and how it is written."""

from __future__ import annotations

import json
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sourcesep._version import __version__
from sourcesep.auxiliary import Auxiliary
from sourcesep.contracts import contract_of
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array
from sourcesep.output import check_output, replacing, sha256, write_result
from sourcesep.reading import adapter_for
from sourcesep.recording import Recording
from sourcesep.samples import pieces

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE
    from sourcesep.verdict import Verdict

__all__ = ["Separation", "check_options"]

MOST_AT_ONCE = 2**19
"""How many values of all images are computed at once: 4 MiB, which fit into a cache."""
SHORTEST_BLOCK = 32
"""Shortest block of a map with memory, as a multiple of it, so that margins cost little."""


@dataclass
class Separation:
    """The sources of a recording, the model that found them, and the verdict.

    The model is fitted once and then applied block by block, so that files may be of any
    length. `sources`, `image`, `images`, `mixture` and `residual` are put together from the
    blocks and have to fit in memory; `blocks` gives them one by one.

    Parameters
    ----------
    recording : Recording
        What was separated.
    ivae : IVAE
        Fitted estimator.
    u : Auxiliary
        The auxiliary variable, for the samples that were fitted on (`Recording.stretches`).
    settings : dict
        All settings, with the defaults that were used.
    candidates : dict
        The scores behind every choice that was made.
    elbo : tuple of float
        Reconstruction and KL on the samples of the fit, nats a sample.
    warnings : list of str
        Warnings that were given on the way.
    seconds : float
        How long the separation took.
    out_of_range : list of dict, optional
        If a model was given: the components that reach beyond the range of its fit, see
        `IVAE.out_of_range`.
    heard : Recording, optional
        What the model hears, where that is not the recording as it is.
    """

    recording: Recording
    ivae: IVAE
    u: Auxiliary
    settings: dict[str, Any]
    elbo: tuple[float, float]
    candidates: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    out_of_range: list[dict[str, Any]] | None = None
    heard: Recording | None = None
    _energy: Array | None = field(default=None, init=False, repr=False)

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return self.ivae.model_.n_components

    @property
    def mixing(self) -> Array | None:
        """Mixing matrix (n_channels, n_components) where the decoder is linear, else None."""
        matrices = self.ivae.model_.matrices
        return None if matrices is None else matrices[1]

    @property
    def verdict(self) -> Verdict:
        """How far to trust the sources."""
        verdict: Verdict = self.ivae.verdict_
        if self.recording.kind != "eeg":
            return verdict
        from sourcesep.componentwise import componentwise

        return componentwise(verdict)

    @property
    def _fitted_on(self) -> Recording:
        """The recording as the model hears it."""
        return self.heard or self.recording

    @property
    def keeps_input(self) -> bool:
        """Whether images and residual add up to the recording: no distortion was undone."""
        x = self.recording.data[:, :1]
        return self.ivae.model_.mixture(x) is x

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Go through the recording in blocks of bounded size.

        Yields
        ------
        mixture : ndarray of shape (n_channels, times)
            What images and residual add up to: the recording, or what it was before a
            distortion that the model undoes.
        images : ndarray of shape (n_components, n_channels, times)
            Every source as the channels hear it.
        """
        model = self.ivae.model_
        energy = np.zeros((self.n_components, self.recording.n_channels))
        for x, u, span, core in self._pieces():
            mixture, images = self._mixture(x, span, core), model.images(x, u)[:, :, core]
            energy += np.einsum("kct,kct->kc", images, images)
            yield mixture, images
        self._energy = energy  # saves `explained_power` another pass

    def _pieces(self) -> Iterator[tuple[Array, Auxiliary | None, slice, slice]]:
        """Cut the recording into pieces, with margins where the map has memory.

        A recording in memory is one piece for a map with memory, so that the only ends are its
        own.

        Yields
        ------
        x : ndarray of shape (n_channels, times)
            A piece and its margins.
        u : Auxiliary or None
            Its auxiliary variable; of a long recording it is known for the stretches of the fit
            only.
        span, core : slice
            Where the piece without margins lies in the recording, and where in x.
        """
        recording, model = self.recording, self.ivae.model_
        memory, n_times = model.memory, recording.n_times
        size = MOST_AT_ONCE // (self.n_components * recording.n_channels)
        # pieces must begin on the grid of frames where the map works on frames
        size = max(SHORTEST_BLOCK * memory, size // memory * memory)
        if memory > 1 and recording.in_memory:
            size = n_times
        margin = memory if memory > 1 else 0
        for x, span, core in pieces(self._fitted_on.data, size, margin):
            around = slice(span.start - core.start, span.start - core.start + x.shape[1])
            yield x, self.u.take(around) if recording.in_memory else None, span, core

    def _mixture(self, x: Array, span: slice, core: slice) -> Array:
        """What images and residual add up to in a piece without its margins.

        What the model does not hear as it was recorded is made up for by the residual.
        """
        mixture = self.ivae.model_.mixture(x)[:, core]
        if self.heard is None:
            return mixture
        return mixture + (self.recording.data[:, span] - x[:, core])

    def _whole(self, shape: tuple[int, ...], part: Callable[[Array, Any], Array]) -> Array:
        """Put an array (*shape, n_times) together from what `part` makes of x and u."""
        whole = np.empty((*shape, self.recording.n_times))
        for x, u, span, core in self._pieces():
            whole[..., span] = part(x, u)[..., core]
        return whole

    @cached_property
    def sources(self) -> Array:
        """Posterior means of unit variance, (n_components, n_times), the strongest first."""
        model = self.ivae.model_
        return self._whole(
            (self.n_components,),
            lambda x, u: model.posterior(x, None if model.is_invertible else u).mean,
        )

    @cached_property
    def mixture(self) -> Array:
        """What images and residual add up to: the recording, less any distortion undone."""
        parts = [self._mixture(x, span, core) for x, _, span, core in self._pieces()]
        return np.concatenate(parts, axis=1)

    def image(self, k: int) -> Array:
        """Source k as the channels hear it, shape (n_channels, n_times)."""
        return self._whole(
            (self.recording.n_channels,), lambda x, u: self.ivae.model_.image(x, k, u)
        )

    @property
    def images(self) -> Array:
        """All images, shape (n_components, n_channels, n_times)."""
        return self._whole((self.n_components, self.recording.n_channels), self.ivae.model_.images)

    @property
    def residual(self) -> Array:
        """What no source explains: mixture - sum of images, (n_channels, n_times)."""
        parts = [mixture - images.sum(axis=0) for mixture, images in self.blocks()]
        return np.concatenate(parts, axis=1)

    @property
    def explained_power(self) -> list[float | None]:
        """Mean power of each image, as a share of the channels' mean variance.

        Columns of tables have units of their own, so each is first divided by its variance.
        """
        if self._energy is None:
            deque(self.blocks(), maxlen=0)
        variance = self.recording.summary.variance
        power = np.asarray(self._energy) / self.recording.n_times
        if self.recording.kind == "table":
            power = power[:, variance > 0] / variance[variance > 0]
            variance = np.ones(1)
        total = float(variance.mean())
        return [round(float(p) / total, 6) if total else None for p in power.mean(axis=1)]

    def result(self) -> dict[str, Any]:
        """Return everything that result.json says, except for what writing adds."""
        model, recording = self.ivae.model_, self.recording
        recording.check_unchanged()
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
            "rank": model.rank,
            "n_components": self.n_components,
            "family": model.family,
            "reason": self.ivae.reason_,
            "candidates": self.candidates,
            "explained_power": self.explained_power,
            "elbo": {
                "unit": "nats a sample",
                "reconstruction": self.elbo[0],
                "kl": self.elbo[1],
            },
            **model.findings,
            **self.verdict.as_dict(),
            **self._reliability,
            "judged_on": self._judged_on,
            "out_of_range": self.out_of_range,
            "warnings": self.warnings,
        }

    @cached_property
    def prior_here(self) -> tuple[tuple[str, ...], Array, Array]:
        """p(z|u) of this recording.

        Names of the labels; and mean and variance of each source given each label, both
        (n_labels, n_components).
        """
        model, u = self.ivae.model_, self.u
        if not u.is_time:
            return self.ivae.u_names_ or (), *model.prior_moments()
        given, refit = (self.settings[name] for name in ("model", "refit"))
        if given is not None and not refit:  # its stretches were those of another recording
            model = model.refit_prior(self._fitted_on.excerpt(), u)
        return u.scales[0].names, *model.prior_moments()

    @property
    def _reliability(self) -> dict[str, Any]:
        """What result.json says of each component of an EEG."""
        if self.recording.kind != "eeg":
            return {}
        from sourcesep.componentwise import come_again

        reliability = np.array(self.verdict.agreement)
        return {
            "reliability": np.round(np.nan_to_num(reliability), 4).tolist(),
            "come_out_again": come_again(reliability),
        }

    @property
    def _judged_on(self) -> str:
        if self.settings["model"] is not None and not self.settings["refit"]:
            return "the model's fit"
        if self.recording.in_memory:
            return "this recording"
        spans = self._fitted_on.stretches
        seconds = sum(span.stop - span.start for span in spans) / self.recording.sfreq
        return f"{len(spans)} stretches of this recording, {seconds:.3g} s in all"

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        bit_depth: str | None = None,
        exclude: Sequence[int | str] = (),
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
            Bit depth of audio files; the input's own by default.
        exclude : sequence of int or str
            Components to remove from a copy of an EEG recording: numbers, or ``"eog"``,
            ``"ecg"`` and ``"muscle"`` for those that look like it.
        report : bool
            Whether to write report.html too, a page with pictures and players.

        Returns
        -------
        dict
            What result.json holds.

        Raises
        ------
        OutputError
            If the folder exists or cannot be written.
        SettingsError
            If an option does not go with this kind of recording.
        """
        folder = Path(folder)
        check_output(folder, overwrite)
        check_options(self.recording.kind, bit_depth, exclude)
        asked = {"bit_depth": bit_depth, "exclude": tuple(exclude), "report": report}
        found = self._look_for(exclude)
        how: dict[str, Any] = {} if bit_depth is None else {"bit_depth": bit_depth}
        if len(exclude):
            how["exclude"] = [k for k in exclude if not isinstance(k, str)]
            how["exclude"] += [k for kind in found.values() for k in kind["components"]]
        with replacing(folder, overwrite) as temporary:
            written = adapter_for(self.recording.kind).write(self, temporary, **how)
            if found:
                written["found"] = found
            written["options"] = {name: value for name, value in asked.items() if value}
            return self._finish(temporary, written, report=report)

    def _finish(self, folder: Path, written: dict[str, Any], *, report: bool) -> dict[str, Any]:
        """Write model, report and result.json beside what the adapter has `written`."""
        if self.recording.kind == "eeg":
            self.save_model(folder / "model.safetensors")
            written["files"] = [*written["files"], "model.safetensors"]
        result = self.result() | {"output": written}
        if report:
            from sourcesep.report.page import write_report

            written["files"] = [*written["files"], write_report(self, result, folder)]
        result["run"] = {
            "seconds": round(self.seconds, 3),
            "python": sys.version.split()[0],
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        }
        as_read: dict[str, Any] = json.loads(write_result(folder, result))
        return as_read

    def _look_for(self, exclude: Sequence[int | str]) -> dict[str, dict[str, list[Any]]]:
        """Components of each kind of artefact that is named, and the scores of all components."""
        kinds = list(dict.fromkeys(k for k in exclude if isinstance(k, str)))
        if not kinds:
            return {}
        from sourcesep.components.artefact_scores import find_artefacts

        eeg = adapter_for("eeg")
        return find_artefacts(kinds, eeg.sources_raw(self), eeg.original(self.recording))

    def save_model(self, path: str | Path) -> None:
        """Write the fitted model, and what it needs of a recording, to a file: see `save`."""
        from sourcesep.persistence import save

        save(self.ivae, path, contract=contract_of(self.recording))


def check_options(kind: str, bit_depth: str | None, exclude: Sequence[int | str]) -> None:
    """Refuse options of writing that this kind of recording does not have."""
    if bit_depth is not None and kind != "audio":
        raise SettingsError(f"bit_depth={bit_depth}: only audio has one; leave it out")
    if len(exclude) and kind != "eeg":
        raise SettingsError(
            f"exclude={','.join(map(str, exclude))}: components are removed from EEG only; "
            "leave it out"
        )
