"""More sources than channels, from the signal to the verdict."""

import copy
import pickle

import numpy as np
import pytest

from sourcesep import auxiliary, load, metrics, save, separate, simulate
from sourcesep.estimator import IVAE
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.recording import from_array

SFREQ, SECONDS = 8000, 2


def stereo(seed=0, n=3, angles=(0.3, 0.8, 1.3)):
    """Talkers at these places: the mixture and the images."""
    sources = np.stack(
        [simulate.speech(SECONDS, SFREQ, random_state=70 * seed + k) for k in range(n)]
    )
    gains = np.stack([np.cos(angles), np.sin(angles)])[:, :n]
    images = gains.T[:, :, None] * sources[:, None]
    return images.sum(axis=0), images


def mono(seed=0):
    """A pad and drums in one channel."""
    return np.stack(
        [
            simulate.instrument(SECONDS, SFREQ, kind=kind, random_state=seed)
            for kind in ("pad", "drums")
        ]
    )


def fitted(x, n_components=None):
    u = auxiliary.build(None, from_array(x, SFREQ))
    model = UnderdeterminedModel(n_components, sfreq=SFREQ)
    return model.fit(x, u, np.random.default_rng(0)), u


def gains_db(images, found):
    """SI-SDR of each source's best estimate at channel 0, less that of the mixture."""
    mixture = images[:, 0].sum(axis=0)
    table = [[metrics.si_sdr(true[0], one[0]) for one in found] for true in images]
    before = [metrics.si_sdr(true[0], mixture) for true in images]
    return np.max(table, axis=1) - before


@pytest.mark.parametrize("seed", range(3))
def test_three_talkers_in_stereo(seed):
    x, images = stereo(seed)
    model, u = fitted(x)
    assert (model.n_components, model.n_channels, model.rank) == (3, 2, 2)
    found = model.images(x, u)
    assert np.mean(gains_db(images, found)) > 17
    rest = x - x.mean(axis=1, keepdims=True) - found.sum(axis=0)
    assert np.square(rest).mean() < 1e-5 * np.square(x).mean()


@pytest.mark.parametrize("n_channels", [1, 2])
def test_one_channel_however_often_is_told_apart_by_spectrum(n_channels):
    sources = mono()
    x = np.arange(1.0, n_channels + 1)[:, None] * sources.sum(axis=0)
    model, u = fitted(x)
    assert (model.n_components, model.rank) == (2, 1)
    assert model.caveat == "one channel: told apart by spectrum only"
    images = np.repeat(sources[:, None], n_channels, axis=1)
    assert np.mean(gains_db(images, model.images(x, u))) > 10
    with pytest.raises(SettingsError, match="ask for 2"):
        fitted(x, 3)


def test_a_pickle_holds_the_model_and_not_what_it_has_inferred_of_cells():
    x, _ = stereo()
    model, u = fitted(x, 3)
    pickled = pickle.dumps(model)
    held = sum(tensor.nbytes for tensor in model.state().tensors.values())
    assert held < len(pickled) < held + 20_000
    for again in (pickle.loads(pickled), copy.deepcopy(model)):
        mean = again.posterior(x, u).mean
        np.testing.assert_allclose(mean, model.posterior(x, u).mean, atol=1e-4)


@pytest.mark.parametrize("drums", [0.1, 10.0])
def test_either_layer_may_be_the_louder_one(drums):
    x = ([1.0, drums] @ mono())[None]
    model = fitted(x)[0]
    first, second = ("percussive", "steady") if drums > 1 else ("steady", "percussive")
    assert f"a {first} and a {second} layer" in model.choice
    again = UnderdeterminedModel.from_state(model.state())
    assert again.choice == model.choice
    np.testing.assert_allclose(again.posterior(x).mean, model.posterior(x).mean, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_room_with_more_talkers_than_microphones_is_not_identifiable(seed):
    talkers = [simulate.speech(SECONDS, SFREQ, random_state=80 * seed + k) for k in range(3)]
    room = simulate.room(np.stack(talkers), sfreq=SFREQ, n_mics=2, rt60=0.3, random_state=seed)
    model, _ = fitted(room.data, 3)
    assert "not modelled for more sources than channels" in model.caveat
    model, _ = fitted(stereo(seed)[0], 3)
    assert model.caveat is None


def test_only_more_sources_than_are_found_and_in_phase_are_worth_a_fit():
    def following(x, n_components=None):
        u = auxiliary.build(None, from_array(x, SFREQ))
        found = LinearModel(sfreq=SFREQ).fit(x, u, np.random.default_rng(0))
        model = UnderdeterminedModel(n_components, sfreq=SFREQ).following(found)
        return model.fit(x, u, np.random.default_rng(0))

    assert following(stereo()[0]).n_components == 3
    with pytest.raises(SettingsError, match="from 2 directions between the channels, no more"):
        following(stereo(n=2, angles=(0.3, 1.3))[0])
    with pytest.raises(SettingsError, match="2 sources at most are looked for"):
        following(stereo()[0], 2)
    talkers = [simulate.speech(SECONDS, SFREQ, random_state=k) for k in range(3)]
    room = simulate.room(np.stack(talkers), sfreq=SFREQ, n_mics=2, rt60=0.3, random_state=0)
    with pytest.raises(SettingsError, match="most of the sound comes from no single direction"):
        following(room.data)


def test_a_rough_fit_finds_the_same_sources():
    x, _ = stereo()
    model, u = fitted(x, 3)
    rough = model.rough().fit(x, u, np.random.default_rng(0))
    assert rough.n_iterations < model.n_iterations == model.blank().n_iterations
    both = np.corrcoef(model.posterior(x, u).mean, rough.posterior(x, u).mean)[:3, 3:]
    assert (np.diag(both) > 0.99).all()


def test_one_source_is_one_direction():
    x, _ = stereo(n=1)
    model, u = fitted(x + 1e-3 * np.random.default_rng(0).standard_normal(x.shape))
    assert model.n_components == 1
    assert metrics.si_sdr(x[0], model.image(x, 0, u)[0]) > 30


def test_silence_is_refused():
    with pytest.raises(InputError, match="constant"):
        fitted(np.zeros((2, 4000)))


def test_a_silent_stretch_and_a_silent_channel():
    x, _ = stereo()
    x[:, :8000] = 0
    x = np.concatenate([x, np.zeros((1, x.shape[1]))])
    model, u = fitted(x, 3)
    found = model.images(x, u)
    assert np.isfinite(found).all()
    assert np.abs(found[:, 2]).max() == 0
    assert np.abs(found[:, :, :6000]).max() < 1e-3 * np.abs(x).max()


def test_more_directions_than_there_are_is_an_error_that_helps():
    source = simulate.speech(SECONDS, SFREQ)
    echo = np.stack([source, 0.5 * source])
    echo[1, 9000] += 0.3  # of rank 2 by a hair
    with pytest.raises(SettingsError, match="n_components=5: sound comes from"):
        fitted(echo, 5)


def test_the_bound_is_exact_and_its_terms_are_what_they_say():
    """log p(x) of the cells, and a divergence that is never negative."""
    x, _ = stereo()
    model, u = fitted(x, 3)
    bound = model.elbo(x, u)
    assert (bound.kl > 0).all()
    mirrored, _ = fitted(x * np.array([[1.0], [-1.0]]), 3)
    assert bound.mean > mirrored.elbo(x, u).mean


@pytest.mark.slow
def test_the_verdict_says_why_it_cannot_be_sure():
    alone = separate((mono().sum(axis=0)[None], SFREQ), mixing="underdetermined")
    assert alone.verdict.label == "not identifiable"
    assert alone.verdict.sentence == "one channel: told apart by spectrum only"
    x, images = stereo()
    both = separate((x, SFREQ), mixing="underdetermined", n_components=3)
    assert both.verdict.label == "doubtful"
    assert "has not been measured" in both.verdict.sentence
    assert min(both.verdict.agreement) > 0.9
    total = both.images.sum(axis=0) + both.residual
    np.testing.assert_allclose(total, x, atol=1e-9)
    assert np.mean(gains_db(images, both.images)) > 17


@pytest.mark.slow
def test_saved_and_used_on_another_recording(tmp_path):
    x, _ = stereo()
    path = tmp_path / "model.safetensors"
    model = IVAE(3, mixing="underdetermined", sfreq=SFREQ, random_state=0).fit(x.T)
    save(model, path)
    other, others = stereo(seed=1)
    np.testing.assert_array_equal(load(path).transform(other.T), model.transform(other.T))
    assert np.mean(gains_db(others, load(path).model_.images(other))) > 15
