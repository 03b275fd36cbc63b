"""From recordings to what a model is fitted on: samples cut out, and u for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import LEFT_OUT, Auxiliary, Scale, Term, build_many, canonical, parse
from sourcesep.checks import is_whole
from sourcesep.components.channels import any_samples, kind_of, refuse_broken
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.factors import event_span
from sourcesep.ivae.model import Array
from sourcesep.labels import combine
from sourcesep.recording import Event, Recording

__all__ = ["Cut", "Gathered", "Part", "auxiliary_of", "gather", "part_of"]

IN_TIME = ("segments", "adaptive")
"""Terms of a SPEC that label stretches of time; the others label conditions."""
DEFAULT_SECONDS = (0.5, 2.0, 8.0)
MOST_VALUES = 100_000_000
"""Samples times channels that a fit holds of one Raw, .8 GB at a time."""
STRETCH_SECONDS = 64.0
"""Length of those that it is fitted on if it has more."""
FEWEST_EACH = 5
"""Samples a component, without which a fit means nothing."""


@dataclass(frozen=True)
class Cut:
    """Which samples to fit on, as `mne.preprocessing.ICA.fit` has it."""

    start: float | None = None
    stop: float | None = None
    decim: int | None = None
    reject: dict[str, float] | None = None
    flat: dict[str, float] | None = None
    tstep: float = 2.0
    reject_by_annotation: bool = True

    def __post_init__(self) -> None:
        whole = isinstance(self.decim, int | np.integer) and self.decim >= 1
        if self.decim is not None and not whole:
            raise SettingsError(f"decim={self.decim!r}: must be a whole number, 1 or more")
        if not self.tstep > 0:
            raise SettingsError(f"tstep={self.tstep!r}: must be seconds above 0")


@dataclass(frozen=True)
class Part:
    """One recording of a fit.

    Parameters
    ----------
    recording : Recording
        Its samples.
    used : ndarray of bool, shape (n_times,)
        Those to fit on.
    stretch : int
        Samples between two gaps in time: an epoch's length, or all.
    """

    recording: Recording
    used: NDArray[np.bool_]
    stretch: int


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


def part_of(inst: Any, names: Sequence[str], cut: Cut) -> Part:
    """Cut the samples to fit on out of a Raw or Epochs.

    Raises
    ------
    InputError
        If it is neither, has no epochs, or has samples that cannot be used.
    SettingsError
        If the cut cannot be made.
    """
    kind = kind_of(inst)
    if kind == "evoked":
        raise InputError("inst is an Evoked: an average is too little to fit on; give its epochs")
    if kind == "epochs" and len(inst) == 0:
        raise InputError("inst has no epochs left, so there is nothing to fit; see its drop_log")
    step = int(cut.decim or 1)
    columns: dict[str, Any] = {}
    rate = float(inst.info["sfreq"]) / step
    if kind == "raw":
        first, last = _limits(inst.n_times, cut, float(inst.info["sfreq"]))
        begins, size = _stretches(first, last, step, len(names), rate)
        stretch = -(-size // step)
        if len(begins) == step == 1:
            data = any_samples(inst, names, first, last)
        else:  # written into one array: a long file is never held twice
            data = np.empty((len(names), len(begins) * stretch))
            for k, begin in enumerate(begins):
                piece = any_samples(inst, names, begin, begin + size)
                data[:, k * stretch : (k + 1) * stretch] = piece[:, ::step]
        events = _annotations(inst, begins, size / inst.info["sfreq"], stretch / rate)
    else:
        data = any_samples(inst, names)
        if cut.start is not None or cut.stop is not None:
            raise SettingsError("start, stop: cut a Raw only; crop the epochs instead")
        epochs = data.reshape(len(data), len(inst), -1)[:, :, ::step]
        stretch = epochs.shape[2]
        data = epochs.reshape(len(data), -1)
        events, columns = _conditions(inst, stretch, rate)
    lost = None if np.isfinite(data.sum()) else ~np.isfinite(data)
    if lost is not None:
        data[lost] = 0.0
    recording = Recording(
        data, rate, tuple(names), ("",) * len(names), "eeg", events=events, columns=columns
    )
    used = np.ones(recording.n_times, dtype=bool)
    if cut.reject_by_annotation:
        for event in recording.events:
            if event.description.lower().startswith("bad"):
                used[slice(*event_span(event, recording))] = False
    if lost is not None:
        refuse_broken(names, np.any(lost[:, used], axis=1))
    if cut.reject or cut.flat:
        size = stretch if kind == "epochs" else max(1, round(cut.tstep * rate))
        used = _within_limits(data, used, inst.get_channel_types(list(names)), size, cut)
    return Part(recording, used, stretch)


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


def _limits(n_times: int, cut: Cut, sfreq: float) -> tuple[int, int]:
    """The numbers of the first sample and of the one after the last; floats are seconds."""
    for name, value in (("start", cut.start), ("stop", cut.stop)):
        if value is not None and not isinstance(value, int | float | np.integer):
            raise SettingsError(f"{name}={value!r}: must be a sample, or seconds as a float")
    first, last = (
        default if value is None else round(value * sfreq) if isinstance(value, float) else value
        for value, default in ((cut.start, 0), (cut.stop, n_times))
    )
    if not 0 <= first < last <= n_times:
        raise SettingsError(
            f"start={cut.start}, stop={cut.stop}: must lie in this order within the recording's "
            f"{n_times} samples ({n_times / sfreq:.6g} s); floats are seconds"
        )
    return int(first), int(last)


def _stretches(
    first: int, last: int, step: int, n_channels: int, rate: float
) -> tuple[list[int], int]:
    """Where the stretches to fit on begin, and their length, in samples of the file.

    All in one; of a recording that is too long to hold, some from its beginning to its end.
    """
    most = MOST_VALUES // n_channels
    if last - first <= most * step:
        return [first], last - first
    size = min(round(STRETCH_SECONDS * rate), most) * step
    number = max(1, most * step // size)
    return np.linspace(first, last - size, number).astype(int).tolist(), size


def _annotations(
    raw: Any, begins: Sequence[int], seconds: float, kept: float
) -> tuple[Event, ...]:
    """What is annotated within stretches of so many seconds, at the times they are kept at."""
    marks = raw.annotations
    events = []
    for k, begin in enumerate(begins):
        since = marks.onset - (raw.first_time + begin / raw.info["sfreq"])
        for onset, duration, description in zip(
            since, marks.duration, marks.description, strict=True
        ):
            from_, until = float(onset), float(onset + duration)
            if len(begins) > 1:  # what lasts longer goes on in the next stretch, or is not seen
                if until < 0 or from_ >= seconds:
                    continue
                from_, until = max(from_, 0.0), min(until, seconds)
            events.append(Event(k * kept + from_, until - from_, str(description)))
    return tuple(events)


def _conditions(
    epochs: Any, stretch: int, rate: float
) -> tuple[tuple[Event, ...], dict[str, Any]]:
    """Each epoch as an event called by its condition, and its metadata for every sample."""
    names = {code: name for name, code in epochs.event_id.items()}
    seconds = stretch / rate
    events = tuple(
        Event(k * seconds, seconds, names.get(code, str(code)))
        for k, code in enumerate(epochs.events[:, 2].tolist())
    )
    table = epochs.metadata
    if table is None:
        return events, {}
    return events, {str(c): np.repeat(table[c].to_numpy(), stretch) for c in table.columns}


def _within_limits(
    data: Array, used: NDArray[np.bool_], types: Sequence[str], size: int, cut: Cut
) -> NDArray[np.bool_]:
    """Leave out pieces of `size` used samples that swing too much or too little."""
    kinds, inside = np.array(types), used.copy()
    for name, limits in (("reject", cut.reject or {}), ("flat", cut.flat or {})):
        if not (isinstance(limits, dict) and all(isinstance(v, Real) for v in limits.values())):
            raise SettingsError(
                f"{name}={limits!r}: must give volts or teslas by type, as in {{'eeg': 150e-6}}"
            )
        odd = sorted(set(limits) - set(types))
        if odd:
            raise SettingsError(
                f"{name}={limits}: no picked channel is of type {', '.join(odd)}; there are "
                f"{', '.join(sorted(set(types)))}"
            )
    where = np.flatnonzero(used)
    for piece in np.split(where, range(size, len(where), size)):
        swing = np.ptp(data[:, piece], axis=1)
        if any(swing[kinds == kind].max() > most for kind, most in (cut.reject or {}).items()) or (
            any(swing[kinds == kind].min() < least for kind, least in (cut.flat or {}).items())
        ):
            inside[piece] = False
    return inside


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
