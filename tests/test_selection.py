"""Choosing the family of a model: what was asked by name, and `auto`."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from sourcesep import simulate
from sourcesep.auxiliary import from_array
from sourcesep.cli.separate import MIXINGS as OFFERED
from sourcesep.demo import best_si_sdr
from sourcesep.exceptions import MissingDependencyError, SettingsError
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.flows.fit import EFFORT, Effort
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.settings import Settings
from sourcesep.metrics import mcc
from sourcesep.misfit import Misfit
from sourcesep.selection import FAMILIES, MIXINGS, Candidate, mixing_of, select
from sourcesep.simulate import protocols
from sourcesep.verdict import judge

from .conftest import in_time, mixed_by_matrix, u_of


def settings(**asked):
    return Settings(**{"starts": tuple(STARTS), "shapes": SHAPES} | asked)


def quick():
    """Two starts are enough where the linear family will not do."""
    return settings(starts=("segments", "non-gaussian"), shapes=(2.0,))


@pytest.fixture
def short_flow(monkeypatch):
    monkeypatch.setitem(EFFORT, "normal", Effort(2, 300))


def rng():
    return np.random.default_rng(0)


def test_every_mixing_is_a_family():
    assert ("auto", *FAMILIES) == MIXINGS == OFFERED
    for name, family in FAMILIES.items():
        assert family.family == name


class TestSelect:
    @pytest.mark.parametrize(
        ("kind", "right"),
        [
            ("uniform", {"non-gaussian"}),
            ("laplace", {"non-gaussian"}),
            ("modulated", {"segments", "bands"}),
            ("ar", {"spectrum", "bands", "non-gaussian"}),
        ],
    )
    @pytest.mark.parametrize("seed", [0, 1])
    def test_takes_the_start_that_suits_the_sources(self, kind, right, seed):
        x = mixed_by_matrix(kind, seed)
        chosen = select(x, u_of(x), rng(), settings=settings())
        scores = chosen.scores["linear"]
        assert chosen.model.start in right
        assert scores[chosen.model.start] == pytest.approx(max(scores.values()), abs=0.01)
        assert chosen.reason.partition(", tied with ")[0] == (
            f"linear mixing, found from {chosen.model.start}: the best likelihood of 4 starts"
        )

    def test_says_nothing_of_a_choice_where_there_is_none(self):
        x = mixed_by_matrix("modulated", 0)
        one = settings(starts=("spectrum",))
        chosen = select(x, u_of(x), rng(), mixing="linear", settings=one)
        assert chosen.reason == "linear mixing, found from spectrum"
        assert chosen.scores == {"linear": {}}

    def test_auto_stays_linear_where_linear_fits(self):
        x = mixed_by_matrix("modulated", 0)
        a, b = (
            select(x, u_of(x), rng(), mixing=m, settings=settings()) for m in ("auto", "linear")
        )
        np.testing.assert_array_equal(a.model.unmixing, b.model.unmixing)
        assert set(a.scores) == {"linear"}

    @pytest.mark.parametrize(
        ("sfreq", "seed", "talker", "linear_is"),
        [(16000, 0, 80, "doubtful"), (8000, 672, 67200, "trusted")],
    )
    def test_auto_undoes_saturated_microphones(self, sfreq, seed, talker, linear_is):
        """Two talkers through tanh microphones: above 20 dB, where no matrix passes 15.

        Also where the matrix passes every check, which a mild bend may.
        """
        voices = [simulate.speech(4, sfreq, random_state=talker + k) for k in range(2)]
        mixture = simulate.saturated(voices, sfreq=sfreq, random_state=seed)
        u = u_of(mixture.data, f"segments:{sfreq // 50}")
        auto, linear = (
            select(mixture.data, u, rng(), mixing=m, settings=settings(sfreq=float(sfreq)))
            for m in (mixing_of("audio"), "linear")
        )
        assert auto.model.family == "post-nonlinear"
        assert auto.scores["gain"]["post-nonlinear"] > 0.02
        assert linear.verdict.label == linear_is
        assert linear.verdict.misfit.power > auto.verdict.misfit.power

        def quality(chosen):
            z = chosen.model.posterior(mixture.data).mean
            return best_si_sdr(mixture.sources, z)

        assert quality(auto) > 20
        assert quality(linear) < 15

    @pytest.mark.parametrize(
        ("seed", "kinds", "passes"),
        [
            (504, ("melody", "drums", "pad"), ConvolutiveModel),
            (510, ("melody", "bass", "drums"), LinearModel),
        ],
    )
    def test_three_sources_in_stereo_are_found_though_two_pass_most_checks(
        self, seed, kinds, passes
    ):
        """Each instrument has frequencies of its own: filters, or a matrix, may do for two."""
        angles = np.deg2rad(np.array([15, 45, 75]) + np.random.default_rng(seed).uniform(-5, 5, 3))
        sources = np.stack(
            [
                simulate.instrument(4, 8000, kind=kind, random_state=100 * seed + k)
                for k, kind in enumerate(kinds)
            ]
        )
        x = np.stack([np.cos(angles), np.sin(angles)]) @ sources
        u, asked = u_of(x, "segments:160"), settings(sfreq=8000.0)
        wrong = passes.configured(asked).fit(x, u, rng())
        found = judge(wrong, x, u, 8000.0, rng())
        assert np.less(found.misfit[:4], found.bounds.misfit[:4]).all()
        assert (found.dependence.coherence > 1) == (passes is LinearModel)  # calls for nothing
        among = ("convolutive", "underdetermined")
        chosen = select(x, u, rng(), mixing=among, settings=asked)
        assert (chosen.model.family, chosen.model.n_components) == ("underdetermined", 3)
        assert set(chosen.scores["gain"]) == {"underdetermined"}
        z = chosen.model.posterior(x).mean
        assert best_si_sdr(sources, z) > best_si_sdr(sources, wrong.posterior(x).mean) + 10

    def test_short_filters_and_a_curve_are_undone_together(self):
        """Eight taps, then tanh: neither a matrix nor filters nor curves alone are believed."""
        draws, length = np.random.default_rng(3), 400
        power = np.exp(draws.uniform(-1.2, 1.2, (2, 40))).repeat(length, axis=1)
        sources = power * draws.standard_normal(power.shape)
        taps = 0.6 * draws.standard_normal((2, 2, 8)) * np.exp(-np.arange(8) / 4.8)
        taps[[0, 1], [0, 1], 0] += np.sign(taps[[0, 1], [0, 1], 0])
        heard = np.array(
            [[lfilter(h, 1, s) for h, s in zip(row, sources, strict=True)] for row in taps]
        )
        y = heard.sum(axis=1)
        x = np.tanh(1.5 * y / y.std(axis=1, keepdims=True))
        u, asked = u_of(x, f"segments:{length}"), settings(sfreq=8000.0)
        chosen = select(x, u, rng(), mixing=mixing_of("audio"), settings=asked)
        assert chosen.model.family == "post-nonlinear"
        assert chosen.model.memory > 1
        assert chosen.verdict.label == "trusted"
        assert chosen.scores["gain"]["post-nonlinear of 8 taps"] > 0.5
        linear = select(x, u, rng(), mixing="linear", settings=asked)
        good, bad = (best_si_sdr(heard[0], c.model.images(x, u)[:, 0]) for c in (chosen, linear))
        assert good > max(15, bad + 10)

    def test_filters_and_a_curve_are_tried_only_where_something_is_left(self):
        """And not on records so long that a fit would take minutes."""
        chain = Candidate(PostNonlinearModel, kernel_size=8)
        x = mixed_by_matrix("modulated", 0, n=2)
        found = select(x, u_of(x), rng(), mixing="linear", settings=settings())
        bound = found.verdict.bounds.misfit
        for delay, power, called in ((1.1, 3.1, True), (5, 2.9, False), (0.9, 5, False)):
            misfit = Misfit(delay * bound.delay, power * bound.power)
            left = replace(found, verdict=replace(found.verdict, misfit=misfit))
            assert chain.is_called_for(left, x) == called
        assert chain.lack(2, in_time(64_000), 8000.0) is None
        said = chain.lack(2, in_time(64_001), 8000.0)
        assert "it takes minutes for more than 64000 samples" in said

    def test_auto_leaves_a_room_linear_and_doubtful(self):
        voices = [simulate.speech(4, random_state=90 + k) for k in range(2)]
        mixture = simulate.room(voices, sfreq=16000, n_mics=2, rt60=0.2, random_state=0)
        u = u_of(mixture.data, "segments:320")
        chosen = select(mixture.data, u, rng(), settings=settings(sfreq=16000.0))
        assert chosen.model.family == "linear"
        assert chosen.verdict.label == "doubtful"
        assert chosen.verdict.misfit.delay > chosen.verdict.misfit.power

    @pytest.mark.parametrize(
        ("seed", "kinds"), [(8213, ("bass", "drums")), (9406, ("pad", "drums"))]
    )
    def test_instruments_that_play_together_stay_linear(self, seed, kinds):
        """Drums and a bass were taken for a room, drums and a pad for bent; both lost 40 dB."""
        played = [
            simulate.instrument(4, 8000, kind=kind, random_state=100 * seed + k)
            for k, kind in enumerate(kinds)
        ]
        x = simulate.instantaneous(played, sfreq=8000, random_state=seed).data
        among = ("post-nonlinear", "convolutive")
        chosen = select(
            x, u_of(x, "segments:160"), rng(), mixing=among, settings=settings(sfreq=8000.0)
        )
        assert chosen.model.family == "linear"

    def test_a_family_that_was_asked_for_is_given(self):
        x = mixed_by_matrix("modulated", 0)
        chosen = select(x, u_of(x), rng(), mixing="post-nonlinear", settings=settings())
        assert chosen.model.family == "post-nonlinear"
        assert chosen.reason == "post-nonlinear mixing, no curve"

    def test_noise_is_left_out_where_there_is_room_for_it(self):
        """Fewer components than channels, and no likelier as a matrix: a factor model."""
        table = simulate.factors(missing=0, random_state=1)
        x, u = table.observations.T, from_array(table.u, len(table.u))
        both = ("linear", "factor")
        asked = settings(n_components=6, standardise=True)
        chosen = select(x, u, rng(), mixing=both, settings=asked)
        linear = select(x, u, rng(), mixing="linear", settings=asked)
        assert chosen.model.family == "factor"
        assert chosen.scores["gain"]["factor"] > -0.02
        a, b = (c.model.posterior(x, u).mean.T for c in (chosen, linear))
        assert mcc(table.sources, a) > mcc(table.sources, b) + 0.002
        whole = select(x[:6], u, rng(), mixing=both, settings=settings(standardise=True))
        assert whole.model.family == "linear"

    @pytest.mark.parametrize("seed", [0, 1, 3])
    def test_a_matrix_on_bent_data_goes_by_what_halves_find_again(self, seed):
        """There the likelier start has shapes that the bend has made."""
        data = protocols.ivae(3, 20, 500, random_state=seed)
        x, u = data.observations.T, from_array(data.u, len(data.u))
        chosen = select(x, u, rng(), mixing="linear", settings=settings())
        assert chosen.model.start == "segments"
        assert chosen.verdict.label != "trusted"
        likeliest = LinearModel().fit(x, u, rng())
        assert likeliest.start == "non-gaussian"
        assert "which holds where the likeliest start, non-gaussian, does not" in chosen.reason
        good, bad = (mcc(data.sources, m.posterior(x).mean.T) for m in (chosen.model, likeliest))
        assert good > bad + 0.02
        assert chosen.model.from_state(chosen.model.state()).choice == chosen.model.choice
        straight = protocols.ivae(3, 20, 500, 1, random_state=seed).observations.T
        kept = select(straight, u, rng(), mixing="linear", settings=settings())
        assert "steadier" not in kept.reason

    @pytest.mark.parametrize("seed", [0, 1])
    def test_sources_that_grow_and_shrink_together_stay_linear(self, seed):
        data = protocols.ivae(3, 20, 500, 1, random_state=seed)
        together = np.exp(0.5 * np.random.default_rng(seed).standard_normal((10_000, 1)))
        x, u = (data.observations * together).T, from_array(data.u, 10_000)
        chosen = select(x, u, rng(), settings=settings())
        assert chosen.model.family == "linear"
        assert mcc(data.sources * together, chosen.model.posterior(x).mean.T) > 0.99
        assert chosen.verdict.label == "doubtful"
        assert "grow and shrink together" in chosen.verdict.sentence

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_better_verdict_is_kept(self, seed):
        """Likelier with noise that differs from channel to channel, but shapes tell no factors."""
        noise = np.array([0.02, 0.05, 0.1, 0.1, 0.2, 0.2])[:, None]
        x = mixed_by_matrix("laplace", seed, n_channels=6)
        x = x + noise * np.random.default_rng(seed).standard_normal(x.shape)
        asked = settings(n_components=3, standardise=True)
        chosen = select(x, u_of(x), rng(), mixing=("linear", "factor"), settings=asked)
        assert chosen.model.family == "linear"
        assert chosen.verdict.label == "trusted"
        assert chosen.scores["gain"]["factor"] > 0.05
        assert "held out, but its verdict is" in chosen.reason

    def test_what_is_not_gaussian_stays_linear(self):
        """Stationary Laplace sources: nothing that a factor model could tell them apart by."""
        x = mixed_by_matrix("laplace", 0, n_channels=5, noise=0.02)
        both = ("linear", "factor")
        chosen = select(x, u_of(x), rng(), mixing=both, settings=settings(n_components=3))
        assert chosen.model.family == "linear"
        assert chosen.verdict.label == "trusted"

    def test_what_cannot_be_tried_is_said(self):
        """Three channels of rank 2: no curves, a linear fit and the reason."""
        voices = [simulate.speech(4, random_state=80 + k) for k in range(2)]
        mixture = simulate.saturated(voices, sfreq=16000, random_state=0).data
        x = np.concatenate([mixture, mixture[:1]])
        families = ("linear", "post-nonlinear")
        u = u_of(x, "segments:320")
        chosen = select(x, u, rng(), mixing=families, settings=settings(sfreq=16000.0))
        assert chosen.model.family == "linear"
        assert "post-nonlinear is not tried: rank=2 of 3 channels" in chosen.reason

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    def test_auto_goes_as_far_as_it_must(self, seed, short_flow):
        """Nonlinear on a nonlinear mixture, exactly linear on a linear one."""
        for n_layers, family, least in ((3, "nonlinear", 0.95), (1, "linear", 0.9995)):
            data = protocols.ivae(3, 20, 400, n_layers, random_state=seed)
            x, u = data.observations.T, u_of(data.observations.T, "segments:400")
            chosen = select(x, u, rng(), settings=quick())
            assert chosen.model.family == family, chosen.reason
            assert chosen.verdict.label == "trusted"
            assert mcc(data.sources, chosen.model.posterior(x).mean.T) > least
            if family == "nonlinear":
                assert chosen.scores["gain"]["nonlinear"] > 0.02
                assert "nats a sample, held out" in chosen.reason

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    def test_auto_gives_no_nonlinear_fit_that_u_does_not_support(self, seed, short_flow):
        data = protocols.shuffled_labels(
            protocols.ivae(3, 20, 400, random_state=seed), random_state=seed
        )
        x, u = data.observations.T, from_array(data.u, len(data.u))
        auto = select(x, u, rng(), settings=quick())
        assert auto.model.family == "linear"
        assert auto.verdict.label != "trusted"
        assert "nothing tells its components apart" in auto.reason
        asked = select(x, u, rng(), mixing="nonlinear", settings=quick())
        assert asked.model.family == "linear" or asked.verdict.label == "not identifiable"

    def test_auto_chooses_among_what_it_may(self):
        x = protocols.ivae(3, 20, 400, random_state=0).observations.T
        u = u_of(x, "segments:400")
        chosen = select(x, u, rng(), mixing=("linear", "post-nonlinear"), settings=quick())
        assert "nonlinear" not in chosen.scores
        assert chosen.verdict.misfit.power > 9
        with pytest.raises(SettingsError, match="to choose among are linear, post-nonlinear, un"):
            select(x, u, rng(), mixing=["linear", "cubic"], settings=settings())

    def test_auto_fits_no_nonlinear_map_that_few_labels_must_refuse(self):
        """The verdict would be "not identifiable" whatever it found, after minutes."""
        data = protocols.ivae(3, 20, 400, random_state=0)
        x, u = data.observations.T, from_array(data.u % 6, len(data.u))
        chosen = select(x, u, rng(), settings=quick())
        assert "u would need 7 labels to tell 3 nonlinear components apart" in chosen.reason
        assert "nonlinear" not in chosen.scores

    def test_auto_does_without_torch(self, monkeypatch):
        def missing():
            raise MissingDependencyError("mixing=nonlinear needs torch")

        monkeypatch.setattr("sourcesep.ivae.coupling.require_torch", missing)
        x = protocols.ivae(3, 20, 400, random_state=0).observations.T
        chosen = select(x, u_of(x, "segments:400"), rng(), settings=quick())
        assert chosen.model.family != "nonlinear"
        assert "nonlinear is not tried: mixing=nonlinear needs torch" in chosen.reason

    def test_a_nonlinear_fit_of_nothing_is_not_given(self, monkeypatch):
        """Common modulation: curves find something, and nothing tells it apart."""
        monkeypatch.setattr(
            CouplingModel, "configured", lambda _: CouplingModel(n_restarts=1, n_steps=60)
        )
        common = np.exp(rng().standard_normal(40)).repeat(50)
        x = common * np.random.default_rng(1).standard_normal((2, 2000))
        asked = select(x, u_of(x), rng(), mixing="nonlinear", settings=settings())
        assert asked.verdict.label == "not identifiable"

    def test_a_gaussian_prior_is_gaussian(self):
        x = mixed_by_matrix("laplace", 0)

        def shapes(**asked):
            return set(select(x, u_of(x), rng(), settings=settings(**asked)).model.prior.shape)

        assert shapes(shapes=(2.0,)) == {2.0}
        assert shapes() != {2.0}
