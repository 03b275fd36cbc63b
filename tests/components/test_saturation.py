"""Amplifiers that saturate: `mixing="post-nonlinear"`."""

import mne
import numpy as np
import pytest

from sourcesep import ComponentAnalysis, metrics, read_components, simulate
from sourcesep.components.fitting import warn_about_filters
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.misfit import Misfit
from sourcesep.verdict import Verdict

RAIL = 40e-6


def raw_of(data, high_pass=0.0):
    names = [f"E{k}" for k in range(len(data))]
    info = mne.create_info(names, 250.0, "eeg", verbose="error")
    with info._unlock():
        info["highpass"] = high_pass
    return mne.io.RawArray(data.copy(), info, verbose="error")


@pytest.fixture(scope="module")
def head():
    return simulate.eeg(6, 40.0, n_channels=10, random_state=7)


@pytest.fixture(scope="module")
def saturated(head):
    return raw_of(RAIL * np.tanh(head.data / RAIL))


@pytest.fixture(scope="module")
def curved(saturated):
    return ComponentAnalysis(mixing="post-nonlinear").fit(saturated)


def cleaning_error(head, ca, raw, **options):
    """Of taking out the blinks, in dB below what should be left."""
    blink = head.source_names.index("blink")
    match = metrics.match_sources(head.sources.T, ca.get_sources(raw).get_data().T)
    out = ca.apply(raw.copy(), exclude=[int(match.components[blink])], **options).get_data()
    clean = head.data - np.outer(head.mixing[:, blink], head.sources[blink])
    out, clean = (x - x.mean(axis=1, keepdims=True) for x in (out, clean))
    return 10 * np.log10(np.square(out - clean).sum() / np.square(clean).sum())


@pytest.mark.filterwarnings("ignore:highpass=0 Hz")
def test_a_curve_undoes_what_a_matrix_cannot(head, saturated, curved):
    linear = ComponentAnalysis().fit(saturated)
    found = [
        metrics.mcc(head.sources.T, ca.get_sources(saturated).get_data().T)
        for ca in (linear, curved)
    ]
    assert found[1] > found[0] + 0.015
    error = cleaning_error(head, linear, saturated)
    assert cleaning_error(head, linear, saturated, undistort=True) == error
    assert cleaning_error(head, curved, saturated) < error
    assert cleaning_error(head, curved, saturated, undistort=True) < error - 3
    assert curved.reliability_[:6].min() > 0.8


def test_the_recording_can_be_had_without_the_distortion(head, saturated, curved):
    out = curved.apply(saturated.copy(), exclude=[], undistort=True).get_data()
    true = head.data - head.data.mean(axis=1, keepdims=True)
    before, after = (np.square(x - true).sum() for x in (saturated.get_data(), out))
    assert after < 0.01 * before


def test_excluding_nothing_still_changes_nothing(saturated, curved):
    before = saturated.get_data()
    assert np.array_equal(curved.apply(saturated.copy(), exclude=[]).get_data(), before)


def test_maps_are_those_of_quiet_signals(head, saturated, curved):
    match = metrics.match_sources(head.sources.T, curved.get_sources(saturated).get_data().T)
    maps = curved.get_components()[:, match.components]
    likeness = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(head.mixing.T, maps.T, strict=True)]
    assert np.median(likeness) > 0.95


def test_what_a_curve_cannot(head, saturated, curved):
    with pytest.raises(SettingsError, match="cannot hold a curve"):
        curved.to_mne_ica()
    with pytest.raises(InputError, match="highpass=1 Hz, the fit had 0 Hz"):
        curved.apply(raw_of(saturated.get_data(), 1.0), exclude=[0])
    with pytest.raises(SettingsError, match="as many sources as channels"):
        ComponentAnalysis(4, mixing="post-nonlinear").fit(saturated)


def test_filtered_data_are_warned_about(saturated):
    filtered = raw_of(saturated.get_data(), 1.0)
    with pytest.warns(SourcesepWarning, match="saturates before any filter"):
        warn_about_filters([filtered], is_linear=False)
    with pytest.warns(SourcesepWarning, match="slow drifts"):
        warn_about_filters([saturated], is_linear=True)


def test_the_curve_is_in_the_file(saturated, curved, tmp_path):
    # judging a curve takes half a minute, and is not what this is about
    curved.verdict_ = Verdict("doubtful", "not judged", (0.0,), (0.0,), Misfit(0.0, 0.0))
    curved.save(tmp_path / "a.safetensors")
    again = read_components(tmp_path / "a.safetensors")
    ours, theirs = (ca.get_sources(saturated).get_data() for ca in (curved, again))
    assert np.array_equal(ours, theirs)
