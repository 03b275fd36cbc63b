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
from sourcesep.ivae.priors import label_sums, power_sums, spread
from sourcesep.ivae.settings import GAUSSIAN

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
CLEARLY = 1e-3
"""Nats by which a shape has to be likelier than the Gaussian. A map can bend a source of one shape
nearly to the other: of two Gaussian ones it then had shapes of 1.5 and 1.75 (development, seed
70001: an MCC of .991, and .997 with this)."""
OFTEN = 20
"""Steps from one look to the next."""
SMALLEST = 1e-6
"""Distance from the mean that a shape below 1 tells from 0."""


class Likelihood:
    """An `Objective`: minus the ELBO of the flow's latents under p(z|u).

    The prior's means and scales are running moments of the minibatches, never learned
    by gradient: they follow the map at once, where a gradient would trail behind it. So does
    each source's shape, which is Gaussian at first and then the likeliest of those allowed.

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
    shapes : tuple of float
        Exponents of generalised Gaussians that p(z|u) may have, 2 among them.
    settled : int
        Looks at the held-out samples before those at shapes: what is still mixed nonlinearly
        has tails of its own, and a map that goes by these keeps them.
    """

    def __init__(
        self,
        flow: Flow,
        y: Array,
        u: Auxiliary,
        held: NDArray[np.bool_],
        generator: torch.Generator,
        shapes: tuple[float, ...] = GAUSSIAN,
        settled: int = 0,
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
        self._exponents = torch.tensor(shapes).to(like)
        self._n_steps, self._n_checks, self._settled = 0, 0, settled
        # the first flow starts as the identity, and so do the moments; others' soon follow
        first, powers = self._moments_of(y[None, :, order], counts)
        n = flow.n_restarts
        self._first, self._powers = first.repeat(n, 1, 1), powers.repeat(n, 1, 1, 1)
        self._shape = torch.full(
            (n, flow.n_components), shapes.index(*GAUSSIAN), device=like.device
        )
        self.tracked: tuple[Tensor, ...] = (self._first, self._powers, self._shape)

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
        shapes: tuple[float, ...] = GAUSSIAN,
        settled: int = 0,
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
        flow = flow.with_parameters(flow.parameters.to(device))
        return cls(flow, y, u, held, generator, shapes, settled)

    def settle(self, flow: Flow) -> None:
        """Begin with the moments and shapes that the latents of a trained flow have."""
        z, _ = flow.encode(self._samples.T.double().cpu().numpy())
        for moment, found in zip(
            (self._first, self._powers), self._moments_of(z, self._counts.numpy()), strict=True
        ):
            moment.copy_(found)
        self._choose_shapes()

    def _moments_of(self, z: Array, counts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Mean of z, (n, n_components, n_labels), and of its powers; samples are in order."""
        rows = np.repeat(np.arange(len(counts)), counts)
        first = np.stack([label_sums(one, rows, len(counts)).T for one in z]) / counts
        if not self._with_mean:
            first *= 0
        exponents = tuple(self._exponents.tolist())
        powers = np.stack(
            [
                power_sums(one - mean[:, rows], rows, len(counts), exponents).swapaxes(1, 2)
                for one, mean in zip(z, first, strict=True)
            ]
        )
        like = self.flow.parameters
        return torch.tensor(first).to(like), torch.tensor(powers / counts).to(like)

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

    def _raised(self, magnitude: Tensor) -> Tensor:
        """Powers of magnitudes (n_restarts, ...), (n_restarts, n_shapes, ...)."""
        if len(self._exponents) == 1:
            return magnitude.square()[:, None]
        exponents = self._exponents.reshape(-1, *[1] * (magnitude.ndim - 1))
        return (magnitude.log()[:, None] * exponents).exp()

    def _own(self, powers: Tensor) -> Tensor:
        """Of powers (n_restarts, n_shapes, n_components, ...) those of each source's shape."""
        shape = self._shape.reshape(*self._shape.shape, *[1] * (powers.ndim - 3))[:, None]
        return powers.gather(1, shape.expand(-1, -1, *powers.shape[2:]))[:, 0]

    def _floored(self, powers: Tensor) -> Tensor:
        """Mean powers, (n_restarts, n_shapes, n_components, n_labels), none of them too small."""
        least = VARIANCE_FLOOR ** (self._exponents / 2)
        return powers.maximum(least[:, None, None])

    def _constants(self) -> Tensor:
        """Minus the log-density of a scale of 1 at its mean, for every exponent."""
        return (2 / self._exponents).log() + torch.lgamma(1 / self._exponents)

    def _choose_shapes(self) -> None:
        """Give each source the shape that makes its running moments clearly likeliest."""
        p = self._exponents[:, None]
        log_scale = (p[..., None] * self._floored(self._powers)).log() / p[..., None]
        entropy = (log_scale * self._shares).sum(3) + 1 / p + self._constants()[:, None]
        entropy = entropy + CLEARLY * (p != GAUSSIAN[0])
        self._shape.copy_(entropy.argmin(1))

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss of a fresh minibatch, (n_restarts,), and its gradient."""
        labels, y = self._batch()
        z, log_det = self.flow.forward(y, self._tape)
        by_label = z.reshape(*z.shape[:2], len(labels), self._per_label)
        every = slice(None) if self._n_chosen == len(self._counts) else labels
        if self._with_mean:
            self._first[..., every] = self._first[..., every].lerp(by_label.mean(3), 1 - MEMORY)
        centred = by_label - self._first[..., every, None]
        magnitude = centred.abs().clamp_min(SMALLEST)
        powers = self._raised(magnitude)
        self._powers[..., every] = self._powers[..., every].lerp(powers.mean(4), 1 - MEMORY)
        self._n_steps += 1
        if (
            len(self._exponents) > 1
            and self._n_checks > self._settled
            and self._n_steps % OFTEN == 0
        ):
            self._choose_shapes()

        p, moment = self._exponents[self._shape], self._own(self._floored(self._powers))
        moment, own = moment[..., every], self._own(powers)
        share = self._shares[labels]
        share = share / share.sum()
        pull = own * (share / moment / self._per_label)[..., None]
        log_share = (share / self._per_label).repeat_interleave(self._per_label)
        log_scale = (p[..., None] * moment).log() / p[..., None]
        entropy = (log_scale * share).sum((1, 2)) + self._constants()[self._shape].sum(1)
        loss = (pull.sum((2, 3)) / p).sum(1) + entropy - (log_det * log_share).sum(1)
        pull = pull * centred / magnitude.square()
        return loss, self.flow.backward(pull.flatten(2), -log_share[None], self._tape)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL, each (n_restarts,), in the coordinates of the flow's input."""
        self._n_checks += 1
        y = self._held.expand(self.flow.n_restarts, -1, -1)
        z, log_det = self.flow.forward(y)
        labels, p = self._held_labels, self._exponents[self._shape][..., None]
        mean = self._first[..., labels]
        scale = (p * self._own(self._floored(self._powers))[..., labels]) ** (1 / p)
        spreads = torch.tensor(spread(self._exponents.double().cpu().numpy())).to(scale)
        variance = (scale * spreads[self._shape][..., None]).square()
        noise = SIGMA**2
        # z = source + sigma e: the source's posterior has this share of the deviation
        gain = variance / (variance + noise)
        square = (z - mean).square()
        reconstruction = log_det - 0.5 * (
            math.log(2 * math.pi * noise) + gain + (1 - gain).square() * square / noise
        ).sum(1)
        # the posterior is so narrow that p(z|u) is the same all over it
        entropy = 0.5 * (2 * math.pi * math.e * gain * noise).log()
        away = (gain * (z - mean).abs() / scale) ** p
        kl = away + scale.log() + self._constants()[self._shape][..., None] - entropy
        return reconstruction.mean(1), kl.sum(1).mean(1)


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
