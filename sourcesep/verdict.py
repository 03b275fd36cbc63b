"""How far to trust a separation: richness, agreement and misfit.

A loss curve proves nothing, and neither does a held-out likelihood: both can be good on
data from which the sources cannot be told. Three checks can tell, none of which needs
the truth:

* **richness**: does something tell every two components apart (variances that change
  with u, spectra, or distributions that are not Gaussian) beyond what sampling makes of
  nothing?
* **agreement**: do fits on random halves of the data find the same components?
* **misfit**: do the components, whitened and freed of their envelopes, still say something
  of each other: at some delay (a room, any filter), of each other's squares and cubes
  (saturation), of how large the other is (any bend), or of each other within single labels
  (more sources than components)? Then the model is the wrong one for this mixture, however
  rich and reproducible it looks.

Nor does a channel count as separated that has nothing in common with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.evidence import (
    agreement,
    agreement_of_means,
    channels_alone,
    replica_agreement,
)
from sourcesep.ivae.heldout import after_splices, excerpt
from sourcesep.ivae.matrices.coherence import MOST_COHERENT, coherence_in_bands
from sourcesep.ivae.matrices.sound import SOUND, is_sound
from sourcesep.ivae.missing import fill
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.order import is_series
from sourcesep.ivae.ranges import medians_where_wild
from sourcesep.judged import Judged, fits_to_halves, richness_of, samples_to_judge
from sourcesep.misfit import N_TAPS, Misfit, correlation_within_labels, misfit
from sourcesep.modulation import own_modulation
from sourcesep.noise_check import HIDDEN, SENTENCE, share_hidden_by_noise
from sourcesep.wording import (
    ONE_COMPONENT,
    TOO_BRIEF,
    UNSTEADY_FILTERS,
    doubts,
    in_one_sentence,
    misfits,
    not_calibrated,
    not_mixed,
    nothing_tells_apart,
    passed,
    too_few,
    too_short,
)

__all__ = ["LABELS", "MISFITS", "Bounds", "Label", "Verdict", "judge", "most_misfit"]

Label = Literal["trusted", "doubtful", "not identifiable"]
LABELS: tuple[Label, ...] = get_args(Label)
"""From the best verdict to the worst."""

RICH = 3.0
"""Least evidence, in standard errors, that tells a component from every other."""
AGREES = 0.95
"""Least correlation between the components of two fits on halves of the data."""
BY_CHANCE = 4.0
"""Standard errors that the largest dependence comes to where there is none. Of 215 matrices that
were right, on 650 to 3200 simulated rows, 3 exceeded the bound that follows from it."""
TOLERATED = 0.02
"""Standard deviation of correlations that are no fault of the model: recorded sources are never
quite independent. In standard errors they grow with the number of samples, as what a bend leaves
does."""
MISFITS = 9.0
"""Standard errors, the largest bound there is: that of 10 200 samples and more."""
CORRELATION = 0.05
"""Largest within labels. Of restarts' consensus it was, on simulations, .04 at most where fits
were right, mostly .07 or more where components had a source in common."""
LEFT_WITH_MEMORY = 1 / 3
"""Share of the channels' dependence at a delay that a map of windows may leave: sound outlives
them all."""
FEWEST = 600
"""Samples: on fewer misfit sees too little of a bend; below 256 it is not looked for. With a bound
somewhat higher than today's it saw tanh(2 x) in 27 of 29 matrices on this many, in 34 of 40 on 500
and in 34 of 46 on 300."""
SHORTEST_SOUND = 0.5
"""Seconds: of 140 rooms of up to .2 s 39 were trusted before, of 36 of .4 s 3, of 36 of .8 s 0."""


def most_misfit(n_samples: int) -> float:
    """Largest dependence between components of a right fit to so many samples."""
    return min(MISFITS, BY_CHANCE * float(np.hypot(1, TOLERATED * np.sqrt(n_samples))))


class Bounds(NamedTuple):
    """Least richness and agreement, and largest misfit, of what is trusted."""

    richness: float = RICH
    agreement: float = AGREES
    misfit: Misfit = Misfit(MISFITS, MISFITS, MISFITS, np.inf, np.inf)


USUAL = Bounds()
"""Those of maps without memory, on many samples."""


class Found(NamedTuple):
    """What was measured of a fit, and what is wanted of it.

    Parameters
    ----------
    richness, agreement : ndarray of shape (n_components,)
        As `Verdict` has them.
    misfit : Misfit
        What components still say of each other.
    bounds : Bounds
        What is wanted of all three.
    compared : str
        What agreement was measured between, in the plural.
    """

    richness: Array
    agreement: Array
    misfit: Misfit
    bounds: Bounds
    compared: str


@dataclass(frozen=True)
class Verdict:
    """What may be believed of a separation, and why.

    Parameters
    ----------
    label : {"trusted", "doubtful", "not identifiable"}
        The verdict.
    sentence : str
        The same in plain words.
    richness : tuple of float
        For each component, the evidence in standard errors that tells it from the
        component most like it.
    agreement : tuple of float
        For each component, its mean correlation between fits on random halves.
    misfit : Misfit
        What components still say of each other.
    bounds : Bounds
        What was wanted of them.
    noise : float, optional
        Share of the worst component's variance that noise in the sensors would hide, where
        that was asked: see `sourcesep.noise_check`.
    """

    label: Label
    sentence: str
    richness: tuple[float, ...]
    agreement: tuple[float, ...]
    misfit: Misfit
    bounds: Bounds = USUAL
    noise: float | None = None

    @property
    def dependence(self) -> Misfit:
        """What components still say of each other, in units of what right fits may."""
        most = min(MISFITS, *self.bounds.misfit[:3])
        return self.misfit.in_units_of(Misfit(most, most, most, CORRELATION, MOST_COHERENT))

    @property
    def is_noisy(self) -> bool:
        """Whether noise that the data leave room for hides much of a component."""
        return self.noise is not None and self.noise > HIDDEN

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, rounded to what the evidence is good for."""
        return {
            "verdict": self.label,
            "sentence": self.sentence,
            "evidence": {
                "richness": [_round(v) for v in self.richness],
                "agreement": [_round(v) for v in self.agreement],
                "misfit": {k: _round(v) for k, v in self.misfit._asdict().items()},
            }
            | ({} if self.noise is None else {"noise": _round(self.noise)}),
            "bounds": {
                "richness": _round(self.bounds.richness),
                "agreement": _round(self.bounds.agreement),
                "misfit": {k: _round(v) for k, v in self.bounds.misfit._asdict().items()},
            },
        }

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Self:
        """Rebuild what `as_dict` gave."""
        evidence, wanted = facts["evidence"], facts["bounds"]
        # what an older version did not measure is no misfit, and has no bound
        measured = Misfit(0.0, 0.0)._asdict() | evidence["misfit"]
        rich, agree, wrong, least, most = (
            np.array(values, np.float64).tolist()  # a null becomes NaN
            for values in (
                evidence["richness"],
                evidence["agreement"],
                [measured[name] for name in Misfit._fields],
                [wanted["richness"], wanted["agreement"]],
                [wanted["misfit"].get(name) for name in Misfit._fields],
            )
        )
        largest = Misfit(*(np.inf if np.isnan(value) else value for value in most))
        bounds = Bounds(least[0], least[1], largest)
        label, sentence = facts["verdict"], facts["sentence"]
        noise = evidence.get("noise")
        return cls(label, sentence, tuple(rich), tuple(agree), Misfit(*wrong), bounds, noise)


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def judge(model: Model, x: Array, u: Auxiliary, sfreq: float, rng: np.random.Generator) -> Verdict:
    """Judge a fitted model on the data of its fit.

    Parameters
    ----------
    model : Model
        Fitted to x given u.
    x : ndarray of shape (n_channels, n_times)
        The data of the fit.
    u : Auxiliary
        The auxiliary variable of the fit.
    sfreq : float
        Samples a second; sets the lags at which misfit is looked for.
    rng : numpy.random.Generator
        Draws the halves.
    """
    at = np.flatnonzero(u.used)
    if len(at) < u.n_times:
        x, u = x[:, at], u.take(at)
    if model.n_components == 1:
        return _nothing_to_check("not identifiable", ONE_COMPONENT, (0.0,), (1.0,))
    n_samples, held = u.n_times, model.held_out(u)
    if held is not None:
        verdict = _judge_restarts(model, x, u, held, sfreq, at)
        return _capped(verdict, model, n_samples, sfreq)
    data = samples_to_judge(model, x, u, sfreq, at, rng)
    fits = fits_to_halves(model, data, rng)
    if not fits:
        nothing = (0.0,) * model.n_components
        label: Label = "not identifiable" if model.caveat else "doubtful"
        return _nothing_to_check(label, model.caveat or TOO_BRIEF, nothing, nothing)
    rich = richness_of(model, data, fits, sfreq, rng)
    agree = agreement(fits)
    wrong, bounds = _misfit(model, data, agree, sfreq), _bounds(model, data, sfreq)
    found = Found(rich, agree, wrong, bounds, "halves of the data")
    alone = not_mixed(channels_alone(data.z, data.filled, agree)) if model.memory == 1 else ()
    unsteady = model.memory > 1 and not model.up_to_filters and model.n_components == data.rank
    verdict = _decide(found, alone, UNSTEADY_FILTERS if unsteady else "")
    return _capped(verdict, model, n_samples, sfreq)


def _nothing_to_check(
    label: Label, sentence: str, rich: tuple[float, ...], agree: tuple[float, ...]
) -> Verdict:
    return Verdict(label, sentence, rich, agree, Misfit(0.0, 0.0))


def _looks_within_labels(model: Model, data: Judged) -> bool:
    return model.is_invertible and not data.has_past


def _looks_within_bands(model: Model, data: Judged, sfreq: float) -> bool:
    return model.is_invertible and model.memory == 1 and is_sound(data.u, sfreq)


def _misfit(model: Model, data: Judged, agree: Array, sfreq: float) -> Misfit:
    """What components still say of each other."""
    wrong = misfit(data.z, sfreq, None if data.is_series else data.u, spliced=data.spliced)
    if _looks_within_bands(model, data, sfreq):
        wrong = wrong._replace(coherence=coherence_in_bands(data.z))
    if not _looks_within_labels(model, data):
        return wrong
    unsure = float(np.clip(1 - agree, 0, 1).mean())
    together = correlation_within_labels(data.z, data.u, unsure, series=False)
    return wrong._replace(correlation=together)


def _bounds(model: Model, data: Judged, sfreq: float) -> Bounds:
    """What is wanted of a map, by what it can do."""
    if model.n_components > data.rank:
        # posterior means of more sources than channels depend on each other by necessity
        return Bounds(misfit=Misfit(*(np.inf,) * len(Misfit._fields)))
    delay = most = most_misfit(data.u.n_times)
    if model.memory > 1 and not model.up_to_filters:
        left = LEFT_WITH_MEMORY * misfit(data.filled, sfreq, spliced=data.spliced).delay
        delay = max(most, left)
    within = CORRELATION if _looks_within_labels(model, data) else np.inf
    in_bands = MOST_COHERENT if _looks_within_bands(model, data, sfreq) else np.inf
    return Bounds(misfit=Misfit(delay, most, most, within, in_bands))


def _capped(verdict: Verdict, model: Model, n_samples: int, sfreq: float) -> Verdict:
    """No better than what the model says of itself, and than samples and family allow.

    So few samples would show no bend, and so short a sound no delay.
    """
    if model.caveat:
        return replace(verdict, label="not identifiable", sentence=model.caveat)
    if model.doubt:
        return replace(verdict, label="doubtful", sentence=model.doubt)
    if verdict.label != "trusted":
        return verdict
    seconds = n_samples / sfreq
    if n_samples < FEWEST and model.is_linear:
        doubt = too_few(n_samples, FEWEST)
    elif sfreq >= SOUND and seconds < SHORTEST_SOUND and model.memory == 1:
        doubt = too_short(seconds, SHORTEST_SOUND)
    elif not model.is_calibrated:
        doubt = not_calibrated(model.family)
    else:
        return verdict
    return replace(verdict, label="doubtful", sentence=doubt)


def _judge_restarts(
    model: Model,
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    sfreq: float,
    at: NDArray[np.int64],
) -> Verdict:
    """Judge a fit of several restarts by samples that it kept aside; nothing is refitted.

    Whether the sensors' noise has been fitted is only asked of components that u tells apart.
    """
    x = medians_where_wild(x)  # as in the fit: a single wild row decides nothing
    keep = excerpt(u, sfreq=sfreq)
    z = model.posterior(x).mean
    replicas = model.replicas(x[:, held])
    of_two = replica_agreement(replicas)
    agree = agreement_of_means(of_two, len(replicas))
    unsure = 0.0 if np.isnan(of_two).any() else float(np.clip(1 - of_two, 0, 1).mean())
    series, z_kept, u_kept = is_series(fill(x), u), z[:, keep], u.take(keep)
    spliced = after_splices(at[keep], N_TAPS)
    wrong = misfit(z_kept, sfreq, None if series else u_kept, unsure, spliced)._replace(
        correlation=correlation_within_labels(z_kept, u_kept, unsure, series=series)
    )
    # what restarts disagree on is error, part of each other component: agreement counts it already
    known = np.sqrt(unsure * u_kept.n_times / (len(z) - 1))
    most = most_misfit(u_kept.n_times)
    with_known = max(most, float(known))
    bounds = Bounds(misfit=Misfit(most, with_known, with_known, CORRELATION, np.inf))
    found = Found(own_modulation(z, u, held), agree, wrong, bounds, "sets of restarts")
    verdict = _decide(found)
    if verdict.label == "not identifiable":
        return verdict
    verdict = replace(verdict, noise=share_hidden_by_noise(model, x, u, held))
    if not verdict.is_noisy:
        return verdict
    return replace(_decide(found, [SENTENCE]), noise=verdict.noise)


def _decide(found: Found, further: Sequence[str] = (), causes: str = "") -> Verdict:
    """From what was measured to the verdict.

    `further` is what other checks have to say, `causes` what may make fits differ.
    """
    rich, agree, wrong, bounds, compared = found
    alike = rich <= bounds.richness
    n_distinct = int((~alike).sum())
    excess = wrong.in_units_of(bounds.misfit)
    label: Label = "doubtful"
    if 2 * n_distinct < len(rich) or n_distinct < 2:
        label, reasons = "not identifiable", [nothing_tells_apart(alike), *misfits(excess)]
    else:
        differ = None if np.isnan(agree).any() else agree < bounds.agreement
        reasons = [*misfits(excess), *doubts(alike, differ, compared, causes), *further]
        if not reasons:
            label, reasons = "trusted", [passed(compared)]
    sentence = in_one_sentence(reasons)
    return Verdict(label, sentence, tuple(rich.tolist()), tuple(agree.tolist()), wrong, bounds)
