"""How many components: by likelihood held out inside every label, if there are samples enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import is_whole
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.gains import FOLDS
from sourcesep.ivae.heldout import EXCERPT, block_folds, excerpt
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.missing import fill
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.whitening import numerical_rank
from sourcesep.rivalry import MARGIN

__all__ = ["check_samples", "choose_n_components"]

MOST_NUMBERS = 12
"""Numbers of components that are tried when none is given."""
PATIENCE = 3
"""Numbers one after another that are worse than one before: more factors would be, too."""
FEWER = 8_000
"""Samples on which a number is chosen where values are missing: each has a pattern of its own."""
FEWEST_SAMPLES = 8
"""A quarter of a recording must still say something of its variances."""
SAMPLES_PER_COMPONENT = 2
"""Fewer, and halves of the data do not even span the components."""


def check_samples(x: Array, u: Auxiliary, n_components: int | None = None) -> None:
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
        todo = "record longer"
        if n_times < u.n_times:
            todo = f"u leaves {u.n_times - n_times} others out"
        elif len(x) > n_times:
            todo = "are samples and channels the wrong way round?"
        raise InputError(
            f"n_times={n_times}: too few samples to find sources in, at least {FEWEST_SAMPLES} "
            f"are needed; {todo}"
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
    families: Sequence[type[Model]] = (LinearModel,),
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
    families : sequence of type of Model
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
        If x is constant, or too short for even one component (see `check_samples`).
    """
    check_samples(fill(x), u, n_components=1)
    x, u = u.in_use(x)
    missing = bool(np.isnan(x).any())
    keep = excerpt(u, most=FEWER if missing else EXCERPT)
    x, u = x[:, keep], u.take(keep)
    held = block_folds(u.labels, u.n_labels, FOLDS) == 0
    rank = numerical_rank(fill(x[:, ~held]))
    if rank == 0:
        raise InputError("every channel is constant (silent): there is nothing to separate")
    values: dict[int, Array] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for family in families:
            if missing and not family.accepts_missing:
                continue
            densities = _densities(family, x, u, held, rng, rank=rank, standardise=standardise)
            for k, density in densities.items():
                if k not in values or density.mean() > values[k].mean():
                    values[k] = density
    if not values:
        raise InputError(
            f"{rank} column that varies: a number of factors is chosen where there are two or more"
        )
    likeliest = max(values.values(), key=np.mean)
    chosen = min(k for k, value in values.items() if not _beats(likeliest, value))
    return chosen, {str(k): float(values[k].mean()) for k in sorted(values)}


def _densities(
    family: type[Model],
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    rank: int,
    standardise: bool,
) -> dict[int, Array]:
    """For each number of components, the log density of every held-out sample, nats."""
    leaves_noise = "noise" in family.mends
    most = min(rank - leaves_noise, u.n_times // SAMPLES_PER_COMPONENT)
    densities: dict[int, Array] = {}
    best, behind = -np.inf, 0
    for k in _numbers(most):
        asked = Settings(n_components=k, shapes=SHAPES, standardise=standardise)
        model = family.configured(asked).fit(x[:, ~held], u.take(~held), rng)
        densities[k] = model.log_density(x[:, held], u.take(held))
        mean = float(densities[k].mean())
        behind = behind + 1 if mean < best else 0
        best = max(best, mean)
        if leaves_noise and behind == PATIENCE:
            break
    return densities


def _numbers(most: int) -> list[int]:
    """Numbers of components to try, up to the largest."""
    if most > MOST_NUMBERS:
        return [*map(int, np.unique(np.geomspace(1, most, MOST_NUMBERS).round().astype(int)))]
    return list(range(1, most + 1))


def _beats(one: Array, other: Array) -> bool:
    """Whether one log density, nats for each sample, is higher than another beyond chance."""
    gain = one - other
    return bool(gain.mean() > max(MARGIN, 2 * gain.std() / np.sqrt(len(gain))))
