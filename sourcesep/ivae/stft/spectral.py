"""What all models on the short-time Fourier transform have in common.

x(f, t) = A(f) z(f, t) + e(f, t): a matrix for every frequency is a filter for every path
from a source to a channel, up to the length of the window.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import BAND, stretches
from sourcesep.ivae.model import ELBO, Array, Model, Posterior, State, under
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.stft.cells import (
    FAINT,
    Cells,
    bin_weights,
    power,
    share_out,
    to_signal,
    to_spectrum,
)
from sourcesep.ivae.whitening import Basis

__all__ = ["SpectralModel"]

N_STRETCHES = 8
"""Of equal length, from which a map is learned if the record is long."""
FEWEST = 100_000
"""Samples that are always looked at, however long they last."""
LARGEST_RATIO = 1e6
"""Of a source's amplitude at any channel to that at its reference channel, in one bin."""


class SpectralModel(Model):
    """x(f, t) = A(f) z(f, t) + e(f, t), z(f, t) complex Gaussian given u = (f, t).

    z is a source as one of the channels hears it (`Basis.reference`), at unit variance over
    the samples of the fit.

    A family gives `configured`, `blank`, `_learn`, `_rearrange`, `_infer` and `_bound`, and
    may add to `state`; all of them see cells of the independent channels at unit variance
    (`Basis`), made by `to_spectrum` with windows of `size`.

    A source's variance in a cell is known from no other: it is fitted to the x at hand,
    as are all variances of labels that are stretches of time. So `elbo` and `log_density`
    are those of a prior fitted to the same x, to be compared between models of this
    representation alone. What holds of other times is kept in `prior` and `colour`: a
    variance a label, and a mean spectrum.

    Attributes
    ----------
    size : int
        Samples in a window.
    basis : Basis
        Independent channels, in which the model lives.
    decoder : ndarray of complex64, shape (rank, n_components, n_bins)
        A, from sources to independent channels.
    prior : LabelPrior
        Variances of z, a label each.
    colour : ndarray of float32, shape (n_components, n_bins)
        Mean power of z in every bin.
    """

    representation: ClassVar[Literal["time", "stft"]] = "stft"
    is_linear: ClassVar[bool] = False
    holds_everywhere: ClassVar[bool] = True
    is_invertible: ClassVar[bool] = False
    n_splits: ClassVar[int] = 1
    longest: ClassVar[float] = 120.0
    """Seconds from which the map is learned."""

    size: int
    basis: Basis
    decoder: Cells
    prior: LabelPrior
    colour: Cells

    def __init__(self, n_components: int | None = None, *, sfreq: float = 1.0) -> None:
        self.requested = n_components
        self.sfreq = sfreq

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return int(self.decoder.shape[1])

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.basis.mean)

    @property
    def rank(self) -> int:
        """Numerical rank of the data of the fit."""
        return len(self.decoder)

    @property
    def is_bound(self) -> bool:
        """The posterior is the exact one of a Gaussian model."""
        return False

    @property
    def memory(self) -> int:
        """Samples that the map reaches over: a window."""
        return self.size

    # what a family gives

    @abstractmethod
    def _learn(self, y: NDArray[np.float32], u: Auxiliary, rng: np.random.Generator) -> None:
        """Fit the map to independent channels, (rank, n_times): set `size` and `decoder`.

        Sources may come out in any order and scale; sets `scores` too. u is that of the whole
        record, of which y may be a part (`_enough`).
        """

    @abstractmethod
    def _rearrange(self, order: NDArray[np.int64], gain: Cells) -> None:
        """Put sources in this order, each bin times its gain (n_components, n_bins).

        Called with the order in which they are now kept; `decoder` is done already.
        """

    @abstractmethod
    def _infer(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        """Mean and variance of q(z|x,u), each (n_components, n_frames, n_bins)."""

    @abstractmethod
    def _bound(self, cells: Cells, u: Auxiliary | None) -> tuple[Cells, Cells]:
        """Reconstruction and KL of every cell, nats, each (n_frames, n_bins).

        Densities are those of complex variables: -log(pi v) - |x|^2 / v.
        """

    @abstractmethod
    def _as_instantaneous(self, unmixing: Array, mixing: Array, cells: Cells) -> Self:
        """Return a model with this one's windows, and the same real matrices in all bins.

        From independent channels to sources, (k, rank), and back, (rank, k).
        """

    # what follows from it

    def rival(self, simple: Model, x: Array) -> Model:
        """A linear model in this representation, under a prior of the same kind."""
        matrices = simple.matrices
        if matrices is None:
            raise TypeError(f"a {simple.family} model has no place on the STFT")
        unmixing = matrices[0] @ self.basis.span
        mixing = self.basis.coordinates(matrices[1] + self.basis.mean[:, None])
        return self._as_instantaneous(unmixing, mixing, self._cells(x))

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit map and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            A whole record, in order.
        u : Auxiliary
            Labels of the samples; those left out are cut out.
        rng : numpy.random.Generator
            For families that draw numbers.

        Raises
        ------
        InputError
            If every channel is constant.
        SettingsError
            If there cannot be as many sources as are asked for.
        """
        x, u = u.in_use(x)
        self.basis = Basis.of(x)
        y = self.basis.coordinates(x).astype(np.float32)
        self._learn(y[:, self._enough(u)], u, rng)
        cells = self._normalised(self._infer(to_spectrum(y, self.size), u)[0], x.shape[1])
        self.colour = power(cells).mean(axis=1)
        z = to_signal(cells, x.shape[1])
        self.prior = _label_prior(z, u)
        return self

    def _enough(self, u: Auxiliary) -> slice | NDArray[np.int64]:
        """All samples, or so many that memory suffices to learn the map from them."""
        stretch = round(self.longest * self.sfreq / N_STRETCHES)
        whole = u.n_times <= max(N_STRETCHES * stretch, FEWEST)
        return slice(None) if whole else stretches(u.n_times, stretch, N_STRETCHES)

    def _normalised(self, cells: Cells, n_times: int) -> Cells:
        """Fix what the likelihood leaves open: order, and sign, scale and filter of each."""
        loadings = np.einsum("cr,rkf->ckf", self.basis.span, self.decoder)
        heard = power(loadings) * power(cells).mean(axis=1)
        order = np.argsort(-heard.sum(axis=(0, 2)), kind="stable")
        gain = loadings[self.basis.reference]
        # a bin in which the reference hears nothing is left in some other scale
        least = np.sqrt(power(loadings).sum(axis=0)) / LARGEST_RATIO
        gain = np.where(np.abs(gain) > least, gain, np.where(least > 0, least, 1))
        scale = np.array(
            [to_signal((g * own)[None], n_times).std() for g, own in zip(gain, cells, strict=True)]
        )
        gain = (gain / scale[:, None])[order].astype(np.complex64)
        self.decoder = self.decoder[:, order] / gain
        self._rearrange(order, gain)
        normalised: Cells = cells[order]
        normalised *= gain[:, None]
        return normalised

    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component given each label, (n_labels, n_components)."""
        return self.prior.mean, self.prior.variance

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map and the prior that fits x given u best."""
        other = copy.copy(self)
        other.prior = _label_prior(other.posterior(x, u).mean, u)
        return other

    def _cells(self, x: Array) -> Cells:
        return to_spectrum(self.basis.coordinates(x), self.size)

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u), sources as the reference channel hears them.

        u is not needed, unless it names sources (`alone`): the frame and the bin are known.
        """
        mean, variance = self._infer(self._cells(x), u)
        of_frames = (variance @ bin_weights(self.size)) * (2 / self.size)
        scale = np.sqrt(share_out(of_frames, self.size, x.shape[1]))
        return Posterior(to_signal(mean, x.shape[1]), scale)

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """Filter and mix sources, and add the channels' means."""
        cells = to_spectrum(z, self.size)
        mixed = np.einsum("rkf,ktf->rtf", self.decoder, cells)
        return self._in_channels(mixed, z.shape[1]) + self.basis.mean[:, None]

    def _in_channels(self, cells: Cells, n_times: int) -> Array:
        """Signals of all channels from cells of the independent ones."""
        signals: Array = self.basis.span @ to_signal(cells, n_times)
        return signals

    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms for every sample, nats.

        Frames overlap, so that every sample is explained `OVERLAP` times: it gets the mean
        over its frames, as the density of so many real coefficients. Cells in which the
        channels are silent are left out: they have no density, and tell nothing of any map.
        """
        reconstruction, kl = self._terms(x, u, bin_weights(self.size))
        # a complex coefficient stands for two real ones of the same variance
        per_sample = self.basis.log_volume - self.rank * np.log(2) / 2
        return ELBO(reconstruction + per_sample, kl)

    def _terms(self, x: Array, u: Auxiliary, weights: NDArray[np.float32]) -> tuple[Array, Array]:
        """Reconstruction and KL of the cells that x makes, shared out to its samples."""
        cells = self._cells(x)
        heard = power(cells).mean(axis=0) > FAINT
        reconstruction, kl = (
            share_out((term * heard) @ weights / self.size, self.size, x.shape[1])
            for term in self._bound(cells, u)
        )
        return reconstruction, kl

    def gain_over(self, other: Model, x: Array, u: Auxiliary) -> Array:
        """By how much likelier x is than by a `rival`, nats, (n_times,).

        Of what there is below half of `BAND`, and for each of so many samples a second.
        """
        if not isinstance(other, SpectralModel):
            raise TypeError(f"a {other.family} model has no place on the STFT")
        share = min(BAND / self.sfreq, 1)
        weights = bin_weights(self.size) / np.float32(share)
        weights[int(share * (len(weights) - 1)) + 1 :] = 0
        mine, others = (np.subtract(*model._terms(x, u, weights)) for model in (self, other))
        gain: Array = mine - others
        return gain

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z with each label's variance and its mean spectrum, and x from p(x|z)."""
        size = (self.n_components, u.n_times)
        weights = bin_weights(self.size)
        colour = np.sqrt(self.colour / (self.colour @ weights)[:, None] * weights.sum())
        white = to_spectrum(rng.standard_normal(size), self.size)
        z = to_signal(white * colour[:, None], u.n_times)
        z *= np.sqrt(self.prior.variance[u.labels].T)
        return z, self.decode(z)

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it, shape (n_channels, n_times)."""
        return self._image(self._infer(self._cells(x), u)[0], component, x.shape[1])

    def images(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Every source as the channels hear it, (n_components, n_channels, n_times)."""
        mean = self._infer(self._cells(x), u)[0]
        return np.stack([self._image(mean, k, x.shape[1]) for k in range(self.n_components)])

    def _image(self, mean: Cells, component: int, n_times: int) -> Array:
        return self._in_channels(self.decoder[:, component, None] * mean[component], n_times)

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        tensors = {"decoder": self.decoder, "colour": self.colour}
        tensors |= under("basis", self.basis._asdict())
        tensors |= under("prior", self.prior.tensors())
        return State(tensors, {"sfreq": self.sfreq, "size": self.size, "scores": self.scores})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        tensors, facts = state.tensors, state.facts
        model = cls(tensors["decoder"].shape[1], sfreq=facts["sfreq"])
        model.size, model.scores = facts["size"], facts["scores"]
        model.decoder, model.colour = tensors["decoder"], tensors["colour"]
        model.basis = Basis(**state.part("basis"))
        model.prior = LabelPrior.from_state(state, model.n_components)
        n_bins = model.size // 2 + 1
        if model.decoder.shape[2:] != (n_bins,) or model.colour.shape[1:] != (n_bins,):
            raise ValueError(f"windows of {model.size} samples have {n_bins} bins")
        return model


def _label_prior(z: Array, u: Auxiliary) -> LabelPrior:
    return LabelPrior.fit(z, u.labels, u.n_labels, with_mean=False, shapes=GAUSSIAN)
