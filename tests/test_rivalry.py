"""What a richer family must do better, requirement by requirement."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sourcesep import simulate
from sourcesep.auxiliary import build
from sourcesep.gains import FITTED_NOISE, heldout_gain
from sourcesep.ivae.convolutive import STARTS, ConvolutiveModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.settings import Settings
from sourcesep.misfit import Misfit
from sourcesep.recording import Recording
from sourcesep.rivalry import (
    Rivalry,
    Selection,
    is_believed,
    is_beyond_noise,
    is_likelier,
    is_more_independent,
    noise_explains,
)
from sourcesep.selection import select
from sourcesep.verdict import Verdict


@dataclass(frozen=True)
class Facts:
    """What is asked of a model."""

    mends: tuple[str, ...] = ()
    may_exceed_rank: bool = False
    representation: str = "time"
    n_components: int = 2
    memory: int = 1
    falls_back: bool = False


CURVE, FILTERS = Facts(("power",), falls_back=True), Facts(("delay",), representation="stft")
SHORT = replace(CURVE, memory=8)
FACTORS, NOISY = Facts(("noise",)), Facts((FITTED_NOISE,))
CROWD = Facts(("delay", "power"), True, "stft", 3)


def rivalry(model, label="doubtful", *, gain=0.0, deviation=0.001, left=4.0, before="doubtful"):
    def found(model, label, misfit):
        return Selection(model, Verdict(label, "", (), (), Misfit(0, misfit)), "", {}, "")

    return Rivalry(found(Facts(), before, 20.0), found(model, label, left), gain, deviation)


class TestRequirements:
    @pytest.mark.parametrize("model", [CURVE, FILTERS, CROWD, NOISY])
    def test_something_tells_components_apart(self, model):
        assert is_believed(rivalry(model)) is None
        nothing = rivalry(model, "not identifiable", before="not identifiable")
        assert is_believed(nothing) == "nothing tells its components apart"

    @pytest.mark.parametrize(
        ("model", "labels"),
        [(FACTORS, ("trusted", "doubtful", "not identifiable")), (CURVE, ("trusted", "doubtful"))],
    )
    def test_factors_and_curves_are_believed_as_much_as_a_matrix(self, model, labels):
        for i, label in enumerate(labels):
            for j, before in enumerate(labels):
                said = is_believed(rivalry(model, label, before=before))
                assert said == (f"its verdict is {label}" if i > j else None)
        assert is_believed(rivalry(FILTERS, "doubtful", before="trusted")) is None

    @pytest.mark.parametrize(
        ("model", "label", "least"),
        [
            (CURVE, "doubtful", 0.02),
            (CURVE, "trusted", 0.002),
            (FILTERS, "doubtful", 0.02),
            (FILTERS, "trusted", 0.02),
            (CROWD, "doubtful", 0.02),
            (FACTORS, "doubtful", -0.02),
            (NOISY, "doubtful", -0.08),
        ],
    )
    def test_gain(self, model, label, least):
        """Beyond chance and a margin; noise that is left out may cost as much."""
        assert is_likelier(rivalry(model, label, gain=least + 1e-6)) is None
        assert is_likelier(rivalry(model, label, gain=least - 1e-6)) == "that is not enough"

    def test_of_samples_over_filters_on_the_stft(self):
        """Of two representations the larger gain over a matrix counts."""

        def over_filters(label, gain):
            return replace(rivalry(SHORT, label, gain=gain), to_exceed=0.5)

        assert is_likelier(over_filters("trusted", 0.51)) is None
        assert is_likelier(over_filters("trusted", 0.49)) == "that is not enough"

    def test_short_filters_have_to_be_trusted(self):
        """A room is a little like them: one lost 8 dB against a matrix."""
        assert is_believed(rivalry(SHORT, "trusted")) is None
        assert is_believed(rivalry(SHORT, "doubtful")) == "its verdict is doubtful"

    def test_chance_counts_where_it_is_large(self):
        assert is_likelier(rivalry(FILTERS, gain=0.05, deviation=0.03)) is not None
        assert is_likelier(rivalry(FACTORS, gain=-0.05, deviation=0.03)) is None

    def test_less_dependence(self):
        assert is_more_independent(rivalry(CURVE, left=14.9)) is None
        assert is_more_independent(rivalry(CURVE, left=15.0)) == "it leaves as much dependence"
        assert is_more_independent(rivalry(CURVE, "trusted", left=19.9)) is None
        assert is_more_independent(rivalry(CURVE, "trusted", left=20.0)) is not None

    @pytest.mark.parametrize(
        ("model", "said"), [(CURVE, "it leaves as much dependence"), (SHORT, None)]
    )
    def test_filters_may_mend_a_delay_alone(self, model, said):
        found = rivalry(model, "trusted", left=4.0)
        before = replace(found.simple.verdict, misfit=Misfit(50, 2))
        assert (
            is_more_independent(replace(found, simple=replace(found.simple, verdict=before)))
            == said
        )

    @pytest.mark.parametrize("model", [FACTORS, NOISY, FILTERS, CROWD])
    def test_components_may_depend_on_each_other(self, model):
        """By noise, by too few channels, or by echoes that outlast the windows."""
        assert is_more_independent(rivalry(model, left=100.0)) is None

    def test_noise_calls_for_no_filters(self):
        assert is_beyond_noise(rivalry(FILTERS)) is None
        said = is_beyond_noise(replace(rivalry(FILTERS), is_of_noise=lambda: True))
        assert said == "noise explains what they mend"


def in_room(seed, seconds=4.0, rt60=0.25, snr=None, kinds=None):
    """Two sources at two microphones, 8 kHz; noise beside each, snr dB below them."""
    sources = [
        simulate.speech(seconds, 8000, random_state=100 * seed + k)
        if kinds is None
        else simulate.instrument(seconds, 8000, kind=kinds[k], random_state=100 * seed + k)
        for k in range(2)
    ]
    x = simulate.room(sources, sfreq=8000, n_mics=2, rt60=rt60, random_state=seed).data
    if snr is not None:
        noise = np.random.default_rng(seed).standard_normal(x.shape)
        x = x + 10 ** (-snr / 20) * x.std() * noise
    u = build("segments:0.02", Recording(x, 8000.0, ("a", "b"), ("", ""), "audio"))
    return x, u


def chosen(x, u, among):
    asked = Settings(starts=("segments",), sfreq=8000.0)
    return select(x, u, np.random.default_rng(0), mixing=among, settings=asked)


class TestRooms:
    @pytest.mark.parametrize("seed", [9210, 9211])
    def test_noise_does_not_hide_them(self, seed):
        found = chosen(*in_room(seed, seconds=8.0, snr=10.0), ("linear", "convolutive"))
        assert found.model.family == "convolutive", found.reason
        assert found.scores["gain"]["convolutive"] > 0.02

    def test_a_matrix_and_noise_are_no_room(self):
        """Filters gain nats in held-out blocks, and would lose 30 dB."""
        kinds = "pad", "melody"
        sources = np.array(
            [
                simulate.instrument(4.0, 8000, kind=kind, random_state=700_000 + k)
                for k, kind in enumerate(kinds)
            ]
        )
        sources /= sources.std(axis=1, keepdims=True)
        x = np.array([[1, 0.8], [0.6, 1]]) @ sources
        x += 0.01 * x.std() * np.random.default_rng(7000).standard_normal(x.shape)
        u = build("segments:0.02", Recording(x, 8000.0, ("a", "b"), ("", ""), "audio"))
        found = chosen(x, u, ("linear", "convolutive"))
        assert found.model.family == "linear"
        assert found.scores["gain"]["convolutive"] > 0.02
        assert "noise explains what they mend" in found.reason

    @pytest.mark.parametrize("seed", [50, 51, 52])
    def test_a_room_at_a_high_rate_is_not_taken_for_noise(self, seed):
        """Of the whole band, faint above 8 kHz, noise would leave less than half of `delay`."""
        sfreq = 44100.0
        sources = [simulate.speech(4.0, sfreq, random_state=100 * seed + k) for k in range(2)]
        x = simulate.room(sources, sfreq=sfreq, rt60=0.3, random_state=seed).data
        u = build("segments:0.02", Recording(x, sfreq, ("a", "b"), ("", ""), "audio"))
        matrix = LinearModel(sfreq=sfreq).fit(x, u, np.random.default_rng(0))
        assert not noise_explains(matrix, replace(FILTERS, memory=8192), x, u, sfreq)

    def test_many_channels_of_little_sound_are_given_no_filters(self):
        rng = np.random.default_rng(0)
        x = rng.laplace(size=(6, 8000)) * np.repeat(rng.uniform(0.1, 2, (6, 20)), 400, axis=1)
        x[1:] += 0.8 * x[:-1]
        x[:, 20:] += 0.8 * x[::-1, :-20]
        u = build("segments:0.02", Recording(x, 8000.0, tuple("abcdef"), ("",) * 6, "audio"))
        found = chosen(x, u, ("linear", "convolutive"))
        said = "filters of 6 sources take 2.6 s of sound or more, and there are 1"
        assert f"convolutive is not tried: {said}" in found.reason

    def test_silence_at_the_end_says_nothing(self):
        """The last fifth is not all silent, nor does silence make one map likelier."""
        x, u = in_room(9212)
        x[:, 25_000:] = 0
        linear = LinearModel(starts=("segments",)).fit(x, u, np.random.default_rng(0))
        filters = ConvolutiveModel(sfreq=8000.0, starts=STARTS["fast"], window=0.256)
        filters.fit(x, u, np.random.default_rng(0))
        gain, deviation = heldout_gain(linear, filters, x, u, np.random.default_rng(0))
        heard = x[:, :25_000], u.take(np.arange(len(x[0])) < 25_000)
        without, _ = heldout_gain(linear, filters, *heard, np.random.default_rng(0))
        assert 5 * deviation < gain < 2 * without
        silent = np.zeros((2, 8000)), u.take(np.arange(len(x[0])) >= 24_000)
        bounds = [model.elbo(*silent).mean for model in (filters, filters.rival(linear, x))]
        assert np.abs(np.diff(bounds)) < 1e-3

    def test_fewer_directions_than_channels_are_no_rival(self, monkeypatch):
        """Their density calls what else the channels hear noise, 70 dB down: -300,000 nats."""

        def inferred(*_):
            raise AssertionError

        monkeypatch.setattr("sourcesep.ivae.stft.panning.infer", inferred)  # that takes long
        x, u = in_room(9404, rt60=0.3, kinds=("drums", "bass"))
        found = chosen(x, u, ("linear", "convolutive", "underdetermined"))
        said = "sound comes from 1 directions between the channels"
        assert f"underdetermined is not tried: {said}" in found.reason
        assert set(found.scores["gain"]) == {"convolutive"}
