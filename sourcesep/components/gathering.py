"""From recordings to what a model is fitted on: samples cut out, and u for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sourcesep.auxiliary import (
    IN_TIME,
    LEFT_OUT,
    Auxiliary,
    Scale,
    Term,
    build_many,
    canonical,
    parse,
)
from sourcesep.checks import is_whole
from sourcesep.components.cutting import Cut, Part, part_of
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.model import Array
from sourcesep.labels import combine

__all__ = ["Gathered", "auxiliary_of", "gather"]

DEFAULT_SECONDS = (0.5, 2.0, 8.0)
FEWEST_EACH = 5
"""Samples a component, without which a fit means nothing."""


class Gathered(NamedTuple):
    """What a fit is given: recordings laid end to end, without the samples that are not used.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Samples, its own.
    u : Auxiliary
        Of each sample.
    conditions : Scale or None
        Labels by the terms of u that are not stretches of time.
    info : mne.Info
        Of these channels in the first recording.
    sfreq : float
        Samples a second.
    """

    x: Array
    u: Auxiliary
    conditions: Scale | None
    info: Any
    sfreq: float


def gather(
    insts: Sequence[Any], names: Sequence[str], aux: str, cut: Cut, n_components: Any
) -> Gathered:
    """Take the samples to fit on from recordings, and build their u.

    Parameters
    ----------
    insts : sequence of mne.io.BaseRaw or mne.BaseEpochs
        The recordings.
    names : sequence of str
        Channels, which all of them have.
    aux : str
        SPEC of u.
    cut : Cut
        Which samples.
    n_components : int, float or None
        What is asked for, which says how many samples are needed.

    Raises
    ------
    InputError
        If rates differ, samples are too few, or one cannot be used.
    SettingsError
        If the cut cannot be made, or SPEC does not fit the recordings.
    """
    import mne

    parts = [part_of(one, names, cut) for one in insts]
    rates = sorted({part.recording.sfreq for part in parts})
    if len(rates) > 1:
        raise InputError(
            f"sfreq={', '.join(f'{r:g}' for r in rates)} Hz: recordings that are fitted "
            "together must have one rate; resample"
        )
    used = np.concatenate([part.used for part in parts])
    _check_samples(int(used.sum()), len(names), n_components, cut)
    u, conditions = auxiliary_of(aux, parts)
    if len(parts) == 1 and used.all():
        x = parts[0].recording.data[:]
    else:
        x = np.concatenate([part.recording.data[:, part.used] for part in parts], axis=1)
    order = [insts[0].ch_names.index(name) for name in names]
    info = mne.pick_info(insts[0].info, order, verbose="error")
    within = conditions and Scale(conditions.labels[used], conditions.names)
    return Gathered(x, u.take(used), within, info, rates[0])


def _check_samples(n_times: int, n_channels: int, asked: Any, cut: Cut) -> None:
    """Refuse so few samples that a fit means nothing, and say how many are needed.

    Raises
    ------
    InputError
        If there are too few.
    """
    least = FEWEST_EACH * (min(int(asked), n_channels) if is_whole(asked) else n_channels)
    if n_times < least:
        left = " that are left" if cut.reject or cut.flat or cut.decim else ""
        raise InputError(
            f"n_times={n_times}: too few samples{left} for {n_channels} channels, at least "
            f"{least} are needed; record longer, reject less, or ask for fewer components"
        )


def auxiliary_of(aux: str, parts: Sequence[Part]) -> tuple[Auxiliary, Scale | None]:
    """Build u of recordings laid end to end.

    Segments end at gaps in time. Coarser ones are unions of the finest of one recording,
    so that short epochs count together; scales longer than half of the shortest
    recording are left out. Where segments are combined with conditions, u still is time:
    a mean over half a second is signal.

    Parameters
    ----------
    aux : str
        SPEC; ``annotations`` are the conditions of epochs, ``column:`` their metadata.
    parts : sequence of Part
        In order.

    Returns
    -------
    u : Auxiliary
        Samples that are not used have no label.
    conditions : Scale or None
        Labels by the terms that are not stretches of time.
    """
    terms = parse(aux)
    segments = next((term for term in terms if term.name == "segments"), None)
    rest = _build([term for term in terms if term.name != "segments"], parts)
    conditions = _build([term for term in terms if term.name not in IN_TIME], parts)
    scales: Sequence[Scale] = rest.scales if rest else ()
    if segments:
        scales = _nested_segments(segments, parts)
        if rest:
            scales = [combine([scale, rest.scales[0]]) for scale in scales]
    used = np.concatenate([part.used for part in parts])
    kept = tuple(Scale(np.where(used, s.labels, LEFT_OUT), s.names) for s in scales)
    is_time = any(term.name in IN_TIME for term in terms)
    u = Auxiliary(kept, rest.covariates if rest else None, is_time, canonical(terms))
    return u, conditions.scales[0] if conditions else None


def _build(terms: Sequence[Term], parts: Sequence[Part]) -> Auxiliary | None:
    if not terms:
        return None
    recordings = [part.recording for part in parts]
    return build_many(canonical(tuple(terms)), recordings, reject_by_annotation=False)


def _nested_segments(term: Term, parts: Sequence[Part]) -> list[Scale]:
    """Label segments of every length, the finest first."""
    shortest = min(part.recording.seconds for part in parts)
    seconds = [s for s in term.seconds or DEFAULT_SECONDS if s <= shortest / 2]
    if not seconds:
        raise SettingsError(
            f"aux={str(term)!r}: the recording is {shortest:.6g} s long and two segments at least "
            "are needed; choose shorter ones"
        )
    finest = []
    for part in parts:
        size = seconds[0] * part.recording.sfreq
        n_each = int(np.clip(round(part.stretch / size), 1, part.stretch))
        within = np.arange(part.stretch) * n_each // part.stretch
        n_stretches = part.recording.n_times // part.stretch
        finest.append((np.arange(n_stretches)[:, None] * n_each + within).ravel())
    scales = []
    for multiple in dict.fromkeys(max(1, round(s / seconds[0])) for s in seconds):
        labels, offset = [], 0
        for own in finest:
            labels.append(own // multiple + offset)
            offset = int(labels[-1][-1]) + 1
        scales.append(Scale(np.concatenate(labels), tuple(map(str, range(offset)))))
    return scales
