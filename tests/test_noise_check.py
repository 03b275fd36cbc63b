"""An invertible map has no noise; the verdict sees where the sensors have."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from sourcesep.gains import heldout_gain
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.vae import candidates
from sourcesep.ivae.vae.latent_start import in_units
from sourcesep.metrics import mcc
from sourcesep.noise_check import HIDDEN, SENTENCE, share_hidden_by_noise
from sourcesep.selection import Candidate, Selection
from sourcesep.simulate.protocols import ivae
from sourcesep.verdict import Verdict, judge

from .conftest import labelled


def fitted(seed, noise, n_channels=2, n_restarts=2, **settings):
    """A short fit of two sources, 20 labels of 300 samples."""
    data = ivae(2, 20, 300, n_channels=n_channels, noise=noise, random_state=seed, **settings)
    u = labelled(data.u)
    x = data.observations.T
    model = CouplingModel(2, n_restarts=n_restarts, n_steps=300, n_blocks=6, device="cpu")
    return model.fit(x, u, np.random.default_rng(seed)), x, u


def judged(model, x, u):
    return judge(model, x, u, 1.0, np.random.default_rng(0))


@pytest.fixture(scope="module")
def noisy():
    return fitted(1, 0.2)


@pytest.fixture(scope="module")
def clean():
    return fitted(1, 0.0)


@pytest.fixture(scope="module")
def verdict(noisy):
    return judged(*noisy)


class TestNoise:
    def test_that_the_map_has_fitted_is_seen(self, verdict):
        """Everything else would be trusted, or noise would not be asked for."""
        assert verdict.noise > HIDDEN
        assert verdict.is_noisy
        assert (verdict.label, verdict.sentence) == ("doubtful", SENTENCE)

    def test_is_not_seen_where_there_is_none(self, clean):
        found = judged(*clean)
        assert found.label == "trusted"
        assert found.noise < HIDDEN

    def test_is_said_beside_what_else_is_wrong(self):
        found = judged(*fitted(1, 0.2, n_restarts=1))
        assert found.label == "doubtful"
        assert found.is_noisy
        assert found.sentence.startswith("2 reasons: fewer than two restarts")
        assert found.sentence.endswith(SENTENCE)

    def test_gives_the_same_number_again(self, noisy, verdict):
        model, x, u = noisy
        assert share_hidden_by_noise(model, x, u, model.held_out(u)) == verdict.noise

    def test_is_as_large_as_what_is_seen_of_it(self, noisy, verdict, monkeypatch):
        """Though the data leave room for less."""
        model, x, u = noisy
        monkeypatch.setattr(candidates, "seen_noise", lambda *_: 0.29**2)
        assert share_hidden_by_noise(model, x, u, model.held_out(u)) > 1.2 * verdict.noise

    def test_is_not_asked_for_where_the_map_leaves_channels_aside(self):
        model, x, u = fitted(0, 0.0, n_channels=3)
        assert share_hidden_by_noise(model, x, u, model.held_out(u)) is None

    def test_is_not_asked_for_where_the_map_is_not_bent(self):
        """A matrix is nowhere steep: any noise may have been in x."""
        model, x, u = fitted(2, 0.0, n_layers=1)
        assert share_hidden_by_noise(model, x, u, model.held_out(u)) is None

    def test_does_not_go_by_units(self, noisy):
        model, x, u = noisy
        found = share_hidden_by_noise(model, x, u, model.held_out(u))
        other = copy.copy(model)
        other.linear = in_units(model, np.zeros(2), np.array([1e-30, 1e5])).linear
        scaled = x / np.array([[1e-30], [1e5]])
        assert share_hidden_by_noise(other, scaled, u, model.held_out(u)) == pytest.approx(found)

    def test_is_not_seen_where_channels_are_nearly_alike(self, clean):
        """The least noise would hide what they differ in, if there was any."""
        model, x, u = clean
        mix = np.array([[1, 0], [1, 0.01]])
        other = copy.copy(model)
        other.linear = copy.copy(model.linear)
        other.linear.mean, other.linear.mixing = mix @ model.linear.mean, mix @ model.linear.mixing
        other.linear.unmixing = np.linalg.inv(other.linear.mixing)
        assert share_hidden_by_noise(other, mix @ x, u, model.held_out(u)) < HIDDEN

    @pytest.mark.parametrize(
        ("sum_of", "error"),
        [((0, 0), 0), ((-5, 0), 0), ((-5, 0), 1e-7), ((1, 2), 0), ((1, 2), 1e-7)],
        ids=["constant", "copy", "nearly a copy", "sum", "nearly a sum"],
    )
    def test_does_not_go_by_channels_that_say_nothing_more(self, noisy, verdict, sum_of, error):
        model, x, u = noisy
        wide = np.vstack([x, np.array(sum_of) @ x + 3])
        wide[2] += error * np.random.default_rng(0).standard_normal(x.shape[1])
        other = copy.copy(model)
        other.linear = copy.copy(model.linear)
        other.linear.mean = np.append(model.linear.mean, np.array(sum_of) @ model.linear.mean + 3)
        other.linear.mixing = np.vstack([model.linear.mixing, sum_of @ model.linear.mixing])
        found = share_hidden_by_noise(other, wide, u, model.held_out(u))
        if sum_of == (1, 2):  # which two of the three stay is as good as any
            assert found > HIDDEN
        else:
            assert found == pytest.approx(verdict.noise, rel=1e-3)

    def test_goes_into_files_and_comes_back(self, verdict):
        facts = verdict.as_dict()
        assert facts["evidence"]["noise"] == pytest.approx(verdict.noise, abs=1e-4)
        assert Verdict.from_dict(facts).is_noisy
        del facts["evidence"]["noise"]  # as in files written before there was the check
        assert Verdict.from_dict(facts).noise is None
        assert "noise" not in Verdict.from_dict(facts).as_dict()["evidence"]


class TestAuto:
    def test_asks_for_a_model_with_noise_where_it_is_seen(self, noisy, verdict):
        model, x, _ = noisy
        found = Selection(model, verdict, "", {}, "nonlinear")
        assert Candidate(AmortisedModel).is_called_for(found, x)
        for unseen in (None, HIDDEN - 0.01):
            clean = replace(found, verdict=replace(verdict, noise=unseen))
            assert not Candidate(AmortisedModel).is_called_for(clean, x)

    def test_compares_on_what_both_kept_aside(self, noisy):
        """Without another fit: the models' own densities of those samples."""
        model, x, u = noisy
        rich = AmortisedModel(2, kernel_size=1, candidates=("linear",), starts=("segments",))
        rich.fit(x, u, np.random.default_rng(0))
        gain, deviation = heldout_gain(model, rich, x, u, np.random.default_rng(0))
        held = model.held_out(u)
        each = (rich.log_density(x, u) - model.log_density(x, u))[held]
        assert gain == pytest.approx(each.mean())
        assert 0 < deviation < abs(gain)

    def test_begins_from_the_map_whose_noise_was_seen(self, noisy):
        """Which is for x as it is, where networks see it standardised."""
        model, x, u = noisy
        truth = ivae(2, 20, 300, noise=0.2, random_state=1).sources.T
        rich = AmortisedModel(2, kernel_size=1, candidates=("linear", "flow"))
        rich.following(model).fit(x, u, np.random.default_rng(0))
        assert rich.candidate == "flow"
        z = rich.posterior(x, u).mean
        scores = [mcc(truth.T, found.T) for found in (z, model.posterior(x).mean)]
        assert scores[0] > scores[1] + 0.01
        flow = rich.map.start.flow
        np.testing.assert_array_equal(flow.flow.parameters, model.flow.parameters)
