"""Networks side by side: what they see, and that restarts do not touch each other."""

import numpy as np
import pytest
import torch

from sourcesep.ivae.networks import Architecture, Autoencoder, contexts
from sourcesep.ivae.priors import LabelPrior, spread
from sourcesep.ivae.vae.bound import Bound, Observed, Reconstruction, log_prior


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(kernel_size=1, n_restarts=2, n_times=300, **settings):
    """Networks, and a record of 3 channels, 2 sources and 4 labels."""
    rng = np.random.default_rng(0)
    architecture = Architecture(3, 2, 4, kernel_size=kernel_size, **settings)
    net = Autoencoder.draw(architecture, n_restarts, generator())
    labels = np.arange(n_times) * 4 // n_times
    x, start = rng.standard_normal((3, n_times)), rng.standard_normal((2, n_times))
    return net, Observed(x, start, labels, net), np.arange(n_times) % 10 == 0


class TestContexts:
    def test_neighbours_become_rows(self):
        signal = torch.arange(12.0).reshape(2, 1, 6)
        stacked = contexts(signal, 3)
        assert stacked.shape == (6, 4)
        np.testing.assert_array_equal(stacked[:3, 0], [0, 1, 2])
        np.testing.assert_array_equal(stacked[3:, 3], [9, 10, 11])

    def test_windows_do_not_see_each_other(self):
        signal = torch.randn(1, 2, 8, generator=generator())
        both, second = contexts(signal, 3), contexts(signal[:, 1:], 3)
        np.testing.assert_array_equal(both[:, 6:], second)

    @pytest.mark.parametrize("kernel_size", [1, 5])
    def test_a_sample_is_decoded_from_its_neighbours_only(self, kernel_size):
        net, observed, _ = problem(kernel_size)
        begins, length = torch.tensor([40]), 60
        moments = observed.moments(net, begins, length)
        margin = kernel_size // 2
        z = observed.start(begins, length).expand(2, -1, -1, -1)[:, :, None].clone()
        inner = moments[..., margin : margin + length]
        before = observed.errors(net, z, inner, begins, length)
        z[..., 30] += 1
        changed = (observed.errors(net, z, inner, begins, length) != before).any(1).any(0)[0, 0]
        found = np.flatnonzero(changed.numpy())
        np.testing.assert_array_equal(found, np.arange(30 - 2 * margin, 31))


class TestCode:
    def test_draws_have_the_covariance_of_the_code(self):
        net, observed, _ = problem()
        net.views["encoder.weight2"].mul_(20)
        begins = torch.tensor([17])
        code = observed.encode(net, begins, 1, observed.moments(net, begins, 1))
        noise = torch.randn((2, 2, 40_000, 1), generator=generator(1))
        z = code.draw(noise)[0, :, :, 0].double()
        lower = code.lower[0, :, :, 0].double()
        assert lower[0, 1] == 0
        np.testing.assert_allclose(np.cov(z), lower @ lower.T, rtol=0.1, atol=0.01)
        np.testing.assert_allclose(code.scale[0, :, 0], z.std(1), rtol=0.03)
        log_det = torch.linalg.slogdet(lower)[1]
        np.testing.assert_allclose(code.log_det[0, 0], log_det, rtol=1e-5)

    def test_the_prior_is_that_of_numpy(self):
        rng = np.random.default_rng(0)
        z, shape = rng.standard_normal((2, 50)), np.array([2.0, 1.0])
        variance = rng.uniform(0.5, 2, (1, 2))
        prior = LabelPrior(np.zeros((1, 2)), np.sqrt(variance) / spread(shape), shape)
        log_variance = torch.tensor(np.log(variance).T)[None]
        found = log_prior(torch.tensor(z)[None], log_variance, torch.tensor(shape))[0]
        np.testing.assert_allclose(found, prior.log_prob(z, np.zeros(50, int)), atol=1e-5)


class TestObjectives:
    @pytest.mark.parametrize("kernel_size", [1, 5])
    def test_restarts_do_not_touch_each_other(self, kernel_size):
        net, observed, held = problem(kernel_size)

        def gradient():
            objective = Bound(net, observed, held, generator(2), np.full(2, 2.0), 10)
            return objective.step()[1]

        before = gradient()
        net.parameters[1] *= 1.5
        after = gradient()
        np.testing.assert_array_equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])

    def test_the_gradient_is_that_of_the_loss(self):
        net, observed, held = problem(n_restarts=1)
        net = net.with_parameters(net.parameters.double())
        rng = np.random.default_rng(0)
        x, start = rng.standard_normal((3, 300)), rng.standard_normal((2, 300))
        observed = Observed(x, start, np.zeros(300, int), net)

        def loss_and_gradient():
            objective = Bound(net, observed, held, generator(3), np.full(2, 2.0), 10)
            return objective.step()

        _, gradient = loss_and_gradient()
        direction = torch.randn(net.parameters.shape, generator=generator(4)).double()
        step = 1e-6
        values = []
        for sign in (1, -1):
            net.parameters += sign * step * direction
            values.append(loss_and_gradient()[0])
            net.parameters -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(slope, (gradient * direction).sum(1), rtol=1e-4)

    def test_held_out_samples_are_never_trained_on(self):
        net, observed, held = problem()
        objective = Reconstruction(net, observed, held, generator())
        drawn = torch.cat([objective.draw() for _ in range(5)])
        assert not held[drawn.numpy()].any()
        assert held[objective.held_begins.numpy()].all()

    def test_missing_entries_change_nothing_but_what_the_encoder_sees(self):
        rng = np.random.default_rng(0)
        net, _, _ = problem(with_missing=True)
        x, start = rng.standard_normal((3, 50)), rng.standard_normal((2, 50))
        x[1, 10:20] = np.nan
        observed = Observed(x, start, np.zeros(50, int), net)
        begins = torch.arange(50)
        noise = torch.zeros((2, 2, 1, 50))
        terms = observed.terms(net, begins, 1, noise, torch.full((2,), 2.0))
        assert torch.isfinite(terms.likelihood).all()
        there = observed.there(begins, 1)
        np.testing.assert_array_equal(there[1, 0, :, 0].numpy() == 0, np.isnan(x[1]))
