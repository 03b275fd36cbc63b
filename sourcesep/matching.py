"""`match_components`: which components are one source in several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.utils.validation import check_is_fitted

from sourcesep.checks import one_of
from sourcesep.component_analysis import ComponentAnalysis, read_components
from sourcesep.components.profile import correlations, follow_alike, likenesses
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.model import Array
from sourcesep.persistence import COMPONENTS, load, read_metadata

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = ["Group", "Matching", "match_components", "read_fits"]

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


@dataclass(frozen=True)
class Group:
    """Components of several recordings that are one source.

    Parameters
    ----------
    components : dict of int to int
        The component of each recording, by the recording's number.
    correlation : float
        Least of those by which they were matched.
    margin : float
        Least by which a correlation is above that of the next best partner.
    """

    components: dict[int, int]
    correlation: float
    margin: float


@dataclass(frozen=True)
class Matching:
    """What belongs together, and what is left.

    Parameters
    ----------
    groups : tuple of Group
        The surest first.
    unmatched : tuple of tuple of int
        For each recording its components without a partner.
    """

    groups: tuple[Group, ...]
    unmatched: tuple[tuple[int, ...], ...]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each component, ready for ``pandas.DataFrame``.

        Returns
        -------
        list of dict
            ``group`` (None without a partner), ``recording``, ``component``,
            ``correlation`` and ``margin``.
        """
        rows: list[dict[str, Any]] = [
            {
                "group": number,
                "recording": recording,
                "component": component,
                "correlation": group.correlation,
                "margin": group.margin,
            }
            for number, group in enumerate(self.groups)
            for recording, component in sorted(group.components.items())
        ]
        rows += [
            {
                "group": None,
                "recording": recording,
                "component": component,
                "correlation": None,
                "margin": None,
            }
            for recording, components in enumerate(self.unmatched)
            for component in components
        ]
        return rows

    def order(self, recording: int) -> list[int]:
        """Return a recording's components in the order of the groups that are in all.

        Columns taken so from each recording belong together: ``S[:, matching.order(r)]``.

        Parameters
        ----------
        recording : int
            By its number.
        """
        everywhere = len(self.unmatched)
        return [
            group.components[recording]
            for group in self.groups
            if len(group.components) == everywhere
        ]

    def lines(self, names: Sequence[str]) -> list[str]:
        """Return the same to read, with a name for each recording."""
        lines = [f"{'corr':>6} {'margin':>6}  components"]
        for group in self.groups:
            where = "  ".join(
                f"{names[k]}:{component}" for k, component in group.components.items()
            )
            lines.append(f"{group.correlation:6.3f} {group.margin:6.3f}  {where}")
        for name, left in zip(names, self.unmatched, strict=True):
            lines.append(f"without a partner in {name}: {', '.join(map(str, left)) or 'none'}")
        return lines


class _Fit(NamedTuple):
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
    def of(cls, called: str, fit: ComponentAnalysis | IVAE) -> _Fit:
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


def match_components(
    analyses: Sequence[ComponentAnalysis | IVAE],
    by: str = "prior",
    min_corr: float | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Matching:
    """Say which components are one source in several recordings.

    Parameters
    ----------
    analyses : sequence of ComponentAnalysis or IVAE
        Fitted, two or more, all of one class.
    by : {"prior", "maps"}
        ``"prior"`` compares how each component's power changes with the conditions:
        sensors may differ, the conditions must be the same. Of a `ComponentAnalysis` they
        are annotations, and frequency bands count too (`ComponentAnalysis.profile_`,
        ``aux="segments:.5,2,8+annotations"``). Of an `IVAE` they are the labels of u, and
        what is compared is the logarithm of the prior's variance. ``"maps"`` compares
        mixing matrices on the channels in common.
    min_corr : float, optional
        Least correlation of two components that are called one source. Under ``"prior"``
        it is that of the changes with the conditions alone: spectra help to choose among
        partners, but everyone's alpha is at 10 Hz. By default .8; under ``"prior"`` of an
        `IVAE`, what chance reaches with as many labels in one of a thousand pairs. Under
        ``"prior"`` of a `ComponentAnalysis`, with five conditions or more, two recordings are
        first compared as wholes: if their partners follow the conditions better than with
        the conditions of one of them in any of 200 other orders (one exception is allowed),
        partners need .5, and if not, none is one source.
    names : sequence of str, optional
        What errors call the recordings; "analysis 0" or "model 0" and so on by default.

    Returns
    -------
    Matching
        Groups with one component a recording at most, and the components left. Components
        of a reliability below .8 are left.

    Raises
    ------
    SettingsError
        If a parameter cannot be.
    InputError
        If the analyses have too few conditions or channels in common.
    """
    _check_request(analyses, by, min_corr, names)
    of_analyses = isinstance(analyses[0], ComponentAnalysis)
    kind = "analysis" if of_analyses else "model"
    called = names or [f"{kind} {number}" for number in range(len(analyses))]
    fits = [_Fit.of(name, analysis) for name, analysis in zip(called, analyses, strict=True)]
    compare = _by_prior if by == "prior" else _by_maps
    edges = []
    for a, b in combinations(range(len(fits)), 2):
        pair = fits[a], fits[b]
        likeness, gate, n_common = compare(*pair)
        least = min_corr or _least(by, *pair, n_common, of_analyses=of_analyses)
        gate = np.where(np.outer(*(fit.is_sure for fit in pair)), gate, -1)
        rows, columns = linear_sum_assignment(-likeness)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            if gate[i, j] >= least:
                edges.append((float(gate[i, j]), _margin(likeness, i, j), (a, i), (b, j)))
    groups = _grouped(sorted(edges, reverse=True))
    taken = {pair for group in groups for pair in group.components.items()}
    unmatched = tuple(
        tuple(k for k in range(len(fit.reliability)) if (number, k) not in taken)
        for number, fit in enumerate(fits)
    )
    return Matching(tuple(groups), unmatched)


def read_fits(paths: Sequence[str | Path]) -> list[ComponentAnalysis | IVAE]:
    """Read the files of models, or of component analyses, that are to be matched.

    Raises
    ------
    ModelFileError
        If one is neither.
    """
    found: list[ComponentAnalysis | IVAE] = []
    for path in paths:
        is_analysis = read_metadata(path)["format"] == COMPONENTS
        found.append(read_components(path) if is_analysis else load(path))
    return found


def _check_request(
    analyses: Sequence[ComponentAnalysis | IVAE],
    by: str,
    min_corr: float | None,
    names: Sequence[str] | None,
) -> None:
    """Refuse what cannot be matched so (SettingsError)."""
    if len(analyses) < 2:
        raise SettingsError(f"analyses={len(analyses)}: two at least are needed")
    if len({isinstance(analysis, ComponentAnalysis) for analysis in analyses}) > 1:
        raise SettingsError(
            "analyses of ComponentAnalysis and of IVAE (separate, train) are not compared; match "
            "those of each kind by themselves"
        )
    one_of(("prior", "maps"), by=by)
    if min_corr is not None and not 0 < min_corr <= 1:
        raise SettingsError(f"min_corr={min_corr!r}: must be above 0, and 1 at most")
    if names is not None and len(names) != len(analyses):
        raise SettingsError(f"names={len(names)}, analyses={len(analyses)}: give one for each")


def _least(by: str, one: _Fit, other: _Fit, n_common: int, *, of_analyses: bool) -> float:
    """Least correlation of one source in two recordings, where none is asked for."""
    if by == "maps":
        return USUAL
    if not of_analyses:
        return _chance(n_common)
    if n_common < FEWEST_TO_SHUFFLE:
        return USUAL
    shown = _in_common(one, other)
    sure = [told[fit.is_sure] for told, fit in zip(shown, (one, other), strict=True)]
    return ENOUGH if follow_alike(*sure) else np.inf


def _chance(n_common: int) -> float:
    """Correlation over so many conditions that chance exceeds in one of a thousand pairs."""
    return float(np.tanh(BEYOND_CHANCE / np.sqrt(n_common - 3))) if n_common > 3 else 1.0


def _in_common(one: _Fit, other: _Fit) -> list[Array]:
    """Log power of both in the conditions and bands that they have in common."""
    common = [name for name in one.conditions if name in other.conditions]
    n_bands = min(one.log_power.shape[2], other.log_power.shape[2])
    return [
        fit.log_power[:, [fit.conditions.index(name) for name in common], :n_bands]
        for fit in (one, other)
    ]


def _by_prior(one: _Fit, other: _Fit) -> tuple[Array, Array, int]:
    """Correlations of whole profiles, of their changes with the conditions, and of how many."""
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
    return *likenesses(*_in_common(one, other)), len(common)


def _by_maps(one: _Fit, other: _Fit) -> tuple[Array, Array, int]:
    """Absolute correlations of maps."""
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
    return likeness, likeness, len(common)


def _margin(likeness: Array, i: int, j: int) -> float:
    """By how much a pair is more alike than either with its next best partner."""
    others = np.concatenate([np.delete(likeness[i], j), np.delete(likeness[:, j], i)])
    return float(likeness[i, j] - others.max(initial=-1.0))


def _grouped(edges: list[tuple[float, float, tuple[int, int], tuple[int, int]]]) -> list[Group]:
    """Join pairs, the surest first, as long as a group has no recording twice."""
    group_of: dict[tuple[int, int], dict[str, Any]] = {}
    for correlation, margin, one, other in edges:
        a, b = (
            group_of.get(c, {"members": {c}, "correlation": 1.0, "margin": 2.0})
            for c in (one, other)
        )
        members = a["members"] | b["members"]
        if len({recording for recording, _ in members}) < len(members):
            continue
        joined = {
            "members": members,
            "correlation": min(correlation, a["correlation"], b["correlation"]),
            "margin": min(margin, a["margin"], b["margin"]),
        }
        group_of.update(dict.fromkeys(members, joined))
    found = {id(g): g for g in group_of.values()}.values()
    groups = [Group(dict(sorted(g["members"])), g["correlation"], g["margin"]) for g in found]
    return sorted(groups, key=lambda g: (-len(g.components), -g.correlation))
