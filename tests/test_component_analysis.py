"""What users of mne.preprocessing.ICA rely on, and what they have missed there."""

import pickle
import warnings
from datetime import UTC, datetime
from itertools import pairwise

import mne
import numpy as np
import pytest

from sourcesep import (
    ComponentAnalysis,
    component_analysis,
    load,
    metrics,
    read_components,
    simulate,
)
from sourcesep.components import cutting
from sourcesep.components.background import artefact_part
from sourcesep.components.channels import to_one_scale
from sourcesep.components.cutting import Cut, part_of
from sourcesep.components.gathering import auxiliary_of
from sourcesep.exceptions import (
    InputError,
    ModelFileError,
    OutputError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.ivae.brain import Halves
from sourcesep.persistence import write_file

SFREQ = 250.0
FEW = "ignore:n_times=:sourcesep.exceptions.SourcesepWarning"
"""Short recordings make quick tests."""


def raw_of(data, types="eeg", names=None, high_pass=1.0, sfreq=SFREQ):
    names = names or [f"C{k}" for k in range(len(data))]
    info = mne.create_info(list(names), sfreq, types, verbose="error")
    with info._unlock():
        info["highpass"] = high_pass
    return mne.io.RawArray(data.copy(), info, verbose="error")


@pytest.fixture(scope="module")
def head():
    return simulate.eeg(8, 40.0, n_channels=16, random_state=4)


@pytest.fixture(scope="module")
def recorded(head):
    raw = raw_of(head.data, names=head.names)
    raw.set_annotations(mne.Annotations([2.0, 10.0, 25.0], [3.0, 5.0, 8.0], ["a", "b", "a"]))
    return raw


@pytest.fixture
def raw(recorded):
    return recorded.copy()


@pytest.fixture(scope="module")
def ca(recorded):
    ca = ComponentAnalysis(8).fit(recorded)
    assert ca.verdict_.label in ("trusted", "doubtful")  # worked out once for all tests
    return ca


def mcc(head, ca, raw):
    return metrics.mcc(head.sources.T, ca.get_sources(raw).get_data().T)


def test_three_laplace_sources_are_found():
    # as in MNE's own tests, but with power that changes, by which these are told apart
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scale = np.repeat(rng.uniform(0.3, 3, (3, 40)), 125, axis=1)
        sources = rng.laplace(size=(3, 5000)) * scale
        mixing = rng.standard_normal((3, 3))
        ca = ComponentAnalysis().fit(raw_of(1e-6 * mixing @ sources))
        unmixing = ca.model_.matrices[0] / ca._scale
        assert metrics.amari_distance(unmixing, 1e-6 * mixing) < 0.1


def test_brain_sources_and_artefacts_are_found_and_said_to_be_reliable(head, raw, ca):
    assert mcc(head, ca, raw) > 0.9
    assert ca.reliability_.min() > 0.95
    assert ca.n_samples_ == raw.n_times
    noisy = ComponentAnalysis().fit(raw)
    match = metrics.match_sources(head.sources.T, noisy.get_sources(raw).get_data().T)
    others = np.setdiff1d(np.arange(16), match.components)
    # beyond the eight sources there is nothing but the electrodes' noise
    assert noisy.reliability_[others].mean() < 0.8 < noisy.reliability_[match.components].min()


@pytest.mark.filterwarnings(FEW)
def test_two_fits_are_the_same_to_the_bit(raw):
    a, b = ComponentAnalysis(random_state=0).fit(raw), ComponentAnalysis(random_state=1).fit(raw)
    assert np.array_equal(a.get_components(), b.get_components())


def test_a_fit_leaves_the_recording_as_it_is(recorded):
    before = recorded.get_data()
    ComponentAnalysis(8).fit(recorded)
    assert np.array_equal(recorded.get_data(), before)


def containers(raw):
    epochs = mne.make_fixed_length_epochs(raw, 0.9, preload=True, proj=False, verbose="error")
    return {"raw": raw, "epochs": epochs, "evoked": epochs.average()}


@pytest.mark.parametrize("kind", ["raw", "epochs", "evoked"])
def test_apply_changes_nothing_where_nothing_is_excluded(raw, ca, kind):
    inst = containers(raw)[kind]
    before = inst.get_data().copy()
    assert ca.apply(inst, exclude=[]) is inst
    assert np.array_equal(inst.get_data(), before)


@pytest.mark.parametrize("kind", ["raw", "epochs", "evoked"])
def test_apply_takes_out_what_of_components_is_their_sources(raw, ca, kind):
    inst = containers(raw)[kind]
    z, before = ca.get_sources(inst).get_data(), inst.get_data().copy()
    image = before - ca.apply(inst, exclude=[1]).get_data()
    share = ca._signal[1]
    assert 0.9 < share < 1  # of a source that is found well
    its = z[..., 1:2, :] * share * ca.get_components()[:, [1]]
    assert np.allclose(image, its, atol=1e-9 * np.abs(image).max())


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("seed", range(3))
def test_apply_leaves_fewer_errors_than_a_regression(seed):
    # a heartbeat that electrodes' noise all but hides: taken out whole, mostly noise would go
    head = simulate.eeg(14, 60.0, n_channels=16, random_state=seed)
    raw = raw_of(head.data, names=head.names)
    ca = ComponentAnalysis().fit(raw)
    z = ca.get_sources(raw).get_data()
    match = metrics.match_sources(head.sources.T, z.T)
    its = np.isin(np.array(head.source_names)[match.sources], ["blink", "muscle", "line", "heart"])
    exclude = match.components[its].tolist()
    artefacts = match.sources[its]
    clean = head.data - head.mixing[:, artefacts] @ head.sources[artefacts]

    def error(out):
        left = out - clean
        left -= left.mean(axis=1, keepdims=True)
        return 10 * np.log10(np.square(left).sum() / np.square(clean).sum())

    weights = np.linalg.lstsq(z[exclude].T, raw.get_data().T, rcond=None)[0]
    regression = raw.get_data() - weights.T @ z[exclude]
    assert error(ca.apply(raw.copy(), exclude=exclude).get_data()) < error(regression) - 0.1


def cleaning(seed, kind):
    """A head, its analysis and the component that is a kind of artefact; errors of removal, dB."""
    head = simulate.eeg(14, 60.0, n_channels=16, random_state=seed)
    raw, which = raw_of(head.data, names=head.names), head.source_names.index(kind)
    ca = ComponentAnalysis().fit(raw)
    match = metrics.match_sources(head.sources.T, ca.get_sources(raw).get_data().T)
    component = [int(match.components[match.sources.tolist().index(which)])]
    clean = head.data - np.outer(head.mixing[:, which], head.sources[which])

    def error(drift=0.0, **how):
        high_pass = 1.0 if np.all(drift == 0) else 0.0
        before = raw_of(raw.get_data() + drift, names=head.names, high_pass=high_pass)
        left = ca.apply(before, exclude=component, **how).get_data() - clean - drift
        left -= left.mean(axis=1, keepdims=True)
        return 10 * np.log10(np.square(left).sum() / np.square(clean).sum())

    return error


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("seed", range(3))
def test_blinks_go_and_their_background_stays(seed):
    error = cleaning(seed, "blink")
    kept = error(keep_background=True)
    assert kept < error() - 2
    # recordings as they are have offsets and drifts, which are no artefact's
    rng = np.random.default_rng(seed)
    slow = np.sin(2 * np.pi * 0.02 * np.arange(15_000) / SFREQ)
    drift = 1e-3 * rng.standard_normal((16, 1)) + 2e-4 * rng.standard_normal((16, 1)) * slow
    assert error(drift, keep_background=True) < -15


@pytest.mark.filterwarnings(FEW)
def test_what_is_always_there_is_no_background():
    error = cleaning(0, "line")
    with pytest.warns(SourcesepWarning, match=r"components \[\d+\] are much the same"):
        kept = error(keep_background=True)
    assert error() < kept - 2


def test_the_background_of_epochs_and_of_an_average(raw, ca):
    inst = containers(raw)
    before = ca.get_sources(inst["epochs"]).get_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourcesepWarning)  # whichever component it is
        ca.apply(inst["epochs"], exclude=[0], keep_background=True)
    after = ca.get_sources(inst["epochs"]).get_data()
    part, _ = artefact_part(before[:, 0].reshape(1, -1), SFREQ, before.shape[2])
    part *= ca._signal[0]
    assert np.allclose(before[:, 0] - after[:, 0], part.reshape(len(before), -1), atol=1e-9)
    assert np.square(after[:, 0]).sum() < 0.9 * np.square(before[:, 0]).sum()
    with pytest.raises(SettingsError, match="keep_background=True: an average"):
        ca.apply(inst["evoked"], exclude=[0], keep_background=True)
    assert ca.apply(inst["evoked"], exclude=[], keep_background=True) is inst["evoked"]


def test_exclude_is_the_default_of_apply(raw, ca):
    marked = ca.copy()
    marked.exclude = [0, 2]
    cleaned = marked.apply(raw.copy()).get_data()
    assert np.array_equal(cleaned, ca.apply(raw.copy(), exclude=(2, 0)).get_data())
    # as MNE has it: what is given adds to it, and it stays as it is
    assert np.array_equal(marked.apply(raw.copy(), exclude=[]).get_data(), cleaned)
    marked.exclude = np.array([2])
    assert np.array_equal(marked.apply(raw.copy(), exclude=np.array([0])).get_data(), cleaned)
    assert marked.exclude == [2]
    kept = [k for k in range(8) if k not in (0, 2)]
    assert np.array_equal(ca.apply(raw.copy(), include=kept).get_data(), cleaned)
    assert np.array_equal(
        marked.apply(raw.copy(), include=[0, *kept]).get_data(),
        marked.apply(raw.copy()).get_data(),
    )
    assert np.array_equal(
        marked.apply(raw.copy(), include=[]).get_data(), marked.apply(raw.copy()).get_data()
    )
    with pytest.raises(TypeError):  # by position MNE's is include, the opposite
        ca.apply(raw.copy(), [0])
    marked.exclude = [0, 2]
    assert marked.get_sources(raw).info["bads"] == ["IVAE000", "IVAE002"]


def test_sources_keep_times_and_everything_else(raw, ca):
    raw = raw.crop(3.0, 30.0)
    raw.set_meas_date(datetime(2024, 5, 6, tzinfo=UTC))
    sources = ca.get_sources(raw)
    assert sources.first_samp == raw.first_samp
    assert sources.info["meas_date"] == raw.info["meas_date"]
    assert np.allclose(sources.annotations.onset, raw.annotations.onset)
    assert np.allclose(sources.annotations.duration, raw.annotations.duration)
    epochs = containers(raw)["epochs"]
    epochs.drop([0, 3], verbose="error")
    of_epochs = ca.get_sources(epochs)
    assert np.array_equal(of_epochs.events, epochs.events)
    assert of_epochs.drop_log == epochs.drop_log
    assert np.allclose(of_epochs.times, epochs.times)
    evoked = epochs.average()
    assert np.allclose(of_epochs.average("misc").data, ca.get_sources(evoked).data, atol=1e-9)


def test_empty_epochs(raw, ca):
    epochs = containers(raw)["epochs"][:0]
    assert len(ca.get_sources(epochs)) == 0
    assert len(ca.apply(epochs, exclude=[0])) == 0
    with pytest.raises(InputError, match="no epochs left"):
        ComponentAnalysis().fit(epochs)


def test_a_fit_that_ends_early_changes_nothing(raw, ca):
    before = ca.copy()
    again = ca.copy()
    again.exclude, again.n_components = [1], 40
    with pytest.raises(SettingsError, match="n_components=40"):
        again.fit(raw.copy().pick(raw.ch_names[:10]))
    assert again.ch_names == before.ch_names
    assert again.exclude == [1]
    assert np.array_equal(again.get_components(), before.get_components())
    again.n_components = 4
    again.fit(raw)
    assert (again.exclude, again.n_components_, len(again.reliability_)) == ([], 4, 4)


def test_a_second_fit_does_not_wait_for_the_first_one_s_reliability(raw, monkeypatch):
    ca = ComponentAnalysis(4).fit(raw)
    with monkeypatch.context() as patch:
        patch.setattr(Halves, "reliability", lambda _: pytest.fail("nobody asked for it"))
        ca.n_components = 3
        ca.fit(raw)
    assert len(ca.reliability_) == 3


def test_what_cannot_be_excluded_is_refused_before_it_is_written(raw, ca, tmp_path):
    marked = ca.copy()
    marked.exclude.append(8)
    for use in (marked.apply, marked.get_sources):
        with pytest.raises(SettingsError, match=r"exclude=\[8\]: no such component"):
            use(raw.copy())
    with pytest.raises(SettingsError, match="no such component"):
        marked.to_mne_ica()
    with pytest.raises(SettingsError, match="no such component"):
        marked.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=r"include=\[9\]: no such component"):
        ca.apply(raw.copy(), include=[9])
    marked.exclude, marked.labels_ = {3, 1}, {"blink": np.array([1])}
    marked.save(tmp_path / "a.safetensors")
    again = read_components(tmp_path / "a.safetensors")
    assert again.exclude == [1, 3]
    assert again.labels_ == {"blink": [1]}


def test_another_compensation_grade_is_refused(raw, ca):
    for channel in raw.info["chs"]:
        channel["coil_type"] = channel["coil_type"] | 3 << 16
    with pytest.raises(InputError, match=r"compensation grade \[3\], the fit had \[0\]"):
        ca.apply(raw, exclude=[0])


# Which channels


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize(
    ("picks", "number"),
    [
        (None, 15),
        ("eeg", 15),
        ("data", 15),
        ("all", 15),
        (["Fz", "Cz", "Fp1"], 3),
        ([0, 1, 2, 3], 4),
        (slice(0, 5), 5),
        ("all_bad_too", 16),
    ],
)
def test_picks_and_bads(raw, picks, number):
    raw.info["bads"] = ["Fp1"]
    picks = raw.ch_names if picks == "all_bad_too" else picks
    ca = ComponentAnalysis().fit(raw, picks)
    assert len(ca.ch_names) == number
    assert ca.n_components_ == number
    sources = ca.get_sources(raw)
    assert len(sources.ch_names) == number


def test_picks_that_are_not_there(raw):
    with pytest.raises(SettingsError, match="picks='mag'"):
        ComponentAnalysis().fit(raw, "mag")
    raw.set_channel_types(dict.fromkeys(raw.ch_names[:2], "misc"), verbose="error")
    with pytest.raises(SettingsError, match="type misc"):
        ComponentAnalysis().fit(raw, "misc")
    raw.info["bads"] = raw.ch_names[2:]
    with pytest.raises(InputError, match="no good channel"):
        ComponentAnalysis().fit(raw)


def test_types_of_different_units_count_alike(head):
    data = head.data.copy()
    data[:8] *= 1e-7  # as magnetometers are to electrodes
    types = ["mag"] * 8 + ["eeg"] * 8
    raw = raw_of(data, types)
    ca = ComponentAnalysis(8).fit(raw)
    assert mcc(head, ca, raw) > 0.85
    maps = ca.get_components()
    assert np.abs(maps[:8]).max() < 1e-5 * np.abs(maps[8:]).max()
    assert ComponentAnalysis(4).fit(raw, "meg").ch_names == raw.ch_names[:8]


@pytest.mark.parametrize("seed", range(3))
def test_of_several_types_components_are_what_stands_out_of_noise(seed):
    # loud channels with loud noise, and soft ones with hardly any: both hold all sources
    rng = np.random.default_rng(seed)
    head = simulate.eeg(9, 60.0, n_channels=16, noise=0.0, random_state=seed)
    both = np.concatenate([rng.standard_normal((16, 9)) * 1e-5, head.mixing * 1e-7])
    noise = np.repeat([3e-5, 1e-14], 16)[:, None] * rng.standard_normal((32, 15_000))
    data = both @ head.sources + noise
    raw = raw_of(data, ["eeg"] * 16 + ["mag"] * 16)
    assert mcc(head, ComponentAnalysis(9).fit(raw), raw) > 0.95
    shares = ComponentAnalysis(9).fit(raw)
    correlations = metrics.match_sources(head.sources.T, shares.get_sources(raw).get_data().T)
    told = shares._signal[correlations.components]
    assert np.abs(told - correlations.correlations**2).mean() < 0.05
    # the other way round nothing is different
    swapped = raw_of(data[::-1] * 1e7, ["mag"] * 16 + ["eeg"] * 16)
    again = ComponentAnalysis(9).fit(swapped)
    assert mcc(head, again, swapped) == pytest.approx(mcc(head, shares, raw), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_as_loud_behind_a_projector(seed):
    # as SSS leaves MEG: many channels of few dimensions, and noise in these as before
    rng = np.random.default_rng(seed)
    z = 3 * rng.standard_normal((9, 20_000))
    electrodes, sensors = (
        rng.standard_normal((n, 9)) @ z + rng.standard_normal((n, 20_000)) for n in (32, 60)
    )
    inside = np.linalg.qr(rng.standard_normal((60, 20)))[0]
    sensors, electrodes = inside @ (inside.T @ sensors), electrodes - electrodes.mean(axis=0)
    x = np.concatenate([electrodes, 1e-7 * sensors])
    scale, _ = to_one_scale(x, ["eeg"] * 32 + ["mag"] * 60, 51)
    assert 1e7 * scale[-1] / scale[0] == pytest.approx(1, abs=0.3)


def test_two_bridged_electrodes_do_not_say_how_loud_noise_is(head):
    x = np.concatenate([head.data * 1e-7, head.data[::-1]])
    unit = np.repeat([1e-7, 1], 16)[:, None]
    x += 1e-6 * unit * np.random.default_rng(1).standard_normal(x.shape)
    x[17] = x[16] + 1e-9 * np.random.default_rng(0).standard_normal(len(x.T))
    scale, (_, covariance) = to_one_scale(divided := x.copy(), ["mag"] * 16 + ["eeg"] * 16, 32)
    assert 0.5e7 < scale[16] / scale[0] < 2e7
    assert np.allclose(divided, x / scale[:, None])
    assert np.allclose(covariance, np.cov(divided, bias=True))


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("harm", ["reference", "projector", "twin", "interpolated", "sum"])
def test_the_rank_is_found(head, raw, harm):
    if harm == "reference":
        raw.set_eeg_reference(verbose="error")
    elif harm == "projector":
        raw.set_eeg_reference(projection=True, verbose="error").apply_proj(verbose="error")
    elif harm == "twin":
        raw._data[3] = raw._data[7]
    elif harm == "interpolated":
        places = dict(zip(head.names, head.positions, strict=True))
        raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
        raw.info["bads"] = [raw.ch_names[3]]
        raw.interpolate_bads(origin=(0.0, 0.0, 0.0), verbose="error")
    else:
        raw._data[3] = raw._data[[1, 2, 5]].mean(axis=0)
    ca = ComponentAnalysis().fit(raw)
    assert ca.n_components_ == 15
    assert np.isfinite(ca.get_components()).all()
    before = raw.get_data()
    assert np.array_equal(ca.apply(raw.copy(), exclude=[]).get_data(), before)
    ica = ca.to_mne_ica()
    assert np.allclose(ica.get_sources(raw).get_data(), ca.get_sources(raw).get_data(), atol=1e-9)
    with pytest.raises(SettingsError, match="15 linearly independent"):
        ComponentAnalysis(16).fit(raw)


@pytest.mark.filterwarnings(FEW)
def test_a_projector_of_the_fit_must_be_applied_again(raw):
    original = raw.copy()
    raw.set_eeg_reference(projection=True, verbose="error").apply_proj(verbose="error")
    ca = ComponentAnalysis().fit(raw)
    with pytest.raises(InputError, match="apply_proj"):
        ca.get_sources(original)
    referenced = original.set_eeg_reference(verbose="error")
    ca = ComponentAnalysis().fit(referenced)
    with pytest.warns(SourcesepWarning, match="different references"):
        ca.get_sources(raw_of(referenced.get_data(), names=referenced.ch_names))


@pytest.mark.filterwarnings(FEW)
def test_number_of_components(raw):
    few = ComponentAnalysis(0.9).fit(raw).n_components_
    more = ComponentAnalysis(np.float32(0.99)).fit(raw).n_components_
    assert 2 <= few < more < 16
    assert ComponentAnalysis(5).fit(raw).n_components_ == 5
    for wrong in (0, 1, -2, 1.5, True, "many"):
        with pytest.raises(SettingsError, match="n_components="):
            ComponentAnalysis(wrong)
    with pytest.raises(SettingsError, match="ask for 2 to 16"):
        ComponentAnalysis(17).fit(raw)


# Which samples


def test_start_stop_and_decim(raw):
    names = raw.ch_names
    whole = part_of(raw, names, Cut())
    assert np.array_equal(whole.recording.data, raw.get_data())
    cut = part_of(raw, names, Cut(start=2.0, stop=2500, decim=5))
    assert np.array_equal(cut.recording.data, raw.get_data()[:, 500:2500:5])
    assert cut.recording.sfreq == SFREQ / 5
    assert [e.onset for e in cut.recording.events] == [0.0, 8.0, 23.0]
    for wrong in ({"start": 5.0, "stop": 5.0}, {"stop": 1e9}, {"decim": 0}, {"tstep": 0}):
        with pytest.raises(SettingsError):
            part_of(raw, names, Cut(**wrong))


def test_bad_annotations_are_left_out(head, raw):
    harmed = raw.copy()
    harmed._data[:, 2000:3000] += 1e-3 * np.random.default_rng(0).standard_normal((16, 1000))
    harmed.set_annotations(mne.Annotations([8.0], [4.0], ["BAD_movement"]))
    good = ComponentAnalysis(8).fit(harmed)
    assert good.n_samples_ == raw.n_times - 1000
    assert mcc(head, good, raw) > 0.9
    blind = ComponentAnalysis(8).fit(harmed, reject_by_annotation=False)
    assert mcc(head, blind, raw) < 0.8


def test_reject_and_flat(raw):
    raw._data[3, 5000:5010] += 1e-2
    raw._data[:, 7600:8400] = 0
    names = raw.ch_names
    used = part_of(raw, names, Cut(reject={"eeg": 5e-3}, flat={"eeg": 1e-9}, tstep=1.0)).used
    assert not used[5000:5010].any()
    assert not used[7750:8250].any()
    assert used.mean() > 0.9
    epochs = containers(raw)["epochs"]
    kept = part_of(epochs, names, Cut(reject={"eeg": 5e-3})).used.reshape(len(epochs), -1)
    assert (kept.all(axis=1) | ~kept.any(axis=1)).all()
    assert (~kept.any(axis=1)).sum() in (1, 2)
    with pytest.raises(SettingsError, match="type mag"):
        ComponentAnalysis().fit(raw, reject={"mag": 1e-12})
    for limits in (150e-6, {"eeg": lambda _: (False, "no number")}):
        with pytest.raises(SettingsError, match="by type, as in"):
            ComponentAnalysis().fit(raw, reject=limits)
    with pytest.raises(InputError, match="that are left"):
        ComponentAnalysis().fit(raw, reject={"eeg": 1e-9})


def test_segments_end_at_gaps(raw):
    epochs = containers(raw)["epochs"]
    n_each = len(epochs.times)
    u, conditions = auxiliary_of("segments:.5,2,8", [part_of(epochs, raw.ch_names, Cut())])
    assert conditions is None
    assert u.is_time
    fine = u.labels.reshape(len(epochs), n_each)
    assert len(np.unique(fine)) == 2 * len(epochs)
    assert all(not set(a) & set(b) for a, b in pairwise(fine))
    # 2 s are four or so halves of epochs: two epochs together
    assert len(np.unique(u.scales[1].labels)) == -(-2 * len(epochs) // 4)
    both, _ = auxiliary_of("segments:.5,2,8", [part_of(raw, raw.ch_names, Cut())] * 2)
    coarse = both.scales[2].labels.reshape(2, -1)
    assert not set(coarse[0]) & set(coarse[1])


def test_epochs_of_any_length_are_good_enough(head, raw):
    for seconds in (0.3, 0.9, 3.0):
        epochs = mne.make_fixed_length_epochs(raw, seconds, preload=True, verbose="error")
        assert mcc(head, ComponentAnalysis(8).fit(epochs), raw) > 0.9


def test_recordings_are_fitted_together(head, raw):
    parts = [raw.copy().crop(0, 19.9), raw.copy().crop(20.0)]
    ca = ComponentAnalysis(8).fit(parts)
    assert ca.n_samples_ == sum(part.n_times for part in parts)
    assert mcc(head, ca, raw) > 0.9
    parts[1].info["bads"] = ["Cz"]
    with pytest.warns(SourcesepWarning, match="Cz are missing or bad"):
        assert len(ComponentAnalysis(8).fit(parts).ch_names) == 15
    parts[1] = raw_of(parts[1].get_data()[:, ::2], names=raw.ch_names, sfreq=125.0)
    with pytest.raises(InputError, match="one rate"):
        ComponentAnalysis(8).fit(parts)
    with pytest.raises(SettingsError, match="at least one"):
        ComponentAnalysis(8).fit([])


def test_a_file_need_not_be_loaded(raw, ca, tmp_path):
    path = tmp_path / "a_raw.fif"
    raw.save(path, fmt="double", verbose="error")
    lazy = mne.io.read_raw_fif(path, preload=False, verbose="error")
    fitted = ComponentAnalysis(8).fit(lazy)
    assert not lazy.preload
    assert np.allclose(fitted.get_components(), ca.get_components(), rtol=1e-6)
    cleaned = fitted.apply(lazy, exclude=[0]).get_data()
    assert np.allclose(cleaned, ca.apply(raw, exclude=[0]).get_data(), atol=1e-10)


def test_of_a_long_recording_stretches_are_used(raw, monkeypatch):
    raw.set_annotations(
        mne.Annotations([0.5, 9.0, 17.0, 30.0], [1.0, 2.0, 22.0, 0.0], ["a", "b", "BAD", "c"])
    )
    monkeypatch.setattr(cutting, "MOST_VALUES", 16 * 5000)
    monkeypatch.setattr(cutting, "STRETCH_SECONDS", 10.0)
    part = part_of(raw, raw.ch_names, Cut())
    data = raw.get_data()
    assert part.stretch == 2500
    assert np.array_equal(part.recording.data, np.hstack([data[:, :2500], data[:, -2500:]]))
    kept = [(e.onset, e.duration, e.description) for e in part.recording.events]
    # b is cut where the first stretch ends, and the bad ones go on throughout most of the second
    assert kept == [(0.5, 1.0, "a"), (9.0, 1.0, "b"), (10.0, 9.0, "BAD"), (10.0, 0.0, "c")]
    assert not part.used[2500:4750].any()
    assert part.used[4750:].all()
    thinned = part_of(raw, raw.ch_names, Cut(decim=2, stop=30.0))
    assert thinned.stretch == 3750  # all of it: half as many samples do fit
    u, _ = auxiliary_of("segments:.5,2", [part])
    assert not set(u.labels[:2500]) & set(u.labels[2500:])


def test_a_long_recording_is_found_as_well(head, raw, monkeypatch, tmp_path):
    monkeypatch.setattr(cutting, "MOST_VALUES", 16 * 7500)
    monkeypatch.setattr(cutting, "STRETCH_SECONDS", 5.0)
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    lazy = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    ca = ComponentAnalysis(8).fit(lazy)
    assert ca.n_samples_ == 7500
    assert mcc(head, ca, raw) > 0.9


# What cannot be


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_names_the_channel(raw, ca, value):
    raw._data[3, 17] = value
    with pytest.raises(InputError, match=raw.ch_names[3]):
        ComponentAnalysis().fit(raw)
    for verb in (ca.get_sources, ca.apply):
        with pytest.raises(InputError, match=raw.ch_names[3]):
            verb(raw)


@pytest.mark.filterwarnings(FEW)
def test_nan_that_is_annotated_as_bad_is_left_out(raw):
    clean = raw.copy()
    raw._data[3, 1000:1100] = np.nan
    for one in (raw, clean):
        one.set_annotations(mne.Annotations([3.9], [0.6], ["BAD_lost"]))
    found = ComponentAnalysis(8).fit(raw)
    assert np.array_equal(found.get_components(), ComponentAnalysis(8).fit(clean).get_components())
    with pytest.raises(InputError, match=r"channel F4: .*annotate where they are as BAD"):
        ComponentAnalysis(8).fit(raw, reject_by_annotation=False)


def test_no_channel_of_eeg(raw):
    raw.set_channel_types(
        dict(zip(raw.ch_names, ["ecg", "stim"] + ["misc"] * 14, strict=True)), verbose="error"
    )
    with pytest.raises(InputError, match="no good channel to analyse; there are 1 ecg, 14 misc"):
        ComponentAnalysis().fit(raw)


def test_flat_recordings_and_channels(head, raw):
    with pytest.raises(InputError, match="every channel is constant"):
        ComponentAnalysis().fit(raw_of(np.zeros((16, 5000))))
    raw._data[3] = 0
    ca = ComponentAnalysis(8).fit(raw)
    assert mcc(head, ca, raw) > 0.85
    assert np.abs(ca.get_components()[3]).max() < 1e-12 * np.abs(ca.get_components()).max()


def test_too_few_samples_says_how_many_are_needed(raw):
    with pytest.raises(
        InputError, match="n_times=20: too few samples for 16 channels, at least 80"
    ):
        ComponentAnalysis().fit(raw, stop=20)
    with pytest.warns(SourcesepWarning, match="5120 samples are usual"):
        ComponentAnalysis().fit(raw, stop=2.0)


def test_filters_that_are_missing_are_said(head):
    drifting = raw_of(head.data, high_pass=0.0)
    with pytest.warns(SourcesepWarning, match="high-passed at 1 Hz"):
        ComponentAnalysis(8).fit(drifting)
    epochs = mne.make_fixed_length_epochs(raw_of(head.data), 1.0, preload=True, verbose="error")
    with pytest.warns(SourcesepWarning, match="baseline"):
        ComponentAnalysis(8).fit(epochs.apply_baseline((0, 0.5), verbose="error"))


def test_fitted_on_filtered_and_applied_to_unfiltered_data(head, ca):
    drift = 1e-3 * np.linspace(0, 1, head.data.shape[1])
    unfiltered = raw_of(head.data + drift, names=head.names, high_pass=0.0)
    cleaned = ca.apply(unfiltered.copy(), exclude=[0]).get_data()
    change = cleaned - unfiltered.get_data()
    maps = ca.get_components()[:, 0]
    assert np.linalg.matrix_rank(change, tol=1e-9 * np.linalg.norm(change)) == 1
    assert abs(np.corrcoef(change.std(axis=1), np.abs(maps))[0, 1]) > 0.999


def test_channels_that_are_missing_are_named(raw, ca):
    shuffled = raw.copy().reorder_channels(raw.ch_names[::-1])
    assert np.allclose(
        ca.get_sources(shuffled).get_data(), ca.get_sources(raw).get_data(), atol=1e-12
    )
    with pytest.raises(InputError, match="channel Fz is missing"):
        ca.apply(raw.copy().drop_channels(["Fz"]), exclude=[0])


def test_what_is_no_recording(raw):
    with pytest.raises(InputError, match="type ndarray"):
        ComponentAnalysis().fit(np.zeros((3, 100)))
    with pytest.raises(InputError, match="an average"):
        ComponentAnalysis().fit(containers(raw)["evoked"])


def test_before_the_fit(raw):
    new = ComponentAnalysis()
    for verb in (new.get_sources, new.apply):
        with pytest.raises(InputError, match="call fit first"):
            verb(raw)
    with pytest.raises(InputError, match="call fit first"):
        new.to_mne_ica()
    assert "not fitted" in repr(new)


def test_settings_are_checked_before_any_data(ca):
    for wrong in ({"aux": "segmnts"}, {"mixing": "nonlinear"}, {"aux": ""}):
        with pytest.raises(SettingsError):
            ComponentAnalysis(**wrong)
    with pytest.raises(SettingsError, match="bands"):
        ComponentAnalysis(bands=True, mixing="post-nonlinear")
    with pytest.raises(SettingsError, match="0 to 7"):
        ca.apply(raw_of(np.zeros((16, 10)), names=ca.ch_names), exclude=[8])
    assert "8 components of 16 channels" in repr(ca)


def test_maps_are_what_channels_have_in_common_with_components(raw, ca):
    z = ca.get_sources(raw).get_data()
    x = raw.get_data()
    common = (x - x.mean(axis=1, keepdims=True)) @ z.T / z.shape[1]
    assert np.allclose(ca.get_components(), common, atol=1e-9 * np.abs(common).max())


def test_it_is_said_which_components_come_again(raw, ca):
    assert "8 of 8 components come out again" in repr(ca)
    noisy = ComponentAnalysis().fit(raw)
    again = np.flatnonzero(noisy.reliability_ >= 0.95)
    assert f"{len(again)} of 16 components come out again: number" in noisy.verdict_.sentence
    assert noisy.verdict_.label == "doubtful"


def test_reliability_is_worked_out_when_it_is_asked_for(raw, tmp_path):
    one, other = ComponentAnalysis(8).fit(raw), ComponentAnalysis(8).fit(raw)
    told = one.reliability_
    assert told.min() > 0.9
    assert one.reliability_ is told
    # the same from a copy, from one that was pickled, and by the file
    assert np.array_equal(other.copy().reliability_, told)
    pickled = pickle.dumps(other)
    assert len(pickled) <= len(pickle.dumps(one))  # without what halves are fitted to
    assert np.array_equal(pickle.loads(pickled).reliability_, told)
    other.save(tmp_path / "a.safetensors")
    assert np.array_equal(read_components(tmp_path / "a.safetensors").reliability_, told)
    # a second fit is judged by itself
    assert len(one.fit(raw, raw.ch_names[:9]).reliability_) == 8
    assert not np.array_equal(one.reliability_, told)


# MNE's own ICA


def test_the_ica_object_is_the_same_to_rounding(raw, ca, tmp_path):
    marked = ca.copy()
    marked.exclude, marked.labels_ = [1], {"eog": [1]}
    ica = marked.to_mne_ica()
    ours = ca.get_sources(raw).get_data()
    assert np.abs(ica.get_sources(raw).get_data() - ours).max() < 1e-12 * np.abs(ours).max() * 10
    assert ica.exclude == [1]
    assert ica.labels_ == {"eog": [1]}
    by_mne = ica.apply(raw.copy(), verbose="error").get_data()
    # MNE's components neither correlate nor have noise
    marked._correlation, marked._signal = np.eye(8), np.ones(8)
    by_us = marked.apply(raw.copy()).get_data()
    assert np.abs(by_mne - by_us).max() < 1e-12 * np.abs(by_us).max() * 10
    assert np.allclose(ica.get_components(), ca.model_.matrices[1], atol=1e-12)
    ica.save(tmp_path / "a-ica.fif", verbose="error")
    again = mne.preprocessing.read_ica(tmp_path / "a-ica.fif", verbose="error")
    assert np.allclose(again.get_sources(raw).get_data(), ours, atol=1e-9)


# Files


def test_a_file_is_the_same_analysis(raw, ca, tmp_path):
    marked = ca.copy()
    marked.exclude, marked.labels_ = [1], {"eog": [1]}
    marked.save(tmp_path / "a.safetensors")
    again = read_components(tmp_path / "a.safetensors")
    assert np.array_equal(again.get_sources(raw).get_data(), ca.get_sources(raw).get_data())
    assert np.array_equal(again.reliability_, ca.reliability_)
    assert (again.exclude, again.labels_) == ([1], {"eog": [1]})
    assert again.verdict_.label == ca.verdict_.label
    assert again.info["ch_names"] == ca.info["ch_names"]
    assert repr(again) == repr(marked)
    assert np.array_equal(again.apply(raw.copy()).get_data(), marked.apply(raw.copy()).get_data())
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_of_before_noise_was_said_holds_components_without(raw, ca, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"

    def as_before(path, form, facts, tensors):
        write_file(path, form, facts, {k: t for k, t in tensors.items() if k != "signal"})

    monkeypatch.setattr(component_analysis, "write_file", as_before)
    ca.save(path)
    old = read_components(path)
    assert np.allclose(old._signal, 1 / np.square(ca._correlation).sum(axis=1), atol=1e-12)
    old.apply(raw, exclude=[0])  # and can be used


def test_files_that_are_refused(ca, tmp_path):
    path = tmp_path / "a.safetensors"
    ca.save(path)
    with pytest.raises(OutputError, match="overwrite=True"):
        ca.save(path)
    ca.save(path, overwrite=True)
    with pytest.raises(ModelFileError, match=r"sourcesep\.read_components"):
        load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError):
        read_components(path)
    with pytest.raises(ModelFileError, match="no such file"):
        read_components(tmp_path / "b.safetensors")


def test_no_warning_goes_unseen(raw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ComponentAnalysis(8).fit(raw)


@pytest.mark.parametrize("exclude", ["eog", ["IVAE000"], 3, [1.5], [True, False], None])
def test_exclude_that_is_no_list_of_numbers(raw, ca, exclude):
    before = raw.get_data()
    if exclude is None:
        assert ca.apply(raw) is raw  # its own list, which is empty
    else:
        with pytest.raises(SettingsError, match=r"exclude=.*: must be a list of components"):
            ca.apply(raw, exclude=exclude)
    assert np.array_equal(raw.get_data(), before)


def test_epochs_that_are_not_loaded(raw, ca):
    events = mne.make_fixed_length_events(raw, duration=1.0)
    raw._data[:, 2600:2620] += 1.0  # in one of them
    epochs = mne.Epochs(
        raw, events, tmin=0, tmax=0.9, baseline=None, reject={"eeg": 0.5}, verbose="error"
    )
    fitted = ComponentAnalysis(8).fit(epochs)
    assert not epochs.preload
    sources = ca.get_sources(epochs)
    assert len(sources) == len(events) - 1
    assert fitted.n_samples_ == sources.get_data().shape[0] * sources.get_data().shape[2]
    assert len(ca.apply(epochs, exclude=[0])) == len(events) - 1


def test_maps_need_positions(raw, ca):
    for lost in (raw.ch_names, ["Cz", "Oz"]):
        nowhere = ca.copy()
        nowhere.info.set_montage("standard_1020", on_missing="ignore", verbose="error")
        for name in set(lost) & set(raw.ch_names):
            nowhere.info["chs"][raw.ch_names.index(name)]["loc"][:3] = np.nan
        with pytest.raises(InputError, match=r"positions of .* are not known.*set_montage"):
            nowhere.plot_components(show=False)


def test_one_channel_seeds_and_limits_that_cannot_be(raw):
    with pytest.raises(InputError, match="Fp1 is the only good channel picked"):
        ComponentAnalysis().fit(raw, picks=["Fp1", "Fp1"])
    for seed in (-1, 0.5, "a"):
        with pytest.raises(SettingsError, match=r"random_state=.*0 or more"):
            ComponentAnalysis(random_state=seed)
    with pytest.raises(SettingsError, match="start='a': must be a sample"):
        ComponentAnalysis(8).fit(raw, start="a")


def test_other_order_of_channels_and_names_of_all_kinds(raw, ca):
    backwards = raw.copy().reorder_channels(raw.ch_names[::-1])
    cleaned = ca.apply(backwards, exclude=[0]).get_data(picks=raw.ch_names)
    assert np.array_equal(cleaned, ca.apply(raw.copy(), exclude=[0]).get_data())
    odd = {name: f"{k}/\u00e4 \u00b5'\"\n," for k, name in enumerate(raw.ch_names)}
    renamed = ComponentAnalysis(8).fit(raw.copy().rename_channels(odd))
    assert np.array_equal(renamed.get_components(), ca.get_components())
