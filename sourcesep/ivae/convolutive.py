"""Family ``convolutive``: rooms, and every other mixture through filters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.cepstrum import cepstral_variances, sparse_cepstrum
from sourcesep.ivae.invertible import SIGMA
from sourcesep.ivae.model import Array, Settings, State
from sourcesep.ivae.projection import Complex, Products, identity, principal_rows, project
from sourcesep.ivae.spectral import (
    WINDOW,
    Cells,
    SpectralModel,
    power,
    to_signal,
    to_spectrum,
    window_size,
)

__all__ = ["FLOOR", "STARTS", "ConvolutiveModel", "Start"]

SHORTEST_START = 0.064
"""Seconds: with shorter windows a start fails, and may even look good."""
FLOOR = 1e-3
"""Least variance as a share of its bin's mean power (`cepstral_variances`); .3 to 10 times as much
make little difference."""
N_POLISH = 8
"""Cepstral iterations after the window has been doubled; twice as many gain nothing."""
N_SWEEPS = 3
"""Updates that find the rows from given variances, where one is not exact."""
RIDGE = 1e-4
"""Assumed in outputs that are hardly two, as a share of their mean power."""
TIE = 0.01
"""Of starts whose compactness differs by less, the one with the shortest window is kept."""
SAME = 0.998
"""Correlation of signals that count as the same."""
SILENCE = 1e-12
"""Least power of an output in a bin; cells have a mean power near 1."""


class Start(NamedTuple):
    """Where a fit begins.

    Parameters
    ----------
    part : int
        The first window is the last one divided by this.
    n_frame, n_cepstral : int
        Iterations with one variance a frame, and then with cepstral variances.
    """

    part: int
    n_frame: int
    n_cepstral: int


THREE = (Start(8, 80, 10), Start(4, 60, 10), Start(2, 100, 10))
STARTS = {"fast": THREE[1:2], "normal": THREE, "best": THREE}
"""By quality: nothing that was tried is better than all three."""


class ConvolutiveModel(SpectralModel):
    """x(f, t) = A(f) (z(f, t) + sigma e), at most as many sources as channels.

    The unmixing matrix of every frequency is found by iterative projection. Windows begin
    short, where a source's activity over frames binds its frequencies together, and are
    doubled until they are as long as the room's filters; each time the sources found so far
    give the variances to begin with. Of several starts the one whose sources arrive by the
    most compact relative impulse responses is kept: a band that belongs to another source has
    its delay, and the likelihood does not see that.

    With fewer sources than channels each bin's strongest directions are kept; the rest counts as
    isotropic noise.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the rank of x by default.
    sfreq : float
        Samples a second.
    starts : sequence of Start
        The most compact result is kept. None of them begins below `SHORTEST_START`.

    Attributes
    ----------
    encoder : ndarray of complex64, shape (n_components, rank, n_bins)
        From independent channels to sources.
    noise : ndarray of float32, shape (n_components, n_bins)
        Variance of sigma e: the share `SIGMA`^2 of the source's own.
    start : Start
        Which start was kept.
    aside : ndarray of float32, shape (n_bins,)
        Mean power of what is set aside, in each of its directions.
    scores : dict of str to float
        Compactness of every start, by its first window.
    """

    family: ClassVar[str] = "convolutive"
    mends: ClassVar[tuple[str, ...]] = ("delay",)
    tensors: ClassVar[tuple[str, ...]] = (*SpectralModel.tensors, "encoder", "noise", "aside")
    facts: ClassVar[tuple[str, ...]] = (*SpectralModel.facts, "starts", "start")

    encoder: Cells
    noise: Cells
    aside: Cells
    start: Start

    def __init__(
        self,
        n_components: int | None = None,
        *,
        sfreq: float = 1.0,
        starts: tuple[Start, ...] = STARTS["normal"],
    ) -> None:
        super().__init__(n_components, sfreq=sfreq)
        self.starts = tuple(Start(*start) for start in starts)

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(settings.n_components, sfreq=settings.sfreq, starts=STARTS[settings.quality])

    def blank(self) -> Self:
        """Return an unfitted model with this one's start and number of sources."""
        return type(self)(self.n_components, sfreq=self.sfreq, starts=(self.start,))

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which start was kept, in plain words."""
        chosen = f"begun with windows of {self._name(self.start)}"
        if len(self.scores) > 1:
            chosen += f": the most compact responses of {len(self.scores)} starts"
        return chosen

    def _name(self, start: Start) -> str:
        return f"{1000 * self.size / start.part / self.sfreq:.0f} ms"

    def _learn(self, y: NDArray[np.float32], rng: np.random.Generator) -> None:
        k = len(y) if self.requested is None else self.requested
        if not 1 <= k <= len(y):
            raise SettingsError(
                f"n_components={k}: mixing=convolutive finds up to as many sources as there are "
                f"independent channels, {len(y)}; ask for fewer"
            )
        self.size = window_size(WINDOW, self.sfreq, y.shape[1])
        level, fits = _coarse_to_fine(y, k, self.size, self._possible())
        self.scores = {self._name(start): level.compactness(rows) for start, rows in fits.items()}
        enough = max(self.scores.values()) - TIE
        self.start = next(s for s in fits if self.scores[self._name(s)] >= enough)
        rows = fits[self.start]
        self.encoder = level.encoder(rows).astype(np.complex64)
        self.decoder = level.decoder(rows).astype(np.complex64)
        outputs = level.products.powers(rows).mean(axis=1)
        self.noise = np.float32(SIGMA**2) * np.maximum(outputs, SILENCE)
        self.aside = level.aside

    def _possible(self) -> list[Start]:
        """Starts whose first windows are not too short, one of each length."""
        possible: dict[int, Start] = {}
        for start in self.starts:
            part = start.part
            while part > 1 and self.size < part * SHORTEST_START * self.sfreq * (1 - 1e-6):
                part //= 2
            possible.setdefault(part, start._replace(part=part))
        return list(possible.values())

    def _rearrange(self, order: NDArray[np.int64], gain: Cells) -> None:
        self.encoder = self.encoder[order] * gain[:, None]
        self.noise = self.noise[order] * power(gain)

    def _as_instantaneous(self, unmixing: Array, mixing: Array, cells: Cells) -> Self:
        other = copy.copy(self)
        n_bins = cells.shape[2]
        other.encoder = np.repeat(unmixing.astype(np.complex64)[:, :, None], n_bins, axis=2)
        other.decoder = np.repeat(mixing.astype(np.complex64)[:, :, None], n_bins, axis=2)
        outputs = _filtered(other.encoder, cells)
        other.noise = np.float32(SIGMA**2) * np.maximum(power(outputs).mean(axis=1), SILENCE)
        rest = cells - _filtered(other.decoder, outputs)
        spare = power(rest).sum(axis=0).mean(axis=0) / max(len(cells) - len(outputs), 1)
        other.aside = np.maximum(spare, SILENCE).astype(np.float32)
        return other

    def _infer(self, cells: Cells) -> tuple[Cells, Cells]:
        mean = _filtered(self.encoder, cells)
        return mean, np.broadcast_to(self.noise[:, None], mean.shape)

    def _bound(self, cells: Cells) -> tuple[Cells, Cells]:
        mean, noise = _filtered(self.encoder, cells), self.noise[:, None]
        squares = power(mean)
        ratio = cepstral_variances(squares, FLOOR) / noise
        kl = (np.log(ratio) - 1 + (1 + squares / noise) / ratio).sum(axis=0)
        gram = np.einsum("arf,brf->fab", self.encoder, self.encoder.conj()).astype(complex)
        reconstruction = np.linalg.slogdet(gram)[1] - (np.log(np.pi * noise) + 1).sum(axis=0)
        n_aside = len(cells) - len(mean)
        if n_aside:
            weighted = np.linalg.inv(gram).astype(np.complex64).transpose(1, 2, 0)
            kept = (_filtered(weighted, mean) * mean.conj()).real.sum(axis=0)
            left = np.maximum(power(cells).sum(axis=0) - kept, 0)
            reconstruction = reconstruction - n_aside * np.log(np.pi * self.aside)
            reconstruction = reconstruction - left / self.aside
        return np.broadcast_to(reconstruction, kl.shape), kl

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        model = super().from_state(state)
        model.starts = tuple(Start(*start) for start in model.starts)
        model.start = Start(*model.start)
        return model

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u), and x from p(x|z) with what is set aside."""
        z, x = super().sample(u, rng)
        if self.rank > self.n_components:
            x += self._draw_aside(z.shape[1], rng)
        return z, x

    def _draw_aside(self, n_times: int, rng: np.random.Generator) -> Array:
        drawn = to_spectrum(rng.standard_normal((self.rank, n_times)), self.size)
        rows = np.linalg.qr(self.encoder.transpose(2, 1, 0).conj())[0].transpose(1, 2, 0)
        outside = drawn - np.einsum("raf,saf,stf->rtf", rows, rows.conj(), drawn)
        return self._in_channels(outside * np.sqrt(self.aside), n_times)


def _filtered(matrix: NDArray[Any], cells: Cells) -> Cells:
    """Multiply every bin's cells (n, n_frames, n_bins) by its matrix (m, n, n_bins)."""
    filtered: Cells = np.stack(
        [sum(row * x for row, x in zip(rows, cells, strict=True)) for rows in matrix]
    )
    return filtered


def _coarse_to_fine(
    y: NDArray[np.float32], k: int, size: int, starts: Sequence[Start]
) -> tuple[Level, dict[Start, Complex]]:
    """Fit from every start, and return the rows each ends with at the longest window.

    Starts that have come to the same sources go on as one.
    """
    part = max(start.part for start in starts)
    leader = {start: start for start in starts}
    signals: dict[Start, Array] = {}
    while True:
        level = Level(y, size // part, k)
        fits = {start: level.continued(found) for start, found in signals.items()}
        fits |= {start: level.begun(start) for start in starts if start.part == part}
        if part == 1:
            return level, {start: fits[leader[start]] for start in starts}
        signals = {}
        for start, rows in fits.items():
            found = level.signals(rows)
            same = next((s for s in signals if _are_same(found, signals[s])), start)
            leader = {s: same if first == start else first for s, first in leader.items()}
            signals.setdefault(same, found)
        part //= 2


def _are_same(one: Array, other: Array) -> bool:
    """Whether two sets of signals are the same but for their order."""
    correlation = np.abs(np.corrcoef(one, other)[: len(one), len(one) :])
    return bool((correlation.max(axis=0) > SAME).all() and (correlation.max(axis=1) > SAME).all())


class Level:
    """Fits with windows of one size.

    Parameters
    ----------
    y : ndarray of float32, shape (rank, n_times)
        Independent channels.
    size : int
        Samples of the windows.
    k : int
        Number of sources.
    """

    def __init__(self, y: NDArray[np.float32], size: int, k: int) -> None:
        self.n_times = y.shape[1]
        self.cells = to_spectrum(y, size)
        whole = Products(self.cells)
        self.covariance = whole.covariances(np.ones((1, whole.values.shape[1], 1)))[0]
        self.basis = identity(len(y), size // 2 + 1)
        self.products = whole
        if k < len(y):
            self.basis = principal_rows(self.covariance, k)
            self.products = Products(_filtered(self.basis.astype(np.complex64), self.cells))
        self.rows = identity(k, size // 2 + 1)

    def begun(self, start: Start) -> Complex:
        """Rows from nothing: one variance a frame binds the bins of a source together.

        Then cepstral variances.
        """
        rows = self.rows
        for _ in range(start.n_frame):
            variances = self.products.frame_powers(rows)[:, :, None] + 1e-6
            rows = project(rows, self.products.covariances(variances))
        return self._refined(rows, start.n_cepstral)

    def continued(self, signals: Array) -> Complex:
        """Rows from what was found with shorter windows, (k, n_times)."""
        variances = sparse_cepstrum(power(to_spectrum(signals, 2 * (self.cells.shape[2] - 1))))
        covariances = self.products.covariances(variances)
        rows = self.rows
        for _ in range(1 if len(rows) == 2 else N_SWEEPS):
            rows = project(rows, covariances)
        return self._refined(rows, N_POLISH)

    def _refined(self, rows: Complex, n: int) -> Complex:
        for _ in range(n):
            variances = cepstral_variances(self.products.powers(rows), FLOOR)
            rows = project(rows, self.products.covariances(variances))
        return rows

    def encoder(self, rows: Complex) -> Complex:
        """From channels to sources, (k, rank, n_bins)."""
        encoder: Complex = np.einsum("abf,brf->arf", rows, self.basis)
        return encoder

    def decoder(self, rows: Complex) -> Complex:
        """From sources to channels by least squares, (rank, k, n_bins)."""
        encoder = self.encoder(rows)
        cross = np.einsum("rsf,asf->raf", self.covariance, encoder.conj())
        gram = np.einsum("arf,rbf->fab", encoder, cross)
        mean = np.einsum("faa->f", gram).real / len(rows)
        gram += (RIDGE * mean[:, None, None] + 1e-20) * np.eye(len(rows))
        # decoder gram = cross
        decoder: Complex = np.linalg.solve(gram.swapaxes(1, 2), cross.transpose(2, 1, 0)).T
        return decoder

    def signals(self, rows: Complex) -> Array:
        """Sources as the channels hear them that hear them loudest, (k, n_times)."""
        outputs = _filtered(self.encoder(rows).astype(np.complex64), self.cells)
        decoder = self.decoder(rows)
        heard = (power(decoder) * power(outputs).mean(axis=1)).sum(axis=2)
        loudest = decoder[heard.argmax(axis=0), np.arange(len(rows))].astype(np.complex64)
        return to_signal(outputs * loudest[:, None], self.n_times)

    @property
    def aside(self) -> Cells:
        """Mean power of what the basis leaves out, in each direction of it, (n_bins,)."""
        total = np.einsum("rrf->f", self.covariance).real
        kept = np.einsum("arf,rsf,asf->f", self.basis, self.covariance, self.basis.conj()).real
        spare = (total - kept) / max(len(self.cells) - len(self.basis), 1)
        aside: Cells = np.maximum(spare, 1e-6 * total + SILENCE).astype(np.float32)
        return aside

    def compactness(self, rows: Complex) -> float:
        """How short the relative impulse responses of the sources are.

        The mean over sources and channels of the log peak of their phases' inverse FFT, bins
        weighted by image power ^ 1/4: a bin with another source's phase, which is that of
        another delay, lowers the peak.
        """
        if len(self.cells) == 1:
            return 0.0
        decoder = self.decoder(rows)
        outputs = self.products.powers(rows).mean(axis=1)
        weights = (power(decoder).sum(axis=0) * outputs) ** 0.25
        weights /= weights.mean(axis=1, keepdims=True) + 1e-20
        relative = decoder[1:] * decoder[:1].conj()
        relative /= np.abs(relative) + 1e-12
        peaks = np.abs(irfft(relative * weights, axis=2)).max(axis=2)
        return float(np.log(peaks + 1e-12).mean())
