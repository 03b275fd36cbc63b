"""When the fit of a richer family takes the place of a simpler one's: what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sourcesep.auxiliary import Auxiliary
from sourcesep.gains import FITTED_NOISE, heldout_gain
from sourcesep.ivae.heldout import BAND, after_splices, excerpt, slowed
from sourcesep.ivae.model import Array, Model
from sourcesep.misfit import N_TAPS, RIDGE, misfit
from sourcesep.verdict import LABELS, MISFITS, Verdict

__all__ = ["MARGIN", "REQUIREMENTS", "Rivalry", "Selection", "idle", "the_better"]

MARGIN = 0.02
"""Least gain in held-out log-likelihood, nats a sample, for which `auto` leaves the simpler
family, or a smaller number of components; and 2 standard errors."""
MOST_FOR_NOISE = 0.04
"""Nats a sample and component that noise may cost on what a map has made of it: somewhat more
than `ivae.vae.candidates.COST`, for other samples."""
LEFT = 0.75
"""Share of the dependence below which curves that pass not every check must come: right ones left
a third or less of it, while curves that were not there left .94 and .95 and cost 46 dB."""

LIMITED = 0.1
"""White noise that is added to a component's power before it is whitened, as a share of it."""
FADES = 0.5
"""Share of `delay` that is left then where noise explains it, or less than right fits may have.
Of 8 rooms at 44.1 kHz .57 to 1.19 was left, 22 or more; of 19 with noise 10 dB below .89 to 1.4,
15 or more; of mixtures by a matrix with noise 25 or 40 dB below 4 to 7 in 4 of 9 at 16 kHz."""


@dataclass(frozen=True)
class Selection:
    """A fitted model, what may be believed of it, and how it came to be chosen.

    Parameters
    ----------
    model : Model
        Fitted to all samples that u does not leave out.
    verdict : Verdict
        On this model.
    reason : str
        In plain words.
    scores : dict of str to dict of str to float
        Held-out log-likelihoods, nats a sample: within each family that was fitted, and
        the ``"gain"`` of each over the one kept before it.
    name : str
        By which `scores` has this fit: its family's, with its taps if `auto` has chosen them.
    before : Selection, optional
        The fit that was kept before this one, if there was one.
    """

    model: Model
    verdict: Verdict
    reason: str
    scores: dict[str, dict[str, float]]
    name: str
    before: Selection | None = None


@dataclass(frozen=True)
class Rivalry:
    """Two fits of the same data, and what the facts of the richer model excuse it from.

    Parameters
    ----------
    simple, rich : Selection
        The fit that was kept so far, and the one that may take its place.
    gain, deviation : float
        Nats a sample by which the rich one explains held-out blocks better, and the standard
        error of that.
    to_exceed : float, optional
        Nats a sample that a fit on the STFT, which is kept so far, gains over the simple one.
    is_of_noise : callable
        Whether noise explains what the rich one's filters mend: see `noise_explains`. It is
        asked last, as only who would win otherwise is worth the look.
    """

    simple: Selection
    rich: Selection
    gain: float
    deviation: float
    to_exceed: float | None = None
    is_of_noise: Callable[[], bool] = lambda: False

    @property
    def leaves_noise_out(self) -> bool:
        """Components are fewer than channels anyway: to call the rest noise needs no gain."""
        return "noise" in self.rich.model.mends

    @property
    def unlearns_noise(self) -> bool:
        """A map without noise had fitted it: noise that is there costs likelihood all the same."""
        return FITTED_NOISE in self.rich.model.mends

    @property
    def has_few_taps(self) -> bool:
        """Filters of the samples: they follow a room as well, a little, and separate it worse."""
        return self.rich.model.representation == "time" and self.rich.model.memory > 1

    @property
    def shares_out(self) -> bool:
        """Whether its components may depend on each other as much as those of the simple one.

        Noise that is left out and echoes longer than the windows make them, however good the fit
        is: in rooms that gained 14 to 24 dB, filters left .7 to 1 of what a matrix did.
        """
        on_cells = self.rich.model.representation == "stft"
        return self.leaves_noise_out or self.unlearns_noise or on_cells

    @property
    def is_trusted(self) -> bool:
        """Whether the richer fit passes every check of its own."""
        return self.rich.verdict.label == "trusted"

    @property
    def least_gain(self) -> float:
        """Nats a sample, held out, that the richer one must gain; below 0 it may lose as many."""
        if self.unlearns_noise:
            return -MOST_FOR_NOISE * self.rich.model.n_components
        # a curve that passes every check needs no margin: filters may pass them all and cost 60 dB
        is_sure = self.is_trusted and self.rich.model.representation == "time"
        beyond_chance = max(0.0 if is_sure else MARGIN, 2 * self.deviation)
        if self.to_exceed is not None:
            return max(self.to_exceed, beyond_chance)
        return -beyond_chance if self.leaves_noise_out else beyond_chance


def is_believed(rivalry: Rivalry) -> str | None:
    """Its components can be told apart, and it is trusted no less than the simple fit.

    The second is asked of noise and of curves only: they are also tried where little speaks
    for them. Short filters have to be trusted.
    """
    found, before = rivalry.rich.verdict.label, rivalry.simple.verdict.label
    if found == "not identifiable" and not rivalry.leaves_noise_out:
        return "nothing tells its components apart"
    is_uncalled = rivalry.leaves_noise_out or rivalry.rich.model.falls_back
    is_worse = is_uncalled and LABELS.index(found) > LABELS.index(before)
    is_vague = rivalry.has_few_taps and not rivalry.is_trusted
    return f"its verdict is {found}" if is_worse or is_vague else None


def is_likelier(rivalry: Rivalry) -> str | None:
    """It explains samples that it has not seen better than the simpler one, beyond chance."""
    return None if rivalry.gain > rivalry.least_gain else "that is not enough"


def is_more_independent(rivalry: Rivalry) -> str | None:
    """Its components say less of each other: what mends nothing fits better all the same."""
    before, left = (fit.verdict.dependence for fit in (rivalry.simple, rivalry.rich))
    if not rivalry.is_trusted:
        is_less = max(left) < LEFT * max(before)
    elif rivalry.has_few_taps:
        is_less = max(left) < max(before)
    else:
        is_less = left.bent < before.bent
    return None if is_less or rivalry.shares_out else "it leaves as much dependence"


def is_beyond_noise(rivalry: Rivalry) -> str | None:
    """Filters mend echoes, and do not only follow the noise that one matrix has left.

    With noise, a matrix for each frequency is likelier than the one that mixed the sources.
    """
    return "noise explains what they mend" if rivalry.is_of_noise() else None


REQUIREMENTS: tuple[Callable[[Rivalry], str | None], ...] = (
    is_believed,
    is_likelier,
    is_more_independent,
    is_beyond_noise,
)
"""What is asked of the richer fit, in this order: each says what is wrong if it is unmet."""


def the_better(
    simple: Selection,
    rich: Selection,
    x: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    sfreq: float,
) -> Selection:
    """Return the richer of two fits if it meets all `REQUIREMENTS`, else the simpler one.

    Likelihoods are compared in one representation. A fit to the samples is therefore compared
    with what was kept before the fit on the STFT whose place it may take, and has to gain more.

    Parameters
    ----------
    simple, rich : Selection
        The fit that was kept so far, and one of a richer family.
    x, u, rng
        The data of the fits, and for every random choice.
    sfreq : float
        Samples a second.
    """
    if simple.model.n_components == 1:
        return rich
    kept, to_exceed = simple, None
    crosses = kept.model.representation == "stft" and rich.model.representation == "time"
    if crosses and kept.before is not None:
        simple, to_exceed = kept.before, kept.scores["gain"][kept.name]
    gain, deviation = heldout_gain(simple.model, rich.model, x, u, rng)
    scores = kept.scores | rich.scores
    scores["gain"] = scores.get("gain", {}) | {rich.name: gain}
    is_of_noise = partial(noise_explains, simple.model, rich.model, x, u, sfreq)
    rivalry = Rivalry(simple, rich, gain, deviation, to_exceed, is_of_noise)
    unmet = (requirement(rivalry) for requirement in REQUIREMENTS)
    flaw = next((reason for reason in unmet if reason is not None), None)
    if flaw is None:
        return replace(rich, reason=f"{rich.reason}: {_compared(rivalry)}", scores=scores)
    over = "" if simple is kept else f" over {simple.name}"
    found = f"{rich.name} gains {gain:.3f} nats a sample{over}, held out"
    flaw = f"{'but' if gain > 0 else 'and'} {flaw}"
    return replace(kept, reason=f"{kept.reason}; {found}, {flaw}", scores=scores)


def idle(simple: Model, rich: Model) -> str | None:
    """Why a fit of a richer family says no more than the simpler one, if it does not."""
    if rich.matrices is not None and not rich.is_linear:
        return "found no curve"
    return None


def noise_explains(linear: Model, rich: Model, x: Array, u: Auxiliary, sfreq: float) -> bool:
    """Whether filters mend what only noise has made of the components of one matrix.

    What no matrix unmixes shows at a delay where components are faint and are whitened: there
    filters are not needed. A room is heard as well where they are loud.
    """
    if rich.representation != "stft" or rich.may_exceed_rank:
        return False
    at = np.flatnonzero(u.used)
    keep = at[excerpt(u.take(u.used), rich.memory)]
    z = linear.posterior(x[:, keep], u.take(keep)).mean
    slow = slowed(z, keep, sfreq)
    spliced = after_splices(slow.places, N_TAPS)
    full, limited = (
        misfit(slow.rows, min(sfreq, BAND), spliced=spliced, ridge=ridge).delay
        for ridge in (RIDGE, LIMITED)
    )
    return limited < max(FADES * full, MISFITS)


def _compared(rivalry: Rivalry) -> str:
    """By how much the richer fit is better, or how much leaving noise out may cost."""
    gain, simple = rivalry.gain, rivalry.simple.model.family
    by_chance = "by chance " if rivalry.leaves_noise_out else ""
    how = "better than" if gain > 0 else f"leaves noise out, and {by_chance}worse than"
    return f"{how} {simple} by {abs(gain):.3f} nats a sample, held out"
