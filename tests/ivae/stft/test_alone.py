"""One channel in which labels say who is heard."""

import numpy as np
import pytest
import soundfile

from sourcesep import auxiliary, load, metrics, save, separate, simulate
from sourcesep.estimator import IVAE
from sourcesep.exceptions import SettingsError, SourcesepWarning
from sourcesep.ivae.stft import alone
from sourcesep.ivae.stft.cells import to_spectrum
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.recording import Event, Recording, from_array

SFREQ, ALONE, TOGETHER = 8000, 4, 3
EVENTS = (Event(0, ALONE, "pad"), Event(ALONE, ALONE, "bass"))


def band(seed, kinds=("pad", "bass")):
    """Instruments, each alone at first, then all together: (n_sources, n_times)."""
    seconds = len(kinds) * ALONE + TOGETHER
    sources = np.stack(
        [
            simulate.instrument(seconds, SFREQ, kind=kind, random_state=30 + 10 * seed + k)
            for k, kind in enumerate(kinds)
        ]
    )
    for k, source in enumerate(sources):
        source[: k * ALONE * SFREQ] = 0
        source[(k + 1) * ALONE * SFREQ : len(kinds) * ALONE * SFREQ] = 0
    return sources


def recording(sources, events=EVENTS):
    return Recording(
        sources.sum(axis=0)[None], SFREQ, ("ch0",), ("",), "audio", events=tuple(events)
    )


def fitted(sources, events=EVENTS, spec="annotations", **settings):
    heard = recording(sources, events)
    u = auxiliary.build(spec, heard)
    model = UnderdeterminedModel(sfreq=SFREQ, **settings)
    return model.fit(heard.data, u, np.random.default_rng(0)), heard.data, u


def gain(sources, images, names, order=("pad", "bass")):
    """SI-SDR gain where all sound, each source against the image of its name, dB."""
    part = slice(len(sources) * ALONE * SFREQ, None)
    found = images[[names.index(name) for name in order], 0, part]
    before = metrics.si_sdr(
        sources[:, part], np.broadcast_to(sources[:, part].sum(axis=0), found.shape)
    )
    return float((metrics.si_sdr(sources[:, part], found) - before).mean())


@pytest.mark.parametrize("seed", range(3))
def test_each_source_is_what_sounds_like_it_alone(seed):
    sources = band(seed)
    model, x, u = fitted(sources)
    assert sorted(model.names) == ["bass", "pad"]
    told = gain(sources, model.images(x, u), model.names)
    assert told > 8
    plain = UnderdeterminedModel(sfreq=SFREQ)
    layers = plain.fit(x, auxiliary.build(None, recording(sources)), np.random.default_rng(0))
    for order in (("pad", "bass"), ("bass", "pad")):
        assert told > gain(sources, layers.images(x), order) + 4
    # the same labels in another place teach nothing
    mixed = [Event(2 * ALONE - 1, 2, "pad"), Event(2 * ALONE + 1, 2, "bass")]
    wrong, x, other = fitted(sources, mixed)
    assert told > gain(sources, wrong.images(x, other), wrong.names) + 4


def test_who_is_silent_has_no_variance():
    sources = band(0)
    model, x, u = fitted(sources)
    images = model.images(x, u)[:, 0]
    inside = slice(SFREQ // 2, ALONE * SFREQ - SFREQ // 2)
    pad = model.names.index("pad")
    assert np.abs(images[1 - pad, inside]).max() < 1e-3 * np.abs(images[pad, inside]).max()
    np.testing.assert_allclose(images.sum(axis=0), x[0] - x[0].mean(), atol=1e-2)
    moments = dict(zip(u.scales[0].names, model.prior_moments()[1], strict=True))
    assert moments["pad"][1 - pad] < 1e-2 * moments["pad"][pad]
    assert (model.elbo(x, u).kl > 0).all()
    # without labels any source may sound at any time
    assert np.abs(model.images(x)[1 - pad, 0, inside]).max() > 0


def test_the_prior_is_fitted_again_to_what_u_says():
    model, x, u = fitted(band(0))
    again = model.refit_prior(x, u)
    np.testing.assert_allclose(again.prior.variance, model.prior.variance, rtol=1e-5)


def test_three_and_some_of_them_together():
    kinds = ("pad", "melody", "bass")
    sources = band(3, kinds)
    n = ALONE * SFREQ
    sources[2, 3 * n : 3 * n + SFREQ] = 0
    events = [Event(k * ALONE, ALONE, kind) for k, kind in enumerate(kinds)]
    events += [Event(3 * ALONE, 1, "pad"), Event(3 * ALONE, 1, "melody")]
    model, x, u = fitted(sources, events)
    assert model.n_components == 3
    assert "melody & pad" in u.scales[0].names
    images = model.images(x, u)
    silent = images[model.names.index("bass"), 0, 3 * n + SFREQ // 4 : 3 * n + 3 * SFREQ // 4]
    assert np.abs(silent).max() < 1e-3
    assert gain(sources, images, model.names, kinds) > 5


def test_which_labels_name_sources():
    heard = recording(band(0))
    named = auxiliary.build("annotations", heard)
    assert alone.names_in(named) == ("bass", "pad")
    rows = np.where(np.arange(heard.n_times) < 9, "pad", "bass & pad")
    assert alone.names_in(auxiliary.from_array(rows, heard.n_times)) == ("bass", "pad")
    for spec in ("segments", "segments:1+annotations"):
        assert alone.names_in(auxiliary.build(spec, heard)) == ()
    assert alone.names_in(auxiliary.from_array(np.linspace(0, 1, 9), 9)) == ()
    assert alone.names_in(None) == ()


def test_frames_hear_whoever_sounds_in_them():
    labels = np.repeat(["a", "b", "(none)", "a"], 64)
    u = auxiliary.from_array(labels, len(labels))
    size = 64
    n_frames = to_spectrum(np.zeros((1, len(labels))), size).shape[1]
    sounds = alone.heard(u, ("a", "b"), size, n_frames)
    assert sounds.shape == (2, n_frames)
    # frame t lies over samples 16 (t - 3) to 16 (t + 1)
    for t, (a, b) in enumerate(sounds.T):
        inside = set(labels[max(0, 16 * (t - 3)) : 16 * (t + 1)])
        assert (a, b) == (bool(inside & {"a", "(none)"}), bool(inside & {"b", "(none)"}))
    assert alone.heard(u, ("a", "c"), size, n_frames)[1, 8:10].all()  # b is not known


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([Event(0, 4, "pad"), Event(0, 8, "bass")], "'pad' is alone for less than half a second"),
        ([Event(0, 4, "pad"), Event(4, 7, "bass")], "one source at a time"),
        ([Event(0, 4, "pad")], "name one source"),
    ],
)
def test_labels_that_do_not_help_are_said_and_left(events, message):
    with pytest.warns(SourcesepWarning, match=message):
        model, _, _ = fitted(band(0), events)
    assert (model.names, model.caveat) == ((), "one channel: told apart by spectrum only")


def test_labels_that_do_not_help_are_said_once_and_the_verdict_is_that_of_layers(tmp_path):
    """Halves of the data are not asked again; a name misspelt once is in one of them only."""
    path, who = tmp_path / "band.wav", tmp_path / "who.csv"
    soundfile.write(path, 0.1 * band(1).sum(axis=0), SFREQ)
    rows = f"0,{ALONE},pad\n{ALONE},{ALONE},bass\n{2 * ALONE},0.1,bas\n"
    who.write_text(f"onset,duration,label\n{rows}")
    with pytest.warns(SourcesepWarning) as warned:
        found = separate(path, aux=f"file:{who}")
    assert [str(w.message).count("'bas' is alone for less") for w in warned] == [1]
    assert found.verdict.label == "not identifiable"
    assert found.verdict.sentence == "one channel: told apart by spectrum only"


def test_nothing_is_learned_from_silence():
    sources = band(0)
    sources[0, : ALONE * SFREQ] = 0
    with pytest.warns(SourcesepWarning, match="where anything is heard .* one source, 'bass'"):
        fitted(sources)
    sources[0, :2] = 1e-3, -1e-3  # so that its stretch begins with a click
    with pytest.warns(SourcesepWarning, match="'pad' is alone for less than half a second"):
        fitted(sources)


def test_another_number_than_the_labels_name_is_refused():
    with pytest.raises(SettingsError, match="n_components=3: the labels name 2 sources"):
        fitted(band(0), n_components=3)


def test_talkers_who_sound_alike_are_not_identifiable():
    """One voice twice: spectra cannot tell it from itself."""
    voice = simulate.speech(2 * ALONE + TOGETHER, SFREQ, random_state=5)
    sources = np.stack([voice, np.roll(voice, -ALONE * SFREQ)])
    sources[0, ALONE * SFREQ : 2 * ALONE * SFREQ] = sources[1, : ALONE * SFREQ] = 0
    model, _, _ = fitted(sources)
    assert "told apart by spectrum only" in model.caveat
    assert "they come apart by" in model.caveat


def test_from_a_file_of_events_to_the_verdict(tmp_path):
    sources = 0.1 * band(1)
    path, who = tmp_path / "band.wav", tmp_path / "who.csv"
    soundfile.write(path, sources.sum(axis=0), SFREQ)
    who.write_text(f"onset,duration,label\n0,{ALONE},pad\n{ALONE},{ALONE},bass\n")
    found = separate(path, aux=f"file:{who}")
    result = found.result()
    assert result["family"] == "underdetermined"
    assert result["verdict"] == "doubtful"
    assert "told apart by spectrum where several sound" in result["sentence"]
    assert sorted(result["heard"]["sources"]) == ["bass", "pad"]
    assert result["heard"]["rehearsed_gain_db"] > 3
    assert "each learned where it is alone" in result["reason"]
    assert gain(sources, found.images, found.ivae.model_.names) > 8


def test_saved_and_used_where_nobody_says_who_is_heard(tmp_path):
    sources = band(2)
    heard = recording(sources)
    path = tmp_path / "band.safetensors"
    u = auxiliary.build("annotations", heard)
    ivae = IVAE(mixing="underdetermined", sfreq=SFREQ, random_state=0).fit(heard.data.T, u=u)
    save(ivae, path)
    again = load(path).model_
    assert again.names == ivae.model_.names
    assert again.caveat == ivae.model_.caveat
    np.testing.assert_array_equal(again.images(heard.data, u), ivae.model_.images(heard.data, u))
    later = sources[:, 2 * ALONE * SFREQ :]
    found = separate(from_array(later.sum(axis=0)[None], SFREQ), model=load(path)).images
    order = [again.names.index(name) for name in ("pad", "bass")]
    mixture = np.broadcast_to(later.sum(axis=0), later.shape)
    better = metrics.si_sdr(later, found[order, 0]) - metrics.si_sdr(later, mixture)
    assert better.mean() > 6


def test_whole_numbers_in_an_array_name_nobody(recwarn):
    sources = band(0)
    labels = np.arange(sources.shape[1]) * 4 // sources.shape[1]
    assert not alone.names_in(auxiliary.from_array(labels, len(labels)))
    model = UnderdeterminedModel(sfreq=SFREQ).fit(
        sources.sum(axis=0)[None],
        auxiliary.from_array(labels, len(labels)),
        np.random.default_rng(0),
    )
    assert "layer" in model.choice
    assert not recwarn.list


def test_names_are_said_not_to_help_with_two_channels():
    sources = band(0)
    names = np.array(["pad", "bass", "pad & bass"])[
        np.arange(sources.shape[1]) * 3 // sources.shape[1]
    ]
    x = np.array([[1, 0.3], [0.3, 1]]) @ sources
    u = auxiliary.from_array(names, len(names))
    model = UnderdeterminedModel(2, sfreq=SFREQ).fit(x, u, np.random.default_rng(0))
    assert model.choice.endswith("; who is heard when (bass, pad) helps with one channel only")
