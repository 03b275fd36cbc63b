"""Factors with noise: as good as the truth lets them be, whatever entries are missing."""

from dataclasses import replace

import numpy as np
import pytest

from sourcesep import IVAE, auxiliary, load, metrics, save, simulate
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.factor_em import Factors, Fitted, Observed, expectation, maximise
from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.missing import impute
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.verdict import judge

from ..conftest import labelled

SEEDS = pytest.mark.parametrize("seed", [10, 11])


def rng(seed=0):
    return np.random.default_rng(seed)


def fitted(table, u=None, n_components=None):
    u = labelled(table.u, is_time=False) if u is None else u
    model = FactorModel(n_components or table.sources.shape[1])
    return model.fit(table.observations.T, u, rng()), table.observations.T, u


def by_truth(table):
    prior = gaussian_prior(0 * table.variances, table.variances)
    truth = LinearGaussian(table.loadings, table.noise)
    return truth.infer((table.observations - table.offset).T, prior, table.u)


def small(seed, missing=0.2, n_factors=2):
    return simulate.factors(400, 5, n_factors, 4, noise=0.2, missing=missing, random_state=seed)


class TestRecovery:
    @SEEDS
    @pytest.mark.parametrize("missing", [0.05, 0.2])
    def test_close_to_the_truth_and_above_imputation(self, seed, missing):
        table = simulate.factors(missing=missing, random_state=seed)
        model, x, u = fitted(table)
        known = metrics.mcc(table.sources, by_truth(table).mean.T)
        found = metrics.mcc(table.sources, model.posterior(x, u).mean.T)
        assert found > known - 0.006
        filled = impute(x)
        linear = LinearModel(6, starts=("segments",), standardise_channels=True)
        alone = linear.fit(filled, u, rng()).posterior(filled).mean.T
        assert found > metrics.mcc(table.sources, alone) + 0.002

    @SEEDS
    def test_of_shuffled_labels_nothing_comes(self, seed):
        table = simulate.factors(random_state=seed)
        u = labelled(rng(seed).permutation(table.u), is_time=False)
        model, x, _ = fitted(table, u)
        assert metrics.mcc(table.sources, model.posterior(x, u).mean.T) < 0.85

    @SEEDS
    def test_loadings_offset_and_noise_are_those_that_drew_the_table(self, seed):
        table = simulate.factors(6000, 8, 3, missing=0.1, random_state=seed)
        model, x, u = fitted(table)
        z = model.posterior(x, u).mean
        pairs = metrics.match_sources(table.sources, z.T)
        truth = table.loadings[:, pairs.sources]
        found = model.mixing[:, pairs.components] * pairs.signs
        unit = found / np.linalg.norm(found, axis=0) - truth / np.linalg.norm(truth, axis=0)
        assert np.linalg.norm(unit, axis=0).max() < 0.12
        np.testing.assert_allclose(model.noise, table.noise, rtol=0.15)
        np.testing.assert_allclose(model.mean, table.offset, atol=0.15)

    def test_segments_of_time_do_as_well_as_the_regimes(self):
        table = simulate.factors(random_state=13)
        u = labelled(np.arange(1500) * 40 // 1500, is_time=True)
        model, x, _ = fitted(table, u)
        by_regime, _, regimes = fitted(table)
        a, b = model.posterior(x, u).mean.T, by_regime.posterior(x, regimes).mean.T
        assert metrics.mcc(table.sources, a) > metrics.mcc(table.sources, b) - 0.01
        assert not model.prior.mean.any()

    def test_several_scales_of_time(self):
        table = simulate.factors(random_state=14, missing=0.1)
        fine, coarse = (np.arange(1500) * n // 1500 for n in (40, 8))
        scales = tuple(Scale(v, tuple(map(str, range(v.max() + 1)))) for v in (fine, coarse))
        u = Auxiliary(scales, None, True, "segments")
        model, x, _ = fitted(table, u)
        assert metrics.mcc(table.sources, model.posterior(x, u).mean.T) > 0.94


class TestLikelihood:
    """Against sums over samples, and against what is near."""

    @SEEDS
    def test_sums_by_label_are_sums_over_samples(self, seed):
        """A channel that is never there makes every sample one with gaps, and tells nothing."""
        table = small(seed, missing=0)
        x, factors = table.observations.T, drawn(table)
        longer = replace(
            factors,
            mixing=np.vstack([factors.mixing, [[1.0, 2.0]]]),
            offset=np.append(factors.offset, 3.0),
            noise=np.append(factors.noise, 0.5),
        )
        whole = expectation(factors, Observed.of(x, table.u, 4))
        gappy = Observed.of(np.vstack([x, np.full(400, np.nan)]), table.u, 4)
        assert not gappy.counts.any()
        found = expectation(longer, gappy)
        assert found.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-10)
        for name in ("counts", "first", "second"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-8)
        for name in ("gram", "cross", "power"):
            np.testing.assert_allclose(getattr(found, name)[:-1], getattr(whole, name), rtol=1e-8)

    @SEEDS
    def test_the_likelihood_is_that_of_every_sample(self, seed):
        table = small(seed)
        factors, x = drawn(table), table.observations.T
        prior = gaussian_prior(factors.mean, factors.variance)
        density = factors.gaussian.infer(x - factors.offset[:, None], prior, table.u).log_density
        found = expectation(factors, Observed.of(x, table.u, 4)).log_likelihood
        assert found == pytest.approx(density.sum(), rel=1e-10)

    @SEEDS
    def test_it_rises_to_a_maximum(self, seed):
        table = small(seed)
        seen = Observed.of(table.observations.T, table.u, 4)
        everything = Fitted(True, True, True)
        best, history = maximise(drawn(table), seen, everything, tolerance=1e-10, most_cycles=300)
        assert min(np.diff(history)) > -1e-6
        top = expectation(best, seen).log_likelihood
        draw = rng(seed)
        for name in ("mixing", "offset", "noise", "mean"):
            value = getattr(best, name)
            for size in (0.01, 0.05):
                moved = value * (1 + size * draw.standard_normal(value.shape))
                near = expectation(replace(best, **{name: moved}), seen).log_likelihood
                assert near < top

    def test_what_is_not_fitted_stays(self):
        table = small(0)
        start = drawn(table)
        seen = Observed.of(table.observations.T, table.u, 4)
        found, _ = maximise(start, seen, Fitted(mixing=False, noise=True, mean=False))
        np.testing.assert_array_equal(found.mixing, start.mixing)
        np.testing.assert_array_equal(found.offset, start.offset)
        np.testing.assert_array_equal(found.mean, start.mean)
        assert (found.noise != start.noise).all()

    def test_a_column_without_noise_stops_at_the_floor(self):
        """Two factors that are two of the columns themselves (a Heywood case)."""
        table = simulate.factors(800, 6, 2, noise=0.0, missing=0.1, random_state=3)
        model, x, u = fitted(table)
        assert np.isfinite(model.log_density(x, u)).all()
        assert metrics.mcc(table.sources, model.posterior(x, u).mean.T) > 0.99
        assert (model.noise >= 0.99e-4 * np.nanvar(x, axis=1)).all()


def drawn(table):
    """The factors that drew a table."""
    return Factors(table.loadings, table.offset, table.noise, 0 * table.variances, table.variances)


class TestModel:
    def test_units_do_not_matter(self):
        table = simulate.factors(random_state=4)
        model, x, u = fitted(table)
        unit = 10.0 ** np.linspace(-9, 9, 12)[:, None]
        other = FactorModel(6, standardise_channels=True).fit(unit * x + 7 * unit, u, rng())
        same = FactorModel(6, standardise_channels=True).fit(x, u, rng())
        # the largest loading is another one in other units, and with it the sign
        a, b = other.posterior(unit * x + 7 * unit, u).mean, same.posterior(x, u).mean
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-6)
        np.testing.assert_allclose(np.abs(other.mixing), np.abs(unit * same.mixing), rtol=1e-5)
        assert metrics.mcc(model.posterior(x, u).mean.T, same.posterior(x, u).mean.T) > 1 - 1e-9

    def test_without_a_label_a_sample_may_be_of_any(self):
        table = simulate.factors(missing=0, random_state=5)
        model, x, _ = fitted(table)
        unmixing, mixing = model.matrices
        found = model.posterior(x).mean
        overall = model.prior.mean.mean(axis=0)
        expected = unmixing @ (x - model.decode(overall[:, None])) + overall[:, None]
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert mixing is model.mixing
        assert metrics.mcc(table.sources, found.T) > 0.9

    def test_constant_columns_tell_nothing(self):
        table = simulate.factors(random_state=6)
        model, x, u = fitted(table)
        wider = np.insert(x, 3, 5.5, axis=0)
        other = FactorModel(6).fit(wider, u, rng())
        np.testing.assert_allclose(other.posterior(wider, u).mean, model.posterior(x, u).mean)
        np.testing.assert_allclose(other.log_density(wider, u), model.log_density(x, u))
        assert not other.mixing[3].any()
        assert (other.decode(np.zeros((6, 2)))[3] == 5.5).all()
        again = FactorModel.from_state(other.state())
        np.testing.assert_array_equal(
            again.posterior(wider, u).mean, other.posterior(wider, u).mean
        )
        assert again.matrices[0].shape == (6, 13)

    def test_rows_with_nothing_in_them_are_the_prior(self):
        table = small(7)
        x = table.observations.T.copy()
        x[:, 5] = np.nan
        u = labelled(table.u, is_time=False)
        model = FactorModel(2).fit(x, u, rng())
        q, (mean, variance) = model.posterior(x, u), model.prior_moments()
        np.testing.assert_allclose(q.mean[:, 5], mean[0], atol=1e-12)
        np.testing.assert_allclose(q.scale[:, 5] ** 2, variance[0], rtol=1e-9)
        assert model.log_density(x, u)[5] == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("d", [None, 0, 5, 6])
    def test_as_many_factors_as_columns_are_refused(self, d):
        table = small(8)
        message = r"n_components=.*: a factor model of 5 columns that vary has 1 to 4 factors"
        with pytest.raises(SettingsError, match=message):
            FactorModel(d).fit(table.observations.T, labelled(table.u, is_time=False), rng())

    def test_infinite_values_and_empty_columns_are_refused(self):
        table = small(9)
        x = table.observations.T.copy()
        x[2] = np.inf
        with pytest.raises(InputError, match="infinite values"):
            FactorModel(2).fit(x, labelled(table.u, is_time=False), rng())
        x[2] = np.nan
        with pytest.raises(InputError, match="channel 2 has no value at all"):
            IVAE(2, mixing="factor").fit(x.T, u=table.u)

    def test_a_column_that_begins_late_is_allowed_for(self):
        """In a part of the rows it has no value, and there it tells nothing."""
        table = simulate.factors(800, 8, 3, missing=0, random_state=21)
        x = table.observations.copy()
        x[40:, 5] = np.nan
        ivae = IVAE(3, mixing="factor", random_state=0).fit(x, u=table.u)
        assert metrics.mcc(table.sources, ivae.transform(x, u=table.u)) > 0.93
        model = FactorModel(3).fit(x[40:].T, labelled(table.u[40:], is_time=False), rng())
        assert not model.mixing[5].any()

    def test_labels_of_a_single_row_do_no_harm(self):
        table = simulate.factors(random_state=7)
        labels = table.u.copy()
        labels[[3, 700]] = [8, 9]
        model, x, u = fitted(table, labelled(labels, is_time=False))
        assert np.isfinite(model.prior_moments()[1]).all()
        assert metrics.mcc(table.sources, model.posterior(x, u).mean.T) > 0.93


@pytest.fixture(scope="module")
def table():
    return simulate.factors(800, 8, 3, missing=0.1, random_state=20)


@pytest.fixture(scope="module")
def ivae(table):
    return IVAE(3, mixing="factor", random_state=0).fit(table.observations, u=table.u)


class TestEstimator:
    def test_missing_values_at_fit_and_after(self, table, ivae):
        sources = ivae.transform(table.observations, u=table.u)
        assert metrics.mcc(table.sources, sources) > 0.93
        assert ivae.mixing_.shape == (8, 3)
        assert ivae.components_.shape == (3, 8)
        assert np.isfinite(ivae.score(table.observations, u=table.u))
        with pytest.raises(InputError, match="needs those of every row; give them as u"):
            ivae.transform(table.observations)

    def test_saved_and_read(self, table, ivae, tmp_path):
        save(ivae, tmp_path / "m.safetensors")
        again = load(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(
            again.transform(table.observations, u=table.u),
            ivae.transform(table.observations, u=table.u),
        )
        assert again.verdict_.as_dict() == ivae.verdict_.as_dict()

    def test_without_u_it_is_time(self, table):
        ivae = IVAE(3, mixing="factor", random_state=0).fit(table.observations)
        assert ivae.u_names_ is None
        assert metrics.mcc(table.sources, ivae.transform(table.observations)) > 0.9
        assert ivae.transform(table.observations[:300]).shape == (300, 3)

    def test_the_number_of_factors_is_chosen(self, table):
        ivae = IVAE(mixing="factor", random_state=0).fit(table.observations, u=table.u)
        assert ivae.model_.n_components == 3
        assert set(ivae.scores_) == {"factor", "n_components"}

    def test_what_was_asked_for_is_what_is_judged(self, table):
        """Among several, missing values leave the family that allows for them."""
        mixing = ("linear", "factor")
        ivae = IVAE(3, mixing=mixing, random_state=0).fit(table.observations, u=table.u)
        assert ivae.model_.family == "factor"
        assert "needs no value that is missing" in ivae.reason_


class TestVerdict:
    @SEEDS
    def test_good_data_are_trusted(self, seed):
        model, x, u = fitted(simulate.factors(random_state=seed))
        found = judge(model, x, u, 1.0, rng())
        assert found.label == "trusted"
        assert min(found.richness) > 3

    @SEEDS
    @pytest.mark.parametrize("volatility", ["constant", "common"])
    def test_controls_are_not_identifiable(self, seed, volatility):
        model, x, u = fitted(simulate.factors(volatility=volatility, random_state=seed))
        found = judge(model, x, u, 1.0, rng())
        assert found.label == "not identifiable"
        assert max(found.richness) < 3

    def test_a_u_with_few_rows_has_nothing_to_tell(self):
        table = simulate.factors(60, 5, 2, missing=0, random_state=0)
        u = auxiliary.from_array(np.arange(60) // 2, 60)
        model = FactorModel(2).fit(table.observations.T, u, rng())
        found = judge(model, table.observations.T, u, 1.0, rng())
        assert found.label != "trusted"
        assert np.isfinite(found.richness).all()
