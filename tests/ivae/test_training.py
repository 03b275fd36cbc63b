import itertools
import math
import re
import time

import numpy as np
import pytest
import torch

from sourcesep.exceptions import SettingsError
from sourcesep.ivae.devices import require_torch, resolve_device
from sourcesep.ivae.training import Schedule, train


class Bowl:
    """Restarts that slide down 0.5 |p|^2; `spoil` may do to a step's result what it likes."""

    def __init__(self, n_restarts=3, n_parameters=2, spoil=None, pause=0.0):
        start = torch.arange(1, n_restarts * n_parameters + 1, dtype=torch.float64)
        self.parameters = start.reshape(n_restarts, n_parameters).clone()
        self.moment = torch.zeros(n_restarts, 1, dtype=torch.float64)
        self.tracked = (self.moment,)
        self.spoil = spoil or (lambda step, loss, gradient: None)
        self.pause = pause
        self.count = itertools.count()

    def step(self):
        time.sleep(self.pause)
        loss, gradient = self.parameters.square().sum(1) / 2, self.parameters.clone()
        self.moment.copy_(loss[:, None])
        self.spoil(next(self.count), loss, gradient)
        return loss, gradient

    def held_out(self):
        return -self.parameters.square().sum(1), torch.zeros(len(self.parameters))


def loss(bowl):
    return bowl.parameters.square().sum(1)


def test_reaches_the_minimum_and_records_the_way():
    bowl = Bowl()
    history = train(bowl, Schedule(300, learning_rate=0.1))
    assert loss(bowl).max() < 1e-3
    assert history.n_steps == 300
    assert history.elbo.shape == (11, 3)
    assert (np.diff(history.elbo, axis=0) > -0.1).all()
    np.testing.assert_array_equal(history.recoveries, 0)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: torch.device("meta"), "torch's default device='meta'"),
        (lambda: torch.autocast("cpu", dtype=torch.bfloat16), "torch.autocast"),
    ],
)
def test_a_torch_that_computes_otherwise_is_refused(block, message):
    require_torch()
    with block(), pytest.raises(SettingsError, match=re.escape(message)):
        require_torch()
    require_torch()


def test_is_given_up_where_the_target_is_out_of_reach():
    """Of an ELBO that cannot be above 0; and not a bit changes where it is within reach."""
    schedule = Schedule(300, learning_rate=0.1)
    bowls = [Bowl() for _ in range(3)]
    targets = (-math.inf, -0.1, 1.0)
    free, met, lost = (train(b, schedule, target=t) for b, t in zip(bowls, targets, strict=True))
    assert (free.n_steps, met.n_steps) == (300, 300)
    assert torch.equal(bowls[0].parameters, bowls[1].parameters)
    assert lost.n_steps < 300
    assert -loss(bowls[2]).min() == lost.elbo.max()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient", "parameters"])
def test_a_number_that_is_not_finite_hurts_no_restart(what, value):
    bowl, untouched = Bowl(), Bowl()

    def spoil(step, loss, gradient):
        if step == 150:
            if what == "parameters":
                bowl.parameters[1, 0] = value
                bowl.moment[1] = value
            {"loss": loss, "gradient": gradient[:, 0], "parameters": loss}[what][1] = value

    bowl.spoil = spoil
    history = train(bowl, Schedule(300, learning_rate=0.1))
    train(untouched, Schedule(300, learning_rate=0.1))
    np.testing.assert_array_equal(history.recoveries, [0, 1, 0])
    assert torch.isfinite(bowl.moment).all()
    assert loss(bowl)[1] < 1e-2
    others = [0, 2]
    assert torch.equal(bowl.parameters[others], untouched.parameters[others])


def test_an_explosion_is_taken_back():
    bowl = Bowl()

    def spoil(step, loss, gradient):
        if step == 200:
            bowl.parameters[2] = 1e6
            loss[2] = 1e12

    bowl.spoil = spoil
    history = train(bowl, Schedule(300, learning_rate=0.1))
    np.testing.assert_array_equal(history.recoveries, [0, 0, 1])
    assert loss(bowl).max() < 1e-2


def test_keeps_the_best_state_of_each_restart():
    bowl = Bowl()

    def climb(step, loss, gradient):
        if step >= 100:
            gradient[1].neg_()

    bowl.spoil = climb
    history = train(bowl, Schedule(200, learning_rate=0.05, n_checks=20))
    best = history.elbo.max(axis=0)
    assert best[1] > history.elbo[-1, 1] + 0.1
    np.testing.assert_allclose(-loss(bowl), best, rtol=1e-12)


def test_a_fit_that_only_gets_worse_stays_at_its_start():
    bowl = Bowl(spoil=lambda step, loss, gradient: gradient.neg_())
    start = bowl.parameters.clone()
    train(bowl, Schedule(50))
    assert torch.equal(bowl.parameters, start)


def test_gradients_are_clipped_for_each_restart_alone():
    wild, calm = Bowl(), Bowl()
    wild.spoil = lambda step, loss, gradient: gradient[0].mul_(1e6)
    train(wild, Schedule(20))
    train(calm, Schedule(20))
    assert torch.equal(wild.parameters[1:], calm.parameters[1:])


def test_stops_in_time_with_the_whole_schedule_and_can_be_repeated():
    bowl = Bowl(pause=0.01)
    begun = time.monotonic()
    history = train(bowl, Schedule(100_000, learning_rate=0.1, seconds=0.5))
    assert time.monotonic() - begun < 2
    assert 5 < history.n_steps < 60
    assert loss(bowl).max() < loss(Bowl()).max()
    again = Bowl()
    train(again, Schedule(history.n_steps, learning_rate=0.1))
    assert torch.equal(again.parameters, bowl.parameters)


def test_a_budget_that_is_not_needed_changes_nothing():
    free, bounded = Bowl(), Bowl()
    train(free, Schedule(30))
    history = train(bounded, Schedule(30, seconds=100.0))
    assert history.n_steps == 30
    assert torch.equal(free.parameters, bounded.parameters)


def test_progress_bar_is_shown_only_on_request(capsys):
    train(Bowl(), Schedule(30))
    assert capsys.readouterr() == ("", "")
    train(Bowl(), Schedule(30), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "step" in shown.err


def test_rate_warms_up_and_cools_down():
    schedule = Schedule(10, learning_rate=0.5, warm_up=0.2, final=0.01)
    assert schedule.rate(0.1) == pytest.approx(0.25)
    assert schedule.rate(0.2) == pytest.approx(0.5)
    assert schedule.rate(1.0) == pytest.approx(0.005)
    rates = [schedule.rate(t) for t in np.linspace(0.2, 1, 20)]
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, "n_steps=0 must be at least 1; raise it"),
        (
            {"n_steps": 1, "learning_rate": 0.0},
            "learning_rate=0.0 must be above 0; 0.02 is a good start",
        ),
        (
            {"n_steps": 1, "learning_rate": math.nan},
            "learning_rate=nan must be above 0; 0.02 is a good start",
        ),
        (
            {"n_steps": 1, "seconds": 0.0},
            "seconds=0.0 must be above 0; use None for no time budget",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingsError) as error:
        Schedule(**settings)
    assert str(error.value) == message


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(SettingsError) as error:
        resolve_device("tpu")
    assert str(error.value) == "device='tpu' must be auto, cpu, cuda or mps"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message of a machine without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(SettingsError) as error:
        resolve_device("cuda")
    assert str(error.value) == "device='cuda' is not available here; use 'cpu' or 'auto'"
