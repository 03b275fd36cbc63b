"""What is compared of fits to several recordings: what components follow, and their maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sourcesep.component_analysis import ComponentAnalysis
from sourcesep.components.profile import correlations, follow_alike, likenesses
from sourcesep.exceptions import InputError
from sourcesep.ivae.model import Array

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = ["Traits", "by_maps", "by_prior", "least_correlation"]

FEWEST_IN_COMMON = 3
"""Conditions or channels; fewer make correlations that mean nothing."""
USUAL = 0.8
"""Least correlation of one source, where nothing else is said."""
ENOUGH = 0.5
"""The same where two recordings as wholes are known to follow the conditions alike."""
FEWEST_TO_SHUFFLE = 5
"""Conditions; fewer have too few orders."""
BEYOND_CHANCE = 3.1
"""Standard errors, by Fisher's transformation: one of a thousand is above."""
SILENCE = 1e-9
"""Of a component's largest variance; labels below tell silence from silence."""
RELIABLE = 0.8
"""A component that its own recording does not find again has no partner in another."""


class Traits(NamedTuple):
    """What is compared of one recording.

    Parameters
    ----------
    called : str
        In errors.
    reliability : ndarray of shape (n_components,)
        How well its own recording finds each component again.
    conditions : tuple of str
        Labels of u that mean the same elsewhere; none if it has no such.
    log_power : ndarray of shape (n_components, n_conditions, n_bands)
        Of each component given each of them.
    ch_names : tuple of str
    maps : ndarray of shape (n_channels, n_components) or None
        Where the decoder is linear.
    advice : str
        How a fit gets conditions.
    """

    called: str
    reliability: Array
    conditions: tuple[str, ...]
    log_power: Array
    ch_names: tuple[str, ...]
    maps: Array | None
    advice: str

    @classmethod
    def of(cls, called: str, fit: ComponentAnalysis | IVAE) -> Traits:
        """Look at a fit."""
        if isinstance(fit, ComponentAnalysis):
            told = fit.profile_
            return cls(
                called,
                fit.reliability_,
                () if told is None else told.conditions,
                np.empty((0, 0, 0)) if told is None else told.log_power,
                tuple(fit.ch_names),
                fit.get_components(),
                f"aux={fit.aux!r}): add them, as in aux='segments:.5,2,8+annotations'",
            )
        check_is_fitted(fit)
        _, variance = fit.model_.prior_moments()
        heard = np.maximum(variance, SILENCE * variance.max(axis=0))
        matrices = fit.model_.matrices
        names = getattr(fit, "contract_", {}).get("names", map(str, range(fit.n_features_in_)))
        return cls(
            called,
            # a single restart has nothing to compare itself with
            np.nan_to_num(fit.verdict_.agreement, nan=1.0),
            fit.u_names_ or (),
            np.log(heard).T[:, :, None],
            tuple(names),
            None if matrices is None else matrices[1],
            "u is time): give labels that mean the same in all, as in aux='column:NAME'",
        )

    @property
    def is_sure(self) -> NDArray[np.bool_]:
        """Which components its own recording finds again."""
        sure: NDArray[np.bool_] = self.reliability >= RELIABLE
        return sure


def least_correlation(by: str, one: Traits, other: Traits, *, of_analyses: bool) -> float:
    """Least correlation of one source in two recordings, where none is asked for."""
    if by == "maps":
        return USUAL
    shown = _in_common(one, other)
    n_common = shown[0].shape[1]
    if not of_analyses:
        return _chance(n_common)
    if n_common < FEWEST_TO_SHUFFLE:
        return USUAL
    sure = [told[fit.is_sure] for told, fit in zip(shown, (one, other), strict=True)]
    return ENOUGH if follow_alike(*sure) else np.inf


def _chance(n_common: int) -> float:
    """Correlation over so many conditions that chance exceeds in one of a thousand pairs."""
    return float(np.tanh(BEYOND_CHANCE / np.sqrt(n_common - 3))) if n_common > 3 else 1.0


def _in_common(one: Traits, other: Traits) -> list[Array]:
    """Log power of both in the conditions and bands that they have in common."""
    common = [name for name in one.conditions if name in other.conditions]
    n_bands = min(one.log_power.shape[2], other.log_power.shape[2])
    return [
        fit.log_power[:, [fit.conditions.index(name) for name in common], :n_bands]
        for fit in (one, other)
    ]


def by_prior(one: Traits, other: Traits) -> tuple[Array, Array]:
    """Correlations of whole profiles, and of their changes with the conditions alone."""
    for fit in (one, other):
        if not fit.conditions:
            raise InputError(
                f"{fit.called} was fitted without conditions ({fit.advice}, or match by='maps'"
            )
    common = [name for name in one.conditions if name in other.conditions]
    if len(common) < FEWEST_IN_COMMON:
        raise InputError(
            f"{one.called} and {other.called} have {len(common)} conditions in common "
            f"({', '.join(common) or 'none'}), and {FEWEST_IN_COMMON} are needed; call them the "
            "same, or match by='maps'"
        )
    return likenesses(*_in_common(one, other))


def by_maps(one: Traits, other: Traits) -> tuple[Array, Array]:
    """Absolute correlations of maps, twice."""
    common = [name for name in one.ch_names if name in other.ch_names]
    if len(common) < FEWEST_IN_COMMON:
        raise InputError(
            f"{one.called} and {other.called} have {len(common)} channels in common, and "
            f"{FEWEST_IN_COMMON} are needed; match by='prior'"
        )
    maps = []
    for fit in (one, other):
        if fit.maps is None:
            raise InputError(f"{fit.called} is not linear and has no maps; match by='prior'")
        rows = fit.maps[[fit.ch_names.index(name) for name in common]].T
        maps.append(rows - rows.mean(axis=1, keepdims=True))
    likeness = np.abs(correlations(*maps))
    return likeness, likeness
