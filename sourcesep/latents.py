"""What a fitted estimator says about its latents: samples, effects, and the prior."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.checks import finite, generator, is_whole, whole
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.forecast import check_memory
from sourcesep.ivae.model import Array, Model

__all__ = ["LatentsMixin"]


class LatentsMixin:
    """Samples from the model, the effect of a component, and p(z|u) as a table."""

    model_: Model
    u_names_: tuple[str, ...] | None
    label_counts_: NDArray[np.int64]
    random_state: Any

    @abstractmethod
    def _labels_of_the_fit(self, u: Auxiliary) -> Auxiliary:
        """u with its labels numbered as in the fit."""

    def sample(self, n: int, *, u: Any = None) -> tuple[Array, Array]:
        """Draw n samples of sources and observations.

        Parameters
        ----------
        n : int
            How many.
        u : array-like of shape (n,), optional
            Labels to draw for, as the fit was given them or as `prior_table` names them; by
            default they are as frequent as in the fit.

        Returns
        -------
        S : ndarray of shape (n, n_components)
            Sources.
        X : ndarray of shape (n, n_features)
            Observations.

        Raises
        ------
        SettingsError
            If n is no number of samples, or so many do not go into the machine's memory.
        """
        check_is_fitted(self)
        whole(1, n=n)
        check_memory(8 * int(n) * (self.model_.n_components + self.model_.n_channels), f"n={n}")
        rng = generator(self.random_state)
        if u is None:
            names = tuple(map(str, range(len(self.label_counts_))))
            share = self.label_counts_ / self.label_counts_.sum()
            labels = rng.choice(len(names), size=n, p=share).astype(np.int64)
            given = Auxiliary((Scale(labels, names),), None, self.u_names_ is None, "array")
        else:
            given = self._labels_of_the_fit(auxiliary.from_array(u, n))
        z, x = self.model_.sample(given, rng)
        return z.T, x.T

    def _told(self, u: Any, n: int) -> Auxiliary | None:
        """Return u of n rows for the decoder; None if it needs none."""
        if u is not None:
            return self._labels_of_the_fit(auxiliary.from_array(u, n))
        if not self.model_.condition_decoder:
            return None
        if self.u_names_ is None:
            raise InputError(
                "condition_decoder=True: this decoder was fitted on stretches of time, which mean "
                "nothing for other rows; fit with labels as u to decode them"
            )
        raise InputError(
            "u=None: this decoder was fitted with condition_decoder=True and needs the label of "
            "every row; give them as u"
        )

    def effect(self, component: int, values: ArrayLike | None = None, *, u: Any = None) -> Array:
        """Decode with one component moved and the others at their prior mean.

        Parameters
        ----------
        component : int
            Which one.
        values : array-like of shape (n_values,), optional
            Where it is moved to; -2 to 2 standard deviations in 9 steps by default.
        u : label, or array-like of shape (n_values,), optional
            The label, one for all values or one for each. It is needed if the decoder was
            conditioned on u, and makes no difference otherwise.

        Returns
        -------
        ndarray of shape (n_values, n_features)
            Observations.

        Raises
        ------
        InputError
            If the decoder needs u and is given none, or one that the fit has not seen.
        """
        check_is_fitted(self)
        d = self.model_.n_components
        if not is_whole(component) or not 0 <= component < d:
            raise SettingsError(f"component={component!r}: must be 0 to {d - 1}")
        steps = np.linspace(-2, 2, 9) if values is None else finite("values", values)
        if steps.ndim != 1:
            raise InputError(f"values of shape {steps.shape}: must be (n_values,)")
        mean, _ = self.model_.prior_moments()
        centre = np.average(mean, axis=0, weights=self.label_counts_)
        z = np.tile(centre[:, None], (1, len(steps)))
        z[component] = steps
        given = np.full(len(steps), u) if u is not None and np.ndim(u) == 0 else u
        return self.model_.decode(z, self._told(given, len(steps))).T

    def prior_table(self) -> list[dict[str, Any]]:
        """Return mean and variance of every component given every label.

        Returns
        -------
        list of dict
            One for each label and component, with ``label``, ``component``, ``mean``,
            ``variance`` and ``n_samples``; ready for ``pandas.DataFrame``.
        """
        check_is_fitted(self)
        mean, variance = self.model_.prior_moments()
        names = self.u_names_ or tuple(map(str, range(len(mean))))
        return [
            {
                "label": name,
                "component": k,
                "mean": float(mean[row, k]),
                "variance": float(variance[row, k]),
                "n_samples": int(self.label_counts_[row]),
            }
            for row, name in enumerate(names)
            for k in range(self.model_.n_components)
        ]
