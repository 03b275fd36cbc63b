import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.adapters import audio, eeg, table
from sourcesep.exceptions import InputError, SettingsError, SourcesepError, SourcesepWarning
from sourcesep.reading import SUFFIXES, adapter_for, read, suffix_of


def noise(shape=(3, 100)):
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


HEADS = (
    b"",
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0",
    b"fLaC\0\0\0\x22",
    b"OggS\0\x02",
    b"FORM\0\0\0\0AIFF",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",
    b"caff\0\1\0\0desc",
    b"\xff\xfb\x90\x64",
    b"\0\0\0\x64\0\0\0\x1f\0\0\0\x14\0\0\0\0",
    b"0       ".ljust(256),
    b"\xffBIOSEMI".ljust(256),
    b"MATLAB 5.0".ljust(124) + b"\0\1IM",
    b"Brain Vision Data Exchange Header File Version 1.0\n",
    b"\x93NUMPY\1\0v\0{'descr': '<f8'",
    b"PAR1",
    b"a,b\n1,2\n",
    b"\x1f\x8b\x08",
    b"PK\3\4",
)
"""What files of each kind begin with."""


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from([s for each in SUFFIXES.values() for s in each]),
    head=st.sampled_from(HEADS),
    rest=st.binary(max_size=200),
)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, suffix, head, rest):
    path = tmp_path_factory.mktemp("bytes") / f"a{suffix}"
    path.write_bytes(head + rest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recording = read(path)
        except SourcesepError as error:
            assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
            return
    assert np.isfinite(recording.data[:]).all()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(InputError, match=r"input=.*none\.wav: no such file; check the path"):
        read(tmp_path / "none.wav")
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(InputError, match=r"input=.*a\.wav: is a folder; name a file, or several"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [".wav", ".fif", ".csv", ".npy", ".parquet", ".edf"])
def test_an_empty_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(InputError, match=r"the file is empty \(0 bytes\)"):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.m4a", r"cannot read \.m4a; convert it first: ffmpeg -i INPUT\.m4a OUTPUT\.wav"),
        ("a.mat", r"cannot read \.mat; save the matrix as \.npy"),
        ("a.FDT", r"cannot read \.fdt; open the \.set file that belongs to it"),
        ("a.xyz", r"cannot read \.xyz; known are \.wav .*\.fif .*\.parquet"),
        ("a", "cannot read a file without suffix; known are"),
    ],
)
def test_what_no_adapter_reads(tmp_path, name, message):
    path = tmp_path / name
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("A.WAV", ".wav"),
        ("a_raw.fif.gz", ".fif.gz"),
        ("a.b.csv", ".csv"),
        ("a", ""),
        ("a.gz", ".gz"),
    ],
)
def test_suffixes(name, suffix):
    assert suffix_of(Path("dir.d") / name) == suffix


def test_adapters_by_kind():
    assert [adapter_for(k) for k in ("audio", "eeg", "table", "array")] == [
        audio,
        eeg,
        table,
        table,
    ]


def test_upper_case_suffixes_are_read(tmp_path):
    (tmp_path / "A.CSV").write_text("a,b\n1,2\n3,5\n")
    np.save(tmp_path / "a.npy", noise().T)
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    assert read(tmp_path / "A.CSV").n_times == 2
    assert np.array_equal(read(tmp_path / "A.NPY").data, noise())


def test_an_option_of_another_kind_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise().T, 8000)
    with pytest.raises(SettingsError, match="columns=a,b: is no option for audio files; leave it"):
        read(tmp_path / "a.wav", columns="a,b")


def test_silent_and_identical_channels_are_one_warning_each(tmp_path):
    data = noise(shape=(6, 500))
    data -= data.mean(axis=1, keepdims=True)
    data[1] = data[4] = 0
    data[5] = data[2]
    soundfile.write(tmp_path / "a.wav", data.T, 8000, subtype="FLOAT")
    with pytest.warns(SourcesepWarning) as caught:
        recording = read(tmp_path / "a.wav")
    assert [str(w.message) for w in caught] == [
        "channel ch1, ch4 is constant (silent): it carries no source, and no source is "
        "heard in it",
        "channels ch2, ch5 are identical: they count as one when sources are found",
    ]
    assert {w.filename for w in caught} == {__file__}
    assert recording.n_channels == 6


def test_reading_a_table_loads_neither_mne_nor_soundfile(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,5\n")
    code = (
        "import sys\nfrom sourcesep.reading import read\n"
        "assert read(sys.argv[1]).n_times == 2\n"
        "print(*sorted({'mne', 'soundfile', 'torch', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.csv")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
