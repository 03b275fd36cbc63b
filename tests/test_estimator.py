"""`IVAE` as scikit-learn's users know an estimator, and as the iVAE's theorem promises."""

import pickle
import warnings

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sourcesep import IVAE, metrics, simulate
from sourcesep.exceptions import InputError, SettingsError, SourcesepError, SourcesepWarning
from sourcesep.recording import LARGEST

STARTS = ("segments",)


def modulated(seed, n_labels=30, length=40, d=3):
    """Mixed Gaussians whose variances change with a label: samples X, sources S, labels u."""
    rng = np.random.default_rng(seed)
    u = np.repeat(np.arange(n_labels), length)
    S = rng.standard_normal((len(u), d)) * np.exp(rng.normal(size=(n_labels, d)))[u]
    return S @ rng.standard_normal((d, d)), S, u


def quick(n_components=None, **settings):
    return IVAE(n_components, **{"starts": STARTS, "random_state": 0} | settings)


@pytest.fixture(scope="module")
def data():
    return modulated(0)


@pytest.fixture(scope="module")
def in_time(data):
    return quick().fit(data[0])


@pytest.fixture(scope="module")
def by_label(data):
    X, _, u = data
    return quick().fit(X, u=u)


@parametrize_with_checks([quick()], expected_failed_checks=lambda estimator: {})
def test_scikit_learn_is_content(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourcesepWarning)  # of a few samples
        check(estimator)


class TestInScikitLearn:
    def test_clone_keeps_settings_only(self, in_time):
        other = clone(in_time)
        assert other.get_params() == in_time.get_params()
        with pytest.raises(NotFittedError):
            other.transform(np.zeros((3, 3)))

    def test_pipeline(self, data):
        X, S, u = data
        pipe = Pipeline([("scale", StandardScaler()), ("ivae", quick())])
        found = pipe.fit(X * [1, 1e3, 1e-3], ivae__u=u).transform(X * [1, 1e3, 1e-3])
        assert metrics.mcc(S, found) > 0.98
        np.testing.assert_allclose(pipe.inverse_transform(found), X * [1, 1e3, 1e-3])
        assert np.isfinite(pipe.score(X * [1, 1e3, 1e-3], None))

    def test_labels_given_as_y_are_pointed_out(self, data):
        X, _, u = data
        for labels in (u, u.astype(str), np.array(list(map(str, u)), object)):
            with pytest.warns(SourcesepWarning, match=r"^y of \d+ labels: .*, fit\(X, u=y\)$"):
                quick().fit(X, labels)
        quick().fit(X, u, u=u)
        quick().fit(X, np.arange(len(X)))
        quick().fit(X, np.linspace(0, 1, len(X)))
        quick().fit_transform(X, u)  # as a pipeline does, whose y is the next step's
        parts = [X[:500], X[500:]]
        with pytest.warns(SourcesepWarning, match=r"^y of \d+ labels: "):
            quick().fit(parts, [u[:500], u[500:]])
        quick().fit(X, [[1], [1, 2]])  # of no shape, and never looked at

    def test_grid_search_finds_the_number_of_components(self):
        rng = np.random.default_rng(1)
        S = (
            rng.standard_normal((1200, 2))
            * np.exp(rng.normal(size=(40, 2)))[np.repeat(np.arange(40), 30)]
        )
        X = S @ rng.standard_normal((2, 4)) + 0.05 * rng.standard_normal((1200, 4))
        search = GridSearchCV(quick(), {"n_components": [1, 2, 3]}, cv=KFold(2)).fit(X)
        assert search.best_params_ == {"n_components": 2}
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_names_of_the_output(self, data):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(data[0], columns=["a", "b", "c"])
        ivae = quick(2).set_output(transform="pandas")
        found = ivae.fit_transform(frame)
        assert list(found.columns) == ["ivae0", "ivae1"] == list(ivae.get_feature_names_out())
        assert found.index.equals(frame.index)
        with pytest.raises(ValueError, match="feature names"):
            ivae.transform(frame[["c", "a", "b"]])

    def test_joblib_workers_give_the_same_bits(self, data, in_time):
        X = data[0]
        fits = Parallel(2)(delayed(quick().fit)(X) for _ in range(2))
        for other in fits:
            np.testing.assert_array_equal(other.components_, in_time.components_)
            np.testing.assert_array_equal(other.transform(X), in_time.transform(X))

    def test_pickles(self, data, in_time):
        again = pickle.loads(pickle.dumps(in_time))
        np.testing.assert_array_equal(again.transform(data[0]), in_time.transform(data[0]))

    def test_the_input_is_left_alone(self, data):
        X = data[0].copy()
        X.setflags(write=False)
        quick().fit(X).transform(X)
        np.testing.assert_array_equal(X, data[0])

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_other_types(self, data, dtype):
        X = (1000 * data[0]).astype(dtype)
        assert metrics.mcc(data[1], quick().fit(X).transform(X)) > 0.98


class TestSources:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_are_found_and_trusted(self, seed):
        X, S, u = modulated(seed, n_labels=40, length=60)
        ivae = quick().fit(X, u=u)
        assert metrics.mcc(S, ivae.transform(X)) > 0.98
        assert ivae.verdict_.label == "trusted"

    def test_need_the_right_u(self):
        """The claim of identifiability: in shuffled time, only the true labels find them."""
        errors = {"right": [], "shuffled": [], "time": []}
        for seed in range(4):
            rng = np.random.default_rng(seed)
            u = rng.permutation(np.repeat(np.arange(40), 100))
            S = rng.standard_normal((4000, 3)) * np.exp(rng.uniform(-0.5, 0.5, (40, 3)))[u]
            X = S @ rng.standard_normal((3, 3))
            for name, given in (("right", u), ("shuffled", rng.permutation(u)), ("time", None)):
                ivae = quick(prior="gaussian").fit(X, u=given)
                errors[name].append(1 - metrics.mcc(S, ivae.transform(X)))
                expected = "trusted" if name == "right" else "not identifiable"
                assert ivae.verdict_.label == expected, (seed, name)
        assert max(errors["right"]) < 0.002
        assert np.mean(errors["shuffled"]) > 10 * np.mean(errors["right"])
        assert np.mean(errors["time"]) > 10 * np.mean(errors["right"])

    def test_have_unit_variance_and_fall_in_power(self, data, in_time):
        X = data[0]
        S = in_time.transform(X)
        np.testing.assert_allclose(S.std(axis=0), 1)
        np.testing.assert_allclose(S.mean(axis=0), 0, atol=1e-12)
        power = np.square(in_time.mixing_).sum(axis=0)
        assert (np.diff(power) <= 0).all()
        peak = np.abs(in_time.mixing_).argmax(axis=0)
        assert (in_time.mixing_[peak, np.arange(3)] > 0).all()

    def test_standardised_channels_count_alike(self, data):
        X = data[0] * [1, 1e-6, 1e6]
        ivae = quick(standardise=True).fit(X)
        power = np.square(ivae.mixing_ / X.std(axis=0)[:, None]).sum(axis=0)
        assert (np.diff(power) <= 0).all()

    @pytest.mark.parametrize("exponent", [6, 10, 30, 90])
    @pytest.mark.parametrize("standardise", [False, True])
    def test_do_not_depend_on_the_channels_units(self, data, in_time, exponent, standardise):
        X, S, _ = data
        units = 10.0 ** np.array([-exponent, 0, exponent])
        ivae = quick(standardise=standardise).fit(X * units)
        assert metrics.mcc(S, ivae.transform(X * units)) > 0.98
        shift = np.log(units).sum()
        assert ivae.score(X * units) + shift == pytest.approx(in_time.score(X), abs=0.02)

    def test_mixing_and_components_invert_each_other(self, in_time):
        np.testing.assert_allclose(in_time.components_ @ in_time.mixing_, np.eye(3), atol=1e-12)

    def test_a_seed_gives_the_same_bits(self, data):
        X = data[0]
        a, b = (IVAE(random_state=5).fit(X) for _ in range(2))
        np.testing.assert_array_equal(a.components_, b.components_)
        assert a.verdict_ == b.verdict_
        assert a.scores_ == b.scores_

    def test_global_state_is_not_touched(self, data):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        IVAE(random_state=None).fit(data[0][:200])
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


class TestTransform:
    def test_fit_transform_is_fit_and_transform(self, data):
        X, _, u = data
        np.testing.assert_array_equal(quick().fit_transform(X), quick().fit(X).transform(X))
        np.testing.assert_array_equal(
            quick().fit_transform(X, u=u), quick().fit(X, u=u).transform(X)
        )

    def test_inverse_transform_inverts(self, data, in_time):
        for X in (data[0], modulated(9)[0], 1e3 + data[0]):
            back = in_time.inverse_transform(in_time.transform(X))
            assert np.abs(back - X).max() <= 1e-10 * np.abs(X).max()

    def test_of_fewer_components_projects(self, data):
        X = data[0]
        ivae = quick(2).fit(X)
        once = ivae.inverse_transform(ivae.transform(X))
        np.testing.assert_allclose(ivae.inverse_transform(ivae.transform(once)), once)

    def test_with_u_is_the_posterior_mean(self, data, by_label):
        X, _, u = data
        flat, informed = by_label.transform(X), by_label.transform(X, u=u)
        assert np.abs(informed - flat).max() < 1e-3
        assert not np.array_equal(informed, flat)

    def test_does_not_depend_on_the_other_samples(self, data, by_label):
        X, _, u = data
        np.testing.assert_allclose(
            by_label.transform(X[::-5], u=u[::-5]), by_label.transform(X, u=u)[::-5]
        )

    def test_covariates_of_some_rows(self, data):
        """Whose quantiles are others, and which may be one row."""
        X, _, u = data
        given = u + np.random.default_rng(0).random(len(u))
        ivae = quick().fit(X, u=given)
        whole = ivae.transform(X, u=given)
        for some in (slice(0, 1), slice(0, 900), slice(None, None, -7)):
            np.testing.assert_allclose(ivae.transform(X[some], u=given[some]), whole[some])
            assert np.isfinite(ivae.score(X[some], u=given[some]))

    def test_a_label_that_the_fit_has_not_seen(self, data, by_label):
        X, _, u = data
        with pytest.raises(InputError, match=r"^u=99: a label that the fit has not seen; kn"):
            by_label.transform(X, u=np.where(u == 0, 99, u))

    def test_u_for_a_model_of_time(self, data, in_time):
        with pytest.raises(InputError, match=r"stretches of time, .*; leave u \(aux=SPEC\) out$"):
            in_time.transform(data[0], u=data[2])

    def test_u_of_another_length(self, data, by_label):
        with pytest.raises(InputError, match=r"u of shape \(7,\): must be \(1200,\)"):
            by_label.transform(data[0], u=data[2][:7])

    @pytest.mark.parametrize("S", [np.zeros((4, 2)), np.zeros(3), np.zeros((2, 2, 3))])
    def test_inverse_of_another_shape(self, in_time, S):
        with pytest.raises(InputError, match=r"must be \(n_samples, 3\), a column for each"):
            in_time.inverse_transform(S)


class TestUnits:
    @pytest.mark.parametrize(
        ("mixing", "scale"),
        [
            ("linear", 1e-6),
            ("linear", 1e6),
            ("post-nonlinear", 1e-6),
            ("convolutive", 1e-6),
            ("factor", 1e-6),
        ],
    )
    def test_make_no_difference(self, data, mixing, scale):
        """Volts or microvolts: the same sources, score and verdict."""
        X, _, u = data
        n = 2 if mixing == "factor" else None
        one, other = (
            IVAE(n, mixing=mixing, quality="fast", random_state=0).fit(x, u=u)
            for x in (X, scale * X)
        )
        S, again = one.transform(X, u=u), other.transform(scale * X, u=u)
        np.testing.assert_allclose(again, S, atol=1e-6)
        assert other.verdict_.label == one.verdict_.label
        densities = one.score(X, u=u), other.score(scale * X, u=u) + 3 * np.log(scale)
        assert densities[0] == pytest.approx(densities[1], abs=1e-6)


class TestScore:
    def test_is_the_difference_of_the_elbo_terms(self, data, in_time, by_label):
        X, _, u = data
        for ivae, given in ((in_time, None), (by_label, u)):
            reconstruction, kl = ivae.elbo(X, u=given)
            assert ivae.score(X, None, u=given) == pytest.approx(reconstruction - kl)
            assert kl > 0
            assert ivae.history_["reconstruction"][-1] == pytest.approx(reconstruction)
            assert ivae.history_["kl"][-1] == pytest.approx(kl)
            assert ivae.n_iter_ == 1

    def test_is_the_log_likelihood_of_a_gaussian_prior(self, data):
        from scipy.stats import multivariate_normal

        X, _, u = data
        ivae = quick(prior="gaussian").fit(X, u=u)
        mean, variance = ivae.model_.prior_moments()
        expected = np.empty(len(X))
        for label in range(len(mean)):
            A = ivae.mixing_
            rows = u == label
            expected[rows] = multivariate_normal(
                X.mean(axis=0) + A @ mean[label], A * (variance[label] + 1e-8) @ A.T
            ).logpdf(X[rows])
        assert ivae.score(X, u=u) == pytest.approx(expected.mean(), abs=1e-6)

    def test_is_higher_with_the_right_u(self, data, by_label):
        X, _, u = data
        shuffled = np.random.default_rng(0).permutation(u)
        assert by_label.score(X, u=u) > by_label.score(X, u=shuffled) + 0.5

    def test_new_segments_get_their_own_variances(self, in_time):
        X = modulated(0)[0]
        louder = X.mean(axis=0) + 10 * (X - X.mean(axis=0))
        assert in_time.score(louder) == pytest.approx(in_time.score(X) - 3 * np.log(10), abs=1e-3)


class TestSample:
    def test_follows_the_prior(self, data, by_label):
        u = np.repeat([3, 17], 20_000)
        S, X = by_label.sample(len(u), u=u)
        assert S.shape == X.shape == (40_000, 3)
        variance = by_label.model_.prior_moments()[1]
        for label, part in ((3, S[:20_000]), (17, S[20_000:])):
            np.testing.assert_allclose(part.var(axis=0), variance[label], rtol=0.06)
        np.testing.assert_allclose(by_label.transform(X), S, atol=1e-3)

    @pytest.mark.parametrize("name", ["in_time", "by_label"])
    def test_without_u_looks_like_the_data(self, data, name, request):
        ivae = request.getfixturevalue(name)
        _, X = ivae.sample(50_000)
        np.testing.assert_allclose(np.cov(X.T), np.cov(data[0].T), rtol=0.1, atol=0.2)

    def test_by_the_names_of_the_table(self, by_label):
        names = [row["label"] for row in by_label.prior_table() if row["component"] == 0]
        for a, b in zip(
            by_label.sample(30, u=names), by_label.sample(30, u=range(30)), strict=True
        ):
            np.testing.assert_array_equal(a, b)

    def test_labels_go_before_names_of_labels(self, data):
        X, _, u = data
        text = np.where(u % 2 == 0, "a", "u=a")  # the label "a" is called "u=a"
        ivae = quick(prior="gaussian").fit(X, u=text)
        S, _ = ivae.sample(4000, u=np.full(4000, "u=a"))
        second = [row["variance"] for row in ivae.prior_table() if row["label"] == "u=u=a"]
        np.testing.assert_allclose(S.var(axis=0), second, rtol=0.1)

    def test_is_repeatable(self, by_label):
        for a, b in zip(by_label.sample(9), by_label.sample(9), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("n", [0, -1, 1.5, "3", None])
    def test_a_number_that_cannot_be(self, in_time, n):
        with pytest.raises(SettingsError, match=r"n=.*: must be a whole number, 1 or more"):
            in_time.sample(n)


class TestEffectAndPrior:
    def test_moves_along_the_mixing_vector(self, in_time):
        for k in range(3):
            path = in_time.effect(k, [-1, 0, 2])
            np.testing.assert_allclose(path[2] - path[1], 2 * in_time.mixing_[:, k])
            np.testing.assert_allclose(path[1] - path[0], in_time.mixing_[:, k])
        assert in_time.effect(0).shape == (9, 3)

    @pytest.mark.parametrize("component", [-1, 3, 1.0, "a", None])
    def test_of_what_is_no_component(self, in_time, component):
        with pytest.raises(SettingsError, match=r"component=.*: must be 0 to 2$"):
            in_time.effect(component)

    def test_of_values_of_another_shape(self, in_time):
        with pytest.raises(InputError, match=r"values of shape \(\): must be \(n_values,\)"):
            in_time.effect(0, 2.0)

    def test_table_of_the_prior(self, data):
        X, _, u = data
        ivae = quick(prior="gaussian").fit(X, u=u)
        S, table = ivae.transform(X), ivae.prior_table()
        assert len(table) == 30 * 3
        for row in (table[0], table[44], table[-1]):
            samples = S[u == int(row["label"].removeprefix("u=")), row["component"]]
            assert row["n_samples"] == len(samples) == 40
            assert row["mean"] == pytest.approx(samples.mean(), abs=0.1)
            # a label's variance is drawn to the source's own, 1, by one sample's worth
            assert row["variance"] == pytest.approx((40 * samples.var() + 1) / 41, rel=0.05)


class TestSeveralRecordings:
    def test_share_a_map(self):
        rng = np.random.default_rng(0)
        A = rng.standard_normal((3, 3))
        sources = [modulated(seed)[1] for seed in (4, 5)]
        parts = [S @ A for S in sources]
        ivae = quick().fit(parts)
        for S, X in zip(sources, parts, strict=True):
            assert metrics.mcc(S, ivae.transform(X)) > 0.98
        np.testing.assert_allclose(ivae.label_counts_, 30)

    def test_segments_do_not_cross(self):
        parts = [modulated(0)[0][:390], modulated(1)[0][:410]]
        ivae = quick(aux="segments:100", mixing="linear").fit(parts)
        assert sum(ivae.label_counts_) == 800
        assert len(ivae.label_counts_) == 8

    def test_of_unequal_width(self):
        with pytest.raises(InputError, match="X of 3, 2 columns: all parts must have the same"):
            quick().fit([np.ones((9, 3)), np.ones((9, 2))])

    def test_a_list_of_rows_is_one_recording(self, data, in_time):
        other = quick().fit(data[0].tolist())
        np.testing.assert_array_equal(other.components_, in_time.components_)


class TestRefuses:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_components": 0}, "n_components=0: must be a whole number, 1 or more, or None"),
            ({"n_components": -2}, "n_components=-2: must be"),
            ({"n_components": 1.5}, "n_components=1.5: must be"),
            ({"n_components": "2"}, "n_components='2': must be"),
            ({"n_components": True}, "n_components=True: must be"),
            ({"n_components": 4}, "n_components=4: the 3 channels hold 3 linearly independent"),
            ({"mixing": "quadratic"}, "mixing='quadratic': allowed are auto, linear"),
            ({"prior": "flat"}, "prior='flat': allowed are auto, gaussian"),
            ({"prior": ["flat"]}, "prior=['flat']: allowed are auto, gaussian"),
            ({"quality": "superb"}, "quality='superb': allowed are fast, normal, best"),
            ({"device": "abacus"}, "device='abacus': allowed are auto, cpu, cuda, mps"),
            ({"kernel_size": 0}, "kernel_size=0: must be a whole number, 1 or more"),
            ({"n_restarts": 0}, "n_restarts=0: must be a whole number, 1 or more"),
            ({"mixing": ("linear", "cubic")}, "to choose among are linear, post-nonlinear"),
            ({"mixing": 7}, "mixing=7: to choose among are linear, post-nonlinear"),
            ({"starts": ("luck",)}, "starts=('luck',): must be a tuple of segments, bands"),
            ({"starts": ()}, "starts=(): must be a tuple of"),
            ({"starts": None}, "starts=None: must be a tuple of"),
            ({"starts": "segments"}, "starts='segments': must be a tuple of segments, bands"),
            ({"standardise": "yes"}, "standardise='yes': must be True or False"),
            ({"standardise": None}, "standardise=None: must be True or False"),
            ({"condition_decoder": 1}, "condition_decoder=1: must be True or False"),
            ({"kernel_size": True}, "kernel_size=True: must be a whole number, 1 or more"),
            ({"n_restarts": True}, "n_restarts=True: must be a whole number, 1 or more"),
            ({"source_prior": "p.st"}, "source_prior='p.st': must be a SourcePrior, as sourcesep"),
            ({"aux": "sundials"}, "aux='sundials': unknown term 'sundials'; known are"),
            ({"aux": None}, "aux=None: must be a SPEC such as 'segments'; arrays are given to"),
            ({"aux": "segments:1e9"}, "seconds=1000000000 is longer than the recording"),
            ({"sfreq": 0}, "sfreq=0: must be a number of rows a second above 0"),
            ({"sfreq": "1"}, "sfreq='1': must be"),
            ({"sfreq": np.inf}, "sfreq=inf: must be"),
            ({"random_state": -1}, "random_state=-1: must be a whole number, 0 or more, a numpy"),
            ({"random_state": "x"}, "random_state='x': must be"),
        ],
    )
    def test_settings(self, data, settings, message):
        with pytest.raises(SettingsError) as error:
            quick(**settings).fit(data[0])
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.ones((100, 2)), "every channel is constant"),
            (np.full((100, 2), 1.0) + 1e-17, "every channel is constant"),
            (np.eye(7), "n_times=7: too few samples to find sources in, at least 8"),
            (np.eye(50), "n_times=50: too few samples for 49 components, at least 98"),
            (np.eye(100)[:, :3] * 1e200, "samples up to 1e+200: 1e+100 is the largest"),
        ],
    )
    def test_data(self, X, message):
        with pytest.raises(InputError) as error:
            quick().fit(X)
        assert message in str(error.value)

    def test_data_beyond_all_bounds_in_every_verb(self, data, by_label):
        X = np.full((9, 3), 10 * LARGEST)
        for verb in (by_label.transform, by_label.score):
            with pytest.raises(InputError, match="is the largest that can be computed with"):
                verb(X)
        with pytest.raises(InputError, match="is the largest"):
            quick().fit(X, u=np.arange(9) % 2)

    @pytest.mark.parametrize(
        "u", [np.zeros(1200, int), np.arange(1200), -np.ones(1200, int), np.full(1200, np.nan)]
    )
    def test_u_that_tells_nothing(self, data, u):
        with pytest.raises(SourcesepError):
            quick().fit(data[0], u=u)

    def test_few_samples_with_a_label(self, data):
        """Most are left out; what is left is fitted without a warning from numpy."""
        u = np.full(1200, -1)
        u[:20] = np.arange(20) % 2
        ivae = quick().fit(data[0], u=u)
        assert ivae.label_counts_.sum() == 20
        assert np.isfinite(ivae.transform(data[0])).all()

    def test_before_fit(self):
        for call in (
            lambda: quick().transform(np.zeros((2, 2))),
            lambda: quick().inverse_transform(np.zeros((2, 2))),
            lambda: quick().score(np.zeros((2, 2))),
            lambda: quick().sample(2),
            lambda: quick().effect(0),
            lambda: quick().prior_table(),
        ):
            with pytest.raises(NotFittedError, match="not fitted yet"):
                call()


def test_attributes_of_a_linear_decoder_are_absent_before_fit():
    assert not hasattr(IVAE(), "mixing_")
    assert not hasattr(IVAE(), "components_")


def test_stationary_sources_by_every_start():
    """Segments say nothing of stationary uniform sources; the other starts do."""
    S = simulate.linear_sources("uniform", 4000, 3, random_state=0).T
    X = S @ np.random.default_rng(0).standard_normal((3, 3))
    ivae = IVAE(random_state=0).fit(X)
    assert metrics.mcc(S, ivae.transform(X)) > 0.99
    scores = ivae.scores_["linear"]
    assert scores["non-gaussian"] == max(scores.values())
    assert "non-gaussian" in ivae.reason_


def test_a_row_alone_is_no_stretch_of_time(data, in_time, by_label):
    row = data[0][:1]
    for ivae in (in_time, by_label):
        with pytest.raises(
            InputError, match=r"^u=None: is then the stretch of time .*; give u, or"
        ):
            ivae.score(row)
    with pytest.raises(InputError, match=r"^u=None: is then"):
        quick().fit([data[0], row])
    assert np.isfinite(by_label.score(row, u=data[2][:1]))


def test_u_that_leaves_out_every_row_is_refused(data, in_time):
    from sourcesep.auxiliary import Auxiliary, Scale

    X = data[0]
    nothing = Auxiliary((Scale(np.full(len(X), -1), ("bad",)),), None, True, "annotations:BAD")
    for call in (in_time.score, in_time.elbo, in_time.adapted):
        with pytest.raises(InputError, match="u='annotations:BAD': leaves out every row"):
            call(X, u=nothing)


def test_what_is_masked_is_missing():
    """And not the value that lies beneath the mask."""
    rng = np.random.default_rng(0)
    X = np.ma.masked_array(rng.standard_normal((400, 3)), np.zeros((400, 3), bool))
    X[7, 1] = 1e6
    X[7, 1] = np.ma.masked
    with pytest.raises(ValueError, match="NaN"):
        IVAE(mixing="linear", random_state=0).fit(X)
    found, same = (
        IVAE(2, mixing="factor", random_state=0).fit(given) for given in (X, X.filled(np.nan))
    )
    np.testing.assert_array_equal(found.mixing_, same.mixing_)


def test_how_rows_lie_in_memory_makes_no_difference(data, by_label):
    X, _, u = data
    again = quick().fit(np.asfortranarray(X), u=u)
    np.testing.assert_array_equal(again.components_, by_label.components_)
    np.testing.assert_array_equal(again.transform(np.asfortranarray(X)), by_label.transform(X))


@pytest.mark.parametrize("is_list", [False, True])
def test_a_mask_over_u_is_not_looked_beneath(data, is_list):
    X, _, u = data
    masked = np.ma.masked_array(u, u == 3)
    with pytest.raises(InputError, match=r"^u has 40 masked values: every sample needs one"):
        quick().fit([X, X] if is_list else X, u=[masked, u] if is_list else masked)
    same = quick().fit(X, u=np.ma.masked_array(u))
    np.testing.assert_array_equal(same.components_, quick().fit(X, u=u).components_)


class TestAFitThatEndsEarly:
    """By an error, or because somebody waits no longer."""

    def stopped(self, ivae, X, monkeypatch, error):
        def stop(*args, **settings):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("sourcesep.estimator.select", stop)
            with pytest.raises(type(error)):
                ivae.fit(X)
        return ivae

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SettingsError("no")])
    def test_is_none(self, data, monkeypatch, error):
        ivae = self.stopped(quick(), data[0], monkeypatch, error)
        for use in (ivae.transform, ivae.score, lambda X: ivae.sample(2)):
            with pytest.raises(NotFittedError):
                use(data[0])

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SettingsError("no")])
    def test_leaves_the_one_before(self, data, monkeypatch, error):
        pandas = pytest.importorskip("pandas")
        X = pandas.DataFrame(data[0], columns=["a", "b", "c"])
        ivae = quick().fit(X)
        before, found = dict(vars(ivae)), ivae.transform(X)
        self.stopped(ivae, data[0][:, :2], monkeypatch, error)
        assert vars(ivae) == before
        np.testing.assert_array_equal(ivae.transform(X), found)

    def test_nothing_of_an_earlier_fit_stays(self, data):
        """A nonlinear map after a linear one has no matrix."""
        X = np.tanh(data[0] / data[0].std(axis=0))
        ivae = quick(mixing="linear").fit(X)
        assert hasattr(ivae, "components_")
        ivae.set_params(mixing="post-nonlinear").fit(X)
        assert ivae.model_.matrices is None
        assert not hasattr(ivae, "components_")


class TestNumbersThatAreNone:
    @pytest.mark.parametrize(
        "S", [[["a", "b", "c"]], [[np.nan, 0, 0]], [[0, np.inf, 0]], [[0, 1j, 0]]]
    )
    def test_as_sources(self, in_time, S):
        with pytest.raises(InputError, match=r"^S.* must be (finite|an array of real numbers)"):
            in_time.inverse_transform(S)

    @pytest.mark.parametrize("values", [["a"], [np.nan], [0, np.inf]])
    def test_as_values(self, in_time, values):
        with pytest.raises(
            InputError, match=r"^values.* must be (finite|an array of real numbers)"
        ):
            in_time.effect(0, values)

    def test_truth_is_no_count(self, in_time):
        with pytest.raises(SettingsError, match=r"^n=True: must be a whole number"):
            in_time.sample(True)
        with pytest.raises(SettingsError, match=r"^component=True: must be 0 to 2"):
            in_time.effect(True)


class TestHostile:
    """What no fit can be made of is said in one line, before any time is spent."""

    @pytest.mark.parametrize("n", [10**8, 10**30])
    def test_more_restarts_than_there_is_memory_for(self, data, n):
        with pytest.raises(SettingsError, match=r"n_restarts=10+: takes \d+ GiB of memory or"):
            quick(mixing="nonlinear", n_restarts=n).fit(data[0])

    @pytest.mark.parametrize("taps", [10**9 + 1, 10**30 + 1])
    def test_more_taps_than_there_is_memory_for(self, data, taps):
        with pytest.raises(SettingsError, match=r"kernel_size=10+1: takes \d+ GiB of memory"):
            quick(mixing="amortised", kernel_size=taps).fit(data[0])

    @pytest.mark.parametrize("n", [10**15, 10**30])
    def test_more_samples_than_there_is_memory_for(self, in_time, n):
        with pytest.raises(SettingsError, match=r"n=10+: takes \d+ GiB of memory or more, and"):
            in_time.sample(n)

    @pytest.mark.parametrize("kind", ["datetime64[s]", "timedelta64[s]"])
    def test_dates_are_no_measurements(self, data, kind):
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        X = data[0].astype(np.int64).astype(kind)
        for given in (X, [X, X], pandas.DataFrame(X)):
            with pytest.raises(
                InputError, match=r"X of type .*64\[s\]: dates and durations are no"
            ):
                quick().fit(given)

    @pytest.mark.parametrize("exponent", [200, 300])
    def test_what_is_too_small_is_not_called_silent(self, data, exponent):
        with pytest.raises(InputError, match="is the smallest that can be computed with; rescale"):
            quick().fit(data[0] * 10.0**-exponent)

    def test_small_rows_are_none_after_a_fit(self, in_time, data):
        few = 1e-200 * data[0][:2]
        np.testing.assert_allclose(in_time.transform(few), in_time.transform(0 * few), atol=1e-9)

    @pytest.mark.parametrize("name", ["prior", "mixing", "quality", "device"])
    @pytest.mark.parametrize("value", [np.array(["auto", "linear"]), ["x"], {}, 3])
    def test_a_name_is_asked_for(self, data, name, value):
        with pytest.raises(SettingsError, match=f"{name}=.*: (allowed are|to choose among are)"):
            quick(**{name: value}).fit(data[0])

    def test_labels_of_no_prior(self, data):
        with pytest.raises(SettingsError, match=r"source_labels=\('a', 'b'\): are labels of a"):
            IVAE(mixing="convolutive", source_labels=("a", "b")).fit(data[0])
