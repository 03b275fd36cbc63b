"""`match_components`: which components are one source in several recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sourcesep.checks import one_of
from sourcesep.component_analysis import ComponentAnalysis, read_components
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array
from sourcesep.persistence import COMPONENTS, load, read_metadata
from sourcesep.traits import Traits, by_maps, by_prior, least_correlation

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = ["Group", "Matching", "match_components", "read_fits"]


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
    fits = [Traits.of(name, analysis) for name, analysis in zip(called, analyses, strict=True)]
    compare = by_prior if by == "prior" else by_maps
    edges = []
    for a, b in combinations(range(len(fits)), 2):
        pair = fits[a], fits[b]
        likeness, gate = compare(*pair)
        least = min_corr or least_correlation(by, *pair, of_analyses=of_analyses)
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
