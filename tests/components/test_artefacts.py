"""Eyes, heart and muscle among the components of simulated heads."""

import sys
import warnings

import mne
import numpy as np
import pytest

from sourcesep import ComponentAnalysis, metrics, separate, simulate
from sourcesep.components.mne_ica import as_mne_ica
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    SettingsError,
    SourcesepWarning,
)

SEEDS = (20, 21, 22)


def recorded(seed):
    """A head with EOG and ECG channels, each with noise and some brain in it."""
    head = simulate.eeg(10, 60.0, n_channels=16, random_state=seed)
    rng = np.random.default_rng(seed)
    noise = 2e-5 * rng.standard_normal((3, head.sources.shape[1]))
    eyes, heart = (head.sources[head.source_names.index(name)] for name in ("blink", "heart"))
    others = np.stack([1e-4 * eyes + 0.3 * head.data[:2].mean(axis=0), 0 * eyes, 1e-4 * heart])
    info = mne.create_info(
        [*head.names, "EOG", "EOG2", "ECG"],
        head.sfreq,
        ["eeg"] * 16 + ["eog", "eog", "ecg"],
        verbose="error",
    )
    raw = mne.io.RawArray(np.vstack([head.data, others + noise]), info, verbose="error")
    raw.filter(1.0, None, picks="all", verbose="error")
    ca = ComponentAnalysis(10).fit(raw)
    match = metrics.match_sources(head.sources.T, ca.get_sources(raw).get_data().T)
    which = {head.source_names[s]: int(c) for s, c, *_ in zip(*match, strict=True)}
    return raw, ca, which


@pytest.fixture(scope="module")
def heads():
    return [recorded(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def one(heads):
    return heads[0]


def test_eyes_are_found_by_eog_channels(heads):
    for raw, ca, which in heads:
        indices, scores = ca.find_bads_eog(raw)  # both channels, one of which sees nothing
        assert indices == [which["blink"]] == ca.labels_["eog"]
        assert scores.shape == (10,)
        assert scores[indices[0]] > 2 * np.delete(scores, indices).max()
        assert ca.find_bads_eog(raw, "EOG")[0] == indices
        assert ca.find_bads_eog(raw, ["EOG2"])[0] == []


def test_without_eog_frontal_electrodes_stand_in(heads):
    for raw, ca, which in heads:
        bare = raw.copy().pick("eeg")
        with pytest.warns(SourcesepWarning, match="Fp1, Fp2"):
            assert ca.find_bads_eog(bare)[0] == [which["blink"]]


def test_frontal_electrodes_are_known_by_their_places(one):
    raw, _, which = one
    names = {name: f"E{k}" for k, name in enumerate(raw.ch_names[:16])}
    placed = raw.copy().pick("eeg").set_montage("standard_1020", verbose="error")
    placed.rename_channels(names, verbose="error")
    ca = ComponentAnalysis(10).fit(placed)
    with pytest.warns(SourcesepWarning, match="E0, E1|E1, E0"):
        assert ca.find_bads_eog(placed)[0] == [which["blink"]]
    for channel in placed.info["chs"]:
        channel["loc"][:] = np.nan
    with pytest.raises(InputError, match="set a montage"):
        ca.find_bads_eog(placed)


def test_names_say_what_types_do_not(heads):
    """Files that know no types call every channel EEG."""
    for raw, ca, which in heads:
        as_read = raw.copy().set_channel_types(
            {"EOG": "eeg", "EOG2": "eeg", "ECG": "eeg"}, on_unit_change="ignore"
        )
        assert ca.find_bads_eog(as_read)[0] == [which["blink"]]
        assert ca.find_bads_ecg(as_read)[1].argmax() == which["heart"]


def test_the_heart_is_found(heads):
    for raw, ca, which in heads:
        indices, scores = ca.find_bads_ecg(raw)
        assert indices in ([which["heart"]], [])
        assert scores.argmax() == which["heart"]
    assert any(ca.labels_["ecg"] for _, ca, _ in heads)
    raw, ca, _ = heads[0]
    with pytest.raises(InputError, match="no ECG channel"):
        ca.find_bads_ecg(raw.copy().pick("eeg"))
    with pytest.raises(InputError, match="heartbeats found"):
        ca.find_bads_ecg(raw.copy().crop(0, 5))


def test_muscle_is_found_and_noise_is_not_taken_for_it(heads):
    for raw, _, _ in heads:
        ca = ComponentAnalysis().fit(raw)  # six components more than sources, of noise
        indices, scores = ca.find_bads_muscle(raw)
        assert len(indices) == 1
        assert scores[indices[0]] > 0.9
    with pytest.raises(InputError, match="lowpass=30 Hz"):
        ca.find_bads_muscle(raw.copy().filter(None, 30.0, verbose="error"))


def test_epochs_do_as_well(one):
    raw, ca, which = one
    epochs = mne.make_fixed_length_epochs(raw, 2.0, preload=True, verbose="error")
    assert ca.find_bads_eog(epochs)[0] == [which["blink"]]
    assert ca.find_bads_muscle(epochs)[0] == [which["muscle"]]
    assert ca.find_bads_ecg(epochs)[1].argmax() == which["heart"]
    with pytest.raises(InputError, match="Evoked"):
        ca.find_bads_eog(epochs.average())


def test_what_is_marked_bad_does_not_count(one):
    raw, ca, which = one
    harmed = raw.copy()
    harmed._data[16:18, 5000:6000] += 1.0
    harmed.set_annotations(mne.Annotations([20.0], [4.0], ["BAD"]))
    assert ca.find_bads_eog(harmed)[0] == [which["blink"]]
    assert ca.find_bads_eog(harmed.set_annotations(None))[0] == []


class TestExcludedByName:
    """`Separation.save(exclude=["eog"])`, which the command line calls."""

    @pytest.fixture
    def separation(self, one):
        return separate(one[0], n_components=10)

    def test_the_eyes_leave_and_the_rest_stays(self, one, separation, tmp_path):
        raw = one[0]
        result = separation.save(tmp_path / "out", exclude=["eog"])
        (eye,) = result["output"]["exclude"]
        found = result["output"]["found"]["eog"]
        assert found["components"] == [eye]
        assert np.argmax(found["scores"]) == eye
        cleaned = mne.io.read_raw(tmp_path / "out" / "cleaned_raw.fif", verbose="error")
        expected = raw.get_data("eeg") - separation.image(eye)
        assert np.allclose(cleaned.get_data("eeg"), expected, rtol=1e-9, atol=1e-12)
        blinks = raw.get_data(["EOG"])[0]
        before, after = (
            abs(np.corrcoef(x.get_data(["Fp1"])[0], blinks)[0, 1]) for x in (raw, cleaned)
        )
        assert before > 2 * after

    def test_where_none_is_found_all_stays(self, one, separation, tmp_path):
        raw = one[0].copy().drop_channels(["EOG"])  # the other sees nothing
        separation = separate(raw, n_components=10)
        with pytest.warns(SourcesepWarning, match=r"exclude=eog: no component scores 0\.5 or"):
            result = separation.save(tmp_path / "out", exclude=["eog"])
        assert result["output"]["exclude"] == []
        cleaned = mne.io.read_raw(tmp_path / "out" / "cleaned_raw.fif", verbose="error")
        assert np.array_equal(cleaned.get_data(), raw.get_data())

    @pytest.mark.parametrize(
        ("drop", "exclude", "error"),
        [
            (
                ["ECG"],
                ["ecg"],
                (InputError, "exclude=ecg: no ECG channel: .*in it; or leave ecg out"),
            ),
            ([], ["tail"], (SettingsError, "exclude=tail: must be numbers of components, or")),
            ([], ["eog", 10], (SettingsError, "no such component; they are 0 to 9")),
        ],
    )
    def test_what_cannot_be_writes_nothing(self, one, tmp_path, drop, exclude, error):
        separation = separate(one[0].copy().drop_channels(drop), n_components=10)
        with pytest.raises(error[0], match=error[1]):
            separation.save(tmp_path / "out", exclude=exclude)
        assert not list(tmp_path.iterdir())


def test_what_cannot_be(one):
    raw, ca, _ = one
    with pytest.raises(SettingsError, match="ch_name='nose'"):
        ca.find_bads_eog(raw, "nose")
    for of_mne in (3.0, "auto"):
        with pytest.raises(SettingsError, match="between 0 and 1"):
            ca.find_bads_eog(raw, threshold=of_mne)


def test_iclabel_is_asked_for_where_it_is_not(one, monkeypatch):
    raw, ca, _ = one
    monkeypatch.setitem(sys.modules, "mne_icalabel", None)
    with pytest.raises(MissingDependencyError, match="needs mne-icalabel: pip install"):
        ca.label_components(raw)


def test_components_that_mne_cannot_hold():
    """Its mixing and unmixing have one row space; those whitened channel by channel have not."""
    rng = np.random.default_rng(0)
    info = mne.create_info(4, 100.0, "eeg")
    mixing = rng.standard_normal((4, 2))
    exact = np.linalg.pinv(mixing)
    ica = as_mne_ica(exact, mixing, np.zeros(4), np.ones(4), info, 100)
    np.testing.assert_allclose(ica.unmixing_matrix_ @ ica.pca_components_[:2], exact)
    beside = exact + 1e-3 * rng.standard_normal((2, 4))
    with pytest.raises(SettingsError, match="leave out those that are all but flat"):
        as_mne_ica(beside, mixing, np.zeros(4), np.ones(4), info, 100)


@pytest.mark.slow  # it loads a network
def test_iclabel_labels_all_components_and_its_demands_are_said(one):
    pytest.importorskip("mne_icalabel")
    raw, _, which = one
    raw = raw.copy().pick("eeg").set_montage("standard_1020", verbose="error")
    ca = ComponentAnalysis(10).fit(raw)
    with pytest.warns(SourcesepWarning, match="the average reference, a low-pass at 100 Hz"):
        labels = ca.label_components(raw)
    with warnings.catch_warnings():  # by the header, as the network was trained
        warnings.simplefilter("error", SourcesepWarning)
        with raw.info._unlock():
            raw.info["lowpass"] = 100.0
        ca.label_components(raw.set_eeg_reference("average", verbose="error"))
    assert len(labels) == 10
    assert labels[which["blink"]][0] == "eye blink"
    assert sorted(k for found in ca.labels_.values() for k in found) == list(range(10))
