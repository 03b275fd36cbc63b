"""Family ``underdetermined``: more sources than channels.

Stereo music, where sources are told apart by their place between the channels; and one
channel, where only their spectra are left.
"""

from __future__ import annotations

import copy
import hashlib
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae import layers, panning
from sourcesep.ivae.model import Array, Settings
from sourcesep.ivae.spectral import Cells, SpectralModel, power, to_spectrum, window_size
from sourcesep.ivae.wiener import NOISE, Wiener, wiener

__all__ = ["UnderdeterminedModel"]

WINDOWS = (0.064, 0.128, 0.256)
"""Seconds: speech wants the shortest, held notes the longest."""
N_LAYERS = 2
MOST_SOURCES = 12
"""That are looked for where no number is given."""


class UnderdeterminedModel(SpectralModel):
    """x(f, t) = A z(f, t) + e(f, t), A real, of any number of sources.

    With two channels or more a source is a direction: A's columns are the peaks of the
    directions in which cells with a single source point. With one channel, or several that
    are the same, it is a layer: what is steady, and what is percussive.

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

    Attributes
    ----------
    scores : dict of str to float
        Share of the amplitude in cells with one source, by window.
    """

    family: ClassVar[str] = "underdetermined"
    mends: ClassVar[tuple[str, ...]] = ("delay", "power")
    is_calibrated: ClassVar[bool] = False
    may_exceed_rank: ClassVar[bool] = True
    facts: ClassVar[tuple[str, ...]] = (*SpectralModel.facts, "windows")

    def __init__(
        self,
        n_components: int | None = None,
        *,
        sfreq: float = 1.0,
        windows: tuple[float, ...] = WINDOWS,
    ) -> None:
        super().__init__(n_components, sfreq=sfreq)
        self.windows = tuple(windows)
        self._fitted: tuple[bytes, Cells] | None = None

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(settings.n_components, sfreq=settings.sfreq)

    def blank(self) -> Self:
        """Return an unfitted model with this one's window and number of sources."""
        return type(self)(self.n_components, sfreq=self.sfreq, windows=(self.size / self.sfreq,))

    @property
    def choice(self) -> str:  # type: ignore[override]
        """How sources are told apart, in plain words."""
        window = f"windows of {1000 * self.size / self.sfreq:.0f} ms"
        if self.rank == 1:
            return f"one channel: a steady and a percussive layer, {window}"
        return f"{self.n_components} directions between the channels, {window}"

    @property
    def caveat(self) -> str | None:
        """What no check of the data can settle."""
        if self.rank > 1:
            return None
        return "one channel: told apart by spectrum only"

    def _learn(self, y: NDArray[np.float32], rng: np.random.Generator) -> None:
        mixing = self._layers(y) if len(y) == 1 else self._directions(y)
        n_bins = self.size // 2 + 1
        self.decoder = np.repeat(mixing.astype(np.complex64)[:, :, None], n_bins, axis=2)

    def _layers(self, y: NDArray[np.float32]) -> Array:
        if self.requested not in (None, N_LAYERS):
            raise SettingsError(
                f"n_components={self.requested}: one channel is told apart into a steady and a "
                f"percussive layer; ask for {N_LAYERS}"
            )
        self.size = window_size(layers.WINDOW, self.sfreq, y.shape[1])
        self.scores = {}
        return np.ones((1, N_LAYERS))

    def _directions(self, y: NDArray[np.float32]) -> Array:
        sizes = sorted({window_size(seconds, self.sfreq, y.shape[1]) for seconds in self.windows})
        shares = {size: panning.share_alone(to_spectrum(y, size)) for size in sizes}
        self.scores = {
            f"{1000 * size / self.sfreq:.3g} ms": share for size, share in shares.items()
        }
        self.size = max(sizes, key=shares.__getitem__)
        cells = to_spectrum(y, self.size)
        peaks = panning.find_peaks(cells, self.requested or MOST_SOURCES)
        n = self.requested or peaks.n_clear
        if n > len(peaks.heights):
            raise SettingsError(
                f"n_components={n}: sound comes from {len(peaks.heights)} directions between the "
                f"channels; ask for that many, or leave it out"
            )
        return peaks.directions[:, :n]

    @property
    def _mixing(self) -> Array:
        return self.decoder[:, :, 0].real.astype(np.float64)

    def _rearrange(self, order: NDArray[np.int64], gain: Cells) -> None:
        if self._fitted is not None:
            seen, variances = self._fitted
            self._fitted = seen, variances[order] * power(gain)[:, None]

    def _variances(self, cells: Cells) -> Cells:
        """The prior's variances for these cells; those of the last cells are kept."""
        seen = hashlib.blake2b(np.ascontiguousarray(cells).data).digest()
        if self._fitted is None or self._fitted[0] != seen:
            infer = layers.infer if self.rank == 1 else panning.infer
            variances = infer(cells, self._mixing)
            self._fitted = seen, variances
        return self._fitted[1]

    def _posterior(self, cells: Cells) -> Wiener:
        return wiener(cells, self._mixing, self._variances(cells))

    def _as_instantaneous(self, unmixing: Array, mixing: Array, cells: Cells) -> Self:
        other = copy.copy(self)
        other._fitted = None
        n_bins = cells.shape[2]
        other.decoder = np.repeat(mixing.astype(np.complex64)[:, :, None], n_bins, axis=2)
        return other

    def _infer(self, cells: Cells) -> tuple[Cells, Cells]:
        posterior = self._posterior(cells)
        return posterior.mean, posterior.variance

    def _bound(self, cells: Cells) -> tuple[Cells, Cells]:
        posterior = self._posterior(cells)
        explained = np.tensordot(self._mixing.astype(np.float32), posterior.mean, 1)
        missed = power(cells - explained).sum(axis=0) + posterior.spread
        reconstruction = -self.rank * np.log(np.pi * NOISE) - missed / NOISE
        return reconstruction, reconstruction - posterior.log_density

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        z, x = super().sample(u, rng)
        noise = rng.standard_normal((self.rank, z.shape[1]))
        return z, x + self.basis.span @ (np.sqrt(NOISE) * noise)
