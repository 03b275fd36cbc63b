"""Priors of either kind, a row a label or a network of u, in other forms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import LabelPrior, label_sums, spread
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.vae.prior_network import NetworkPrior

__all__ = [
    "Prior",
    "encoded_prior",
    "gaussian_prior",
    "label_table",
    "overall",
    "pooled",
    "prior_from",
    "prior_tensors",
    "table_for",
]

Prior = LabelPrior | NetworkPrior


def gaussian_prior(mean: Array, variance: Array) -> LabelPrior:
    """Gaussians of these moments, each (n_labels, n_components)."""
    shape = np.full(mean.shape[1], 2.0)
    return LabelPrior(mean, np.sqrt(variance) / spread(shape), shape)


def pooled(mean: Array, variance: Array, counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean and variance of all labels together, of so many samples each, (n_components,)."""
    share = counts / counts.sum()
    centre = share @ mean
    return centre, share @ (variance + (mean - centre) ** 2)


def overall(prior: LabelPrior) -> tuple[Array, Array]:
    """Mean and variance where the label is not known, all of them counting alike."""
    return pooled(prior.mean, prior.variance, np.ones(prior.n_labels, np.int64))


def encoded_prior(z: Array, scale: Array, u: Auxiliary, *, with_mean: bool) -> LabelPrior:
    """Fit Gaussians to posteriors of this mean and scale, each (n_components, n_times)."""
    first = LabelPrior.fit(z, u.labels, u.n_labels, with_mean=with_mean, shapes=GAUSSIAN)
    counts = np.bincount(u.labels, minlength=u.n_labels)
    sums = label_sums(scale**2, u.labels, u.n_labels)
    return gaussian_prior(first.mean, first.variance + sums / np.maximum(counts, 1)[:, None])


def label_table(prior: Prior) -> LabelPrior:
    """The prior of every label as a whole."""
    return prior.table if isinstance(prior, NetworkPrior) else prior


def table_for(prior: Prior, u: Auxiliary) -> tuple[LabelPrior, NDArray[np.int64]]:
    """The prior as a table, and the row of every sample of u in it.

    A sample that u leaves out gets the moments of all labels together.
    """
    table, rows = prior.at(u) if isinstance(prior, NetworkPrior) else (prior, u.labels)
    if (rows >= 0).all():
        return table, rows
    mean, variance = overall(table)
    scale = np.sqrt(variance) / spread(table.shape)
    longer = LabelPrior(
        np.vstack([table.mean, mean]), np.vstack([table.scale, scale]), table.shape
    )
    return longer, np.where(rows < 0, table.n_labels, rows)


def prior_tensors(prior: Prior) -> dict[str, NDArray[Any]]:
    """Everything needed to rebuild a prior."""
    table = label_table(prior)
    tensors: dict[str, NDArray[Any]] = {**table.tensors()}
    if isinstance(prior, NetworkPrior):
        tensors |= {"centre": prior.centre, "width": prior.width}
        tensors |= {f"weights{i}": value for i, value in enumerate(prior.weights)}
    return tensors


def prior_from(tensors: dict[str, NDArray[Any]]) -> Prior:
    """Rebuild a prior from its tensors."""
    table = LabelPrior(tensors["mean"], tensors["scale"], tensors["shape"])
    if "centre" not in tensors:
        return table
    weights = tuple(tensors[f"weights{i}"] for i in range(6))
    return NetworkPrior(weights, tensors["centre"], tensors["width"], table)
