import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from sourcesep.auxiliary import LEFT_OUT
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.coupling import EFFORT, CouplingModel
from sourcesep.ivae.flows.fit import resumed
from sourcesep.ivae.flows.flow import Flow, Tape
from sourcesep.ivae.flows.likelihood import BATCH, FEWEST, Likelihood
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import State
from sourcesep.ivae.priors import FINE_SHAPES
from sourcesep.ivae.settings import GAUSSIAN, QUALITIES, Settings
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import ivae, shuffled_labels

from ..conftest import labelled

SHORT = {"n_restarts": 2, "n_steps": 60, "n_blocks": 4, "n_hidden": 8, "device": "cpu"}


def small(seed, n_sources=3, is_time=True, **settings):
    data = ivae(n_sources, 12, 100, 2, random_state=seed, **settings)
    return data.observations.T, labelled(data.u, is_time=is_time), data.sources.T


def fit_small(seed, is_time=True, n_components=None, **settings):
    x, u, _ = small(seed, is_time=is_time, n_channels=3 if n_components is None else 5)
    model = CouplingModel(n_components, **SHORT | settings)
    return model.fit(x, u, np.random.default_rng(seed)), x, u


fitted = functools.cache(fit_small)


@functools.cache
def peers():
    """The module of benchmarks that holds the published iVAE and the plain VAE."""
    path = Path(__file__).parents[2] / "benchmarks" / "peers_nonlinear.py"
    spec = importlib.util.spec_from_file_location("peers_nonlinear", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bent(n_components, n_restarts, dtype, seed):
    """A flow that is far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    flow = Flow.identity(n_components, 3, 6, n_restarts, generator, dtype)
    for view in flow.views.values():
        view += 0.3 * torch.randn(view.shape, generator=generator, dtype=dtype)
    ones = flow.views["matrix"][..., flow.half, :]
    ones.zero_()
    ones[..., flow.half] = 1
    y = torch.randn(n_restarts, n_components, 20, generator=generator, dtype=dtype)
    return flow, y


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])
SIZES = pytest.mark.parametrize("n_components", [2, 3, 4, 7])


class TestFlow:
    @SEEDS
    @SIZES
    def test_inverse_is_exact(self, n_components, seed, dtype):
        flow, y = bent(n_components, 3, dtype, seed)
        z, _ = flow.forward(y)
        assert (z - y).abs().max() > 0.5
        # rounding is amplified by the map's own condition; float64 has 9 more digits
        tolerance = 1e-8 if dtype == torch.float64 else 2e-1
        assert (flow.inverse(z) - y).abs().max() < tolerance

    @SEEDS
    @SIZES
    def test_log_determinant_is_that_of_the_jacobian(self, n_components, seed):
        flow, y = bent(n_components, 2, torch.float64, seed)
        _, log_det = flow.forward(y)
        for r in range(2):
            for t in range(3):
                jacobian = torch.autograd.functional.jacobian(
                    lambda point, r=r: reference(flow, r, point[:, None])[0][:, 0], y[r, :, t]
                )
                expected = torch.linalg.slogdet(jacobian)[1]
                assert log_det[r, t] == pytest.approx(float(expected), abs=1e-10)

    @SEEDS
    @SIZES
    def test_gradient_is_that_of_autograd(self, n_components, seed):
        flow, y = bent(n_components, 2, torch.float64, seed)
        generator = torch.Generator().manual_seed(seed)
        weight_z = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        weight_log = torch.randn(1, y.shape[2], generator=generator, dtype=y.dtype)
        tape = Tape(flow, y.shape[2], backward=True)
        flow.forward(y, tape)
        by_hand = flow.backward(weight_z, weight_log, tape)

        parameters = flow.parameters.clone().requires_grad_()
        other = flow.with_parameters(parameters)
        total = 0
        for r in range(2):
            z, log_det = reference(other, r, y[r])
            total = total + (z * weight_z[r]).sum() + (log_det * weight_log[0]).sum()
        total.backward()
        expected = flow.with_parameters(parameters.grad.clone())
        expected.views["matrix"][..., flow.half, :] = 0  # the row of ones is not learned
        torch.testing.assert_close(by_hand, expected.parameters, rtol=1e-9, atol=1e-9)

    @SIZES
    def test_a_tape_can_be_used_again(self, n_components):
        flow, y = bent(n_components, 2, torch.float64, 0)
        tape = Tape(flow, y.shape[2], backward=True)
        ones = torch.ones_like(y[:1, 0])
        results = []
        for batch in (y, 2 * y, y):
            z, _ = flow.forward(batch, tape)
            results.append(flow.backward(z, ones, tape))
        assert torch.equal(results[0], results[2])
        assert not torch.equal(results[0], results[1])

    @SEEDS
    @SIZES
    def test_starts_as_the_identity_with_all_restarts_different(self, n_components, seed, dtype):
        generator = torch.Generator().manual_seed(seed)
        flow = Flow.identity(n_components, 5, 6, 3, generator, dtype)
        y = torch.randn(3, n_components, 50, generator=generator, dtype=dtype)
        z, log_det = flow.forward(y)
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        assert (z - y).abs().max() < tolerance
        assert log_det.abs().max() < tolerance
        assert (flow.parameters[0] - flow.parameters[1]).abs().max() > 0.1

    def test_restarts_do_not_touch(self):
        flow, y = bent(3, 3, torch.float64, 0)
        together = flow.forward(y)
        alone = flow.with_parameters(flow.parameters[1:2]).forward(y[1:2])
        torch.testing.assert_close(together[0][1:2], alone[0])
        torch.testing.assert_close(together[1][1:2], alone[1])

    def test_absorbs_an_affine_map(self):
        flow, y = bent(3, 2, torch.float64, 0)
        z, log_det = flow.forward(y)
        matrix = torch.randn(2, 3, 3, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
        offset = torch.arange(6, dtype=y.dtype).reshape(2, 3)
        flow.absorb(matrix, offset)
        after, log_det_after = flow.forward(y)
        torch.testing.assert_close(after, matrix @ z + offset[..., None])
        change = torch.linalg.slogdet(matrix)[1][:, None]
        torch.testing.assert_close(log_det_after, log_det + change)


def reference(flow, restart, y):
    """The same map written as in the paper, for autograd: z and log|det| of (n, n_samples)."""
    views, half = flow.views, flow.half
    linear = [i for i in range(flow.n_components + 1) if i != half]
    z, log_det = y, 0
    for i in range(flow.n_blocks + 1):
        whole = views["matrix"][restart, i]
        matrix, offset = whole[linear][:, linear], whole[linear, half]
        z = matrix @ z + offset[:, None]
        log_det = log_det + torch.linalg.slogdet(matrix)[1]
        if i == flow.n_blocks:
            break
        for j in range(2):
            halves = [z[:half], z[half:]]
            hidden = halves[j]
            for layer in range(3):
                weight = views[f"weight{j}{layer}"][restart, i]
                first = j == 1 and layer == 0  # where the bias comes first
                bias = weight[:, 0] if first else weight[:, -1]
                weight = weight[:, 1:] if first else weight[:, :-1]
                hidden = weight @ hidden + bias[:, None]
                hidden = torch.nn.functional.silu(hidden) if layer < 2 else hidden
            shift, log_scale = hidden.chunk(2)
            halves[1 - j] = halves[1 - j] * log_scale.tanh().exp() + shift
            log_det = log_det + log_scale.tanh().sum(0)
            z = torch.cat(halves)
    return z, log_det


class TestLikelihood:
    @pytest.mark.parametrize("is_time", [True, False])
    def test_gradient_is_that_of_the_loss_at_fixed_moments(self, is_time, monkeypatch):
        x, u, _ = small(0, is_time=is_time)
        held = np.arange(u.n_times) % 10 == 0
        objective = Likelihood.draw(
            x, u, held, shape=(2, 4, 2), seed=0, dtype=torch.float64, device="cpu"
        )
        batch = objective._batch()
        monkeypatch.setattr(objective, "_batch", lambda: batch)
        monkeypatch.setattr("sourcesep.ivae.flows.likelihood.MEMORY", 1.0)
        objective.parameters += 0.05 * torch.ones_like(objective.parameters)
        half = objective.flow.half
        objective.flow.views["matrix"][..., half, :] = 0
        objective.flow.views["matrix"][..., half, half] = 1
        _, gradient = objective.step()
        gradient = gradient.clone()
        rng = np.random.default_rng(0)
        for k in rng.choice(objective.parameters.shape[1], 40, replace=False):
            if gradient[0, k] == 0:
                continue
            ends = []
            for step in (1e-6, -2e-6):
                objective.parameters[0, k] += step
                ends.append(float(objective.step()[0][0]))
            objective.parameters[0, k] += 1e-6
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[0, k]), abs=1e-6)

    def test_held_out_terms_are_the_linear_models_at_the_start(self):
        x, u, _ = small(3)
        held = np.arange(u.n_times) % 10 == 0
        linear = LinearModel(starts=("segments",), shapes=(2.0,)).fit(
            x[:, ~held], u.take(~held), np.random.default_rng(0)
        )
        y = linear.posterior(x).mean
        objective = Likelihood.draw(
            y, u, held, shape=(2, 4, 2), seed=0, dtype=torch.float64, device="cpu"
        )
        reconstruction, kl = objective.held_out()
        expected = linear.elbo(x[:, held], u.take(held))
        # the linear prior gives each label one sample's worth of the overall variance
        assert reconstruction.numpy() + linear.log_volume == pytest.approx(
            expected.reconstruction.mean(), abs=1e-6
        )
        assert kl.numpy() == pytest.approx(expected.kl.mean(), abs=0.02)

    def test_never_trains_on_what_is_held_out(self):
        x, u, _ = small(0)
        held = np.arange(u.n_times) % 3 == 0
        x[:, held] = np.nan
        objective = Likelihood.draw(
            x, u, held, shape=(2, 4, 2), seed=0, dtype=torch.float64, device="cpu"
        )
        for _ in range(20):
            loss, gradient = objective.step()
            assert torch.isfinite(loss).all()
            assert torch.isfinite(gradient).all()

    def test_many_labels_take_turns(self):
        data = ivae(2, 150, 12, 1, random_state=0)
        u = labelled(data.u)
        objective = Likelihood.draw(
            data.observations.T,
            u,
            np.zeros(u.n_times, bool),
            shape=(2, 4, 2),
            seed=0,
            dtype=torch.float64,
            device="cpu",
        )
        before = objective.tracked[1].clone()
        objective.step()
        moved = (objective.tracked[1] != before).all((1, 2)).sum(1)
        assert (moved == BATCH // FEWEST).all()


@functools.cache
def shaped(source, seed, shapes):
    """MCC and shapes of a short fit of two sources."""
    data = ivae(2, 20, 300, 2, source=source, random_state=seed)
    model = CouplingModel(n_restarts=1, n_steps=300, n_blocks=6, device="cpu", shapes=shapes)
    model.fit(data.observations.T, labelled(data.u), np.random.default_rng(seed))
    z = model.posterior(data.observations.T).mean
    return mcc(data.sources, z.T), model.prior.shape


class TestShapes:
    """Of sources, fitted along with the map."""

    @SEEDS
    def test_of_laplace_sources_unbend_them(self, seed):
        found, shape = shaped("laplace", seed, FINE_SHAPES)
        assert found > shaped("laplace", seed, GAUSSIAN)[0] + 0.005
        assert shape.min() < 2

    @pytest.mark.parametrize("seed", [0, 1])
    def test_of_gaussian_sources_are_left_as_they_are(self, seed):
        found, shape = shaped("gaussian", seed, FINE_SHAPES)
        assert found > shaped("gaussian", seed, GAUSSIAN)[0] - 0.005
        assert (shape > 1.4).all()

    @pytest.mark.parametrize("shape", range(len(FINE_SHAPES)))
    def test_gradient_is_that_of_the_loss(self, shape, monkeypatch):
        x, u, _ = small(0)
        objective = Likelihood.draw(
            x,
            u,
            np.arange(u.n_times) % 10 == 0,
            shape=(2, 4, 1),
            seed=0,
            dtype=torch.float64,
            device="cpu",
            shapes=FINE_SHAPES,
        )
        monkeypatch.setattr("sourcesep.ivae.flows.likelihood.MEMORY", 1.0)
        batch = objective._batch()
        monkeypatch.setattr(objective, "_batch", lambda: batch)
        objective.tracked[2][:] = shape
        gradient = objective.step()[1].clone()
        k = int(gradient[0].abs().argmax())
        ends = []
        for step in (1e-7, -2e-7):
            objective.parameters[0, k] += step
            ends.append(float(objective.step()[0][0]))
        assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(float(gradient[0, k]), rel=1e-4)

    def test_of_a_trained_map_are_known_when_it_goes_on(self):
        data = ivae(2, 20, 300, 1, source="laplace", random_state=0)
        x, u = data.sources.T, labelled(data.u)
        flow = Flow.identity(2, 2, 4, 1, torch.Generator().manual_seed(0), torch.float64)
        held = np.arange(u.n_times) % 10 == 0
        objective = resumed(
            flow, x, u, held, seed=0, dtype="float64", device="cpu", shapes=FINE_SHAPES
        )
        shapes = np.array(FINE_SHAPES)[objective.tracked[2].numpy()]
        assert ((shapes > 0.8) & (shapes < 1.2)).all()


class TestStart:
    @SEEDS
    def test_untrained_it_is_the_linear_model(self, seed):
        x, u, _ = small(seed, is_time=False)  # a mean per label: the origin is free
        still = {"learning_rate": 1e-30, "dtype": "float64", "n_restarts": 1}
        model = CouplingModel(**SHORT | still).fit(x, u, np.random.default_rng(seed))
        linear = model.linear.refit_prior(x, u)
        z = model.posterior(x).mean
        np.testing.assert_allclose(
            model.log_density(x, u), linear.log_density(x, u), rtol=1e-9, atol=1e-8
        )
        assert mcc(linear.posterior(x).mean.T, z.T) == pytest.approx(1, abs=1e-12)


class TestModel:
    @SEEDS
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_best_restart_is_inverted_exactly(self, seed, dtype):
        model, x, _ = fitted(seed, dtype=dtype)
        best = model.restarts(x)[0]
        np.testing.assert_allclose(model.decode(best), x, atol=1e-8)
        alone, x, u = fitted(seed, dtype=dtype, n_restarts=1)
        np.testing.assert_allclose(alone.decode(alone.posterior(x).mean), x, atol=1e-8)
        # given u the mean is drawn to the prior's by no more than sigma
        np.testing.assert_allclose(alone.decode(alone.posterior(x, u).mean), x, atol=1e-5)

    @SEEDS
    def test_density_is_that_of_the_change_of_variables(self, seed):
        model, x, u = fitted(seed)
        points = np.arange(0, u.n_times, 97)
        _, log_det = model.encode(x)
        for t in points:
            columns = [
                (model.restarts(x[:, [t]] + step)[0] - model.restarts(x[:, [t]] - step)[0]) / 2e-6
                for step in 1e-6 * np.eye(3)[:, :, None]
            ]
            jacobian = np.concatenate(columns, axis=1)
            assert log_det[t] == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-5)
        prior = model.prior.log_prob(model.restarts(x)[0], u.labels).sum(axis=0)
        np.testing.assert_allclose(model.log_density(x, u), prior + log_det, atol=1e-5)

    @SEEDS
    def test_elbo_terms_agree_with_draws_from_the_posterior(self, seed):
        model, x, u = fitted(seed, n_restarts=1, is_time=False)
        at = np.arange(0, u.n_times, 50)
        x, u = x[:, at], u.take(at)
        elbo, q = model.elbo(x, u), model.posterior(x, u)
        s, log_det = model.encode(x)
        rng = np.random.default_rng(seed)
        e = rng.standard_normal((4000, *q.mean.shape))
        z = q.mean + q.scale * e
        sigma = 1e-4
        given_z = -0.5 * (np.log(2 * np.pi * sigma**2) + ((s - z) / sigma) ** 2).sum(1) + log_det
        log_q = -0.5 * (np.log(2 * np.pi * q.scale**2) + e**2).sum(1)
        log_p = np.stack([model.prior.log_prob(draw, u.labels).sum(0) for draw in z])
        np.testing.assert_allclose(elbo.reconstruction, given_z.mean(0), atol=0.15)
        np.testing.assert_allclose(elbo.kl, (log_q - log_p).mean(0), atol=0.15)
        assert (elbo.kl > 0).all()

    @SEEDS
    @pytest.mark.parametrize("is_time", [True, False])
    def test_components_have_unit_variance_and_come_in_order_and_sign(self, seed, is_time):
        model, x, _ = fitted(seed, is_time=is_time)
        for z in (*model.restarts(x), model.posterior(x).mean):
            np.testing.assert_allclose(z.std(axis=1), 1, rtol=1e-9)
            np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
        best = model.restarts(x)[0]
        power = [model.image(x, k).var(axis=1).sum() for k in range(3)]
        assert power == sorted(power, reverse=True)
        loading = np.cov(x, best)[:3, 3:]
        assert (loading[np.abs(loading).argmax(axis=0), np.arange(3)] > 0).all()
        assert (model.prior.mean == 0).all() == is_time

    @SEEDS
    def test_restarts_are_matched_and_the_best_is_first(self, seed):
        model, x, _ = fitted(seed, n_restarts=3)
        z = model.restarts(x)
        assert (np.diff(model.restart_scores) <= 0).all()
        for other in z[1:]:
            correlation = np.corrcoef(z[0], other)[:3, 3:]
            np.testing.assert_array_equal(np.abs(correlation).argmax(axis=1), np.arange(3))
            assert (np.diag(correlation) > 0).all()

    def test_consensus_stays_in_the_range_of_the_fit(self):
        model, x, _ = fitted(0)
        far = model.posterior(1000 * x).mean
        inside = model.restarts(x)
        bound = np.abs(inside).max(axis=(0, 2)) / model._shrinkage
        assert (np.abs(far) <= bound[:, None] + 1e-12).all()
        assert np.abs(model.restarts(1000 * x)).max() > 10 * bound.max()

    def test_a_straggler_has_no_part_in_the_consensus(self):
        model, x, _ = fitted(0, n_restarts=3)
        tensors = dict(model.state().tensors)
        tensors["scores"] = model.restart_scores[0] - np.array([0.0, 0.1, 9.0])
        other = CouplingModel.from_state(State(tensors, model.state().facts))
        mean = model.restarts(x)[:2].mean(axis=0)
        np.testing.assert_allclose(other.posterior(x).mean, mean / other._shrinkage[:, None])

    @SEEDS
    def test_sampling_and_encoding_agree(self, seed):
        model, x, u = fitted(seed, n_components=3)
        assert (model.n_components, model.n_channels) == (3, 5)
        z, drawn = model.sample(u, np.random.default_rng(seed))
        assert drawn.shape == x.shape
        np.testing.assert_allclose(model.restarts(drawn)[0], z, atol=2e-3)
        variance = np.stack([z[:, u.labels == k].var(axis=1) for k in range(u.n_labels)])
        ratio = np.log(variance / model.prior.variance)
        assert np.abs(ratio.mean()) < 0.1

    def test_what_is_set_aside_counts_as_a_gaussian(self):
        model, x, u = fitted(0, n_components=3)
        aside = model.linear.complement @ (x - x.mean(axis=1, keepdims=True))
        moved = x + np.linalg.pinv(model.linear.complement) @ aside  # twice as far out
        change = model.log_density(moved, u) - model.log_density(x, u)
        expected = -1.5 * (model.linear.complement @ (x - model.linear.mean[:, None])) ** 2
        assert np.corrcoef(change, expected.sum(axis=0))[0, 1] > 0.999

    def test_image_is_what_silencing_takes_away(self):
        model, x, _ = fitted(1)
        z = model.restarts(x)[0].copy()
        z[1] = 0
        np.testing.assert_allclose(x - model.image(x, 1), model.decode(z), atol=1e-8)

    def test_new_labels_get_a_prior_and_the_map_stays(self):
        model, x, u = fitted(0)
        merged = labelled(u.labels // 3)
        other = model.refit_prior(x, merged)
        assert other.prior.n_labels == 4
        assert model.prior.n_labels == 12
        np.testing.assert_array_equal(other.restarts(x), model.restarts(x))
        assert other.log_density(x, merged).mean() < model.log_density(x, u).mean()

    def test_samples_left_out_are_not_fitted(self):
        x, u, _ = small(0)
        labels = u.labels.copy()
        labels[u.labels == 5] = LEFT_OUT
        u = labelled(labels)
        spoilt = x.copy()
        spoilt[:, labels == LEFT_OUT] = np.nan
        models = [CouplingModel(**SHORT).fit(d, u, np.random.default_rng(0)) for d in (x, spoilt)]
        np.testing.assert_array_equal(*(m.flow.parameters.numpy() for m in models))

    @SEEDS
    def test_same_seed_same_bits(self, seed):
        model, x, u = fitted(seed)
        again = fit_small(seed)[0].state().tensors
        for name, value in model.state().tensors.items():
            np.testing.assert_array_equal(value, again[name])
        other = CouplingModel(**SHORT).fit(x, u, np.random.default_rng(seed + 1))
        assert not torch.equal(model.flow.parameters, other.flow.parameters)

    def test_global_random_state_is_left_alone(self):
        before = torch.get_rng_state()
        fit_small(0)
        assert torch.equal(torch.get_rng_state(), before)

    @SEEDS
    def test_state_round_trip_is_exact(self, seed):
        model, x, u = fitted(seed, n_components=3)
        state = model.state()
        again = CouplingModel.from_state(
            State({k: v.copy() for k, v in state.tensors.items()}, state.facts)
        )
        np.testing.assert_array_equal(again.restarts(x), model.restarts(x))
        np.testing.assert_array_equal(again.posterior(x, u).mean, model.posterior(x, u).mean)
        np.testing.assert_array_equal(again.log_density(x, u), model.log_density(x, u))
        np.testing.assert_array_equal(again.history_.elbo, model.history_.elbo)
        assert again.state().facts == state.facts

    def test_blank_fits_again_to_the_same_even_after_a_time_budget(self):
        model, x, u = fitted(4, seconds=0.3, n_steps=10**6, n_restarts=1)
        assert model.history_.n_steps < 1000
        again = model.blank().fit(x, u, np.random.default_rng(4))
        assert torch.equal(again.flow.parameters, model.flow.parameters)

    def test_nan_in_mid_training_is_survived(self, monkeypatch):
        clean, x, u = fitted(0)
        calls = iter(range(1000))
        step = Likelihood.step

        def poisoned(self):
            if next(calls) == 30:
                self.parameters[1, 3] = float("nan")
            return step(self)

        monkeypatch.setattr(Likelihood, "step", poisoned)
        model = fit_small(0)[0]
        np.testing.assert_array_equal(model.history_.recoveries, [0, 1])
        assert np.isfinite(model.posterior(x).mean).all()
        assert np.isfinite(model.log_density(x, u)).all()
        assert model.log_density(x, u).mean() > clean.log_density(x, u).mean() - 0.5

    def test_float32_training_follows_float64(self):
        single, x, u = fitted(0, dtype="float32", n_steps=20)
        double, _, _ = fitted(0, dtype="float64", n_steps=20)
        np.testing.assert_allclose(single.log_density(x, u), double.log_density(x, u), atol=0.05)

    @pytest.mark.parametrize("quality", QUALITIES)
    def test_quality_buys_restarts_and_steps(self, quality):
        effort = EFFORT[quality]
        model = CouplingModel.configured(Settings(quality=quality))
        assert (model.n_restarts, model.schedule.n_steps) == effort
        asked = CouplingModel.configured(Settings(quality=quality, n_restarts=3))
        assert (asked.n_restarts, asked.schedule.n_steps) == (3, effort.n_steps)
        assert list(EFFORT) == list(QUALITIES)
        assert sorted(EFFORT.values()) == list(EFFORT.values())

    @SEEDS
    def test_the_consensus_is_the_mean_of_its_replicas(self, seed):
        model, x, _ = fitted(seed)
        mean = model.replicas(x).mean(axis=0)
        np.testing.assert_allclose(model.posterior(x).mean, mean / model._shrinkage[:, None])

    def test_held_out_samples_are_never_trained_on(self):
        x, u, _ = small(0)
        held = fitted(0)[0].held_out(u)
        assert 0.05 < held.mean() < 0.15
        other = x.copy()
        other[:, held] = x[:, held][:, ::-1]
        one = {"learning_rate": 1e-9, "n_steps": 1}  # what is kept depends on them
        models = [
            CouplingModel(**SHORT | one).fit(data, u, np.random.default_rng(0))
            for data in (x, other)
        ]
        np.testing.assert_array_equal(*(m.linear.unmixing for m in models))


class TestIdentifiability:
    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    def test_without_u_it_cannot_be_done(self, seed):
        """Shuffled labels, and a plain VAE, are worse by far: what finds the sources is u."""
        settings = {"n_restarts": 2, "n_steps": 250, "n_blocks": 6, "device": "cpu"}
        data = ivae(5, 20, 200, 3, random_state=seed)
        x = data.observations.T
        scores = []
        for protocol in (data, shuffled_labels(data, random_state=seed)):
            model = CouplingModel(**settings)
            model.fit(x, labelled(protocol.u), np.random.default_rng(seed))
            scores.append(mcc(data.sources, model.posterior(x).mean.T))
        plain = peers().VAE(5, 5, 0, seed).fit(x, data.u)
        scores.append(mcc(data.sources, plain.posterior_mean(x, data.u).T))
        assert scores[0] > 0.92
        assert scores[0] > max(scores[1:]) + 0.15, scores

    @pytest.mark.parametrize("seed", [0, 1])
    def test_better_than_linear_on_a_nonlinear_mixture(self, seed):
        x, u, s = small(seed)
        model = CouplingModel(**SHORT | {"n_steps": 300}).fit(x, u, np.random.default_rng(seed))
        linear = model.linear.refit_prior(x, u)
        assert model.log_density(x, u).mean() > linear.log_density(x, u).mean() + 0.2
        assert mcc(s.T, model.posterior(x).mean.T) > mcc(s.T, linear.posterior(x).mean.T)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_restarts": 0}, "n_restarts=0 must be at least 1; raise it"),
        ({"n_blocks": 0}, "n_blocks=0 must be at least 1; raise it"),
        ({"n_hidden": 0}, "n_hidden=0 must be at least 1; raise it"),
        (
            {"n_components": 1},
            "n_components=1: a nonlinear map needs at least 2 linearly independent signals; "
            "use mixing='linear' or 'post-nonlinear'",
        ),
        ({"dtype": "float16"}, "dtype='float16' must be float32 or float64"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingsError) as error:
        CouplingModel(**settings)
    assert str(error.value) == message


def test_inputs_that_cannot_be():
    x, u, _ = small(0)
    rng = np.random.default_rng(0)
    broken = x.copy()
    broken[1, 7] = np.nan
    cases = [
        (
            broken,
            u,
            InputError,
            "x holds 1 values that are not finite; remove or interpolate them first",
        ),
        (
            x,
            labelled(np.arange(1200) // 5),
            InputError,
            "no label has 10 samples (the largest has 5), too few for a nonlinear fit; use "
            "longer segments, or mixing='linear'",
        ),
        (
            np.stack([x[0], x[0]]),
            u,
            SettingsError,
            "n_components=1: a nonlinear map needs at least 2 linearly independent signals; "
            "use mixing='linear' or 'post-nonlinear'",
        ),
    ]
    for data, labels, kind, message in cases:
        with pytest.raises(kind) as error:
            CouplingModel(**SHORT).fit(data, labels, rng)
        assert str(error.value) == message
