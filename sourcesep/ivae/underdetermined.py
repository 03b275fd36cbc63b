"""Family ``underdetermined``: more sources than channels.

Stereo music, where sources are told apart by their place between the channels; and one
channel, where only their spectra are left: they are learned where u says that a source is alone.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError, SourcesepWarning
from sourcesep.ivae.model import Array, Model, State
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.stft import alone, layers, panning
from sourcesep.ivae.stft.cells import Cells, in_every_bin, power, to_spectrum, window_size
from sourcesep.ivae.stft.spectral import SpectralModel
from sourcesep.ivae.stft.wiener import NOISE, Wiener, wiener

__all__ = ["UnderdeterminedModel"]

WINDOWS = (0.064, 0.128, 0.256)
"""Seconds: speech wants the shortest, held notes the longest."""
LAYERS = ("steady", "percussive")
"""Of one channel, as `layers.infer` has them."""
MOST_SOURCES = 12
"""That are looked for where no number is given."""
FEWER_ITERATIONS = 10
"""Of fits on halves for a verdict: half the time, and the same verdicts."""
LEAST_IN_PHASE = 0.5
"""Share of the amplitude in cells with one source below which the channels are not in phase, and
directions are none: .53 to .90 in simulated mixtures of 3 to 8 sources by level, .13 to .48 in
46 of 48 simulated rooms and above in two."""
LEAST_GAIN = 1.0
"""dB: spectra by which less is gained in the rehearsal do not tell sources apart."""

DELAYED = (
    "sound reaches the channels with delays, as in a room, and these are not modelled for more "
    "sources than channels: do not read the components as sources"
)


class _Inferred(NamedTuple):
    """The prior's variances of the cells that were seen last, and a digest of these cells."""

    digest: bytes
    variances: Cells


class UnderdeterminedModel(SpectralModel):
    """x(f, t) = A z(f, t) + e(f, t), A real, of any number of sources.

    With two channels or more a source is a direction: A's columns are the peaks of the
    directions in which cells with a single source point. With one channel, or several that
    are the same, it is a layer: what is steady, and what is percussive; or, where labels say who
    is heard, what sounds like one source when it is alone.

    p(z|u) is fitted to the x at hand in turn with the posterior, and the posterior mean (the
    multichannel Wiener filter) is what is given out.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; by default as many as there are clear directions, 2 for one
        channel.
    sfreq : float
        Samples a second.
    windows : tuple of float
        Seconds. The window in which most of the sound comes from one source at a time is
        kept.
    n_iterations : int
        In turn with the posterior, where sources are directions.

    Attributes
    ----------
    scores : dict of str to float
        Share of the amplitude in cells with one source, by window.
    layers : tuple of int
        Which of `LAYERS` each source is, of one channel without names.
    names : tuple of str
        Of the sources, where the labels name them.
    unused : tuple of str
        Names in the labels of several channels, where they tell nothing.
    spectra : ndarray of float32, shape (n_components, rank, n_bins), or None
        Of sources that have names.
    rehearsed_gain : float
        Of these, dB; see `alone.rehearsed_gain`.
    """

    family: ClassVar[str] = "underdetermined"
    is_calibrated: ClassVar[bool] = False
    may_exceed_rank: ClassVar[bool] = True
    longest: ClassVar[float] = 30.0  # one matrix for all frequencies is found in a few seconds

    def __init__(
        self,
        n_components: int | None = None,
        *,
        sfreq: float = 1.0,
        windows: tuple[float, ...] = WINDOWS,
        n_iterations: int = panning.N_ITERATIONS,
    ) -> None:
        super().__init__(n_components, sfreq=sfreq)
        self.windows = tuple(windows)
        self.n_iterations = n_iterations
        self.layers: tuple[int, ...] = (0, 1)
        self.names: tuple[str, ...] = ()
        self.unused: tuple[str, ...] = ()
        self.layered = False
        self.spectra: Cells | None = None
        self.rehearsed_gain = np.nan
        self.n_found = 0
        self._inferred: _Inferred | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Take along the model, not what it inferred of cells, which may be far larger."""
        return vars(self) | {"_inferred": None}

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(settings.n_components, sfreq=settings.sfreq)

    def blank(self) -> Self:
        """Return an unfitted model with this one's window and number of sources."""
        other = type(self)(
            self.n_components,
            sfreq=self.sfreq,
            windows=(self.size / self.sfreq,),
            n_iterations=self.n_iterations,
        )
        other.names, other.layered = self.names, self.layered
        return other

    def following(self, found: Model) -> Self:
        """Look for more sources than `found` has, heard in phase; fit nothing else.

        A look is quick. The fit takes a hundred times as long, and would not be kept.
        """
        self.n_found = found.n_components
        most = self.requested or MOST_SOURCES
        if most <= self.n_found:
            raise SettingsError(f"{most} sources at most are looked for, and so many are found")
        return self

    def rough(self) -> Self:
        """Return what `blank` does, with fewer iterations."""
        other = self.blank()
        other.n_iterations = min(self.n_iterations, FEWER_ITERATIONS)
        return other

    @property
    def choice(self) -> str:  # type: ignore[override]
        """How sources are told apart, in plain words."""
        window = f"windows of {1000 * self.size / self.sfreq:.0f} ms"
        if self.names:
            said = (
                f"one channel: spectra of {', '.join(self.names)}, each learned where it is alone"
            )
            return f"{said}, {window}; {self._rehearsed}"
        if self.rank == 1:
            said = " and a ".join(LAYERS[k] for k in self.layers)
            return f"one channel: a {said} layer, {window}"
        unused = f"; who is heard when ({', '.join(self.unused[:10])}) helps with one channel only"
        directions = f"{self.n_components} directions between the channels, {window}"
        return directions + unused * bool(self.unused)

    @property
    def _rehearsed(self) -> str:
        if np.isnan(self.rehearsed_gain):
            return "too little is heard of each alone to rehearse it"
        gain = f"{self.rehearsed_gain:.1f} dB"
        return f"where they are alone laid over each other, they come apart by {gain}"

    @property
    def caveat(self) -> str | None:
        """What no check of the data can settle."""
        if self.rank > 1:
            in_phase = max(self.scores.values(), default=1.0)
            return DELAYED if in_phase < LEAST_IN_PHASE else None
        if self.rehearsed_gain >= LEAST_GAIN:
            return None
        told = "one channel: told apart by spectrum only"
        return f"{told}; {self._rehearsed}" if self.names else told

    @property
    def doubt(self) -> str | None:
        """Labels say who is who, and spectra alone who sounds how loud where several do."""
        if not self.names:
            return None
        return f"one channel: told apart by spectrum where several sound; {self._rehearsed}"

    @property
    def findings(self) -> dict[str, Any]:
        """Who is who, where labels say so."""
        if not self.names:
            return {}
        gain = None if np.isnan(self.rehearsed_gain) else round(self.rehearsed_gain, 2)
        return {"heard": {"sources": list(self.names), "rehearsed_gain_db": gain}}

    def _enough(self, u: Auxiliary) -> slice | NDArray[np.int64]:
        # a source may be alone anywhere
        return slice(None) if alone.names_in(u) else super()._enough(u)

    def _learn(self, y: NDArray[np.float32], u: Auxiliary, rng: np.random.Generator) -> None:
        self.unused = alone.names_in(u) if len(y) > 1 else ()
        mixing = self._directions(y) if len(y) > 1 else self._one_channel(y, u)
        self.decoder = in_every_bin(mixing, self.size)

    def _one_channel(self, y: NDArray[np.float32], u: Auxiliary) -> Array:
        names = alone.names_in(u)
        if len(names) > 1 and self.requested not in (None, len(names)):
            raise SettingsError(
                f"n_components={self.requested}: the labels name {len(names)} sources "
                f"({', '.join(names[:10])}); leave it out"
            )
        if names and not self.layered:
            try:
                return self._named(y, u, names)
            except SettingsError as error:
                if self.names:  # of the fit that this one is to be compared with
                    raise
                warnings.warn(
                    f"{error}; a steady and a percussive layer are given instead",
                    SourcesepWarning,
                    stacklevel=2,
                )
                self.layered = True  # nor will labels help on halves of the data
        return self._layers(y)

    def _named(self, y: NDArray[np.float32], u: Auxiliary, names: tuple[str, ...]) -> Array:
        alone.check(u)
        self.size = window_size(alone.WINDOW, self.sfreq, y.shape[1])
        self.scores = {}
        cells = to_spectrum(y, self.size)
        sounds = alone.heard(u, names, self.size, cells.shape[1])
        self.spectra = alone.learn(power(cells)[0], sounds, names)
        self.rehearsed_gain = alone.rehearsed_gain(cells, sounds, names)
        self.names = names
        return np.ones((1, len(names)))

    def _layers(self, y: NDArray[np.float32]) -> Array:
        if self.requested not in (None, len(LAYERS)):
            raise SettingsError(
                f"n_components={self.requested}: one channel is told apart into a steady and a "
                f"percussive layer; ask for {len(LAYERS)}, or say by aux when each source is alone"
            )
        self.size = window_size(layers.WINDOW, self.sfreq, y.shape[1])
        self.scores, self.names, self.layers = {}, (), (0, 1)
        return np.ones((1, len(LAYERS)))

    def _directions(self, y: NDArray[np.float32]) -> Array:
        sizes = sorted({window_size(seconds, self.sfreq, y.shape[1]) for seconds in self.windows})
        # windows side by side tell as much as windows that overlap
        shares = {size: panning.share_alone(to_spectrum(y, size, 1)) for size in sizes}
        self.scores = {
            f"{1000 * size / self.sfreq:.3g} ms": share for size, share in shares.items()
        }
        if self.n_found and max(shares.values()) < LEAST_IN_PHASE:
            raise SettingsError("most of the sound comes from no single direction at a time")
        self.size = max(sizes, key=shares.__getitem__)
        cells = to_spectrum(y, self.size)
        peaks = panning.find_peaks(cells, self.requested or MOST_SOURCES)
        n = self.requested or peaks.n_clear
        if n > len(peaks.heights):
            raise SettingsError(
                f"n_components={n}: sound comes from {len(peaks.heights)} directions between the "
                f"channels; ask for that many, or leave it out"
            )
        if n <= self.n_found:
            raise SettingsError(
                f"sound comes from {n} directions between the channels, no more than there are "
                "components"
            )
        return peaks.directions[:, :n]

    @property
    def _mixing(self) -> Array:
        return self.decoder[:, :, 0].real.astype(np.float64)

    def _rearrange(self, order: NDArray[np.int64], gain: Cells) -> None:
        if self.rank == 1 and not self.names:
            self.layers = tuple(self.layers[k] for k in order)
        if self.spectra is not None:
            self.names = tuple(self.names[k] for k in order)
            self.spectra = self.spectra[order]
        if self._inferred is not None:
            digest, variances = self._inferred
            self._inferred = _Inferred(digest, variances[order] * power(gain)[:, None])

    def _variances(self, cells: Cells, u: Auxiliary | None) -> Cells:
        """The prior's variances for these cells; those of the last cells are kept."""
        sounds = alone.heard(u, self.names, self.size, cells.shape[1])
        digest = hashlib.blake2b(sounds[np.argsort(self.names)].tobytes())
        for part in panning.parts_of(cells):
            digest.update(np.ascontiguousarray(part).data)
        seen, inferred = digest.digest(), self._inferred
        if inferred is None or inferred.digest != seen:
            if self.spectra is not None:
                variances = alone.infer(cells, self._mixing, self.spectra, sounds)
            elif self.rank == 1:
                order = list(self.layers)
                variances = layers.infer(cells, self._mixing[:, np.argsort(order)])[order]
            else:
                variances = panning.infer(cells, self._mixing, self.n_iterations)
            self._inferred = inferred = _Inferred(seen, variances)
        return inferred.variances

    def _posterior(self, cells: Cells, u: Auxiliary | None) -> Wiener:
        return wiener(cells, self._mixing, self._variances(cells, u))

    def _as_instantaneous(self, unmixing: Array, mixing: Array, cells: Cells) -> Self:
        other = copy.copy(self)
        other.spectra = None
        other.names = ()
        other.decoder = in_every_bin(mixing, self.size)
        return other

    def _infer(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        posterior = self._posterior(cells, u)
        return posterior.mean, posterior.variance

    def _bound(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        posterior = self._posterior(cells, u)
        explained = np.tensordot(self._mixing.astype(np.float32), posterior.mean, 1)
        missed = power(cells - explained).sum(axis=0) + posterior.spread
        reconstruction = -self.rank * np.log(np.pi * NOISE) - missed / NOISE
        return reconstruction, reconstruction - posterior.log_density

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        z, x = super().sample(u, rng)
        noise = rng.standard_normal((self.rank, z.shape[1]))
        return z, x + self.basis.span @ (np.sqrt(NOISE) * noise)

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        state = super().state()
        state.facts.update(windows=self.windows, layers=self.layers)
        if self.spectra is not None:
            state.tensors["spectra"] = self.spectra
            state.facts.update(self.findings["heard"])
        return state

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        model = super().from_state(state)
        model.windows = tuple(state.facts["windows"])
        # files of older versions do not say which layer is which
        model.layers = tuple(state.facts.get("layers", (0, 1)))
        if sorted(model.layers) != [0, 1]:
            raise ValueError(f"layers={model.layers}: each of two once")
        if "spectra" in state.tensors:
            model.spectra = state.tensors["spectra"]
            model.names = tuple(state.facts["sources"])
            gain = state.facts["rehearsed_gain_db"]
            model.rehearsed_gain = np.nan if gain is None else float(gain)
            if model.spectra.shape[::2] != (len(model.names), model.size // 2 + 1):
                raise ValueError(f"spectra of shape {model.spectra.shape}: one set a source")
        return model
