"""Which model: by likelihood held out inside every label, and by the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import is_one_of, one_of
from sourcesep.exceptions import InputError, MissingDependencyError, SettingsError
from sourcesep.forecast import check_restarts_and_taps
from sourcesep.gains import FITTED_NOISE
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.heldout import EXCERPT
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.missing import fill, impute
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.settings import GAUSSIAN, Settings
from sourcesep.ivae.stft.cells import WINDOW
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.ivae.whitening import numerical_rank
from sourcesep.modulation import labels_wanted
from sourcesep.n_components import check_samples, choose_n_components
from sourcesep.recording import Kind
from sourcesep.rivalry import Selection, idle, the_better
from sourcesep.verdict import Verdict, judge

__all__ = ["FAMILIES", "MIXINGS", "PRIORS", "Selection", "accepts_missing", "families_of"]
__all__ += ["mixing_of", "select", "unheeded"]

PRIORS = {"auto": SHAPES, "gaussian": GAUSSIAN}
"""Values of ``prior=`` and the exponents that p(z|u) may then take."""
UNASKED: dict[str, tuple[Any, ...]] = {
    "kernel_size": (None, 1),
    "post_kernel_size": (1,),
    "condition_decoder": (False,),
    "n_restarts": (None,),
    "source_prior": (None,),
}
"""Settings that change the model, with their values if nobody has asked for them."""

TAPS = 8
"""Of the filters in front of curves that ``auto`` tries: as many as benchmarks/post_nonlinear.py
mixes with. A room has thousands."""
MOST_SAMPLES = EXCERPT
"""Beyond which such a fit takes minutes."""
CLEAR = 3.0
"""Times its bound that a bend has to be where there is no curve, or a delay behind one, for such
a fit. In development six mixtures by eight taps and tanh had 5.5 or more, rooms 2.3 at most."""
SIGN = 3.0
"""Standard errors of `power` for which a family that falls back is tried. In development 7 of 70
saturated mixtures had 3.6 to 8.7, more than 3 also 4 of 40 of talkers that were not."""


def select(
    x: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    *,
    mixing: str | Sequence[str] = "auto",
    settings: Settings,
) -> Selection:
    """Fit the family that was asked for, or the one that fits best.

    The linear family is always fitted, but where more sources than the rank of x may be
    asked for, or where values are missing and the factor family may be. Another one takes
    its place if its own verdict is not "not identifiable", and, under ``auto``, if it also
    meets all that `sourcesep.rivalry` asks of it.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Observations; NaN where missing, if the family that is asked for accepts that.
    u : Auxiliary
        Their auxiliary variable.
    rng : numpy.random.Generator
        For every random choice.
    mixing : str or sequence of str
        One of `MIXINGS`, where ``auto`` is that of arrays; or what it may choose among instead.
    settings : Settings
        What every family is configured with.

    Raises
    ------
    SettingsError
        If a setting is unknown, or cannot be for this x.
    """
    families = families_of(mixing)
    check_samples(fill(x), u, settings.n_components)
    search = _Search(x, u, rng, settings)
    named = mixing if isinstance(mixing, str) and mixing != "auto" else None
    alone = search.without_linear(families if named is None else (named,))
    if alone is not None:
        return alone
    linear = search.fitted(Candidate(LinearModel))
    if named is None or named == LinearModel.family:
        return search.best_of(families, linear)
    return search.as_asked(named, linear)


@dataclass(frozen=True)
class Candidate:
    """A family, and where ``auto`` may try it in the place of a simpler fit.

    Parameters
    ----------
    family : type of Model
        What is fitted.
    kinds : tuple of str
        Kinds of recording in which it may.
    kernel_size : int, optional
        Taps that it is configured with, whatever was asked for.
    """

    family: type[Model]
    kinds: tuple[Kind, ...] = ()
    kernel_size: int | None = None

    @property
    def name(self) -> str:
        """What it is called in reasons and scores."""
        return self.family.family + (f" of {self.kernel_size} taps" if self.has_filters else "")

    @property
    def has_filters(self) -> bool:
        """Whether it mends delays as well as what its family does."""
        return (self.kernel_size or 1) > 1

    def is_called_for(self, found: Selection, x: Array) -> bool:
        """Whether what a fit leaves behind is what this one mends."""
        family, model = self.family, found.model
        if "noise" in family.mends:
            return model.n_components < numerical_rank(x)
        if FITTED_NOISE in family.mends:
            return found.verdict.is_noisy
        if family.representation == "stft" and not model.is_linear:
            return False  # curves have no place on the STFT, and directions need no filters
        if family.may_exceed_rank:
            return True  # components that share a source may pass every check; it looks for itself
        if model.n_components == 1:
            return False
        return self._mends_both(found) if self.has_filters else self._mends(found.verdict)

    def _mends(self, verdict: Verdict) -> bool:
        """Whether components depend on each other, and most in the way that the family mends.

        Energy calls for none: a nonlinear map would take apart what only grows and shrinks
        together.
        """
        delay, bent = verdict.dependence.delay, verdict.dependence.bent
        kind = "delay" if delay > max(bent, 1) else "power"
        is_sign = verdict.misfit.power > max(SIGN, verdict.misfit.energy)
        called = max(delay, bent) > 1 or (self.family.falls_back and is_sign)
        return called and kind in self.family.mends

    def _mends_both(self, found: Selection) -> bool:
        """Whether a delay and a bend show, of which the fit so far has mended one at most."""
        if found.model.may_exceed_rank:
            return False
        of_bounds = zip(found.verdict.misfit[:2], found.verdict.bounds.misfit[:2], strict=True)
        delay, power = (value / bound for value, bound in of_bounds)
        if found.model.representation == "stft":
            return power > CLEAR  # a delay has called for filters there
        return delay > 1 and power > CLEAR if found.model.is_linear else delay > CLEAR

    def lack(self, k: int, u: Auxiliary, sfreq: float) -> str | None:
        """Why it is not worth its minutes on a record of this length and u, if it is not.

        On the STFT each source's filters have k - 1 numbers a frequency, and each window tells one
        of them.
        """
        n_times = int(u.used.sum())
        seconds, least = n_times / sfreq, (k - 1) * WINDOW
        on_cells = self.family.representation == "stft" and not self.family.may_exceed_rank
        if on_cells and seconds < least:
            said = f"filters of {k} sources take {least:.2g} s of sound or more"
            return f"{said}, and there are {seconds:.2g}"
        if self.has_filters and n_times > MOST_SAMPLES:
            return (
                f"it takes minutes for more than {MOST_SAMPLES} samples, and there are {n_times}"
            )
        wanted, n_labels = labels_wanted(k, u), u.n_labels
        if self.family.only_moments and n_labels < wanted:
            return (
                f"u would need {wanted} labels to tell {k} nonlinear components apart, "
                f"and has {n_labels}"
            )
        return None


CANDIDATES = (
    Candidate(LinearModel, ("audio", "eeg", "table", "array")),
    Candidate(PostNonlinearModel, ("audio", "array")),
    Candidate(UnderdeterminedModel, ("audio",)),
    Candidate(ConvolutiveModel, ("audio",)),
    Candidate(PostNonlinearModel, ("audio",), kernel_size=TAPS),
    Candidate(FactorModel, ("table",)),
    Candidate(CouplingModel, ("array",)),
    Candidate(AmortisedModel, ("array",), kernel_size=1),  # in the place of a map without memory
)
"""All that ``auto`` may try, in this order: each where the components of the fit before still
depend on each other in the way that it mends; elsewhere a richer map that fits a little better
would separate worse. Volume conduction is linear. Columns of a table do not saturate, but they
have gaps, and noise of their own. Microphones saturate, and rooms echo."""
FAMILIES: dict[str, type[Model]] = {c.family.family: c.family for c in CANDIDATES}
"""The model families by the name they go by in ``mixing=``."""
MIXINGS = ("auto", *FAMILIES)


def mixing_of(kind: Kind) -> str | tuple[str, ...]:
    """What ``auto`` stands for in a recording of this kind: a family, or those to choose among."""
    names = tuple(dict.fromkeys(c.family.family for c in CANDIDATES if kind in c.kinds))
    return names if len(names) > 1 else names[0]


@dataclass(frozen=True)
class _Search:
    """What every family is fitted to, and the ways to choose among their fits.

    Parameters
    ----------
    x, u, rng, settings
        As for `select`.
    """

    x: Array
    u: Auxiliary
    rng: np.random.Generator
    settings: Settings

    def without_linear(self, names: Sequence[str]) -> Selection | None:
        """Fit the family that can do what no linear fit can, where that is needed."""
        crowded = [name for name in names if FAMILIES[name].may_exceed_rank]
        if crowded and self._exceeds_rank():
            return self.fitted(Candidate(FAMILIES[crowded[0]]))
        noisy = [name for name in names if "noise" in FAMILIES[name].mends]
        if noisy and np.isnan(self.x).any():
            chosen = self.fitted(Candidate(FAMILIES[noisy[0]]))
            return replace(chosen, reason=f"{chosen.reason}: it needs no value that is missing")
        return None

    def as_asked(self, name: str, linear: Selection) -> Selection:
        """Fit the family of this name; give the linear fit if only that is identifiable."""
        asked = self.fitted(Candidate(FAMILIES[name]))
        if (
            asked.verdict.label != "not identifiable"
            or linear.verdict.label == asked.verdict.label
        ):
            return asked
        reason = (
            f"mixing={name} was asked for, but nothing in the data tells its components apart: "
            f"the linear solution is given instead; {linear.reason}"
        )
        return replace(linear, reason=reason, scores=linear.scores | asked.scores)

    def best_of(self, names: Sequence[str], linear: Selection) -> Selection:
        """Try what there is of these families in turn, where the best fit so far calls for it."""
        best = linear
        for candidate in self.candidates(names):
            if candidate.is_called_for(best, self.x):
                best = self.better(candidate, best)
        return best

    def candidates(self, names: Sequence[str]) -> list[Candidate]:
        """Those of these families; with filters only if filters may have mixed the data.

        Where taps were asked for, the family has as many anyway.
        """
        may_filter = self.settings.kernel_size is None and ConvolutiveModel.family in names
        among = [c for c in CANDIDATES if c.family.family in names]
        return [c for c in among if may_filter or not c.has_filters]

    def better(self, candidate: Candidate, kept: Selection) -> Selection:
        """Return the candidate's fit if it is better than the one kept so far, else that."""
        name, sfreq = candidate.name, self.settings.sfreq
        lack = candidate.lack(kept.model.n_components, self.u, sfreq)
        if lack is not None:
            return replace(kept, reason=f"{kept.reason}; {name} is not tried: {lack}")
        try:
            rich = self.fitted(candidate, kept)
        except (InputError, SettingsError, MissingDependencyError) as error:
            return replace(kept, reason=f"{kept.reason}; {name} is not tried: {error}")
        if rich.model is kept.model:
            return rich
        return the_better(kept, rich, self.x, self.u, self.rng, sfreq)

    def fitted(self, candidate: Candidate, before: Selection | None = None) -> Selection:
        """Fit and judge a candidate; return the fit before if it says no more than that."""
        family, name = candidate.family, candidate.name
        asked, scores = self._settings_of(candidate)
        x = self.x if family.accepts_missing else impute(self.x)
        model = family.configured(asked)
        if before is not None:
            model.following(before.model)
        model.fit(x, self.u, self.rng)
        if before is not None and (said := idle(before.model, model)) is not None:
            return replace(before, reason=f"{before.reason}; {name} {said}")
        verdict = judge(model, x, self.u, asked.sfreq, self.rng)
        if max(verdict.dependence.power, verdict.dependence.energy) > 1:
            steadier = model.steadier(x, self.u, self.rng)
            if steadier is not None:
                model, verdict = steadier, judge(steadier, x, self.u, asked.sfreq, self.rng)
        reason = f"{family.family} mixing, {model.choice}"
        scores |= {name: model.scores}
        return Selection(model, verdict, reason, scores, name, before)

    def _settings_of(self, candidate: Candidate) -> tuple[Settings, dict[str, dict[str, float]]]:
        """What a candidate is configured with, and the scores by which that was chosen."""
        family, asked = candidate.family, self.settings
        sizes = family.heeded() & {"n_restarts", "kernel_size"}
        check_restarts_and_taps(len(self.x), **{size: getattr(asked, size) for size in sizes})
        scores = {}
        if asked.n_components is None and "noise" in family.mends:
            number, scores["n_components"] = choose_n_components(
                self.x,
                self.u,
                self.rng,
                standardise=asked.standardise,
                families=(family,),
            )
            asked = replace(asked, n_components=number)
        if candidate.kernel_size is not None:
            asked = replace(asked, kernel_size=candidate.kernel_size)
        return asked, scores

    def _exceeds_rank(self) -> bool:
        """Whether more components are asked for than any matrix can unmix."""
        asked = self.settings.n_components
        return asked is not None and asked > numerical_rank(self.u.in_use(self.x)[0])


def families_of(mixing: Any) -> tuple[str, ...]:
    """Return the families to try in turn if the linear one does not fit; refuse what is none."""
    if isinstance(mixing, str):
        one_of(MIXINGS, mixing=mixing)
        mixing = mixing_of("array") if mixing == "auto" else ()
    elif not isinstance(mixing, list | tuple) or not all(is_one_of(m, FAMILIES) for m in mixing):
        raise SettingsError(f"mixing={mixing!r}: to choose among are {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in mixing and name != LinearModel.family)


def accepts_missing(mixing: Any) -> bool:
    """Whether one of the families that are named does without values that are missing."""
    names = (mixing,) if isinstance(mixing, str) else mixing
    return any(name in FAMILIES and FAMILIES[name].accepts_missing for name in names)


def unheeded(settings: Settings, mixing: str | Sequence[str]) -> list[str]:
    """Say which settings were asked for and make no difference to the families to be fitted."""
    others = families_of(mixing)
    families = (mixing,) if isinstance(mixing, str) and mixing != "auto" else ("linear", *others)
    heeded = set[str]().union(*(FAMILIES[family].heeded() for family in families))
    return [
        f"{name}={getattr(settings, name)}: makes no difference to mixing={' or '.join(families)}"
        for name, usual in UNASKED.items()
        if name not in heeded and getattr(settings, name) not in usual
    ]
