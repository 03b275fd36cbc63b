"""Which model, and how many components: by likelihood held out inside every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
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
    if prior not in PRIORS:
        raise SettingsError(f"prior={prior!r}: allowed are {', '.join(PRIORS)}")
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


def choose_n_components(
    x: Array, u: Auxiliary, rng: np.random.Generator, *, standardise: bool = True
) -> tuple[int, dict[str, float]]:
    """Choose the number of components by held-out ELBO.

    What is left of x counts as an isotropic Gaussian within its rank, so that the ELBO
    of any number is a likelihood of the same data.

    Returns
    -------
    n_components : int
        The number with the best held-out ELBO.
    scores : dict of str to float
        The ELBO of every number tried, nats a sample.
    """
    if not u.used.all():
        x, u = x[:, u.used], u.take(u.used)
    rank = numerical_rank(x)
    x, u = x[:, excerpt(u)], u.take(excerpt(u))
    held = block_folds(u.labels, u.n_labels, N_FOLDS) == 0
    train = u.take(~held)
    numbers = np.unique(np.geomspace(1, rank, MOST_NUMBERS).round().astype(int))
    scores = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for k in map(int, numbers):
            model = LinearModel(k, starts=("segments",), standardise_channels=standardise)
            model.fit(x[:, ~held], train, rng)
            scores[str(k)] = float(model.log_density(x[:, held], u.take(held)).mean())
    best = max(scores, key=scores.__getitem__)
    return int(best), scores
