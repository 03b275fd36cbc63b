"""EEG files that lie about themselves or name files elsewhere are refused before MNE believes."""

import gzip
import os
import re
import struct
import warnings

import mne
import numpy as np
import pytest

from sourcesep.exceptions import InputError, SourcesepWarning
from sourcesep.reading import read

SEQUENCE, END = 0, -1


@pytest.fixture
def fif(tmp_path):
    info = mne.create_info(["E0", "E1"], 100.0, "eeg", verbose="error")
    data = 1e-5 * np.random.default_rng(0).standard_normal((2, 400))
    path = tmp_path / "a_raw.fif"
    mne.io.RawArray(data, info, verbose="error").save(path, verbose="error")
    return path


def tags(content):
    """Position, kind and size of each tag."""
    at = 0
    while at is not None and at < len(content):
        kind, _, size, after = struct.unpack_from(">iiii", content, at)
        yield at, kind, size
        at = None if after == END else after or at + 16 + size


def refused(path, match):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=match) as caught:
            read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".fif", ".fif.gz"])
@pytest.mark.parametrize("number", [5, -3])
def test_a_fif_file_that_goes_round_in_circles(fif, tmp_path, suffix, number):
    content = bytearray(fif.read_bytes())
    at = list(tags(content))[number][0]
    struct.pack_into(">i", content, at + 12, 36)  # the next tag is the second one, again and again
    path = tmp_path / f"b_raw{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    refused(path, r"cannot be read \(the tag at byte \d+ has length")


def test_a_fif_tag_of_negative_length(fif):
    content = bytearray(fif.read_bytes())
    at = list(tags(content))[8][0]
    struct.pack_into(">i", content, at + 8, -100)
    fif.write_bytes(content)
    refused(fif, "has length -100")


def test_a_fif_tag_that_promises_more_than_there_is(fif):
    content = bytearray(fif.read_bytes())
    at = next(at for at, kind, _ in tags(content) if kind == 300)  # samples
    struct.pack_into(">i", content, at + 8, 2**31 - 16)
    fif.write_bytes(content)
    refused(fif, "a tag promises more than the file holds")


@pytest.mark.parametrize("length", [None, 2**31 - 16])
def test_a_fif_directory_is_believed_if_what_it_lists_is_there(fif, length):
    content = bytearray(fif.read_bytes())
    entries = [[*struct.unpack_from(">iii", content, at), at] for at, *_ in tags(content)]
    if length is not None:
        next(entry for entry in entries if entry[0] == 300)[2] = length
    pointer = next(at for at, kind, _ in tags(content) if kind == 101)
    struct.pack_into(">i", content, pointer + 16, len(content))
    body = b"".join(struct.pack(">iiii", *entry) for entry in entries)
    fif.write_bytes(content + struct.pack(">iiii", 102, 32, len(body), END) + body)
    if length is None:
        with pytest.warns(SourcesepWarning, match="high-pass"):
            assert read(fif).n_times == 400
    else:
        refused(fif, "a tag promises more than the file holds")


def with_next_part(content, name):
    """The content with a block that says which file comes next, before its end."""

    def tag(kind, form, data):
        return struct.pack(">iiii", kind, form, len(data), SEQUENCE) + data

    block = tag(104, 3, struct.pack(">i", 118))
    block += tag(115, 3, struct.pack(">i", 2))
    block += tag(118, 10, name.encode()) + tag(105, 3, struct.pack(">i", 118))
    places = [at for at, kind, _ in tags(content) if kind == 105]  # ends of blocks
    at = places[-2]  # inside the outermost one
    content = bytearray(content)
    struct.pack_into(
        ">i", content, next(p for p, kind, _ in tags(content) if kind == 101) + 16, -1
    )
    return bytes(content[:at] + block + content[at:])


def test_parts_of_a_fif_file_that_lead_back(fif):
    fif.write_bytes(with_next_part(fif.read_bytes(), fif.name))
    refused(fif, r"its parts lead back to a_raw\.fif")


def test_a_next_part_that_is_not_there_is_not_our_business(fif):
    fif.write_bytes(with_next_part(fif.read_bytes(), "gone_raw.fif"))
    refused(fif, "input=.*a_raw.fif: ")


def test_a_part_in_another_folder(fif, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "b_raw.fif").write_bytes(fif.read_bytes())
    fif.write_bytes(with_next_part(fif.read_bytes(), "other/b_raw.fif"))
    refused(fif, "takes its samples from .*other/b_raw.fif, in another folder")


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a_raw.fif.gz"
    path.write_bytes(gzip.compress(bytes(99_999))[:40] + b"junk" * 99)
    refused(path, r"a_raw\.fif\.gz: cannot be read \(")


@pytest.mark.parametrize("suffix", ["fif", "edf"])
@pytest.mark.parametrize("way", ["plain", "up and down", "link to file", "link to folder"])
def test_whatever_way_leads_to_a_file_it_is_read(fif, tmp_path, monkeypatch, suffix, way):
    there = tmp_path / "there"
    there.mkdir()
    path = there / f"x_raw.{suffix}"
    path.write_bytes(fif.read_bytes() if suffix == "fif" else edf((50, 50)))
    (tmp_path / "link").symlink_to(there)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path / "sub")
    ways = {"plain": path, "up and down": f"../there/{path.name}", "link to file": path.name}
    given = ways.get(way, f"../link/{path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(given).n_channels == 2


def edf(widths, suffix="edf", n_records=4):
    n = len(widths)
    head = b"0       ".ljust(168) + b"06.05.2407.08.09"
    for value, width in ((256 * (n + 1), 8), ("", 44), (n_records, 8), (1, 8), (n, 4)):
        head += str(value).encode().ljust(width)
    fields = [b"EEG".ljust(16), b"".ljust(80), b"uV".ljust(8), b"-1".ljust(8), b"1".ljust(8)]
    fields += [b"-9".ljust(8), b"9".ljust(8), b"".ljust(80)]
    head += b"".join(field * n for field in fields)
    head += b"".join(str(w).encode().ljust(8) for w in widths) + b"".ljust(32 * n)
    return head + bytes(range(250)) * 8


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
@pytest.mark.parametrize("widths", [(-8388608, 50), (0, 50)])
def test_channels_of_no_samples(tmp_path, suffix, widths):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(edf(widths))
    refused(
        path, r"cannot be read \(2 channels, the shortest with (-8388608|0) samples a record\)"
    )


def test_records_that_are_not_there(tmp_path):
    path = tmp_path / "a.edf"
    path.write_bytes(edf((50, 2**20), n_records=2**20))
    refused(path, r"truncated: its header promises 1048576 records")


@pytest.mark.parametrize("key", ["DataFile", "MarkerFile"])
@pytest.mark.parametrize("name", ["../a.eeg", "/dev/zero", "sub/a.eeg", "..", "pipe.eeg"])
def test_brainvision_names_files_beside_it(tmp_path, key, name):
    os.mkfifo(tmp_path / "pipe.eeg")
    path = tmp_path / "a.vhdr"
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        f"{key} = {name}\nNumberOfChannels=2\n"
    )
    refused(path, rf"{key}={re.escape(name)}: must be the name of a file in the same folder")


@pytest.mark.parametrize(
    ("orientation", "n_channels", "n_times"),
    [("MULTIPLEXED", 2**40, 100), ("VECTORIZED", 2, 2**40)],
)
def test_brainvision_promises_no_more_than_there_is(tmp_path, orientation, n_channels, n_times):
    (tmp_path / "a.eeg").write_bytes(bytes(800))
    path = tmp_path / "a.vhdr"
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nDataFile=a.eeg\n"
        f"DataOrientation={orientation}\nNumberOfChannels={n_channels}\nDataPoints={n_times}\n"
        "SamplingInterval=10000\n[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n"
        "Ch1=E0,,1,V\nCh2=E1,,1,V\n"
    )
    refused(path, f"promises {n_channels} channels of {n_times} samples, more than the files hold")


def test_eeglab_takes_no_samples_from_elsewhere(tmp_path):
    from scipy.io import savemat

    (tmp_path / "other").mkdir()
    data = np.random.default_rng(0).standard_normal((2, 200)).astype("<f4")
    (tmp_path / "other" / "x.fdt").write_bytes(data.tobytes("F"))
    channels = np.array([("E0",), ("E1",)], dtype=[("labels", object)])
    facts = {"nbchan": 2, "trials": 1, "pnts": 200, "srate": 100.0, "xmin": 0.0, "xmax": 1.99}
    facts |= {"setname": "a", "data": "other/x.fdt", "chanlocs": channels, "event": []}
    savemat(tmp_path / "a.set", {"EEG": facts | {"epoch": [], "icawinv": []}}, appendmat=False)
    refused(tmp_path / "a.set", r"takes its samples from .*other/x\.fdt, in another folder")
