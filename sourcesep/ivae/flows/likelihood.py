"""What the `nonlinear` family minimises: minus the log-likelihood of labelled minibatches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError
from sourcesep.ivae.flows.flow import Flow, Tape
from sourcesep.ivae.heldout import block_folds, looked_at
from sourcesep.ivae.invertible import SIGMA
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import label_sums

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Likelihood", "hold_out"]

BATCH = 480
"""Samples of a minibatch and restart, if there are that many labels or fewer."""
FEWEST = 4
"""Samples of a label in a minibatch, at least."""
MEMORY = 0.95
"""Of the running moments, from one minibatch of a label to the next."""
VARIANCE_FLOOR = 1e-4
"""Least variance of a label in training, where a component's overall variance is near 1."""


class Likelihood:
    """An `Objective`: minus the ELBO of the flow's latents under p(z|u).

    The prior's means and variances are running moments of the minibatches, never learned
    by gradient: they follow the map at once, where a gradient would trail behind it.

    Parameters
    ----------
    flow : Flow
        To be trained, in place.
    y : ndarray of shape (n_components, n_times)
        Its input.
    u : Auxiliary
        Every sample has a label.
    held : ndarray of bool, shape (n_times,)
        Samples never trained on.
    generator : torch.Generator
        Draws the minibatches; on the CPU, so that every device sees the same.
    """

    def __init__(
        self,
        flow: Flow,
        y: Array,
        u: Auxiliary,
        held: NDArray[np.bool_],
        generator: torch.Generator,
    ) -> None:
        self.flow = flow
        self.parameters = flow.parameters
        self._generator = generator
        self._with_mean = not u.is_time
        like = flow.parameters

        present, labels = np.unique(u.labels, return_inverse=True)
        order = np.argsort(labels, kind="stable")
        order = order[~held[order]]
        counts = np.bincount(labels[order], minlength=len(present))
        self._samples = torch.tensor(y[:, order].T.copy()).to(like)
        self._counts = torch.tensor(counts)
        self._begins = torch.tensor(np.cumsum(counts) - counts)
        self._shares = (self._counts / len(order)).to(like)
        kept = looked_at(np.flatnonzero(held))
        self._held = torch.tensor(y[:, kept]).to(like)
        self._held_labels = torch.tensor(labels[kept], device=like.device)

        self._per_label = max(FEWEST, BATCH // len(present))
        self._n_chosen = min(len(present), BATCH // FEWEST)
        self._tape = Tape(flow, self._n_chosen * self._per_label, backward=True)
        shape = (flow.n_restarts, flow.n_components, len(present))
        # the first flow starts as the identity, and so do the moments; others' soon follow
        rows = np.repeat(np.arange(len(present)), counts)
        first, second = (
            label_sums(power, rows, len(present)).T / counts
            for power in (y[:, order], y[:, order] ** 2)
        )
        self._first = torch.tensor(first).to(like).expand(shape).clone()
        self._second = torch.tensor(second).to(like).expand(shape).clone()
        self.tracked: tuple[Tensor, ...] = (self._first, self._second)

    @classmethod
    def draw(
        cls,
        y: Array,
        u: Auxiliary,
        held: NDArray[np.bool_],
        *,
        shape: tuple[int, int, int],
        seed: int,
        dtype: torch.dtype,
        device: str,
    ) -> Self:
        """Start at the identity; `shape` is (n_blocks, n_hidden, n_restarts).

        Where u has labels that mean something, all restarts but the first are turned at
        random. There may be few labels, too few for the map to be unique: then restarts
        that share a start would agree on nothing but that. Where it is unique, turned
        ones come out as well.
        """
        generator = torch.Generator().manual_seed(seed)
        flow = Flow.identity(len(y), *shape, generator, dtype)
        if not u.is_time:
            flow.turn(generator)
        return cls(flow.with_parameters(flow.parameters.to(device)), y, u, held, generator)

    def settle(self, flow: Flow) -> None:
        """Begin with the moments that the latents of a trained flow have."""
        z, _ = flow.encode(self._samples.T.double().cpu().numpy())
        begins, counts = self._begins.numpy(), self._counts.numpy()
        for moment, power in ((self._first, z), (self._second, z**2)):
            means = np.add.reduceat(power, begins, axis=2) / counts
            moment.copy_(torch.tensor(means).to(moment))

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Labels (n_chosen,) and as many samples of each, (n_restarts, n_components, n_batch)."""
        n_labels, g = len(self._counts), self._generator
        if self._n_chosen < n_labels:
            labels = torch.randperm(n_labels, generator=g)[: self._n_chosen]
        else:
            labels = torch.arange(n_labels)
        shape = (self.flow.n_restarts, len(labels), self._per_label)
        at = torch.rand(shape, generator=g) * self._counts[labels, None]
        index = (at.long() + self._begins[labels, None]).flatten(1).to(self._samples.device)
        return labels.to(self._samples.device), self._samples[index].mT

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the prior, each (n_restarts, n_components, n_labels)."""
        mean = self._first if self._with_mean else torch.zeros_like(self._first)
        return mean, (self._second - mean * mean).clamp_min(VARIANCE_FLOOR)

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss of a fresh minibatch, (n_restarts,), and its gradient."""
        labels, y = self._batch()
        z, log_det = self.flow.forward(y, self._tape)
        by_label = z.reshape(*z.shape[:2], len(labels), self._per_label)
        if self._n_chosen == len(self._counts):
            self._first.lerp_(by_label.mean(3), 1 - MEMORY)
            self._second.lerp_(by_label.square().mean(3), 1 - MEMORY)
        else:
            for moment, fresh in ((self._first, by_label), (self._second, by_label.square())):
                moment[..., labels] = moment[..., labels].lerp(fresh.mean(3), 1 - MEMORY)
        mean, variance = (m[..., labels] for m in self._moments())
        share = self._shares[labels]
        share = share / share.sum()
        centred = by_label - mean[..., None]
        pull = centred * (share / variance / self._per_label)[..., None]
        log_share = (share / self._per_label).repeat_interleave(self._per_label)
        quadratic = (pull * centred).sum((1, 2, 3))
        entropy = (share * (2 * math.pi * variance).log()).sum((1, 2))
        loss = 0.5 * (quadratic + entropy) - (log_det * log_share).sum(1)
        return loss, self.flow.backward(pull.flatten(2), -log_share[None], self._tape)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL, each (n_restarts,), in the coordinates of the flow's input."""
        y = self._held.expand(self.flow.n_restarts, -1, -1)
        z, log_det = self.flow.forward(y)
        mean, variance = (m[..., self._held_labels] for m in self._moments())
        noise = SIGMA**2
        # z = source + sigma e: the source's posterior has this share of the deviation
        gain = variance / (variance + noise)
        square = (z - mean).square()
        reconstruction = log_det - 0.5 * (
            math.log(2 * math.pi * noise) + gain + (1 - gain).square() * square / noise
        ).sum(1)
        ratio = gain * noise / variance
        kl = 0.5 * (ratio + gain.square() * square / variance - 1 - ratio.log()).sum(1)
        return reconstruction.mean(1), kl.mean(1)


def hold_out(u: Auxiliary) -> NDArray[np.bool_]:
    """A tenth of every label, in blocks; nothing of a label that has too few samples."""
    counts = np.bincount(u.labels, minlength=u.n_labels)
    held: NDArray[np.bool_] = block_folds(u.labels, u.n_labels, 10) == 0
    held &= counts[u.labels] >= 10
    if not held.any():
        raise InputError(
            f"no label has 10 samples (the largest has {counts.max(initial=0)}), too few for "
            "a nonlinear fit; use longer segments, or mixing='linear'"
        )
    return held
