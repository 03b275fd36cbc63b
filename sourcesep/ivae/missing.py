"""Entries of x that are missing."""

from __future__ import annotations

import numpy as np

from sourcesep.exceptions import InputError
from sourcesep.ivae.model import Array

__all__ = ["check_infinite", "check_values", "fill", "impute"]

N_ROUNDS = 20
RIDGE = 1e-9
"""Added to the variances of channels from which others are filled in, as a share of them."""


def fill(x: Array) -> Array:
    """Fill entries that are NaN with their channel's mean: for what needs no more than that."""
    lost = np.isnan(x)
    if not lost.any():
        return x
    mean = np.where(lost, 0.0, x).sum(axis=1) / np.maximum((~lost).sum(axis=1), 1)
    return np.where(lost, mean[:, None], x)


def impute(x: Array) -> Array:
    """Fill entries that are NaN with what a Gaussian over the channels expects of them.

    Mean and covariance of the channels and the missing entries are found in turns (EM;
    Little & Rubin 2002, section 11.2), each pattern of missing channels at once.
    """
    there = np.isfinite(x)
    if there.all():
        return x
    patterns, index = np.unique(there, axis=1, return_inverse=True)
    index = index.ravel()
    mean = np.where(there, x, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    filled = np.where(there, x, mean[:, None])
    unsure = np.zeros((len(x), len(x)))
    for _ in range(N_ROUNDS):
        mean = filled.mean(axis=1)
        covariance = np.cov(filled, bias=True).reshape(len(x), len(x)) + unsure
        unsure = np.zeros_like(covariance)
        for k in np.flatnonzero(~patterns.all(axis=0)):
            chosen = index == k
            known, lost = np.flatnonzero(patterns[:, k]), np.flatnonzero(~patterns[:, k])
            inside = covariance[np.ix_(known, known)]
            inside = inside + RIDGE * np.diag(np.diag(inside))
            slope = np.linalg.solve(inside, covariance[np.ix_(known, lost)]).T
            centred = x[np.ix_(known, chosen)] - mean[known, None]
            filled[np.ix_(lost, chosen)] = mean[lost, None] + slope @ centred
            left = covariance[np.ix_(lost, lost)] - slope @ covariance[np.ix_(known, lost)]
            unsure[np.ix_(lost, lost)] += left * chosen.mean()
    return filled


def check_infinite(x: Array) -> None:
    """Refuse what is neither a number nor NaN (InputError)."""
    if np.isinf(x).any():
        raise InputError(
            f"x holds {np.count_nonzero(np.isinf(x))} infinite values; make them NaN, which "
            "counts as missing, or remove them"
        )


def check_values(x: Array) -> None:
    """Refuse what is neither a number nor NaN, and channels without a value (InputError)."""
    check_infinite(x)
    empty = np.flatnonzero(np.isnan(x).all(axis=1))
    if empty.size:
        raise InputError(f"channel {empty[0]} has no value at all; leave it out")
