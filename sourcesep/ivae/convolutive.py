"""Family ``convolutive``: rooms, and every other mixture through filters."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.invertible import SIGMA
from sourcesep.ivae.model import Array, State
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.stft.cells import (
    FAINT,
    OVERLAP,
    SHORTEST_WINDOW,
    WINDOW,
    Cells,
    in_every_bin,
    power,
    to_spectrum,
    window_size,
)
from sourcesep.ivae.stft.cepstrum import cepstral_variances
from sourcesep.ivae.stft.guided import Guidance, guidance_of, search
from sourcesep.ivae.stft.level import COARSE, FLOOR, SILENCE, Level, filtered
from sourcesep.ivae.stft.projection import Complex
from sourcesep.ivae.stft.spectral import SpectralModel
from sourcesep.ivae.stft.trained_variances import Trained

__all__ = ["FLOOR", "STARTS", "ConvolutiveModel", "Start"]

SHORTEST_START = 0.064
"""Seconds: with shorter windows a start fails, and may even look good."""
TIE = 0.01
"""Of starts whose compactness differs by less, the first in `STARTS` is kept."""
BETWEEN = (2, 4)
"""Parts of the last window with which `COARSE` will do for two sources: not so the shortest, from
which fits in rooms with much reverberation would fail. More sources have time to spare."""
SCATTERED = 0.05
"""A fit that is so much less compact than the blind one is not kept, whatever a prior says of
it: a prior that knows too little would swap bands."""
LENGTHS = (1.25, 0.75)
"""Longer and shorter windows that are tried in the end, in units of `WINDOW`: .75 / 1 / 1.25 are
right for RT60 = .15 / .3 / .5 s. With 1.5 single fits fail, and .5 hardly ever is better."""
JUDGED = 8
"""They are compared by sounds in windows of this part of `WINDOW`."""
DECISIVE = 8000.0
"""Hz: starts, places of bands and the last window are decided by what lies below, where voices and
instruments have nearly all of their power. Bins that hold next to nothing mislead the cepstrum:
with all of 48 kHz single rooms lost 10 to 20 dB against the same at 16 kHz."""
SAME = 0.998
"""Correlation of signals that count as the same."""


class Start(NamedTuple):
    """Where a fit begins.

    Parameters
    ----------
    part : int
        The first window is the last one divided by this.
    n_frame, n_cepstral : int
        Iterations with one variance a frame, at most, and then with cepstral variances.
    """

    part: int
    n_frame: int
    n_cepstral: int


THREE = (Start(4, 60, 5), Start(8, 80, 5), Start(2, 100, 5))
STARTS = {"fast": THREE[:1], "normal": THREE, "best": THREE}
"""By quality, the best alone first: nothing that was tried is better than all three."""


class ConvolutiveModel(SpectralModel):
    """x(f, t) = A(f) (z(f, t) + sigma e), at most as many sources as channels.

    The unmixing matrix of every frequency is found by iterative projection. Windows begin
    short, where a source's activity over frames binds its frequencies together, and are
    doubled until they are as long as the room's filters; each time the sources found so far
    give the variances to begin with. Bands in which a source arrives by another's delays are
    given back. Of several starts the one whose sources arrive by the most compact relative
    impulse responses is kept: the likelihood does not see what belongs to another source.
    In the end Akaike's criterion weighs windows a quarter longer or shorter.

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
    window : float, optional
        Seconds of the last window; chosen by default.
    source_prior : trained_variances.Trained, optional
        Proposes further starts, and says which is the best; the longest window is the
        cepstrum's again.
    source_labels : sequence of str, optional
        What each source is to the prior.

    Attributes
    ----------
    encoder : ndarray of complex64, shape (n_components, rank, n_bins)
        From independent channels to sources.
    noise : ndarray of float32, shape (n_components, n_bins)
        Variance of sigma e: the share `SIGMA`^2 of the source's own.
    start : Start
        Which start was kept.
    base : int
        Samples of the window that all starts lead to.
    aside : ndarray of float32, shape (n_bins,)
        Mean power of what is set aside, in each of its directions.
    scores : dict of str to float
        Compactness of every start, by its first window; with a trained prior the evidence.
    guidance : Guidance or None
        What the trained prior has found; known after the fit only, and not saved.
    """

    family: ClassVar[str] = "convolutive"
    mends: ClassVar[tuple[str, ...]] = ("delay",)

    encoder: Cells
    noise: Cells
    aside: Cells
    start: Start
    base: int
    guidance: Guidance | None = None
    source_prior: Trained | None = None
    source_labels: tuple[str, ...] | None = None

    def __init__(
        self,
        n_components: int | None = None,
        *,
        sfreq: float = 1.0,
        starts: tuple[Start, ...] = STARTS["normal"],
        window: float | None = None,
        source_prior: Trained | None = None,
        source_labels: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(n_components, sfreq=sfreq)
        self.starts = tuple(Start(*start) for start in starts)
        self.window = window
        self.source_prior, self.source_labels = source_prior, source_labels

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            sfreq=settings.sfreq,
            starts=STARTS[settings.quality],
            window=WINDOW if settings.quality == "fast" else None,
            source_prior=settings.source_prior,
            source_labels=settings.source_labels,
        )

    def blank(self) -> Self:
        """Return an unfitted model with this one's start, window and number of sources."""
        return type(self)(
            self.n_components,
            sfreq=self.sfreq,
            starts=(self.start,),
            window=self.size / self.sfreq,
            source_prior=self.source_prior,
            source_labels=None if self.guidance is None else self.guidance.labels,
        )

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which start was kept, in plain words."""
        if self.guidance is not None:
            return self.guidance.choice
        chosen = f"begun with windows of {self._name(self.start)}"
        if len(self.scores) > 1:
            chosen += f": the most compact responses of {len(self.scores)} starts"
        return chosen

    def _name(self, start: Start) -> str:
        return f"{1000 * self.base / start.part / self.sfreq:.0f} ms"

    def _learn(self, y: NDArray[np.float32], u: Auxiliary, rng: np.random.Generator) -> None:
        k = len(y) if self.requested is None else self.requested
        if not 1 <= k <= len(y):
            raise SettingsError(
                f"n_components={k}: mixing=convolutive finds up to as many sources as there are "
                f"independent channels, {len(y)}; ask for fewer"
            )
        self.base = window_size(WINDOW, self.sfreq, y.shape[1])
        level, fits = self._coarse_to_fine(y, k)
        self.scores = {self._name(start): level.compactness(rows) for start, rows in fits.items()}
        enough = max(self.scores.values()) - TIE
        self.start = next(s for s in fits if self.scores[self._name(s)] >= enough)
        last, rows = self._in_length(y, level, fits[self.start])
        self.size = last.size
        if rows.shape[2] <= self.size // 2:
            last = Level(y, self.size, k)
            rows = last.widened(rows)
        if self.source_prior is not None:
            blind = [level.signals(found) for found in fits.values()]
            rows = self._guided(y, last, rows, blind)
        self.encoder = last.encoder(rows).astype(np.complex64)
        self.decoder = last.decoder(rows).astype(np.complex64)
        outputs = last.products.powers(rows).mean(axis=1)
        self.noise = np.float32(SIGMA**2) * np.maximum(outputs, SILENCE)
        self.aside = last.aside

    def _level(self, y: NDArray[np.float32], size: int, k: int, overlap: int = OVERLAP) -> Level:
        """A level of the bins up to `DECISIVE` only, by which the fit is decided."""
        n_bins = min(size // 2, round(DECISIVE * size / self.sfreq)) + 1
        return Level(y, size, k, n_bins, overlap)

    def _coarse_to_fine(
        self, y: NDArray[np.float32], k: int
    ) -> tuple[Level, dict[Start, Complex]]:
        """Fit from every start, and return the rows each ends with at the longest window.

        Starts that have come to the same sources go on as one.
        """
        starts = self._possible()
        part = max(start.part for start in starts)
        leader = {start: start for start in starts}
        signals: dict[Start, Array] = {}
        while True:
            overlap = COARSE if k <= 2 and part in BETWEEN else OVERLAP
            level = self._level(y, self.base // part, k, overlap)
            fits = {start: level.continued(found) for start, found in signals.items()}
            fits |= {
                start: level.begun(start.n_frame, start.n_cepstral)
                for start in starts
                if start.part == part
            }
            if part == 1:
                return level, {start: fits[leader[start]] for start in starts}
            signals = {}
            for start, rows in fits.items():
                found = level.signals(rows)
                same = next((s for s in signals if _are_same(found, signals[s])), start)
                leader = {s: same if first == start else first for s, first in leader.items()}
                signals.setdefault(same, found)
            part //= 2

    def _in_length(
        self, y: NDArray[np.float32], level: Level, rows: Complex
    ) -> tuple[Level, Complex]:
        """The fit with the window that is asked for, or the best, from that with `base`."""
        k, signals = len(rows), level.signals(rows)
        if self.window is not None:
            size = window_size(self.window, self.sfreq, y.shape[1])
            if size == self.base:
                return level, rows
            level = self._level(y, size, k)
            return level, level.continued(signals)
        judged = max(self.base // JUDGED, SHORTEST_WINDOW)
        evidence = level.evidence(rows, judged)
        for length in LENGTHS:
            size = window_size(length * WINDOW, self.sfreq, y.shape[1])
            if size == self.base:
                continue
            other = self._level(y, size, k)
            found = other.continued(signals)
            if other.evidence(found, judged) > evidence:
                return other, found
        return level, rows

    def _guided(
        self, y: NDArray[np.float32], level: Level, rows: Complex, blind: list[Array]
    ) -> Complex:
        """Rows as they come from the trained prior's start, or these if it prefers them."""
        prior, labels = cast("Trained", self.source_prior), self.source_labels
        if prior.sfreq != self.sfreq:
            raise SettingsError(
                f"sfreq={self.sfreq:g}: the prior knows sounds at {prior.sfreq:g} Hz; resample "
                "the recording"
            )
        if len(y) < 2 or y.shape[1] < 2 * prior.size:
            raise SettingsError(
                f"n_channels={len(y)}, n_times={y.shape[1]}: a trained prior needs two channels "
                f"that differ and {2 * prior.size} samples or more; leave it out"
            )
        different = [s for i, s in enumerate(blind) if not any(_are_same(s, t) for t in blind[:i])]
        known = Level(y, prior.size, len(rows))
        proposal = search(prior, labels, known, different)
        ends = {"blind": rows, proposal.name: level.continued(proposal.signals)}
        said = {
            name: guidance_of(prior, labels, known, level.signals(r)) for name, r in ends.items()
        }
        best = max(said, key=lambda name: said[name].evidence)
        if level.compactness(ends[best]) < level.compactness(rows) - SCATTERED:
            best = "blind"
        self.scores = proposal.scores | {f"{k}, at the end": g.evidence for k, g in said.items()}
        self.guidance = replace(said[best], start=best, scores=self.scores)
        return ends[best]

    @property
    def findings(self) -> dict[str, Any]:
        """What the trained prior has found."""
        return {} if self.guidance is None else {"source_prior": self.guidance.as_dict()}

    def _possible(self) -> list[Start]:
        """Starts whose first windows are not too short, one of each length."""
        possible: dict[int, Start] = {}
        for start in self.starts:
            part = start.part
            while part > 1 and self.base < part * SHORTEST_START * self.sfreq * (1 - 1e-6):
                part //= 2
            possible.setdefault(part, start._replace(part=part))
        return list(possible.values())

    def _rearrange(self, order: NDArray[np.int64], gain: Cells) -> None:
        if self.guidance is not None:
            self.guidance = self.guidance.ordered(order)
        self.encoder = self.encoder[order] * gain[:, None]
        self.noise = self.noise[order] * power(gain)

    def _as_instantaneous(self, unmixing: Array, mixing: Array, cells: Cells) -> Self:
        other = copy.copy(self)
        other.encoder = in_every_bin(unmixing, self.size)
        other.decoder = in_every_bin(mixing, self.size)
        outputs = filtered(other.encoder, cells)
        other.noise = np.float32(SIGMA**2) * np.maximum(power(outputs).mean(axis=1), SILENCE)
        rest = cells - filtered(other.decoder, outputs)
        spare = power(rest).sum(axis=0).mean(axis=0) / max(len(cells) - len(outputs), 1)
        other.aside = np.maximum(spare, SILENCE).astype(np.float32)
        return other

    def _infer(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        mean = filtered(self.encoder, cells)
        return mean, np.broadcast_to(self.noise[:, None], mean.shape)

    def _bound(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        mean, noise = filtered(self.encoder, cells), self.noise[:, None]
        squares = power(mean)
        audible = squares + np.float32(FAINT)
        # sources are unique up to a filter, so that the colour of each is free: a rough one, as in
        # bins of noise where no filter is better than another, says nothing against its map
        colour = audible.mean(axis=1, keepdims=True)
        ratio = cepstral_variances(audible / colour, FLOOR) * (colour / noise)
        kl = (np.log(ratio) - 1 + (1 + squares / noise) / ratio).sum(axis=0)
        gram = np.einsum("arf,brf->fab", self.encoder, self.encoder.conj()).astype(complex)
        reconstruction = np.linalg.slogdet(gram)[1] - (np.log(np.pi * noise) + 1).sum(axis=0)
        n_aside = len(cells) - len(mean)
        if n_aside:
            weighted = np.linalg.inv(gram).astype(np.complex64).transpose(1, 2, 0)
            kept = (filtered(weighted, mean) * mean.conj()).real.sum(axis=0)
            left = np.maximum(power(cells).sum(axis=0) - kept, 0)
            reconstruction = reconstruction - n_aside * np.log(np.pi * self.aside)
            reconstruction = reconstruction - left / self.aside
        return np.broadcast_to(reconstruction, kl.shape), kl

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        state = super().state()
        tensors = {"encoder": self.encoder, "noise": self.noise, "aside": self.aside}
        facts = {"starts": self.starts, "start": self.start, "base": self.base}
        return State(state.tensors | tensors, state.facts | facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        tensors, facts = state.tensors, state.facts
        model = super().from_state(state)
        model.encoder, model.noise = tensors["encoder"], tensors["noise"]
        model.aside = tensors["aside"]
        model.starts = tuple(Start(*start) for start in facts["starts"])
        model.start = Start(*facts["start"])
        model.base = facts.get("base", model.size)  # older versions know one window only
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


def _are_same(one: Array, other: Array) -> bool:
    """Whether two sets of signals are the same but for their order."""
    correlation = np.abs(np.corrcoef(one, other)[: len(one), len(one) :])
    return bool((correlation.max(axis=0) > SAME).all() and (correlation.max(axis=1) > SAME).all())
