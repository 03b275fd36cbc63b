"""MNE draws the components as if they were its own."""

import matplotlib.pyplot as plt
import mne
import numpy as np
import pytest

from sourcesep import ComponentAnalysis, simulate
from sourcesep.exceptions import SettingsError


@pytest.fixture(scope="module")
def both():
    head = simulate.eeg(6, 30.0, n_channels=12, random_state=5)
    info = mne.create_info(list(head.names), head.sfreq, "eeg", verbose="error")
    raw = mne.io.RawArray(head.data, info, verbose="error").filter(1.0, None, verbose="error")
    raw.set_montage("standard_1020", verbose="error")
    return ComponentAnalysis(6).fit(raw), raw


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_maps_say_how_reliable_each_is(both):
    ca, _ = both
    ca.exclude = [2]
    figure = ca.plot_components([0, 2], show=False)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"IVAE{k:03d} r={ca.reliability_[k]:.2f}" for k in (0, 2)]
    assert ca.exclude == [2]


def test_the_other_plots(both):
    ca, raw = both
    assert ca.plot_sources(raw, show=False) is not None
    assert len(ca.plot_properties(raw, [0], show=False, verbose="error")) == 1
    figure = ca.plot_overlay(raw, [0], show=False, verbose="error")
    removed = ca.apply(raw.copy(), exclude=[0]).get_data()[:, : int(3 * raw.info["sfreq"])]
    drawn = [line.get_ydata() for ax in figure.axes for line in ax.lines]
    assert any(
        len(y) == removed.shape[1] and np.allclose(y, removed.mean(axis=0), atol=1e-12)
        for y in drawn
    )
    scores = ca.plot_scores(ca.reliability_, show=False).axes[0].patches
    assert set(ca.reliability_) <= {bar.get_height() for bar in scores}
    with pytest.raises(SettingsError, match="0 to 5"):
        ca.plot_overlay(raw, [6])
