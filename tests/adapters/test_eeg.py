import struct
import warnings
from datetime import UTC, datetime

import mne
import numpy as np
import pytest

from sourcesep.adapters import eeg
from sourcesep.adapters._maps import draw_maps
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.reading import read
from sourcesep.recording import Recording

SFREQ = 100.0
DATE = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def make_raw(types=("eeg",) * 5, n_times=1000, seed=0, first_samp=0, date=None, high_pass=1.0):
    rng = np.random.default_rng(seed)
    names = [f"{kind.upper()}{i}" for i, kind in enumerate(types)]
    info = mne.create_info(names, SFREQ, list(types), verbose="error")
    with info._unlock():
        info["highpass"] = high_pass
    data = 1e-5 * rng.standard_normal((len(types), n_times))
    raw = mne.io.RawArray(data, info, first_samp=first_samp, verbose="error")
    raw.set_meas_date(date)
    raw.set_annotations(mne.Annotations([1.0, 4.5], [0.5, 2.0], ["blink", "task/left"]))
    return raw


def save(raw, path):
    raw.save(path, fmt="double", verbose="error")
    return path


@pytest.mark.parametrize("name", ["a_raw.fif", "a_raw.fif.gz", "odd name.fif"])
def test_fif_is_read_whatever_its_name(tmp_path, name):
    raw = make_raw()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn_explicit", lambda *_, **__: None)
        save(raw, tmp_path / name)
    recording = read(tmp_path / name)  # a warning about the name would be an error
    assert np.allclose(recording.data, raw.get_data(), rtol=1e-12, atol=0)
    assert recording.sfreq == SFREQ
    assert recording.names == tuple(raw.ch_names)
    assert recording.units == ("V",) * 5
    assert recording.kind == "eeg"
    assert recording.path == tmp_path / name


@pytest.mark.parametrize("first_samp", [0, 1234])
@pytest.mark.parametrize("date", [None, DATE])
def test_onsets_count_from_the_first_sample(tmp_path, first_samp, date):
    recording = read(save(make_raw(first_samp=first_samp, date=date), tmp_path / "a_raw.fif"))
    assert [e.description for e in recording.events] == ["blink", "task/left"]
    assert np.allclose([e.onset for e in recording.events], [1.0, 4.5], atol=1e-6)
    assert np.allclose([e.duration for e in recording.events], [0.5, 2.0])


@pytest.mark.parametrize(
    ("types", "picked", "unit"),
    [
        (("eog", "eeg", "mag", "eeg", "eeg"), [1, 3, 4], "V"),
        (("grad", "mag", "misc", "mag"), [1, 3], "T"),
        (("grad", "grad", "stim"), [0, 1], "T/m"),
        (("ecog", "seeg", "ecg", "seeg"), [1, 3], "V"),
        (("ecog", "ecog", "ecg"), [0, 1], "V"),
    ],
)
def test_first_type_present_is_picked_alone(types, picked, unit):
    raw = make_raw(types)
    others = [t for t in dict.fromkeys(types) if t in eeg.UNITS and types.index(t) not in picked]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SourcesepWarning)
        recording = eeg.from_raw(raw)
    assert len(said) == (1 if others else 0)
    assert all(f"1 {kind}" in str(said[0].message) for kind in others)
    assert np.array_equal(recording.data, raw.get_data()[picked])
    assert recording.names == tuple(raw.ch_names[i] for i in picked)
    assert recording.units == (unit,) * len(picked)
    assert recording.origin.picks == tuple(picked)


def test_bad_channels_are_left_out():
    raw = make_raw()
    raw.info["bads"] = ["EEG1"]
    assert eeg.from_raw(raw).names == ("EEG0", "EEG2", "EEG3", "EEG4")


def test_from_raw_leaves_the_raw_alone(fake, folder):
    raw = make_raw()
    before = raw.get_data()
    eeg.write(fake(eeg.from_raw(raw), 3), folder, exclude=[0])
    assert np.array_equal(raw.get_data(), before)


def test_no_channel_to_separate(tmp_path):
    path = save(make_raw(("eog", "misc", "misc")), tmp_path / "a_raw.fif")
    with pytest.raises(
        InputError,
        match=r"input=.*a_raw\.fif: no good eeg, mag, grad, seeg, ecog channel; there are 1 eog, "
        "2 misc, 0 of them marked bad",
    ):
        read(path)


def test_never_high_passed_is_one_warning(tmp_path):
    path = save(make_raw(high_pass=0.1), tmp_path / "a_raw.fif")
    with pytest.warns(SourcesepWarning, match="high-pass at 1 Hz first") as caught:
        read(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("kind", ["epo", "ica"])
def test_fif_files_that_are_not_raw(tmp_path, kind):
    raw = make_raw()
    path = tmp_path / f"a-{kind}.fif"
    if kind == "epo":
        mne.make_fixed_length_epochs(raw, 1, verbose="error").save(path, verbose="error")
    else:
        ica = mne.preprocessing.ICA(3, max_iter=200, random_state=0, verbose="error")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn_explicit", lambda *_, **__: None)
            patch.setattr("warnings.warn", lambda *_, **__: None)
            ica.fit(raw, verbose="error").save(path, verbose="error")
    what = {"epo": "epochs", "ica": "ica"}[kind]
    with pytest.raises(
        InputError, match=f"holds {what}, not a continuous recording; give the raw"
    ):
        read(path)


@pytest.mark.parametrize("name", ["a_raw.fif", "a.edf", "a.bdf", "a.set", "a.vhdr"])
@pytest.mark.parametrize("seed", [0, 1])
def test_junk_is_refused_in_one_line(tmp_path, name, seed):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    with pytest.raises(InputError, match=f"input=.*{name}: cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_truncated_fif_is_refused(tmp_path):
    path = save(make_raw(), tmp_path / "a_raw.fif")
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(InputError, match="cannot be read"):
        read(path)


def test_matlab_7_3_names_the_cure(tmp_path):
    path = tmp_path / "a.set"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(
        InputError,
        match=r"is a MATLAB v7\.3 file.*pip install pymatreader, or save it from EEGLAB",
    ):
        read(path)


# EDF, BDF, BrainVision and EEGLAB files, written by hand


def edf(path, data, n_records=None, bdf=False):
    """Write one record a second, in microvolts with a step of a quarter."""
    n_channels, n_times = data.shape
    n = round(SFREQ)
    half = 2**23 if bdf else 2**15
    there = n_times // n
    fields = [f"EEG {i}" for i in range(n_channels)], 16
    per_channel = [
        fields,
        ([""] * n_channels, 80),
        (["uV"] * n_channels, 8),
        ([f"{-half // 4}"] * n_channels, 8),
        ([f"{(half - 1) / 4:.2f}"[:8]] * n_channels, 8),
        ([f"{-half}"] * n_channels, 8),
        ([f"{half - 1}"] * n_channels, 8),
        (["HP:1Hz LP:50Hz"] * n_channels, 80),
        ([f"{n}"] * n_channels, 8),
        ([""] * n_channels, 32),
    ]
    start = b"\xffBIOSEMI" if bdf else b"0       "
    head = start + b"".ljust(160) + b"06.05.2407.08.09"
    for value, width in (
        (256 * (n_channels + 1), 8),
        ("24BIT" if bdf else "", 44),
        (there if n_records is None else n_records, 8),
        (1, 8),
        (n_channels, 4),
    ):
        head += str(value).encode().ljust(width)
    for values, width in per_channel:
        head += b"".join(v.encode().ljust(width) for v in values)
    digital = np.rint(data * 4e6).astype("<i4")
    records = digital.reshape(n_channels, there, n).transpose(1, 0, 2)
    raw = np.ascontiguousarray(records).view(np.uint8).reshape(-1, 4)
    path.write_bytes(head + raw[:, : 3 if bdf else 2].tobytes())
    return path


@pytest.mark.parametrize("bdf", [False, True])
def test_edf_and_bdf_are_read(tmp_path, bdf):
    data = make_raw().get_data()
    path = edf(tmp_path / f"a.{'bdf' if bdf else 'edf'}", data, bdf=bdf)
    recording = read(path)
    assert recording.data.shape == data.shape
    # Half a step is .125 microvolts; eight characters cut .75 off BDF's largest value.
    assert np.abs(recording.data - data).max() < (6e-7 if bdf else 1.3e-7)
    assert recording.origin.raw.info["meas_date"] == DATE


@pytest.mark.parametrize("bdf", [False, True])
def test_truncated_edf_is_refused(tmp_path, bdf):
    path = edf(tmp_path / f"a.{'bdf' if bdf else 'edf'}", make_raw().get_data(), bdf=bdf)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="the file is truncated: its header promises 10 records"):
        read(path)


def test_edf_that_was_not_stopped_is_read_with_what_mne_says(tmp_path):
    data = make_raw().get_data()
    path = edf(tmp_path / "a.edf", data, n_records=-1)
    with pytest.warns(
        SourcesepWarning, match="a.edf: Number of records from the header"
    ) as caught:
        recording = read(path)
    assert len(caught) == 1
    assert recording.data.shape == data.shape


def brainvision(tmp_path, data):
    (tmp_path / "a.eeg").write_bytes((data.T * 1e6).astype("<f4").tobytes())
    (tmp_path / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nDataFile=a.eeg\n"
        "[Marker Infos]\nMk1=Stimulus,S  1,201,1,0\n"
    )
    channels = "".join(f"Ch{i + 1}=E{i},,1,µV\n" for i in range(len(data)))
    (tmp_path / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        "DataFile=a.eeg\nMarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(data)}\nSamplingInterval=10000\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    return tmp_path / "a.vhdr"


def test_brainvision_is_read(tmp_path):
    data = make_raw().get_data()
    with pytest.warns(SourcesepWarning, match="highpass=0 Hz"):
        recording = read(brainvision(tmp_path, data))
    assert np.allclose(recording.data, data, rtol=1e-6)
    assert [(e.onset, e.description) for e in recording.events] == [(2.0, "Stimulus/S  1")]


def eeglab(tmp_path, data, trials=1):
    from scipy.io import savemat

    chanlocs = np.array([(f"E{i}",) for i in range(len(data))], dtype=[("labels", object)])
    facts = {
        "setname": "a",
        "nbchan": len(data),
        "trials": trials,
        "pnts": data.shape[1] // trials,
        "srate": SFREQ,
        "xmin": 0.0,
        "xmax": 1.0,
        "data": data * 1e6,
        "chanlocs": chanlocs,
        "event": np.array([]),
        "icawinv": [],
        "icaweights": [],
        "icasphere": [],
        "icaact": [],
        "epoch": [],
    }
    savemat(tmp_path / "a.set", {"EEG": facts}, appendmat=False)
    return tmp_path / "a.set"


def test_eeglab_is_read(tmp_path):
    data = make_raw().get_data()
    with pytest.warns(SourcesepWarning) as caught:
        recording = read(eeglab(tmp_path, data))
    assert np.allclose(recording.data, data, rtol=1e-9)
    assert any("high-pass at 1 Hz first" in str(w.message) for w in caught)


def test_eeglab_epochs_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds epochs, not a continuous recording"):
        read(eeglab(tmp_path, make_raw().get_data(), trials=2))


# Writing


@pytest.mark.parametrize("first_samp", [0, 777])
@pytest.mark.parametrize("date", [None, DATE])
def test_sources_keep_times_annotations_and_date(fake, folder, first_samp, date):
    raw = make_raw(first_samp=first_samp, date=date)
    separation = fake(eeg.from_raw(raw), 3)
    facts = eeg.write(separation, folder)
    assert facts == {"files": ["sources_raw.fif", "component_maps.png"], "exclude": []}
    assert sorted(p.name for p in folder.iterdir()) == sorted(facts["files"])
    written = mne.io.read_raw_fif(folder / "sources_raw.fif", preload=True, verbose="error")
    assert np.allclose(written.get_data(), separation.sources, rtol=1e-12, atol=0)
    assert written.ch_names == ["IVAE000", "IVAE001", "IVAE002"]
    assert set(written.get_channel_types()) == {"misc"}
    assert written.first_samp == first_samp
    assert written.info["meas_date"] == date
    assert np.array_equal(written.times, raw.times)
    assert np.allclose(written.annotations.onset, raw.annotations.onset, atol=1e-6)
    assert list(written.annotations.description) == ["blink", "task/left"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cleaned_is_the_original_less_the_excluded_images(fake, folder, seed):
    raw = make_raw(("eog", *("eeg",) * 5, "stim"), seed=seed, date=DATE, first_samp=50)
    raw.info["bads"] = ["EEG2"]
    separation = fake(eeg.from_raw(raw), 4, seed)
    facts = eeg.write(separation, folder, exclude=[3, 0, 3])
    assert facts["exclude"] == [0, 3]
    assert facts["files"][-1] == "cleaned_raw.fif"
    cleaned = mne.io.read_raw_fif(folder / "cleaned_raw.fif", preload=True, verbose="error")
    expected = raw.get_data()
    expected[[1, 3, 4, 5]] -= separation.image(0) + separation.image(3)
    assert np.allclose(cleaned.get_data(), expected, rtol=1e-12, atol=1e-18)
    assert cleaned.ch_names == raw.ch_names
    assert cleaned.info["bads"] == ["EEG2"]
    assert cleaned.first_samp == 50
    assert cleaned.info["meas_date"] == DATE
    assert len(cleaned.annotations) == 2


def test_same_separation_same_bytes(fake, folder, tmp_path):
    separation = fake(eeg.from_raw(make_raw(date=DATE)), 2)
    again = tmp_path / "again"
    again.mkdir()
    files = eeg.write(separation, folder, exclude=[1])["files"]
    eeg.write(separation, again, exclude=[1])
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file


@pytest.mark.parametrize("absent", [4, -1])
def test_excluding_what_does_not_exist(fake, folder, absent):
    with pytest.raises(SettingsError, match=rf"exclude={absent}: .*they are 0 to 2"):
        eeg.write(fake(eeg.from_raw(make_raw()), 3), folder, exclude=[0, absent])
    assert list(folder.iterdir()) == []


def test_a_recording_made_in_python_is_written(fake, folder):
    data = make_raw().get_data()
    names = tuple(f"{i}" for i in range(5))
    separation = fake(Recording(data, SFREQ, names, ("V",) * 5, "eeg"), 2)
    eeg.write(separation, folder, exclude=[0])
    cleaned = mne.io.read_raw_fif(folder / "cleaned_raw.fif", preload=True, verbose="error")
    assert np.allclose(cleaned.get_data(), data - separation.image(0), rtol=1e-12, atol=1e-18)


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def with_montage(radii=(6, 5, 6, 4, 5, 1)):
    angle, radii = np.linspace(0, 5, 6), np.array(radii)
    places = 0.01 * np.stack([radii * np.cos(angle), radii * np.sin(angle), 9 - radii], axis=1)
    names = [f"E{i}" for i in range(6)]
    info = mne.create_info(names, SFREQ, "eeg", verbose="error")
    return info.set_montage(
        mne.channels.make_dig_montage(dict(zip(names, places, strict=True)), coord_frame="head")
    )


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("located", [True, False])
def test_maps_are_drawn_without_pyplot_figures(fake, tmp_path, linear, located):
    import matplotlib.pyplot as plt

    data = make_raw(("eeg",) * 6).get_data()
    info = with_montage()
    if not located:
        info.set_montage(None)
    info.rename_channels({f"E{i}": f"${i}_^$" for i in range(6)})  # not mathematics
    separation = fake(Recording(data, SFREQ, ("",) * 6, ("V",) * 6, "eeg"), 3)
    separation.images = np.stack([separation.image(k) for k in range(3)])
    if not linear:
        separation.mixing = None
    path = tmp_path / "maps.png"
    draw_maps(separation, info, path)
    width, height = png_size(path)
    # Scalps stand in a row, a matrix of six channels and three components is upright.
    assert (width > 2 * height) == located
    assert plt.get_fignums() == []


def test_electrodes_on_a_circle_get_a_matrix(fake, tmp_path):
    data = make_raw(("eeg",) * 6).get_data()
    separation = fake(Recording(data, SFREQ, ("",) * 6, ("",) * 6, "eeg"), 3)
    draw_maps(separation, with_montage(radii=[6] * 6), tmp_path / "maps.png")
    width, height = png_size(tmp_path / "maps.png")
    assert width < 2 * height


def test_maps_of_a_nonlinear_decoder_are_its_regressions(fake):
    from sourcesep.adapters._separated import loadings

    separation = fake(Recording(make_raw().get_data(), SFREQ, ("",) * 5, ("",) * 5, "eeg"), 3)
    mixing = separation.mixing
    separation.images = np.stack([separation.image(k) for k in range(3)])
    separation.mixing = None
    assert np.allclose(loadings(separation), mixing, rtol=1e-9)
