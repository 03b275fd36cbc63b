"""One size of windows: the cells of a mixture, and unmixing rows for all frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft
from scipy.optimize import linear_sum_assignment

from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.cells import OVERLAP, Cells, power, to_signal, to_spectrum
from sourcesep.ivae.stft.cepstrum import cepstral_variances, sparse_cepstrum
from sourcesep.ivae.stft.projection import Complex, Products, identity, principal_rows, project

__all__ = ["COARSE", "FLOOR", "SILENCE", "Level", "filtered"]

FLOOR = 1e-3
"""Least variance as a share of its bin's mean power (`cepstral_variances`); .3 to 10 times as much
make little difference."""
N_POLISH, N_POLISH_MORE = 6, 8
"""Cepstral iterations after the window has been doubled, of two sources and of more: 4 are too
few where it reverberates for .5 s. With 12, four sources had 2 dB less, three the same."""
CONVERGED = 3e-3
"""Frames' variances have settled when their logarithms change by less, RMS."""
COARSE = 2
"""Windows that a sample lies in where that will do; the last fit would lose 1 to 2 dB by it."""
N_UPDATES = 3
"""Updates that find the rows from given variances, where one is not exact."""
RIDGE = 1e-4
"""Assumed in outputs that are hardly two, as a share of their mean power."""
N_BANDS = 24
"""Bands in which sources may have changed places: a quarter of an octave each, above 1/64 of the
highest frequency. Below there are too few bins to tell delays apart."""
N_SETTLE = 3
"""Times that cepstral iterations go on after bands were given back."""
N_ROUNDS = 4
"""Times that all bands are looked at: those that are given back make the delays surer."""
CERTAIN = 5.0
"""Standard deviations; at 4 bands in their right place begin to be taken for wrong ones."""
INAUDIBLE = 1e-6
"""Power of a bin as a share of the loudest's, above which it counts as sound."""
SILENCE = 1e-12
"""Least power of an output in a bin; cells have a mean power near 1."""


def filtered(matrix: NDArray[Any], cells: Cells) -> Cells:
    """Multiply every bin's cells (n, n_frames, n_bins) by its matrix (m, n, n_bins)."""
    filtered: Cells = np.stack(
        [sum(row * x for row, x in zip(rows, cells, strict=True)) for rows in matrix]
    )
    return filtered


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
    n_bins : int, optional
        Of the lowest so many only; of all by default.
    overlap : int
        Windows that every sample lies in.
    """

    def __init__(
        self,
        y: NDArray[np.float32],
        size: int,
        k: int,
        n_bins: int | None = None,
        overlap: int = OVERLAP,
    ) -> None:
        self.size, self.n_times, self.overlap = size, y.shape[1], overlap
        self.n_polish = N_POLISH if k <= 2 else N_POLISH_MORE
        n_bins = n_bins or size // 2 + 1
        self.rows = identity(k, n_bins)
        self.cells = self._spectrum(y, size, overlap)
        whole = Products(self.cells)
        self.covariance = whole.covariances(np.ones((1, whole.values.shape[1], 1)))[0]
        self.basis = identity(len(y), n_bins)
        self.products = whole
        if k < len(y):
            self.basis = principal_rows(self.covariance, k)
            self.products = Products(filtered(self.basis.astype(np.complex64), self.cells))

    def _spectrum(self, signals: NDArray[Any], size: int, overlap: int) -> Cells:
        """Cells of signals in windows of any size, up to the same frequency."""
        n_bins = (self.rows.shape[2] - 1) * size // self.size + 1
        return np.ascontiguousarray(to_spectrum(signals, size, overlap)[:, :, :n_bins])

    def begun(self, n_frame: int, n_cepstral: int) -> Complex:
        """Rows from nothing: one variance a frame binds the bins of a source together.

        At most `n_frame` times; then come cepstral variances.
        """
        rows, before = self.rows, np.array(np.inf)
        for _ in range(n_frame):
            powers = self.products.frame_powers(rows)
            # of mean 1: where frames are silent, rows would grow with every update
            powers /= powers.mean(axis=1, keepdims=True) + SILENCE
            powers += 1e-6
            if np.square(np.log(before / powers)).mean() < CONVERGED**2:
                break
            before = powers
            rows = project(rows, self.products.covariances(powers[:, :, None]))
        return self._settled(rows, n_cepstral)

    def continued(self, signals: Array) -> Complex:
        """Rows from what was found with shorter windows, (k, n_times)."""
        return self._settled(self.rows_of(signals), self.n_polish)

    def _settled(self, rows: Complex, n: int) -> Complex:
        """Rows after n cepstral iterations, and some more if bands had to be given back."""
        rows = self._refined(rows, n)
        for _ in range(N_SETTLE):
            given_back = self.aligned(rows)
            if given_back is rows:
                break
            rows = self._refined(given_back, self.n_polish)
        return rows

    def rows_of(self, signals: Array) -> Complex:
        """Rows that find such sources, (k, n_times)."""
        cells = self._spectrum(signals, self.size, self.overlap)
        return self._rows_for(sparse_cepstrum(power(cells)))

    def _rows_for(self, variances: NDArray[Any]) -> Complex:
        covariances, rows = self.products.covariances(variances), self.rows
        for _ in range(1 if len(rows) == 2 else N_UPDATES):
            rows = project(rows, covariances)
        return rows

    def widened(self, rows: Complex) -> Complex:
        """Rows for all bins from those for the lowest.

        Above, one variance a frame binds a source to what is heard of it below, each bin
        being as loud as the others; then come cepstral variances.
        """
        known = rows.shape[2]
        wide = self.rows.copy()
        wide[:, :, :known] = rows
        below = self.products.powers(wide)[:, :, :known]
        below /= below.mean(axis=1, keepdims=True) + SILENCE
        wide = self._rows_for(below.mean(axis=2, keepdims=True) + 1e-6)
        wide[:, :, :known] = rows
        for _ in range(self.n_polish):
            wide = self._refined(wide, 1)
            wide[:, :, :known] = rows
        return wide

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

    def responses(self, rows: Complex) -> NDArray[Any]:
        """Power of the sources' filters to the first channel, (k, n_bins)."""
        return power(self.decoder(rows)[0])

    def heard(self, rows: Complex) -> NDArray[Any]:
        """Power of the sources as the first channel hears them, (k, n_frames, n_bins)."""
        heard: NDArray[Any] = self.products.powers(rows) * self.responses(rows)[:, None]
        return heard.astype(np.float32, copy=False)

    def signals(self, rows: Complex) -> Array:
        """Sources as the channels hear them that hear them loudest, (k, n_times)."""
        cells = filtered(self._as_heard(rows).astype(np.complex64), self.cells)
        silent = self.size // 2 + 1 - cells.shape[2]
        return to_signal(np.pad(cells, ((0, 0), (0, 0), (0, silent))), self.n_times, self.overlap)

    def _as_heard(self, rows: Complex) -> Complex:
        """From channels to sources as `signals` scales them, (k, rank, n_bins)."""
        decoder = self.decoder(rows)
        heard = (power(decoder) * self.products.powers(rows).mean(axis=1)).sum(axis=2)
        loudest = decoder[heard.argmax(axis=0), np.arange(len(rows))]
        encoder: Complex = self.encoder(rows) * loudest[:, None]
        return encoder

    def evidence(self, rows: Complex, size: int) -> float:
        """Log-likelihood of the rows less the number of their parameters (Akaike 1974).

        Sources are judged by windows of `size` samples, whatever those of the rows: so fits
        with windows of different lengths can be compared.

        Returns
        -------
        float
            Nats a cell, up to a constant of the mixture.
        """
        k, n_bins = len(rows), rows.shape[2]
        encoder = self._as_heard(rows)
        gram = np.einsum("arf,brf->fab", encoder, encoder.conj())
        volumes = np.log(np.maximum(np.linalg.det(gram).real, SILENCE))
        cells = self._spectrum(self.signals(rows), size, COARSE)
        variances = cepstral_variances(power(cells), 0.0)
        entropies = np.log(variances).mean(axis=1).sum(axis=0)
        # bins that hold no sound would be fitted for the noise of numbers in them
        loudness = np.einsum("rrf->f", self.covariance).real
        heard = loudness / (loudness + INAUDIBLE * loudness.max())
        places = np.linspace(0, 1, variances.shape[2]), np.linspace(0, 1, n_bins)
        coarse = np.interp(*places, heard)
        likelihood = np.average(volumes, weights=heard) - np.average(entropies, weights=coarse)
        # rows are known up to their scales; n_times real samples are half as many cells
        n_parameters = 2 * k * (k - 1) * (n_bins - 1)
        return float(likelihood - n_parameters / (self.n_times / 2))

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
        phases, weights = self._phases(rows)
        peaks = np.abs(irfft(phases * weights, axis=2)).max(axis=2)
        return float(np.log(peaks + 1e-12).mean())

    def _phases(self, rows: Complex) -> tuple[Complex, NDArray[Any]]:
        """Phases of the sources' filters against the first channel, and the bins' weights.

        Shapes (rank - 1, k, n_bins) and (k, n_bins).
        """
        decoder = self.decoder(rows)
        outputs = self.products.powers(rows).mean(axis=1)
        weights = (power(decoder).sum(axis=0) * outputs) ** 0.25
        weights /= weights.mean(axis=1, keepdims=True) + 1e-20
        relative = decoder[1:] * decoder[:1].conj()
        relative /= np.abs(relative) + 1e-12
        return relative, weights

    def aligned(self, rows: Complex) -> Complex:
        """Rows with whole bands given back that one source has taken from another.

        In every band a source arrives by the delays that it has in all others. Sources change
        places in a band if their delays then fit better by `CERTAIN` times what bins of random
        phases would give. Equal delays, as of an instantaneous mixture, say nothing.

        Returns
        -------
        ndarray of shape (k, k, n_bins)
            The same array where all is in its place.
        """
        k, n_bins = len(rows), rows.shape[2]
        if len(self.cells) == 1 or k == 1:
            return rows
        edges = np.unique(np.geomspace(n_bins / 64, n_bins, N_BANDS + 1).astype(int))
        edges[0] = 0
        bands = [slice(lo, hi) for lo, hi in pairwise(edges)]
        for _ in range(N_ROUNDS):
            phases, weights = self._phases(rows)
            fits = _delay_fits(phases * weights, bands)
            orders = [linear_sum_assignment(-fit)[1] for fit in fits]
            moved = False
            for band, fit, order in zip(bands, fits, orders, strict=True):
                better = fit[range(k), order].sum() - np.trace(fit)
                others = weights[order != np.arange(k), band]
                chance = np.sqrt(len(phases) * np.square(others).sum())
                if better > CERTAIN * chance:
                    rows = rows if moved else rows.copy()
                    rows[:, :, band] = rows[order, :, band]
                    moved = True
            if not moved:
                break
        return rows


def _delay_fits(phases: Complex, bands: Sequence[slice]) -> NDArray[Any]:
    """How well each source's phases in a band fit the delays that any source has elsewhere.

    Parameters
    ----------
    phases : ndarray of shape (n_channels, k, n_bins)
        Weighted phases of the filters against another channel.
    bands : sequence of slice
        Of bins, that cover all.

    Returns
    -------
    ndarray of shape (n_bands, k, k)
        Sum over channels and bins of cos(phase - phase of the delay): of source j in the
        last place, with the delay of source i in the place before.
    """
    n_lags = 4 * (phases.shape[2] - 1)
    fits = np.zeros((len(bands), phases.shape[1], phases.shape[1]))
    for channel in phases:
        parts = np.zeros((len(bands), *channel.shape), np.complex64)
        for part, band in zip(parts, bands, strict=True):
            part[:, band] = channel[:, band]
        correlations = irfft(parts, n_lags, axis=2) * (n_lags / 2)
        elsewhere = correlations.sum(axis=0) - correlations
        delays = np.abs(elsewhere).argmax(axis=2)
        # a channel may be the wrong way round
        signs = np.sign(np.take_along_axis(elsewhere, delays[:, :, None], axis=2))
        for fit, correlation, delay, sign in zip(fits, correlations, delays, signs, strict=True):
            fit += sign * correlation[:, delay].T
    return fits
