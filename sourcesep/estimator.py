"""`IVAE`: the identifiable VAE as a scikit-learn estimator over arrays."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.adaptation import AdaptationMixin
from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import finite, generator, one_of
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.missing import check_values, impute
from sourcesep.ivae.model import Array
from sourcesep.ivae.ranges import winsorised_range
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.stft.source_prior import SourcePrior
from sourcesep.latents import LatentsMixin
from sourcesep.recording import SMALLEST, check_magnitude, from_array
from sourcesep.rows import (
    check_complete,
    end_to_end,
    is_list_of_arrays,
    is_list_of_columns,
    n_labels_in,
)
from sourcesep.selection import PRIORS, accepts_missing, families_of, select, unheeded

__all__ = ["IVAE"]


class IVAE(
    AdaptationMixin,
    LatentsMixin,
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Identifiable VAE: sources that are unique up to order and scale.

    A latent-variable model whose prior p(z|u) depends on an auxiliary variable u, by default
    the time segment. If the sources' statistics change with u in different ways, only one
    set of sources explains the data. `verdict_` says how far to trust that it was found.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of X by default.
    mixing : str or tuple of str
        Family of the decoder p(x|z): ``"linear"``, ``"post-nonlinear"``, ``"convolutive"``,
        ``"underdetermined"``, ``"factor"``, ``"nonlinear"`` or ``"amortised"``. ``"auto"`` fits
        the linear one. If its components still depend on each other, post-nonlinear and
        nonlinear are tried, and kept if they fit better and their components can be told
        apart; if noise explains the data as well, amortised takes nonlinear's place. A tuple
        is what to choose among instead. ``"convolutive"`` is for rooms: rows are samples in
        time, and ``sfreq`` is their rate. ``"nonlinear"`` and ``"amortised"`` need torch (``pip
        install sourcesep[nonlinear]``). ``"factor"`` and ``"amortised"`` have noise in every
        column, suit fewer sources than columns, and take NaN in X where values are missing.
        ``"amortised"`` needs u wherever it is given X.
    aux : str
        Where u comes from when ``fit`` is given none: ``"segments"`` (of a fortieth of
        the rows), ``"segments:SECONDS[,SECONDS...]"`` or ``"adaptive"``.
    sfreq : float
        Rows a second, by which SECONDS are counted.
    prior : {"auto", "gaussian"}
        Shape of p(z|u): fitted to each source, or Gaussian for all.
    starts : tuple of str
        Signs of independence from which linear fits start: "segments", "bands", "spectrum",
        "cells", "non-gaussian". The likeliest is kept; "bands" and "spectrum" are tried only
        where rows are a series, "cells" (of time and frequency) only of sound.
    standardise : bool
        Whether columns count alike whatever their units, when there are fewer components
        than columns and in the order of the components.
    kernel_size : int, optional
        Post-nonlinear: taps of the mixing. Amortised: samples that encoder and decoder
        see, an odd number. None is the family's own choice.
    post_kernel_size : int
        Post-nonlinear: taps of a filter behind the curves.
    condition_decoder : bool
        Amortised: whether the decoder sees u too, p(x|z,u). The theorem wants p(x|z).
    n_restarts : int, optional
        Nonlinear: how many fits are trained side by side, by default 2, 4 or 6 depending on
        `quality`. ``transform`` gives their consensus, ``inverse_transform`` inverts the
        best. Amortised: the same for the flow that networks may start from.
    source_prior : SourcePrior, optional
        Convolutive: a prior trained on other recordings (`sourcesep.load_prior`), which
        proposes starts and says which is the best.
    source_labels : tuple of str, optional
        This prior's label of each source; found out by default.
    quality : {"fast", "normal", "best"}
        How much time a fit may take for how good a result; closed forms always give
        their best.
    device : str
        "auto", "cpu", "cuda" or "mps": where families that are fitted by stochastic
        gradient are trained.
    random_state : int, Generator or None
        Seeds every random choice; None draws a fresh seed.

    Attributes
    ----------
    model_ : sourcesep.ivae.model.Model
        The fitted prior and map.
    verdict_ : sourcesep.verdict.Verdict
        trusted, doubtful or not identifiable, and the evidence.
    mixing_ : ndarray of shape (n_features, n_components)
        The decoder's matrix; absent unless the decoder is linear.
    components_ : ndarray of shape (n_components, n_features)
        The encoder's matrix; absent unless the decoder is linear.
    scores_ : dict of str to dict of str to float
        Scores of the candidates of every family fitted, the higher the better: held-out
        log-likelihoods, nats a sample, or a measure of the family's own.
    reason_ : str
        Why this candidate was chosen.
    history_ : dict of str to list of float
        Both ELBO terms, nats a sample, at every evaluation; closed forms have one, on 64 000
        samples from all over the data.
    n_iter_ : int
        Number of evaluations in `history_`.
    range_ : ndarray of shape (2, n_components)
        Least and largest value of each component in the fit, its wildest samples aside.
    contract_ : dict
        What the model needs of another recording; empty if it was fitted to an array.

    See Also
    --------
    sklearn.decomposition.FastICA : linear ICA from non-Gaussianity alone.

    References
    ----------
    I. Khemakhem, D. P. Kingma, R. P. Monti & A. Hyvarinen, "Variational autoencoders and
    nonlinear ICA: a unifying framework", AISTATS 2020, arXiv:1907.04809.

    Examples
    --------
    >>> import sourcesep
    >>> S = sourcesep.simulate.linear_sources("modulated", 4000, 3, random_state=0).T
    >>> X = S @ [[1.0, 0.5, 0.2], [0.3, 1.0, 0.4], [0.2, 0.1, 1.0]]
    >>> ivae = sourcesep.IVAE(random_state=0).fit(X)
    >>> bool(sourcesep.metrics.mcc(S, ivae.transform(X)) > 0.99)
    True
    >>> ivae.verdict_.label
    'trusted'
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        mixing: str | tuple[str, ...] = "auto",
        aux: str = "segments",
        sfreq: float = 1.0,
        prior: str = "auto",
        starts: tuple[str, ...] = tuple(STARTS),
        standardise: bool = False,
        kernel_size: int | None = 1,
        post_kernel_size: int = 1,
        condition_decoder: bool = False,
        n_restarts: int | None = None,
        source_prior: SourcePrior | None = None,
        source_labels: tuple[str, ...] | None = None,
        quality: str = "normal",
        device: str = "auto",
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        self.n_components = n_components
        self.mixing = mixing
        self.aux = aux
        self.sfreq = sfreq
        self.prior = prior
        self.starts = starts
        self.standardise = standardise
        self.kernel_size = kernel_size
        self.post_kernel_size = post_kernel_size
        self.condition_decoder = condition_decoder
        self.n_restarts = n_restarts
        self.source_prior = source_prior
        self.source_labels = source_labels
        self.quality = quality
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, u: Any = None) -> Self:
        """Fit prior and map.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or list of such
            Observations in the order of time; a list is fitted as several recordings
            with the same map: component k is the same source in each.
        y : ignored
            For scikit-learn's sake; with a warning if it may be labels that u was meant to be.
        u : array-like of shape (n_samples,) or (n_samples, k), or Auxiliary, optional
            Whole numbers or text are labels, and the number -1 leaves a row out; floats are
            covariates; segments of time (``aux``) by default. If X is a list, u may be a list
            too, and labels are then each recording's own; labels that mean the same in all are
            one array of all rows.

        Raises
        ------
        InputError
            If u does not fit X.
        SettingsError
            If a parameter is not possible, by itself or for this X.
        """
        if u is None and (n_labels := n_labels_in(y)):
            said = f"y of {n_labels} labels: is ignored; if it is what u should be, fit(X, u=y)"
            warnings.warn(said, SourcesepWarning, stacklevel=2)
        return self._fit(X, u)

    def _fit(self, X: Any, u: Any) -> Self:
        fitted = copy.copy(self)
        fitted.__dict__ = {k: v for k, v in vars(self).items() if not k.endswith("_")}
        # many small products: more threads than one only wait for each other
        with threadpool_limits(limits=1, user_api="blas"):
            fitted._fit_unfitted(X, u)
        self.__dict__ = fitted.__dict__  # all at once: a fit that ends early changes nothing
        return self

    def _fit_unfitted(self, X: Any, u: Any) -> None:
        settings = self._settings()
        lengths = [len(part) for part in X] if is_list_of_arrays(X) else None
        X = self._validate(X, reset=True)
        rng = generator(self.random_state)
        u = self._auxiliary(X, u, lengths)
        x = X.T
        check_values(x)
        for said in unheeded(settings, self.mixing):
            warnings.warn(said, SourcesepWarning, stacklevel=4)
        chosen = select(x, u, rng, mixing=self.mixing, settings=settings)
        self.model_, self.verdict_ = chosen.model, chosen.verdict
        self.scores_, self.reason_ = chosen.scores, chosen.reason
        self.contract_: dict[str, Any] = {}
        self._record(x, u)

    def _record(self, x: Array, u: Auxiliary) -> None:
        """Keep what a fit to x given u says of itself."""
        self.u_names_ = None if u.is_time else u.scales[0].names
        self.label_counts_ = np.bincount(u.labels[u.labels >= 0], minlength=u.n_labels)
        keep = excerpt(u, self.model_.memory)
        part = u.take(keep)
        x = (x if self.model_.accepts_missing else impute(x))[:, keep][:, part.used]
        part = part.take(part.used)
        elbo = self.model_.elbo(x, part)
        self.history_ = {
            name: [*self.model_.history[name], float(getattr(elbo, name).mean())]
            for name in ("reconstruction", "kl")
        }
        self.n_iter_ = len(self.history_["kl"])
        self.range_ = winsorised_range(self.model_.latents(x, part))
        self._publish()

    def _settings(self) -> Settings:
        """What a fit is configured with, each value checked before any data is."""
        if not isinstance(self.aux, str):
            raise SettingsError(
                f"aux={self.aux!r}: must be a SPEC such as 'segments'; arrays are given to fit "
                "as u"
            )
        families_of(self.mixing)
        one_of(PRIORS, prior=self.prior)
        if not isinstance(self.source_prior, SourcePrior | None):
            said = "must be a SourcePrior, as sourcesep.load_prior returns it, or None"
            raise SettingsError(f"source_prior={self.source_prior!r}: {said}")
        auxiliary.parse(self.aux)
        generator(self.random_state)
        return Settings(
            n_components=self.n_components,
            starts=self.starts,
            shapes=PRIORS[self.prior],
            standardise=self.standardise,
            kernel_size=self.kernel_size,
            post_kernel_size=self.post_kernel_size,
            condition_decoder=self.condition_decoder,
            n_restarts=self.n_restarts,
            source_prior=self.source_prior,
            source_labels=self.source_labels,
            quality=self.quality,
            device=self.device,
            sfreq=self.sfreq,
        )

    def _publish(self) -> None:
        """Set the attributes that only a linear decoder has."""
        if self.model_.matrices is not None:
            self.components_, self.mixing_ = self.model_.matrices

    def transform(self, X: ArrayLike, *, u: Any = None) -> Array:
        """Return the posterior mean of the sources, shape (n_samples, n_components).

        Invertible maps need no u; given one, the mean is that of q(z|x,u). Other maps need the
        kind of u that the fit was given; new stretches of time get variances of their own.
        """
        X = self._validate(X)
        if self.model_.is_invertible:
            given = None if u is None else self._labels_of_the_fit(self._auxiliary(X, u))
            return self.model_.posterior(X.T, given).mean.T
        model, given = self._with_prior_for(X, u)
        return model.posterior(X.T, given).mean.T

    def fit_transform(self, X: ArrayLike, y: Any = None, *, u: Any = None) -> Array:
        """Fit, and return the sources of X; y is ignored (in a pipeline it is the next step's)."""
        self._fit(X, u)
        return self.transform(X, u=None if self.model_.is_invertible else u)

    def inverse_transform(self, S: ArrayLike, *, u: Any = None) -> Array:
        """Mix sources of shape (n_samples, n_components) by the decoder.

        u is needed, and makes a difference, only if the decoder was conditioned on it.
        """
        check_is_fitted(self)
        S, d = finite("S", S), self.model_.n_components
        if S.ndim != 2 or S.shape[1] != d:
            said = f"must be (n_samples, {d}), a column for each component"
            raise InputError(f"S of shape {S.shape}: {said}")
        return self.model_.decode(S.T, self._told(u, len(S))).T

    def elbo(self, X: ArrayLike, *, u: Any = None) -> tuple[float, float]:
        """Return the two terms of the ELBO, (reconstruction, kl), in nats a sample.

        New stretches of time get variances of their own, with the map fixed; labels that
        mean the same everywhere keep those of the fit.
        """
        X = self._validate(X)
        model, u = self._with_prior_for(X, u)
        elbo = model.elbo(X.T[:, u.used], u.take(u.used))
        return float(elbo.reconstruction.mean()), float(elbo.kl.mean())

    def score(self, X: ArrayLike, y: Any = None, *, u: Any = None) -> float:
        """Return the mean ELBO, nats a sample (see `elbo`)."""
        reconstruction, kl = self.elbo(X, u=u)
        return reconstruction - kl

    def _accepts_missing(self, is_fit: bool) -> bool:
        """Whether NaN may be in X: a fit may have ended in another family than asked for."""
        if not is_fit:
            return self.model_.accepts_missing
        return accepts_missing(self.mixing)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._accepts_missing(is_fit=True)
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.model_.n_components

    def _validate(self, X: Any, *, reset: bool = False) -> Array:
        if not reset:
            check_is_fitted(self)
        checked: Array = validate_data(
            self,
            end_to_end(X),
            reset=reset,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
            order="C",  # or the sums of a fit would differ in their last bits
        )
        if not self._accepts_missing(reset):
            family = self.mixing if reset else self.model_.family
            check_complete(checked, f"{'' if reset else 'a fit of '}mixing={family!r}")
        low, high = np.fmin.reduce(checked, axis=None), np.fmax.reduce(checked, axis=None)
        check_magnitude(low, high, least=SMALLEST if reset else 0.0)
        return checked

    def _auxiliary(self, X: Array, u: Any, lengths: list[int] | None = None) -> Auxiliary:
        """u as given, or built from `aux` for the rows of X."""
        if isinstance(u, Auxiliary):
            if u.n_times != len(X):
                raise InputError(f"u of {u.n_times} samples: X has {len(X)}; give one a sample")
            return u
        if lengths is not None and is_list_of_columns(u):
            return auxiliary.from_arrays(u, lengths)
        if u is not None:
            return auxiliary.from_array(u, len(X))
        lengths = lengths or [len(X)]
        if min(lengths) < 2:
            said = "is then the stretch of time that a row lies in, and a row alone is none"
            raise InputError(f"u=None: {said}; give u, or more rows")
        ends = np.cumsum(lengths)[:-1]
        parts = [from_array(part.T, self.sfreq) for part in np.split(X, ends)]
        return auxiliary.build_many(self.aux, parts)
