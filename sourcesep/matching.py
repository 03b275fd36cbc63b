"""`match_components`: which components are one source in several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sourcesep.component_analysis import ComponentAnalysis
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.model import Array

__all__ = ["Group", "Matching", "match_components"]

FEWEST_IN_COMMON = 3
"""Conditions or channels; fewer make correlations that mean nothing."""
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


def match_components(
    analyses: Sequence[ComponentAnalysis], by: str = "prior", min_corr: float = 0.8
) -> Matching:
    """Say which components are one source in several recordings.

    Parameters
    ----------
    analyses : sequence of ComponentAnalysis
        Fitted, two or more.
    by : {"prior", "maps"}
        ``"prior"`` compares how each component's power changes with the conditions, in
        frequency bands (`ComponentAnalysis.profile_`): heads and caps may differ, the
        conditions must be the same (``aux="segments:.5,2,8+annotations"``). ``"maps"``
        compares maps on the channels in common.
    min_corr : float
        Least correlation of two components that are called one source. Under ``"prior"``
        it is that of the changes with the conditions alone: spectra help to choose among
        partners, but everyone's alpha is at 10 Hz.

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
    if len(analyses) < 2:
        raise SettingsError(f"analyses: {len(analyses)} given, and two at least are needed")
    if by not in ("prior", "maps"):
        raise SettingsError(f"by={by!r}: allowed are prior, maps")
    if not 0 < min_corr <= 1:
        raise SettingsError(f"min_corr={min_corr!r}: must be above 0, and 1 at most")
    compare = _by_prior if by == "prior" else _by_maps
    edges = []
    for a, b in combinations(range(len(analyses)), 2):
        likeness, gate = compare(analyses[a], analyses[b], (a, b))
        sure = [analyses[k].reliability_ >= RELIABLE for k in (a, b)]
        gate = np.where(np.outer(*sure), gate, -1)
        rows, columns = linear_sum_assignment(-likeness)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            if gate[i, j] >= min_corr:
                edges.append((float(gate[i, j]), _margin(likeness, i, j), (a, i), (b, j)))
    groups = _grouped(sorted(edges, reverse=True))
    taken = {pair for group in groups for pair in group.components.items()}
    unmatched = tuple(
        tuple(k for k in range(ca.n_components_) if (number, k) not in taken)
        for number, ca in enumerate(analyses)
    )
    return Matching(tuple(groups), unmatched)


def _by_prior(
    a: ComponentAnalysis, b: ComponentAnalysis, numbers: tuple[int, int]
) -> tuple[Array, Array]:
    """Correlations of whole profiles, and of their changes with the conditions."""
    for number, ca in zip(numbers, (a, b), strict=True):
        if ca.profile_ is None:
            raise InputError(
                f"analysis {number} was fitted without conditions (aux={ca.aux!r}): add them, as "
                "in aux='segments:.5,2,8+annotations', or match by='maps'"
            )
    one, other = a.profile_, b.profile_
    if one is None or other is None:  # for the type checker
        raise InputError("no conditions")
    common = [name for name in one.conditions if name in other.conditions]
    if len(common) < FEWEST_IN_COMMON:
        raise InputError(
            f"analyses {numbers[0]} and {numbers[1]} have {len(common)} conditions in common "
            f"({', '.join(common) or 'none'}), and {FEWEST_IN_COMMON} are needed; call them the "
            "same, or match by='maps'"
        )
    n_bands = min(one.log_power.shape[2], other.log_power.shape[2])
    shown = [
        p.log_power[:, [p.conditions.index(name) for name in common], :n_bands]
        for p in (one, other)
    ]
    whole = [p - p.mean(axis=(1, 2), keepdims=True) for p in shown]
    changes = [p - p.mean(axis=1, keepdims=True) for p in shown]
    return _correlation(*whole), _correlation(*changes)


def _by_maps(
    a: ComponentAnalysis, b: ComponentAnalysis, numbers: tuple[int, int]
) -> tuple[Array, Array]:
    """Absolute correlations of maps."""
    common = [name for name in a.ch_names if name in b.ch_names]
    if len(common) < FEWEST_IN_COMMON:
        raise InputError(
            f"analyses {numbers[0]} and {numbers[1]} have {len(common)} channels in common, and "
            f"{FEWEST_IN_COMMON} are needed; match by='prior'"
        )
    maps = []
    for ca in (a, b):
        rows = ca.get_components()[[ca.ch_names.index(name) for name in common]].T
        maps.append(rows - rows.mean(axis=1, keepdims=True))
    likeness = np.abs(_correlation(*maps))
    return likeness, likeness


def _correlation(a: Array, b: Array) -> Array:
    """Correlate each row (what follows the first axis) of a with each of b, about 0."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    correlation: Array = a @ b.T / np.where(norms > 0, norms, 1)
    return correlation


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
