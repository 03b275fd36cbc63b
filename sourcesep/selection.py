"""Which model, and how many components: by likelihood held out inside every label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import is_one_of, is_whole
from sourcesep.exceptions import InputError, MissingDependencyError, SettingsError
from sourcesep.forecast import check_restarts_and_taps
from sourcesep.gains import FITTED_NOISE, FOLDS
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.heldout import EXCERPT, block_folds, excerpt
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.missing import fill, impute
from sourcesep.ivae.model import Array, Model, Settings
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.spectral import WINDOW
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.ivae.whitening import numerical_rank
from sourcesep.rivalry import MARGIN, Selection, idle, the_better
from sourcesep.verdict import judge

__all__ = ["FAMILIES", "MIXINGS", "PRIORS", "Selection", "check_mixing", "check_seed"]
__all__ += ["choose_n_components", "families_of", "select", "unheeded"]

FAMILIES: dict[str, type[Model]] = {
    model.family: model
    for model in (
        LinearModel,
        PostNonlinearModel,
        UnderdeterminedModel,
        ConvolutiveModel,
        FactorModel,
        CouplingModel,
        AmortisedModel,
    )
}
"""The model families by the name they go by in ``mixing=``."""
MIXINGS = ("auto", *FAMILIES)
AUTO = (
    LinearModel.family,
    PostNonlinearModel.family,
    CouplingModel.family,
    AmortisedModel.family,
)
"""Families that ``auto`` chooses among where nothing is known of the data. Each is tried where
the components of the one before still depend on each other in the way that it mends;
elsewhere a richer map that fits a little better would separate worse."""
PRIORS = {"auto": SHAPES, "gaussian": (2.0,)}
"""Values of ``prior=`` and the exponents that p(z|u) may then take."""
UNASKED: dict[str, tuple[Any, ...]] = {
    "kernel_size": (None, 1),
    "post_kernel_size": (1,),
    "condition_decoder": (False,),
    "n_restarts": (None,),
    "source_prior": (None,),
}
"""Settings that change the model, with their values if nobody has asked for them."""

MOST_NUMBERS = 12
"""Numbers of components that are tried when none is given."""
PATIENCE = 3
"""Numbers one after another that are worse than one before: more factors would be, too."""
FEWER = 8_000
"""Samples on which a number is chosen where values are missing: each has a pattern of its own."""
SIGN = 3.0
"""Standard errors of `power` for which a family that falls back is tried. In development 7 of 70
saturated mixtures had 3.6 to 8.7, more than 3 also 4 of 40 of talkers that were not."""
FEWEST_SAMPLES = 8
"""A quarter of a recording must still say something of its variances."""
SAMPLES_PER_COMPONENT = 2
"""Fewer, and halves of the data do not even span the components."""


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
        One of `MIXINGS`; or what ``auto`` may choose among in place of `AUTO`.
    settings : Settings
        What every family is configured with.

    Raises
    ------
    SettingsError
        If a setting is unknown, or cannot be for this x.
    """
    families = families_of(mixing)
    check(fill(x), u, settings.n_components)

    def fitted(name: str, before: Selection | None = None) -> Selection:
        family, asked, scores = FAMILIES[name], settings, {}
        sizes = family.heeded() & {"n_restarts", "kernel_size"}
        check_restarts_and_taps(len(x), **{size: getattr(asked, size) for size in sizes})
        if asked.n_components is None and "noise" in family.mends:
            number, scores["n_components"] = choose_n_components(
                x, u, rng, standardise=asked.standardise, families=(name,)
            )
            asked = replace(asked, n_components=number)
        if FITTED_NOISE in family.mends and mixing != name:
            asked = replace(asked, kernel_size=1)  # in the place of a map without memory
        given = x if family.accepts_missing else impute(x)
        model = family.configured(asked)
        if before is not None:
            model.following(before.model)
        model.fit(given, u, rng)
        if before is not None and (said := idle(before.model, model)) is not None:
            return replace(before, reason=f"{before.reason}; {name} {said}")
        verdict = judge(model, given, u, asked.sfreq, rng)
        if max(verdict.dependence.power, verdict.dependence.energy) > 1:
            steadier = model.steadier(given, u, rng)
            if steadier is not None:
                model, verdict = steadier, judge(steadier, given, u, asked.sfreq, rng)
        reason = f"{name} mixing, {model.choice}"
        return Selection(model, verdict, reason, scores | {name: model.scores})

    candidates = (mixing,) if isinstance(mixing, str) and mixing != "auto" else families
    crowded = [name for name in candidates if FAMILIES[name].may_exceed_rank]
    if crowded and _exceeds_rank(settings.n_components, x, u):
        return fitted(crowded[0])  # there is no linear fit of so many sources to give instead
    noisy = [name for name in candidates if "noise" in FAMILIES[name].mends]
    if noisy and np.isnan(x).any():
        chosen = fitted(noisy[0])
        return replace(chosen, reason=f"{chosen.reason}: it needs no value that is missing")
    linear = fitted(LinearModel.family)
    if isinstance(mixing, str) and mixing not in ("auto", LinearModel.family):
        asked = fitted(mixing)
        if (
            asked.verdict.label != "not identifiable"
            or linear.verdict.label == asked.verdict.label
        ):
            return asked
        reason = (
            f"mixing={mixing} was asked for, but nothing in the data tells its components apart: "
            f"the linear solution is given instead; {linear.reason}"
        )
        return replace(linear, reason=reason, scores=linear.scores | asked.scores)
    best = linear
    for name in families:
        if not _calls_for(FAMILIES[name], best, x):
            continue
        lack = _lack(FAMILIES[name], best.model.n_components, u.used.sum() / settings.sfreq)
        if lack is not None:
            best = replace(best, reason=f"{best.reason}; {name} is not tried: {lack}")
        else:
            best = _better(best, fitted, name, x, u, rng, settings.sfreq)
    return best


def families_of(mixing: Any) -> tuple[str, ...]:
    """Return the families to try in turn if the linear one does not fit; refuse what is none."""
    if isinstance(mixing, str):
        check_mixing(mixing)
        mixing = AUTO if mixing == "auto" else ()
    elif not isinstance(mixing, list | tuple) or not all(is_one_of(m, FAMILIES) for m in mixing):
        raise SettingsError(f"mixing={mixing!r}: to choose among are {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in mixing and name != LinearModel.family)


def unheeded(settings: Settings, families: Iterable[type[Model]]) -> dict[str, Any]:
    """Return the settings that were asked for and make no difference to these families."""
    heeded = set[str]().union(*(family.heeded() for family in families))
    asked = {name: getattr(settings, name) for name in UNASKED}
    return {k: v for k, v in asked.items() if v not in UNASKED[k] and k not in heeded}


def _exceeds_rank(n_components: int | None, x: Array, u: Auxiliary) -> bool:
    if n_components is None:
        return False
    return n_components > numerical_rank(u.in_use(x)[0])


def _calls_for(family: type[Model], found: Selection, x: Array) -> bool:
    """Whether what a fit leaves behind is what the family mends."""
    if "noise" in family.mends:
        return found.model.n_components < numerical_rank(x)
    if FITTED_NOISE in family.mends:
        return found.verdict.is_noisy
    if family.representation == "stft" and not found.model.is_linear:
        return False  # curves have no place on the STFT, and directions need no filters
    if family.may_exceed_rank:
        return True  # components that share a source may pass every check; it looks for itself
    if found.model.n_components == 1:
        return False
    # energy calls for none: a nonlinear map would take apart what only grows and shrinks together
    verdict = found.verdict
    delay, bent = verdict.dependence.delay, verdict.dependence.bent
    kind = "delay" if delay > max(bent, 1) else "power"
    is_sign = verdict.misfit.power > max(SIGN, verdict.misfit.energy)
    called = max(delay, bent) > 1 or (family.falls_back and is_sign)
    return called and kind in family.mends


def _lack(family: type[Model], k: int, seconds: float) -> str | None:
    """What a record is too short for, where a fit would take minutes to find nothing.

    Each source's filters have k - 1 numbers a frequency, and each window tells one of them.
    """
    least = (k - 1) * WINDOW
    if family.representation == "time" or family.may_exceed_rank or seconds >= least:
        return None
    return (
        f"filters of {k} sources take {least:.2g} s of sound or more, and there are {seconds:.2g}"
    )


def _better(
    simple: Selection,
    fitted: Callable[[str, Selection], Selection],
    name: str,
    x: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    sfreq: float,
) -> Selection:
    """Return the fit of family `name` if it is better than the simple one, else that."""
    try:
        rich = fitted(name, simple)
    except (InputError, SettingsError, MissingDependencyError) as error:
        return replace(simple, reason=f"{simple.reason}; {name} is not tried: {error}")
    if rich.model is simple.model:
        return rich
    return the_better(simple, rich, x, u, rng, sfreq)


def check_mixing(mixing: Any, allowed: Sequence[str] = MIXINGS) -> None:
    """Refuse what is none of the allowed mixings (SettingsError)."""
    if not is_one_of(mixing, allowed):
        raise SettingsError(f"mixing={mixing!r}: allowed are {', '.join(allowed)}")


def check_seed(seed: Any) -> None:
    """Refuse what cannot seed a generator (SettingsError)."""
    if not (is_whole(seed) and seed >= 0):
        raise SettingsError(f"random_state={seed!r}: must be a whole number, 0 or more")


def check(x: Array, u: Auxiliary, n_components: int | None = None) -> None:
    """Refuse what no model can be fitted to, going by the numbers of samples and labels.

    Raises
    ------
    InputError
        If there are too few samples.
    SettingsError
        If `n_components` is no whole number above 0, or u has too few labels.
    """
    if n_components is not None and not (is_whole(n_components) and n_components >= 1):
        raise SettingsError(
            f"n_components={n_components!r}: must be a whole number, 1 or more, or None"
        )
    n_times = int(u.used.sum())
    if n_times < FEWEST_SAMPLES:
        raise InputError(
            f"n_times={n_times}: too few samples to find sources in, at least {FEWEST_SAMPLES} "
            f"are needed; {'axes are (channels, times)' if len(x) > n_times else 'record longer'}"
        )
    most = n_times // SAMPLES_PER_COMPONENT
    if min(n_components or len(x), len(x)) > most:
        rank = n_components or numerical_rank(x[:, u.used])
        if rank > most:
            raise InputError(
                f"n_times={n_times}: too few samples for {rank} components, at least "
                f"{SAMPLES_PER_COMPONENT * rank} are needed; ask for fewer components, or give "
                "a longer recording"
            )
    auxiliary.check(u, n_components)


def choose_n_components(
    x: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    *,
    standardise: bool = True,
    families: Sequence[str] = (LinearModel.family,),
) -> tuple[int, dict[str, float]]:
    """Choose the number of components by held-out ELBO.

    What the linear family leaves of x counts as an isotropic Gaussian within its rank, and
    what the factor family leaves is noise, so that the ELBO of any number is a likelihood
    of the same data. Fewer win unless they are beaten by `MARGIN` and by two standard
    errors: numbers that describe x equally well differ in nothing but chance.

    Parameters
    ----------
    x, u, rng
        As for `select`.
    standardise : bool
        Whether channels of different units count alike.
    families : sequence of str
        Of these the likeliest counts, for every number; of x with missing values only
        those that accept them.

    Returns
    -------
    n_components : int
        The smallest number that the best one does not beat.
    scores : dict of str to float
        The ELBO of every number tried, nats a sample.

    Raises
    ------
    InputError, SettingsError
        If x is constant, or too short for even one component (see `check`).
    """
    check(fill(x), u, n_components=1)
    x, u = u.in_use(x)
    missing = bool(np.isnan(x).any())
    keep = excerpt(u, most=FEWER if missing else EXCERPT)
    x, u = x[:, keep], u.take(keep)
    held = block_folds(u.labels, u.n_labels, FOLDS) == 0
    train, seen = u.take(~held), x[:, ~held]
    rank = numerical_rank(fill(seen))
    if rank == 0:
        raise InputError("every channel is constant (silent): there is nothing to separate")
    configured = Settings(shapes=SHAPES, standardise=standardise)
    values: dict[int, Array] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for name in families:
            family = FAMILIES[name]
            if missing and not family.accepts_missing:
                continue
            noisy, best, behind = "noise" in family.mends, -np.inf, 0
            for k in _numbers(min(rank - noisy, u.n_times // SAMPLES_PER_COMPONENT)):
                model = family.configured(replace(configured, n_components=k))
                density = model.fit(seen, train, rng).log_density(x[:, held], u.take(held))
                if k not in values or density.mean() > values[k].mean():
                    values[k] = density
                behind = behind + 1 if density.mean() < best else 0
                best = max(best, float(density.mean()))
                if noisy and behind == PATIENCE:
                    break
    if not values:
        raise InputError(
            f"{rank} column that varies: a number of factors is chosen where there are two or more"
        )
    likeliest = max(values.values(), key=np.mean)
    chosen = min(k for k, value in values.items() if not _beats(likeliest, value))
    return chosen, {str(k): float(values[k].mean()) for k in sorted(values)}


def _numbers(most: int) -> list[int]:
    """Numbers of components to try, up to the largest."""
    if most > MOST_NUMBERS:
        return [*map(int, np.unique(np.geomspace(1, most, MOST_NUMBERS).round().astype(int)))]
    return list(range(1, most + 1))


def _beats(one: Array, other: Array) -> bool:
    """Whether one log density, nats for each sample, is higher than another beyond chance."""
    gain = one - other
    return bool(gain.mean() > max(MARGIN, 2 * gain.std() / np.sqrt(len(gain))))
