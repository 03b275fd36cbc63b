"""One stochastic-gradient loop for every family that needs one.

An objective trains several restarts side by side: row r of its parameters is restart r,
and no number of one restart ever touches another. The loop knows nothing else of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import SettingsError
from sourcesep.ivae.networks import split
from sourcesep.ivae.optimisers import Adam, Soap

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "PILOT",
    "Checkpoint",
    "History",
    "Objective",
    "Resumable",
    "Schedule",
    "train",
]

PILOT = 5
"""Steps that are timed and thrown away, with or without a budget: the minibatches after
them are the same."""
EXPLOSION = 50.0
"""A minibatch this many nats a sample worse than the best state has lost its way."""


class Objective(Protocol):
    """Restarts of one problem, each to be minimised on its own.

    Attributes
    ----------
    parameters : Tensor, shape (n_restarts, n_parameters)
        Changed in place by `train`.
    tracked : tuple of Tensor
        What else belongs to a restart's state (running moments, say); restarts come first.
    """

    parameters: Tensor
    tracked: tuple[Tensor, ...]

    def step(self) -> tuple[Tensor, Tensor]:
        """Draw a minibatch.

        Returns
        -------
        loss : Tensor, shape (n_restarts,)
            Minus the ELBO, nats a sample.
        gradient : Tensor, shape (n_restarts, n_parameters)
            Of each loss; `train` may overwrite it.
        """
        ...

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Both ELBO terms, reconstruction and KL, on samples that `step` never draws.

        Each of shape (n_restarts,), nats a sample.
        """
        ...


class Resumable(Objective, Protocol):
    """An objective whose minibatches depend on nothing but their number."""

    def seek(self, n_steps: int) -> None:
        """Make the next minibatch the one after `n_steps` steps."""
        ...


class Checkpoint(Protocol):
    """Where a training is kept while it runs: named arrays."""

    def read(self) -> dict[str, NDArray[Any]] | None:
        """Return what was written last, or None to begin anew."""
        ...

    def write(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep these in place of any earlier ones."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    n_steps : int
        Minibatches.
    learning_rate : float
        Its peak: reached linearly over the first `warm_up` of the steps, then lowered by
        a cosine to `final` of it.
    betas : tuple of float
        The optimiser's decay rates.
    clip : float
        Largest gradient norm of a restart.
    decay : float
        Weight decay: the share that a step takes off what `shapes` of `train` calls a weight,
        in units of its rate (Loshchilov & Hutter 2019, arXiv:1711.05101).
    n_checks : int
        How often the held-out ELBO is measured, and the best state kept.
    seconds : float or None
        Wall-clock budget. As many steps are done, up to `n_steps`, as by the speed of the
        first few fit into it; asking for `History.n_steps` steps repeats the training to
        the bit.
    """

    n_steps: int
    learning_rate: float = 2e-2
    warm_up: float = 0.1
    final: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 5.0
    decay: float = 0.0
    n_checks: int = 10
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise SettingsError(f"n_steps={self.n_steps} must be at least 1; raise it")
        if not self.learning_rate > 0:
            raise SettingsError(
                f"learning_rate={self.learning_rate} must be above 0; 0.02 is a good start"
            )
        if self.seconds is not None and not self.seconds > 0:
            raise SettingsError(
                f"seconds={self.seconds} must be above 0; use None for no time budget"
            )

    def rate(self, progress: float) -> float:
        """Learning rate at `progress` in 0 .. 1."""
        if progress < self.warm_up:
            return self.learning_rate * progress / self.warm_up
        done = (progress - self.warm_up) / (1 - self.warm_up)
        cosine = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (self.final + (1 - self.final) * cosine)


@dataclass(frozen=True)
class History:
    """What happened in training.

    Attributes
    ----------
    steps : ndarray of int, shape (n_checks,)
        Steps done before each check; the first is 0, the state before training.
    reconstruction, kl : ndarray, shape (n_checks, n_restarts)
        The two ELBO terms on the held-out samples, nats a sample.
    recoveries : ndarray of int, shape (n_restarts,)
        How often each restart diverged and was taken back to its best state.
    """

    steps: NDArray[np.int64]
    reconstruction: NDArray[np.float64]
    kl: NDArray[np.float64]
    recoveries: NDArray[np.int64]

    @property
    def n_steps(self) -> int:
        """Steps done."""
        return int(self.steps[-1])

    @property
    def elbo(self) -> NDArray[np.float64]:
        """reconstruction - kl, shape (n_checks, n_restarts)."""
        return self.reconstruction - self.kl

    def of_first(self) -> dict[str, list[float]]:
        """Both terms of the first restart along the way, nats a sample."""
        return {
            "reconstruction": self.reconstruction[:, 0].tolist(),
            "kl": self.kl[:, 0].tolist(),
        }


class _Restarts:
    """Current and best state of every restart, and what its steps depend on."""

    def __init__(
        self,
        objective: Objective,
        betas: tuple[float, float],
        shapes: dict[str, tuple[int, ...]] | None,
    ) -> None:
        import torch

        self.current = (objective.parameters, *objective.tracked)
        self.best = tuple(t.clone() for t in self.current)
        parameters = objective.parameters
        self.optimiser = Soap(parameters, betas, shapes) if shapes else Adam(parameters, betas)
        views = split(parameters, shapes or {"": parameters.shape[1:]})
        self.decaying = [view for name, view in views.items() if name.startswith("weight")]
        self.slowed = torch.ones_like(parameters[:, :1])
        self.score = torch.full_like(parameters[:, 0], -math.inf)
        self.recoveries = torch.zeros(len(parameters), dtype=torch.int64)
        self.everyone = torch.ones_like(self.score, dtype=torch.bool)

    def keep(self, score: Tensor) -> None:
        """Keep the states that are better than any before."""
        better = score > self.score
        self.score[better] = score[better]
        for best, current in zip(self.best, self.current, strict=True):
            best[better] = current[better]

    def recover(self, lost: Tensor) -> None:
        """Take lost restarts back to their best state, to go on at half the rate."""
        self.restore(lost)
        self.optimiser.forget(lost)
        self.slowed[lost] /= 2
        self.recoveries += lost.cpu()

    def restore(self, which: Tensor) -> None:
        for best, current in zip(self.best, self.current, strict=True):
            current[which] = best[which]

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that the rest of a training depends on, by name."""
        tensors = {
            "slowed": self.slowed,
            "score": self.score,
            "recoveries": self.recoveries,
            **self.optimiser.tensors(),
        }
        for name, parts in (("current", self.current), ("best", self.best)):
            tensors |= {f"{name}.{i}": part for i, part in enumerate(parts)}
        return tensors

    def arrays(self) -> dict[str, NDArray[Any]]:
        """A copy of it all."""
        return {name: t.detach().cpu().numpy().copy() for name, t in self._tensors().items()}

    def take_up(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Become what `arrays` once returned."""
        import torch

        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name]))

    def descend(
        self, loss: Tensor, gradient: Tensor, schedule: Schedule, rate: float, n: int
    ) -> None:
        """Make the n-th step; restarts that have lost their way go back instead."""
        import torch

        norm = torch.linalg.vector_norm(gradient, dim=1)
        finite = torch.isfinite(norm) & torch.isfinite(loss)
        lost = ~(finite & (loss < EXPLOSION - self.score))
        if lost.any():
            self.recover(lost)
            gradient[lost] = 0
            norm = norm.masked_fill(lost, 1.0)
        gradient.mul_((schedule.clip / norm).clamp(max=1.0)[:, None])
        for weights in self.decaying:
            weights.mul_(1 - schedule.decay * rate)
        direction, size = self.optimiser.direction(gradient, n), self.optimiser.size(rate, n)
        self.current[0].addcmul_(direction, self.slowed, value=-size)


class _Course:
    """How far a training has come: steps in all, those before each check, both terms there."""

    def __init__(
        self, n_steps: int, steps: Sequence[int] = (), terms: Iterable[NDArray[Any]] = ()
    ) -> None:
        self.n_steps = n_steps
        self.steps = list(steps)
        self.terms = list(terms)

    @classmethod
    def begun(cls, objective: Objective, schedule: Schedule, restarts: _Restarts) -> Self:
        """Time a few steps, which are thrown away, and plan as many as the budget allows."""
        import torch

        course, begun = cls(schedule.n_steps), time.monotonic()
        for i in range(PILOT):
            _, gradient = objective.step()
            restarts.optimiser.direction(torch.ones_like(gradient), i + 1)
        restarts.restore(restarts.everyone)
        restarts.optimiser.forget(restarts.everyone)
        step_seconds = (time.monotonic() - begun) / PILOT
        course.check(objective, restarts, 0)
        if schedule.seconds is not None:
            check_seconds = time.monotonic() - begun - PILOT * step_seconds
            left = schedule.seconds - PILOT * step_seconds
            left -= (schedule.n_checks + 1) * check_seconds
            course.n_steps = min(course.n_steps, max(1, int(left / step_seconds)))
        return course

    @classmethod
    def taken_up(
        cls, saved: dict[str, NDArray[Any]], objective: Objective, restarts: _Restarts
    ) -> Self:
        """Go on from what a checkpoint has kept: `arrays`, and those of the restarts."""
        restarts.take_up(saved)
        course = cls(int(saved["n_steps"][0]), saved["steps"].tolist(), saved["terms"])
        cast("Resumable", objective).seek(course.steps[-1])
        return course

    def check(self, objective: Objective, restarts: _Restarts, n_done: int) -> None:
        """Measure the held-out ELBO, and keep the states that are better than any before."""
        reconstruction, kl = objective.held_out()
        restarts.keep(reconstruction - kl)
        self.steps.append(n_done)
        self.terms.append(np.stack([t.double().cpu().numpy() for t in (reconstruction, kl)]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `taken_up` goes on from."""
        return {
            "steps": np.array(self.steps),
            "terms": np.array(self.terms),
            "n_steps": np.array([self.n_steps]),
        }

    def is_out_of_reach(self, target: float, n_checks: int) -> bool:
        """Whether the best restart, at twice its last progress, would still end below it."""
        scores = [float((reconstruction - kl).max()) for reconstruction, kl in self.terms]
        n_left, progress = n_checks + 1 - len(scores), max(0.0, scores[-1] - scores[-2])
        return len(scores) > 2 and target - scores[-1] > 2 * n_left * progress


def train(
    objective: Objective,
    schedule: Schedule,
    *,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
    target: float = -math.inf,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> History:
    """Minimise every restart of `objective`, and leave each in its best held-out state.

    A restart whose loss or gradient stops being finite, or whose loss explodes, goes back
    to its best state and on from there at half the learning rate; the others don't notice.

    Parameters
    ----------
    objective : Objective
        Its parameters are changed in place.
    schedule : Schedule
        Steps and rates.
    progress : bool
        Whether to show a progress bar on stderr.
    checkpoint : Checkpoint, optional
        Written at every check. If one can be read the training goes on from there, to the
        same end; the objective must then be `Resumable`.
    target : float
        Held-out ELBO below which nothing is gained: training ends where twice the progress
        between the last two checks, all the way, would not lead there.
    shapes : dict of str to tuple of int, optional
        Stacks of matrices that a restart's parameters are, in order: the optimiser is `Soap`
        then, and `Adam` otherwise. Those named "weight..." decay.

    Returns
    -------
    History
    """
    from tqdm import tqdm

    restarts = _Restarts(objective, schedule.betas, shapes)
    saved = None if checkpoint is None else checkpoint.read()
    if saved is None:
        course = _Course.begun(objective, schedule, restarts)
    else:
        course = _Course.taken_up(saved, objective, restarts)
    n_steps, before = course.n_steps, course.steps[-1]
    checks = {round(n_steps * (i + 1) / schedule.n_checks) for i in range(schedule.n_checks)}
    bar = tqdm(
        range(before + 1, n_steps + 1),
        disable=not progress,
        unit="step",
        leave=False,
        initial=before,
        total=n_steps,
    )
    for n_done in bar:
        loss, gradient = objective.step()
        restarts.descend(loss, gradient, schedule, schedule.rate(n_done / n_steps), n_done)
        if n_done in checks:
            course.check(objective, restarts, n_done)
            if checkpoint is not None and n_done < n_steps:
                checkpoint.write(restarts.arrays() | course.arrays())
            if course.is_out_of_reach(target, schedule.n_checks):
                break
    restarts.restore(restarts.everyone)
    reconstruction, kl = (np.stack(term) for term in zip(*course.terms, strict=True))
    return History(np.array(course.steps), reconstruction, kl, restarts.recoveries.numpy())
