import functools
import math

import numpy as np
import pytest
import torch

from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.flows.fit import PACE
from sourcesep.ivae.optimisers import EVERY, Adam, Soap
from sourcesep.ivae.training import Schedule, train
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import ivae

from ..conftest import labelled

SHAPES = {"a": (2, 5, 4), "b": (1, 3, 6)}
N = sum(math.prod(shape) for shape in SHAPES.values())


class Valley:
    """Restarts in narrow valleys of 0.5 |L W R|^2 that lie across all weights of each matrix W."""

    tracked = ()

    def __init__(self, n_restarts=2, n_held=0):
        generator = torch.Generator().manual_seed(0)

        def steep(n):
            turn = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
            return turn.mT @ (torch.logspace(0, -1.5, n, dtype=torch.float64)[:, None] * turn)

        self.sides = {name: (steep(s[-2]), steep(s[-1])) for name, s in SHAPES.items()}
        self.parameters = torch.randn(n_restarts, N, generator=generator, dtype=torch.float64)
        self.still = torch.arange(N) < n_held

    def step(self):
        loss, gradients = 0, []
        at = 0
        for name, shape in SHAPES.items():
            size, (left, right) = math.prod(shape), self.sides[name]
            w = self.parameters[:, at : at + size].reshape(-1, *shape)
            y = left @ w @ right
            loss = loss + y.square().sum((1, 2, 3)) / 2
            gradients.append((left.mT @ y @ right.mT).flatten(1))
            at += size
        return loss, torch.cat(gradients, 1).masked_fill_(self.still, 0)

    def held_out(self):
        return -self.step()[0], torch.zeros(len(self.parameters))


def test_a_valley_across_the_weights_is_no_hindrance():
    """A fifth of what is left to Adam after as many steps, at most."""
    left = []
    for shapes in (SHAPES, None):
        valley = Valley()
        train(valley, Schedule(800, betas=PACE.betas), shapes=shapes)
        left.append(valley.step()[0])
    assert (left[0] < left[1] / 5).all(), left


def test_what_has_no_gradient_stays_to_the_bit():
    """As rows of ones do, with decay as well."""
    valley = Valley(n_held=7)
    start = valley.parameters.clone()
    train(valley, Schedule(50, decay=0.1), shapes=SHAPES)
    assert torch.equal(valley.parameters[:, :7], start[:, :7])
    assert (valley.parameters[:, 7:] != start[:, 7:]).all()


def test_a_lost_restart_begins_anew_and_hurts_no_other():
    valley, untouched = Valley(3), Valley(3)
    step, count = valley.step, iter(range(10**6))

    def spoiled():
        loss, gradient = step()
        if next(count) == 100:
            gradient[1, 3] = math.nan
        return loss, gradient

    valley.step = spoiled
    history = train(valley, Schedule(200, learning_rate=0.05), shapes=SHAPES)
    train(untouched, Schedule(200, learning_rate=0.05), shapes=SHAPES)
    np.testing.assert_array_equal(history.recoveries, [0, 1, 0])
    assert torch.equal(valley.parameters[[0, 2]], untouched.parameters[[0, 2]])
    assert history.elbo[-1, 1] > history.elbo[0, 1] / 10


@pytest.mark.parametrize("make", [Adam, functools.partial(Soap, shapes=SHAPES)])
def test_later_steps_depend_on_its_tensors_alone(make):
    one, other = (make(torch.zeros(2, N, dtype=torch.float64), (0.9, 0.99)) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for n in range(1, 4 * EVERY):
        gradient = torch.randn(2, N, generator=generator, dtype=torch.float64)
        if n == EVERY + 3:
            for name, tensor in other.tensors().items():
                tensor.copy_(one.tensors()[name])
        steps = one.direction(gradient, n), other.direction(gradient, n) if n > EVERY + 2 else 0
        assert n < EVERY + 3 or torch.equal(*steps)


@pytest.mark.slow
def test_sources_are_found_better_in_as_many_steps(monkeypatch):
    data = ivae(5, 40, 500, random_state=0)

    def score(schedule, optimiser):
        monkeypatch.setattr("sourcesep.ivae.coupling.PACE", schedule)
        monkeypatch.setattr("sourcesep.ivae.training.Soap", optimiser)
        model = CouplingModel(n_restarts=1, n_steps=500, device="cpu")
        model.fit(data.observations.T, labelled(data.u), np.random.default_rng(0))
        return mcc(data.sources, model.posterior(data.observations.T).mean.T)

    plain = score(
        Schedule(1, learning_rate=PACE.learning_rate), lambda p, betas, _: Adam(p, betas)
    )
    assert score(PACE, Soap) > plain + 0.002
