"""Which model, and how many components: by likelihood held out inside every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.heldout import block_folds, excerpt
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.starts import STARTS
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["FAMILIES", "MIXINGS", "PRIORS", "Selection", "choose_n_components", "select"]

FAMILIES: dict[str, type[Model]] = {LinearModel.family: LinearModel}
"""The model families by the name they go by in ``mixing=``."""
MIXINGS = ("auto", *FAMILIES)
PRIORS = {"auto": SHAPES, "gaussian": (2.0,)}
"""Values of ``prior=`` and the exponents that p(z|u) may then take."""

N_FOLDS = 5
MOST_NUMBERS = 12
"""Numbers of components that are tried when none is given."""
MARGIN = 0.02
"""Nats a sample by which a larger model must be better."""
FEWEST_SAMPLES = 8
"""A quarter of a recording must still say something of its variances."""
SAMPLES_PER_COMPONENT = 2
"""Fewer, and halves of the data do not even span the components."""


@dataclass(frozen=True)
class Selection:
    """A fitted model and how it came to be chosen.

    Parameters
    ----------
    model : Model
        Fitted to all samples that u does not leave out.
    reason : str
        In plain words.
    scores : dict of str to float
        Held-out log-likelihood of every candidate, nats a sample.
    """

    model: Model
    reason: str
    scores: dict[str, float]


def select(
    x: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    *,
    mixing: str = "auto",
    n_components: int | None = None,
    prior: str = "auto",
    starts: Sequence[str] = tuple(STARTS),
    standardise: bool = False,
) -> Selection:
    """Fit the family that was asked for, or the one that fits best.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Observations.
    u : Auxiliary
        Their auxiliary variable.
    rng : numpy.random.Generator
        For every random choice.
    mixing : str
        One of `MIXINGS`.
    n_components : int, optional
        The numerical rank of x by default.
    prior : str
        One of `PRIORS`.
    starts : sequence of str
        Which linear starts are tried.
    standardise : bool
        Whether channels of different units count alike.

    Raises
    ------
    SettingsError
        If a setting is unknown, or cannot be for this x.
    """
    if mixing not in MIXINGS:
        raise SettingsError(f"mixing={mixing!r}: allowed are {', '.join(MIXINGS)}")
    if prior not in tuple(PRIORS):
        raise SettingsError(f"prior={prior!r}: allowed are {', '.join(PRIORS)}")
    check(x, u, n_components)
    model = LinearModel(
        n_components,
        starts=tuple(starts),
        shapes=PRIORS[prior],
        standardise_channels=standardise,
    ).fit(x, u, rng)
    tried = {k: v for k, v in model.scores.items() if np.isfinite(v)}
    reason = f"linear mixing, found from {model.start}"
    if len(tried) > 1:
        reason += f": the best held-out likelihood of {len(tried)} starts"
    return Selection(model, reason, tried)


def check(x: Array, u: Auxiliary, n_components: int | None = None) -> None:
    """Refuse what no model can be fitted to, going by the numbers of samples and labels.

    Raises
    ------
    InputError
        If there are too few samples.
    SettingsError
        If `n_components` is no whole number above 0, or u has too few labels.
    """
    whole = isinstance(n_components, int | np.integer) and not isinstance(n_components, bool)
    if n_components is not None and not (whole and n_components >= 1):
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
    x: Array, u: Auxiliary, rng: np.random.Generator, *, standardise: bool = True
) -> tuple[int, dict[str, float]]:
    """Choose the number of components by held-out ELBO.

    What is left of x counts as an isotropic Gaussian within its rank, so that the ELBO
    of any number is a likelihood of the same data. Fewer win unless they are beaten by
    `MARGIN` and by two standard errors: numbers that describe x equally well differ in
    nothing but chance.

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
    check(x, u, n_components=1)
    if not u.used.all():
        x, u = x[:, u.used], u.take(u.used)
    x, u = x[:, excerpt(u)], u.take(excerpt(u))
    held = block_folds(u.labels, u.n_labels, N_FOLDS) == 0
    train = u.take(~held)
    most = min(numerical_rank(x[:, ~held]), u.n_times // SAMPLES_PER_COMPONENT)
    if most == 0:
        raise InputError("every channel is constant (silent): there is nothing to separate")
    numbers = np.unique(np.geomspace(1, most, MOST_NUMBERS).round().astype(int))
    values = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for k in map(int, numbers):
            model = LinearModel(k, starts=("segments",), standardise_channels=standardise)
            model.fit(x[:, ~held], train, rng)
            values[k] = model.log_density(x[:, held], u.take(held))
    best = max(values.values(), key=np.mean)
    chosen = min(k for k, value in values.items() if not _beats(best, value))
    return chosen, {str(k): float(value.mean()) for k, value in values.items()}


def _beats(one: Array, other: Array) -> bool:
    """Whether one log density, nats for each sample, is higher than another beyond chance."""
    gain = one - other
    return bool(gain.mean() > max(MARGIN, 2 * gain.std() / np.sqrt(len(gain))))
