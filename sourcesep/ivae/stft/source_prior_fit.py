"""Training of a source prior: the ELBO of windows, the encoder hearing more than one source.

In separation the encoder is shown what an estimate has become so far: other sources leak
into it, some bands may be swapped altogether. So in training it is mostly shown a window to
which one of another label was added, while the likelihood stays that of the clean window.
The bound then is that of a denoising VAE (Im, Ahn, Memisevic & Bengio 2017, "Denoising
criterion for variational auto-encoding framework").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sourcesep.ivae.stft.source_prior import (
    SILENCE,
    STRIDE,
    Network,
    Views,
    decode,
    destandardised,
    encode,
    kl,
    named,
    standardised,
)
from sourcesep.ivae.training import PILOT

__all__ = ["LENGTH", "Example", "Examples", "PriorObjective"]

LENGTH = 64
"""Frames of a window."""
BATCH = 32
"""Windows of a minibatch."""
MOST_HELD_OUT = 48
"""Windows that are looked at to see how training goes."""
WARM_UP = 350
"""Steps until the KL counts in full, beginning with a seventh."""
JITTER = 0.5
"""Deviation of a window's log gain."""
LEAST_SCALE = 0.1
"""Of a feature's log power."""
NOISY = 0.75
"""Share of windows in which the encoder hears another source too."""
QUIET = 1e-3
"""Share of an example's mean power below which a window says nothing."""
MOST_BANDS = 8
"""Into which a window is cut, each with a level of its own for the other source."""


@dataclass(frozen=True)
class Example:
    """What was heard of one label.

    Parameters
    ----------
    label : int
        Which.
    power : ndarray of float32, shape (n_frames, n_features)
        At least 0.
    """

    label: int
    power: NDArray[np.float32]

    @cached_property
    def mean(self) -> float:
        """Of the power."""
        return float(self.power.mean())


@dataclass(frozen=True)
class Examples:
    """What a prior is trained on, and what is held out: every label in both.

    Parameters
    ----------
    train, held : list of Example
        Those in `train` are `LENGTH` frames or longer.
    """

    train: list[Example]
    held: list[Example]

    def windows(self) -> list[Example]:
        """Held-out windows of equal length, as many of each label as may be."""
        length = min(LENGTH, *(len(e.power) for e in self.held)) // STRIDE * STRIDE
        cut = [
            Example(e.label, _normalised(e.power[begin : begin + length]))
            for e in self.held
            for begin in range(0, len(e.power) - length + 1, length)
            if not _is_quiet(e.power[begin : begin + length], e)
        ]
        keep = np.linspace(0, len(cut) - 1, min(len(cut), MOST_HELD_OUT)).astype(int)
        return [cut[i] for i in keep]


def standards(examples: Sequence[Example]) -> dict[str, NDArray[np.float32]]:
    """Level and spread of every feature: what is no parameter of a network."""
    some = np.concatenate([_normalised(e.power[::7]) for e in examples])
    logarithm = np.log(some + SILENCE)
    values = {
        "offset": np.log(some.mean(axis=0) + SILENCE),
        "centre": logarithm.mean(axis=0),
        "scale": np.maximum(logarithm.std(axis=0), LEAST_SCALE),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


class PriorObjective:
    """Minus the ELBO in nats a cell (a feature of a frame), as `training.train` wants it.

    Every minibatch is drawn by a generator of its own, made of the seed and its number: a
    training that is taken up again draws what it would have drawn.

    Parameters
    ----------
    examples : Examples
        Clean ones.
    network : Network
        Sizes.
    seed : int
        Of every random choice.
    noisy : float
        Share of windows in which the encoder hears another label too.
    device : str
        Where gradients are computed.
    """

    def __init__(
        self,
        examples: Examples,
        network: Network,
        seed: int,
        *,
        noisy: float = NOISY,
        device: str = "cpu",
    ) -> None:
        self.examples, self.network, self.seed, self.noisy = examples, network, seed, noisy
        self.n_drawn = 0
        self.standards = standards(examples.train)
        self._fixed = {k: torch.from_numpy(v).to(device) for k, v in self.standards.items()}
        self.parameters = torch.from_numpy(self._drawn())[None].to(device)
        self.tracked: tuple[Tensor, ...] = ()
        windows = examples.windows()
        self._held = self._batch([w.power for w in windows])
        self._held_labels = self._labels([w.label for w in windows])

    def _drawn(self) -> NDArray[np.float32]:
        """Parameters to begin with; the decoder's are those of a mean spectrum, nearly."""
        rng = np.random.default_rng([self.seed, 0])
        parts = []
        for name, shape in self.network.shapes().items():
            if name.endswith("weight"):
                spread = 0.1 if name == "decoder.out.weight" else 1.0
                spread /= math.sqrt(math.prod(shape[1:]))
                part = spread * rng.uniform(-1, 1, shape)
            else:
                part = rng.normal(0, 0.1, shape) if name == "prior.mean" else np.zeros(shape)
            parts.append(part.ravel())
        return np.concatenate(parts).astype(np.float32)

    def seek(self, n_steps: int) -> None:
        """Go on with the minibatch that follows `n_steps` steps of a training."""
        self.n_drawn = PILOT + n_steps

    def _batch(self, windows: Sequence[NDArray[np.float32]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(windows)).to(self.parameters)
        return stacked.transpose(1, 2)

    def _labels(self, labels: Sequence[int]) -> Tensor:
        return torch.tensor(labels, device=self.parameters.device)

    def step(self) -> tuple[Tensor, Tensor]:
        """Draw windows; return their loss and its gradient."""
        self.n_drawn += 1
        rng = np.random.default_rng([self.seed, self.n_drawn])
        clean, seen, labels = [], [], []
        for _ in range(BATCH):
            label, window = self._window(rng, None)
            other = self._window(rng, label)[1] if rng.random() < self.noisy else None
            clean.append(window)
            seen.append(window if other is None else corrupted(window, other, rng))
            labels.append(label)
        n_latents = self.network.n_latents
        noise = rng.standard_normal((BATCH, n_latents, LENGTH // STRIDE), np.float32)
        parameters = self.parameters.detach().requires_grad_()
        reconstruction, divergence = self._terms(
            named(parameters, self.network) | self._fixed,
            self._batch(clean),
            self._batch(seen),
            self._labels(labels),
            torch.from_numpy(noise).to(parameters),
        )
        steps = max(self.n_drawn - PILOT, 0)
        warm = min(1.0, (steps + 50) / WARM_UP)
        loss = (warm * divergence - reconstruction).mean()
        (gradient,) = torch.autograd.grad(loss, parameters)
        return loss.detach()[None], gradient

    def _window(
        self, rng: np.random.Generator, other: int | None
    ) -> tuple[int, NDArray[np.float32]]:
        """A label and a window of it that is not silent; not of the label `other`."""
        while True:
            example = self.examples.train[rng.integers(len(self.examples.train))]
            begin = rng.integers(len(example.power) - LENGTH + 1)
            window = example.power[begin : begin + LENGTH]
            if example.label != other and not _is_quiet(window, example):
                return example.label, _normalised(window) * np.float32(
                    np.exp(JITTER * rng.standard_normal())
                )

    def _terms(
        self, views: Views, clean: Tensor, seen: Tensor, labels: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both terms of the ELBO for each window, nats a cell, one draw from q."""
        code = encode(views, standardised(views, seen), labels)
        z = code.mean + (code.log_variance / 2).exp() * noise
        log_variance = destandardised(views, decode(views, z, labels))
        n_cells = clean.shape[1] * clean.shape[2]
        fit = log_variance + (clean + SILENCE) * (-log_variance).exp()
        reconstruction = -fit.sum((1, 2)) / n_cells - math.log(math.pi)
        return reconstruction, kl(views, code, labels).sum((1, 2)) / n_cells

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Both terms on held-out windows, as they are, with their own labels."""
        terms = self.terms_given(self._held_labels)
        return terms[0].mean()[None], terms[1].mean()[None]

    def terms_given(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms on each held-out window, if these were its labels; nats a cell."""
        n, _, length = self._held.shape
        rng = np.random.default_rng([self.seed, 0, 1])
        noise = rng.standard_normal((n, self.network.n_latents, length // STRIDE), np.float32)
        with torch.no_grad():
            views = named(self.parameters, self.network) | self._fixed
            given = torch.from_numpy(noise).to(self.parameters)
            return self._terms(views, self._held, self._held, labels, given)

    def evidence(self) -> dict[str, float]:
        """What the labels are worth on held-out windows.

        Returns
        -------
        dict
            ``with_u``: the ELBO, nats a cell, each window given its own label. ``without_u``:
            the mean over all labels, which is a bound where any label is as likely.
            ``labels_found``: the share of windows whose own label has the best ELBO.
        """
        table = []
        for label in range(self.network.n_labels):
            reconstruction, divergence = self.terms_given(
                torch.full_like(self._held_labels, label)
            )
            table.append((reconstruction - divergence).double().cpu().numpy())
        elbo, own = np.array(table), self._held_labels.cpu().numpy()
        return {
            "with_u": float(elbo[own, np.arange(len(own))].mean()),
            "without_u": float(elbo.mean()),
            "labels_found": float((elbo.argmax(axis=0) == own).mean()),
            "n_windows": len(own),
        }

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All tensors of a `SourcePrior`."""
        views = named(self.parameters.detach().cpu(), self.network)
        return {name: view.numpy().copy() for name, view in views.items()} | self.standards


def corrupted(
    own: NDArray[np.float32], other: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Power of a window into which another source leaks, (n_frames, n_features) each.

    The features are cut into a few bands, in each of which the other source has a level of
    its own; in some the window's own sound is turned down, as if the two were swapped there.
    For a quarter of the windows both are about equally loud everywhere: the mixture.
    """
    n_features = own.shape[1]
    n_bands = int(rng.integers(1, MOST_BANDS + 1))
    cuts = np.sort(rng.integers(0, n_features, n_bands - 1))
    band = np.searchsorted(cuts, np.arange(n_features), side="right")
    if rng.random() < 0.25:
        level, turned = rng.uniform(-5, 5, n_bands), np.zeros(n_bands)
    else:
        level = rng.uniform(-35, 5) + rng.uniform(0, 1) * rng.uniform(-20, 20, n_bands)
        turned = np.where(rng.random(n_bands) < 0.25, rng.uniform(-20, 0, n_bands), 0.0)
    gain = 10 ** (level / 10) * own.mean() / (other.mean() + 1e-12)
    leak = other * gain[band].astype(np.float32)
    kept = own * (10 ** (turned / 10))[band].astype(np.float32)
    # two sounds of random phase in one cell
    cosine = np.cos(rng.random(own.shape, np.float32) * np.float32(2 * np.pi))
    total = kept + leak + 2 * np.sqrt(kept * leak) * cosine
    return _normalised(total) * np.float32(np.exp(0.2 * rng.standard_normal()))


def _is_quiet(window: NDArray[np.float32], example: Example) -> bool:
    return bool(window.mean() <= QUIET * example.mean)


def _normalised(power: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = power / (power.mean() + np.float32(1e-20))
    return scaled
