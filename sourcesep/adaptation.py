"""What a fitted estimator does on other data: new priors, a map that goes on, its range."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.checks import generator
from sourcesep.exceptions import InputError
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.moments import Moments
from sourcesep.ivae.ranges import left_aside, winsorised_range
from sourcesep.n_components import check_samples
from sourcesep.verdict import Verdict, judge

__all__ = ["AdaptationMixin"]

FEW_OUTSIDE = 3e-3
"""Share of the samples that may lie outside a component's range, beside those that the range
itself leaves aside. No third recording of a nonlinear scene that had fewer outside lost .01 of
MCC."""
FEWEST_OUTSIDE = 3
"""Fewer samples outside the range than this are ignored."""
TINY = 1e-300
"""Least half width of a range, so that a component that was silent in the fit has one."""


class AdaptationMixin:
    """What `IVAE` does on other data than it was fitted to; every component keeps its index."""

    model_: Model
    verdict_: Verdict
    u_names_: tuple[str, ...] | None
    range_: Array | None
    label_counts_: NDArray[np.int64]
    reason_: str
    sfreq: float
    random_state: Any

    @abstractmethod
    def _validate(self, X: Any, *, reset: bool = False) -> Array:
        """X as an array, checked."""

    @abstractmethod
    def _auxiliary(self, X: Array, u: Any, lengths: list[int] | None = None) -> Auxiliary:
        """u as given, or built for the rows of X."""

    @abstractmethod
    def _record(self, x: Array, u: Auxiliary) -> None:
        """Set the attributes that describe the fit to x given u."""

    def adapted(self, X: ArrayLike, *, u: Any = None) -> tuple[Self, Auxiliary]:
        """Return this estimator with a prior for the rows of X, and their u.

        The map stays as it is. Stretches of time are new, so they get variances of their own;
        labels and covariates keep what the fit has learned about them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Observations.
        u : array-like of shape (n_samples,) or (n_samples, k), or Auxiliary, optional
            As for `fit`.
        """
        other = copy.copy(self)
        other.model_, given = self._with_prior_for(self._validate(X), u)
        return other, given

    def refit(self, X: ArrayLike, *, u: Any = None) -> Self:
        """Return an estimator fitted to other data from this one's map.

        Component k stays component k, so that results of several recordings can be laid
        side by side. Linear maps are found in closed form from where they are, curves of
        sensors are kept, and nonlinear maps are trained on for 200 steps. The verdict is
        on the new data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Observations by the same channels, in the order of time.
        u : array-like of shape (n_samples,) or (n_samples, k), or Auxiliary, optional
            As for `fit`.

        Returns
        -------
        IVAE
            Another estimator; this one stays as it is.

        Raises
        ------
        SettingsError
            If a map of this family cannot go on from where it is.
        InputError
            If X holds fewer signals than there are components.
        """
        X = self._validate(X)
        built, rng = self._auxiliary(X, u), generator(self.random_state)
        check_samples(X.T, built, self.model_.n_components)
        with threadpool_limits(limits=1, user_api="blas"):
            model = self.model_.warm(X.T, built, rng)
            reason = f"{model.family} mixing, fitted again from a saved map"
            return self._with(model, reason, X.T, built, rng)

    def pooled(self, moments: Moments, X: ArrayLike, *, u: Any = None) -> Self:
        """Return an estimator whose map is fitted to the moments of more data than it has seen.

        If the map cannot be fitted to moments, the estimator itself is returned.

        Parameters
        ----------
        moments : Moments
            Moments of all the data.
        X : array-like of shape (n_samples, n_features)
            The samples on which the prior is fitted and the verdict given.
        u : Auxiliary, optional
            The auxiliary variable of X.
        """
        X = self._validate(X)
        built, rng = self._auxiliary(X, u), generator(self.random_state)
        with threadpool_limits(limits=1, user_api="blas"):
            model = self.model_.pooled(moments)
            if model is self.model_:
                return self
            reason = f"{self.reason_}; its matrix from all {moments.n_labels} segments"
            return self._with(model.refit_prior(X.T, built), reason, X.T, built, rng)

    def _with(
        self, model: Model, reason: str, x: Array, u: Auxiliary, rng: np.random.Generator
    ) -> Self:
        """Return this estimator with another model, judged on x given u."""
        other = copy.copy(self)
        other.model_, other.reason_ = model, reason
        other.verdict_ = judge(model, x, u, self.sfreq, rng)
        other._record(x, u)
        return other

    def out_of_range(self, X: ArrayLike, *, u: Any = None) -> list[dict[str, Any]] | None:
        """Say which components reach beyond the range that they had in the fit.

        The range leaves out the most extreme sample in ten thousand at either end, and one at
        least, so that a single row decides nothing.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Observations.
        u : array-like, optional
            Where the model needs it.

        Returns
        -------
        list of dict, or None
            One for each component of which more than .3 % of the samples are outside its range:
            its index ``component``; that ``share``; and ``times``, how many times as far from
            the middle of the range it reaches as the range's ends lie, its wildest samples aside.
            None if the model's file was written before ranges were kept.
        """
        X = self._validate(X)
        span = self.range_
        if span is None:
            return None
        model, given = self.model_, None
        if not model.is_invertible:
            model, given = self._with_prior_for(X, u)
        x = X.T
        if given is not None:
            keep = excerpt(given, model.memory)
            x, given = x[:, keep], given.take(keep)
        with np.errstate(over="ignore", invalid="ignore"):
            z = model.latents(x, given)
        middle, reach = span.mean(axis=0), np.maximum(np.ptp(span, axis=0) / 2, TINY)
        times = (np.abs(winsorised_range(z) - middle) / reach).max(axis=0)
        out = (z < span[0][:, None]) | (z > span[1][:, None])
        share = out.mean(axis=1)
        n_fitted = int(self.label_counts_.sum())
        allowed = FEW_OUTSIDE + 3 * 2 * left_aside(n_fitted) / n_fitted
        return [
            {
                "component": int(k),
                "times": round(float(times[k]), 3),
                "share": round(float(share[k]), 6),
            }
            for k in np.flatnonzero((share > allowed) & (out.sum(axis=1) >= FEWEST_OUTSIDE))
        ]

    def _labels_of_the_fit(self, u: Auxiliary) -> Auxiliary:
        """Return u of other data with its labels numbered as in the fit."""
        if u.is_time or self.u_names_ is None:
            raise InputError(
                "u: this model was fitted on stretches of time, which mean nothing in other "
                "data; leave u (aux=SPEC) out"
            )
        scale, known = u.scales[0], set(self.u_names_)
        named = tuple(name.removeprefix("u=") for name in scale.names)
        if known.issuperset(named) and not known.issuperset(scale.names):
            # text that is not the labels themselves but what `prior_table` calls them
            u = Auxiliary((Scale(scale.labels, named),), None, False, u.spec)
        return auxiliary.renumbered(u, self.u_names_)

    def _with_prior_for(self, X: Array, u: Any) -> tuple[Model, Auxiliary]:
        """The model as it is for these rows, and their u."""
        if u is None and self.u_names_ is not None and not self.model_.is_invertible:
            raise InputError(
                f"u=None: mixing={self.model_.family!r} was fitted with labels or covariates, and "
                "needs those of every row; give them as u"
            )
        built = self._auxiliary(X, u)
        if not built.used.any():
            raise InputError(f"u={built.spec!r}: leaves out every row; at least one is needed")
        if built.is_time:
            return self.model_.refit_prior(X.T, built), built
        return self.model_, self._labels_of_the_fit(built)
