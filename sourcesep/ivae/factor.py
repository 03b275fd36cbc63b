"""Family ``factor``: a matrix with noise in every channel, fitted by maximum likelihood."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.alignment import peak_signs
from sourcesep.ivae.frame import Frame
from sourcesep.ivae.matrices.factor_em import Factors, Fitted, Observed, expectation, maximise
from sourcesep.ivae.matrices.jointdiag import coarse_to_fine
from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.missing import check_infinite
from sourcesep.ivae.model import ELBO, Array, Model, Posterior, State, under
from sourcesep.ivae.prior_tables import gaussian_prior, overall, table_for
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.settings import Settings

__all__ = ["FactorModel"]

LEAST_NOISE = 1e-4
"""Least variance of the noise in a channel of variance 1. Without it the likelihood has no bound
where a channel needs no noise at all (Heywood cases); -40 dB do not change the factors."""
FIRST_CYCLES = 20
"""Cycles that find the subspace, before the factors within it are told apart."""
FIRST_TOLERANCE = 1e-4


class FactorModel(Model):
    """x = A z + mean + noise, z Gaussian given u, the noise Gaussian in every channel.

    Factor analysis whose factors are unique: their variances (and, where u is not time,
    their means) differ from label to label. The posterior is exact, for each sample
    from the entries of x that are there; NaN counts as missing, in the fit and after.

    Fitted by maximum likelihood: factor analysis without labels finds the subspace,
    joint diagonalisation of each label's expected covariance within it finds the factors
    (Pham & Cardoso 2001), and expectation and maximisation does the rest.

    Parameters
    ----------
    n_components : int
        Number of factors, fewer than channels.
    standardise_channels : bool
        Whether channels of different units count alike in the order of the factors. The
        fit itself does not depend on units.

    Attributes
    ----------
    mean : ndarray of shape (n_channels,)
        What x is where z is 0.
    mixing : ndarray of shape (n_channels, n_components)
        The loadings, in units of x per standard deviation of a factor's posterior mean.
    noise : ndarray of shape (n_channels,)
        Variances, in squared units of x; 0 where x was constant.
    prior : LabelPrior
        p(z|u): mean and variance for each label.
    log_likelihood : list of float
        Of standardised x, nats a sample, from cycle to cycle of the fit.

    References
    ----------
    D. B. Rubin & D. T. Thayer, "EM algorithms for ML factor analysis", Psychometrika 47,
    1982; R. Varadhan & C. Roland, "Simple and globally convergent methods for accelerating
    the convergence of any EM algorithm", Scandinavian Journal of Statistics 35, 2008.
    """

    family: ClassVar[str] = "factor"
    representation: ClassVar[Literal["time", "stft"]] = "time"
    is_linear: ClassVar[bool] = True
    is_invertible: ClassVar[bool] = False
    accepts_missing: ClassVar[bool] = True
    only_variances: ClassVar[bool] = True
    holds_everywhere: ClassVar[bool] = True
    mends: ClassVar[tuple[str, ...]] = ("noise",)

    mean: Array
    mixing: Array
    noise: Array
    prior: LabelPrior
    with_mean: bool
    log_likelihood: list[float]

    def __init__(
        self, n_components: int | None = None, *, standardise_channels: bool = False
    ) -> None:
        self.requested = n_components
        self.standardise_channels = standardise_channels
        self.scores = {}

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(settings.n_components, standardise_channels=settings.standardise)

    def blank(self) -> Self:
        """Return an unfitted model with this one's number of factors."""
        return type(self)(self.n_components, standardise_channels=self.standardise_channels)

    @property
    def n_components(self) -> int:
        """Number of factors."""
        return int(self.mixing.shape[1])

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.mixing)

    @property
    def is_bound(self) -> bool:
        """False: `log_density` is exact."""
        return False

    @property
    def choice(self) -> str:  # type: ignore[override]
        """How it was fitted, in plain words."""
        n = len(self.log_likelihood)
        return f"maximum likelihood, {n} cycle{'s' * (n > 1)} from joint diagonalisation"

    @property
    def matrices(self) -> tuple[Array, Array]:
        """Unmixing and mixing matrix.

        The unmixing matrix gives the posterior mean of a complete sample whose label is not
        known; the posterior itself depends on the label and on what is missing.
        """
        prior = self._overall()
        seen = np.ones((int(self._varies.sum()), 1), bool)
        covariance = self._gaussian.covariance(seen, prior.variance)[0]
        unmixing = np.zeros((self.n_components, self.n_channels))
        unmixing[:, self._varies] = covariance @ (self._gaussian.mixing.T / self._gaussian.noise)
        return unmixing, self.mixing

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit loadings, noise and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations; NaN where missing. A channel that is constant, or has no value,
            tells nothing.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on.
        rng : numpy.random.Generator
            Not used: the fit is deterministic.

        Raises
        ------
        InputError
            If x is infinite somewhere.
        SettingsError
            If the number of factors is not one below the number of channels that vary.
        """
        x, u = u.in_use(x)
        check_infinite(x)
        centre, width = _moments(x)
        width[width <= 1e-12 * np.abs(centre)] = 0
        varies = width > 0
        d, n = self.requested, int(varies.sum())
        if d is None or not 1 <= d < n:
            raise SettingsError(
                f"n_components={d}: a factor model of {n} columns that vary has 1 to {n - 1} "
                "factors, for what the others add is noise; ask for one of these, or take "
                "mixing='linear'"
            )
        self.with_mean = not u.is_time
        standard = x[varies]  # a copy
        standard -= centre[varies, None]
        standard /= width[varies, None]
        seen = Observed.of(standard, u.labels, u.n_labels)
        everything = Fitted(True, True, self.with_mean, LEAST_NOISE)
        found = self._told_apart(_subspace(seen, d), seen, standard, u)
        found, self.log_likelihood = maximise(found, seen, everything)
        self.mean, self.noise = centre.copy(), np.zeros(len(x))
        self.mixing = np.zeros((len(x), d))
        self.mixing[varies] = found.mixing * width[varies, None]
        self.mean[varies] += found.offset * width[varies]
        self.noise[varies] = found.noise * width[varies] ** 2
        self.prior = gaussian_prior(found.mean, found.variance)
        self._show(x, u, width)
        return self

    def _told_apart(self, found: Factors, seen: Observed, x: Array, u: Auxiliary) -> Factors:
        """Turn factors so that their covariances within the labels are as diagonal as can be."""
        told = [seen, *(Observed.of(x, s.labels, s.n_labels) for s in u.scales[1:])]
        moments = [self._within_labels(found, part) for part in told]
        groups = [square[counts > 1] for counts, _, square in moments if (counts > 1).any()]
        turn = coarse_to_fine(groups, tol=1e-7).matrix if groups else np.eye(found.mixing.shape[1])
        _, mean, square = moments[0]
        variance = np.maximum(np.einsum("ij,ljk,ik->li", turn, square, turn), LEAST_NOISE)
        return Factors(
            found.mixing @ np.linalg.inv(turn), found.offset, found.noise, mean @ turn.T, variance
        )

    def _within_labels(self, found: Factors, seen: Observed) -> tuple[Array, Array, Array]:
        """Number of samples with each label, and expected mean and covariance of z given it."""
        prior = _repeated(found.mean, found.variance, len(seen.counts))
        expected = expectation(replace(found, mean=prior[0], variance=prior[1]), seen)
        counts = np.maximum(expected.counts, 1)[:, None]
        mean = self.with_mean * expected.first / counts
        square = expected.second / counts[:, :, None] - mean[:, :, None] * mean[:, None]
        return expected.counts, mean, square

    def _show(self, x: Array, u: Auxiliary, width: Array) -> None:
        """Give the factors unit variance, the order of their power and a positive peak."""
        z = self.posterior(x, u).mean
        weight = np.where(width > 0, width, np.inf) if self.standardise_channels else 1.0
        images = self.mixing / np.broadcast_to(weight, width.shape)[:, None]
        power = np.square(images).sum(axis=0) * z.var(axis=1)
        order = np.argsort(-power, kind="stable")
        offset = z.mean(axis=1) * self.with_mean
        gain = z.std(axis=1) * peak_signs(self.mixing.T)
        frame = Frame(order, offset[order], gain[order])
        self.mean = self.mean + self.mixing @ offset
        self.mixing = self.mixing[:, order] * gain[order]
        self.prior = frame.show_table(self.prior)

    @property
    def _varies(self) -> NDArray[np.bool_]:
        varies: NDArray[np.bool_] = self.noise > 0
        return varies

    @property
    def _gaussian(self) -> LinearGaussian:
        """The map to the channels that vary; the others say nothing."""
        return LinearGaussian(self.mixing[self._varies], self.noise[self._varies])

    def _centred(self, x: Array) -> Array:
        varies = self._varies
        if not varies.all():
            x = x[varies]
        centred: Array = x - self.mean[varies, None]
        return centred

    def _overall(self) -> LabelPrior:
        """The prior of a sample whose label is not known, a Gaussian of the same moments."""
        mean, variance = overall(self.prior)
        return gaussian_prior(mean[None], variance[None])

    def _rows(self, u: Auxiliary | None, n_times: int) -> tuple[LabelPrior, NDArray[np.int64]]:
        """The prior as a table, and the row of every sample in it."""
        if u is None:
            return self._overall(), np.zeros(n_times, np.int64)
        return table_for(self.prior, u)

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """p(z|x,u), exact; without u, that of a sample whose label is not known."""
        found = self._gaussian.infer(self._centred(x), *self._rows(u, x.shape[1]))
        return Posterior(found.mean, found.scale)

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """The mean of p(x|z): A z + mean."""
        x: Array = self.mixing @ z + self.mean[:, None]
        return x

    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms of the bound, which is tight."""
        return self._gaussian.elbo(self._centred(x), *self._rows(u, x.shape[1]))

    def log_density(self, x: Array, u: Auxiliary) -> Array:
        """log p(x|u) of the entries that are there, nats a sample; constant channels aside."""
        return self._gaussian.infer(self._centred(x), *self._rows(u, x.shape[1])).log_density

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        prior, rows = self._rows(u, u.n_times)
        z = prior.sample(rows, rng)
        x = self.decode(z)
        return z, x + np.sqrt(self.noise)[:, None] * rng.standard_normal(x.shape)

    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each factor given each label, (n_labels, n_components)."""
        return self.prior.mean, self.prior.variance

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map, and the prior that fits x given u best."""
        x, u = u.in_use(x)
        width = np.sqrt(self.noise[self._varies])
        seen = Observed.of(self._centred(x) / width[:, None], u.labels, u.n_labels)
        start = Factors(
            self._gaussian.mixing / width[:, None],
            np.zeros(len(width)),
            np.ones(len(width)),
            *_repeated(np.zeros((1, self.n_components)), self._overall().variance, u.n_labels),
        )
        found, _ = maximise(start, seen, Fitted(False, False, not u.is_time))
        other = copy.copy(self)
        other.prior = gaussian_prior(found.mean, found.variance)
        return other

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One factor as it shows in the channels, by its posterior mean, (n_channels, n_times).

        The noise, which no factor explains, is in none of the images.
        """
        z = self.posterior(x, u).mean[component]
        image: Array = np.outer(self.mixing[:, component], z)
        return image

    def images(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Every factor as it shows in the channels, (n_components, n_channels, n_times)."""
        images: Array = self.mixing.T[:, :, None] * self.posterior(x, u).mean[:, None]
        return images

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        tensors = {"mean": self.mean, "mixing": self.mixing, "noise": self.noise}
        facts = {
            "standardise_channels": self.standardise_channels,
            "with_mean": self.with_mean,
            "log_likelihood": self.log_likelihood,
        }
        return State(tensors | under("prior", self.prior.tensors()), facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        tensors, facts = state.tensors, state.facts
        n, d = tensors["mixing"].shape
        state.check({"mean": (n,), "noise": (n,)})
        if (tensors["noise"] < 0).any():
            raise ValueError("tensor noise has values below 0")
        model = cls(d, standardise_channels=facts["standardise_channels"])
        model.mean, model.mixing, model.noise = (tensors[k] for k in ("mean", "mixing", "noise"))
        model.prior = LabelPrior.from_state(state, d)
        model.with_mean, model.log_likelihood = facts["with_mean"], facts["log_likelihood"]
        return model


def _repeated(mean: Array, variance: Array, n_labels: int) -> tuple[Array, Array]:
    """A prior of one row, as one of many labels."""
    return np.repeat(mean[:1], n_labels, axis=0), np.repeat(variance[:1], n_labels, axis=0)


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of what is there of each channel; 0 where nothing is."""
    found = []
    for row in x:
        there = row[np.isfinite(row)]
        found.append((there.mean(), there.std()) if there.size else (0.0, 0.0))
    centre, width = np.array(found).T
    return centre, width


def _subspace(seen: Observed, d: int) -> Factors:
    """Factor analysis of standardised samples that knows nothing of labels."""
    seen = seen.without_labels()
    products, both = seen.second[0].copy(), seen.counts[0]
    for part in seen.gappy:
        products += part.x @ part.x.T
        both = both + part.there @ part.there.T
    values, vectors = np.linalg.eigh(products / np.maximum(both, 1))
    floor = max(float(values[:-d].mean()), LEAST_NOISE)
    mixing = vectors[:, -d:] * np.sqrt(np.maximum(values[-d:] - floor, LEAST_NOISE))
    noise = np.maximum(1 - np.square(mixing).sum(axis=1), LEAST_NOISE)
    start = Factors(mixing, np.zeros(len(noise)), noise, np.zeros((1, d)), np.ones((1, d)))
    return maximise(
        start,
        seen,
        Fitted(True, True, False, LEAST_NOISE),
        tolerance=FIRST_TOLERANCE,
        most_cycles=FIRST_CYCLES,
    )[0]
