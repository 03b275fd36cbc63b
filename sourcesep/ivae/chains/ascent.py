"""L-BFGS on a chain's likelihood, each parameter in units of its own curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from sourcesep.ivae.chains.chain import Objective, Parameters
from sourcesep.ivae.model import Array

__all__ = ["maximise"]

FEW, FEW_BENDS = 16, 128
"""Arrays of up to this many entries are scaled one by one, larger ones as a whole. The second is
for chains without filters. In development bends as a whole were far from fitted after 60 steps:
arctan and asymmetric curves lost up to 12 dB; beside filters bends one by one lost 4 and 15 dB."""
PROBES = 3
"""Random directions that estimate the mean curvature of a large array."""
PROBE_STEP = 1e-4
LEAST_CURVATURE = 1e-4
RAILS = (-14.0, 5.0)
"""Log distances of the rails: nearer is rounding, farther is a straight line."""
MEMORY = 20
"""Pairs of steps and gradients that L-BFGS remembers."""


def maximise(
    objective: Objective,
    start: Parameters,
    rng: np.random.Generator,
    *,
    max_iter: int,
    tolerance: float = 2e-9,
) -> tuple[Parameters, float]:
    """Climb the likelihood from `start`, until a step gains less than `tolerance` of it.

    The parameters' curvatures differ by factors of thousands. L-BFGS alone does not
    find that out in a few hundred steps; measuring it first costs a few evaluations.

    Returns
    -------
    best : Parameters
        The best found.
    loss : float
        The objective there, nats a sample.
    """
    _keep_freed_memory()
    origin = _pack(start)

    def value(vector: Array) -> tuple[float, Array]:
        loss, gradient = objective(start.with_values(vector))
        return loss, _pack(gradient)

    unit = _units(value, origin, start, rng)

    def scaled(steps: Array) -> tuple[float, Array]:
        loss, gradient = value(origin + unit * steps)
        return loss, unit * gradient

    result = minimize(
        scaled,
        np.zeros_like(origin),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(*(_limits(start) - origin) / unit, strict=True)),
        options={"maxiter": max_iter, "maxcor": MEMORY, "ftol": tolerance},
    )
    return start.with_values(origin + unit * result.x), float(result.fun)


def _pack(parameters: Parameters) -> Array:
    return np.concatenate([a.ravel() for a in parameters.arrays])


def _limits(like: Parameters) -> Array:
    """Least and largest value of every parameter, (2, n): only the rails have any."""
    limits = []
    for sign, nearest in ((-1, RAILS[0]), (1, RAILS[1])):
        bound = like.with_values(np.full(sum(a.size for a in like.arrays), sign * np.inf))
        limits.append(_pack(replace(bound, rails=np.full_like(like.rails, nearest))))
    return np.stack(limits)


def _units(
    value: Callable[[Array], tuple[float, Array]],
    origin: Array,
    like: Parameters,
    rng: np.random.Generator,
) -> Array:
    """One over the root of the curvature at the origin, by differences of the gradient."""
    unit = np.ones_like(origin)
    few = FEW_BENDS if like.outer is None and like.inner.shape[2] == 1 else FEW
    here = value(origin)[1]

    def curvature(which: NDArray[np.intp]) -> float:
        direction = np.zeros_like(origin)
        direction[which] = rng.choice([-1.0, 1.0], len(which))
        step = PROBE_STEP / np.sqrt(len(which))
        ahead = value(origin + step * direction)[1]
        change: float = (ahead - here) @ direction / (step * len(which))
        return change

    end = 0
    for array in like.arrays:
        indices = np.arange(end, end + array.size)
        end += array.size
        groups = [indices[i : i + 1] for i in range(len(indices))]
        if array.size > few:
            groups = [indices] * PROBES
        measured = np.array([curvature(group) for group in groups])
        if array.size > few:
            measured = measured.mean(keepdims=True)
        unit[indices] = 1 / np.sqrt(np.maximum(measured, LEAST_CURVATURE))
    return unit


def _keep_freed_memory() -> None:
    """Let the C library reuse freed blocks of up to this size.

    glibc hands every block above a threshold back to the system, and gets it back page
    by page, which takes half the time of a fit, until a larger block has been freed
    once. Elsewhere this does nothing.
    """
    np.empty(24 << 20, np.uint8)
