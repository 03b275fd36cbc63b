import struct
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.adapters import _audio_samples, _wav, audio
from sourcesep.adapters.audio import AudioFormat
from sourcesep.exceptions import InputError, OutputError, SettingsError, SourcesepWarning
from sourcesep.reading import read
from sourcesep.recording import Recording

BITS = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
DEPTH_OF = {"16": 16, "24": 24}


def integers(rng, bits, n_channels, n_times):
    """Random integers of `bits` that leave room for a source and a residual."""
    half = 2 ** (bits - 1)
    return rng.integers(-half // 4, half // 4, (n_channels, n_times), dtype=np.int64)


def save(path, whole, subtype, bits, sfreq=8000, **more):
    """Write integers exactly, as the high bits of int32."""
    data = (whole << (32 - bits)).astype(np.int32)
    soundfile.write(path, data.T, sfreq, subtype=subtype, **more)


def load_integers(path, bits):
    data, _ = soundfile.read(path, dtype="int32", always_2d=True)
    return data.T.astype(np.int64) >> (32 - bits)


def noise(seed=0, shape=(2, 4000), scale=0.1):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def recording_of(data, origin=None, sfreq=8000.0, kind="array"):
    n = len(data)
    return Recording(
        data, sfreq, tuple(f"ch{i}" for i in range(n)), ("",) * n, kind, origin=origin
    )


# Reading


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("suffix", "subtype", "bits"),
    [
        *(("wav", s, b) for s, b in BITS.items()),
        ("aiff", "PCM_S8", 8),
        ("flac", "PCM_S8", 8),
        ("flac", "PCM_16", 16),
        ("flac", "PCM_24", 24),
        ("caf", "ALAC_16", 16),
        ("w64", "PCM_24", 24),
        ("au", "PCM_32", 32),
    ],
)
def test_integers_are_read_exactly(tmp_path, suffix, subtype, bits, seed):
    whole = integers(np.random.default_rng(seed), bits, 3 if suffix == "wav" else 2, 500)
    path = tmp_path / f"a.{suffix}"
    save(path, whole, subtype, bits)
    recording = read(path)
    assert np.array_equal(recording.data * 2 ** (bits - 1), whole)
    assert recording.origin == AudioFormat(subtype, bits, suffix.upper(), lossy=False)
    assert recording.sfreq == 8000
    assert recording.names == tuple(f"ch{i}" for i in range(len(whole)))
    assert set(recording.units) == {""}
    assert recording.kind == "audio"
    assert recording.path == path


@pytest.mark.parametrize(("subtype", "dtype"), [("FLOAT", np.float32), ("DOUBLE", np.float64)])
def test_floats_above_one_are_read_exactly(tmp_path, subtype, dtype):
    data = noise(scale=3).astype(dtype)
    soundfile.write(tmp_path / "a.wav", data.T, 8000, subtype=subtype)
    recording = read(tmp_path / "a.wav")
    assert np.array_equal(recording.data, data)
    assert np.abs(recording.data).max() > 1
    assert recording.origin == AudioFormat(subtype, None, "WAV", lossy=False)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("mp3", "MPEG_LAYER_III"),
        ("ogg", "VORBIS"),
        ("ogg", "OPUS"),
        ("wav", "ULAW"),
        ("wav", "ALAW"),
        ("wav", "IMA_ADPCM"),
        ("wav", "GSM610"),
    ],
)
def test_lossy_input_is_read_as_float_and_written_as_float(
    fake, folder, tmp_path, suffix, subtype
):
    path = tmp_path / f"a.{suffix}"
    time = np.arange(8000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time)
    soundfile.write(path, tone, 8000, subtype=subtype)
    recording = read(path)
    assert recording.origin == AudioFormat(subtype, None, suffix.upper(), lossy=True)
    spectrum = np.abs(np.fft.rfft(recording.data[0, :8000]))
    assert spectrum.argmax() == 440
    assert audio.write(fake(recording, 1), folder)["subtype"] == "FLOAT"


def test_blocks_join_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr(_audio_samples, "BLOCK", 64)
    whole = integers(np.random.default_rng(0), 16, 3, 1001)
    save(tmp_path / "a.wav", whole, "PCM_16", 16)
    assert np.array_equal(read(tmp_path / "a.wav").data * 2**15, whole)


def test_format_is_frozen():
    with pytest.raises(FrozenInstanceError):
        AudioFormat("PCM_16", 16, "WAV", lossy=False).bits = 8


# Headers that lie


@pytest.mark.parametrize("suffix", ["wav", "aiff", "au", "w64", "rf64"])
def test_truncated_uncompressed_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save(path, integers(np.random.default_rng(0), 16, 2, 5000), "PCM_16", 16)
    path.write_bytes(path.read_bytes()[:12000])
    with pytest.raises(
        InputError,
        match=rf"input=.*a\.{suffix}: the file is truncated: its header promises \d+ bytes, "
        r"\d+ are there; copy it again",
    ):
        read(path)


@pytest.mark.parametrize(("suffix", "subtype"), [("flac", "PCM_16"), ("mp3", "MPEG_LAYER_III")])
def test_truncated_compressed_file_is_refused(tmp_path, suffix, subtype):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(shape=(44100,)), 44100, subtype=subtype)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        InputError, match=r"the file is truncated: \d+ of 44100 frames can be read"
    ):
        read(path)


def test_truncated_caf_is_refused(tmp_path):
    path = tmp_path / "a.caf"
    soundfile.write(path, noise(shape=(5000,)), 8000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"not readable as audio .*it may be truncated"):
        read(path)


def test_a_single_missing_block_is_noticed(tmp_path):
    path = tmp_path / "a.wav"
    save(path, integers(np.random.default_rng(0), 16, 2, 5000), "PCM_16", 16)
    path.write_bytes(path.read_bytes()[:-128])
    with pytest.raises(InputError, match="truncated"):
        read(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_piped_wav_of_unknown_size_is_whole(tmp_path, size):
    path = tmp_path / "a.wav"
    whole = integers(np.random.default_rng(0), 16, 2, 5000)
    save(path, whole, "PCM_16", 16)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4, size)
    struct.pack_into("<I", content, content.find(b"data") + 4, size)
    path.write_bytes(content)
    assert np.array_equal(read(path).data * 2**15, whole)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("suffix", ["wav", "rf64"])
def test_a_header_that_promises_less_is_believed_aloud(tmp_path, suffix, seed):
    path = tmp_path / f"a.{suffix}"
    whole = integers(np.random.default_rng(seed), 16, 2, 8000)
    save(path, whole, "PCM_16", 16)
    content = bytearray(path.read_bytes())
    at, form = (content.find(b"data") + 4, "<I") if suffix == "wav" else (28, "<Q")
    struct.pack_into(form, content, at, 4 * 2000)
    path.write_bytes(content)
    with pytest.warns(SourcesepWarning, match=r"the 0\.25 s of sound.*; 0\.75 s more seem to"):
        found = read(path)
    assert np.array_equal(found.data * 2**15, whole[:, :2000])


@pytest.mark.parametrize(
    "rest", [bytes(468), b"TAG" + b"x" * 125, b"LIST\x04\0\0\0INFO", b"\xff\x01" * 20]
)
def test_what_else_follows_samples_is_no_sound(tmp_path, rest):
    path = tmp_path / "a.wav"
    save(path, integers(np.random.default_rng(0), 16, 2, 8000), "PCM_16", 16)
    path.write_bytes(path.read_bytes() + rest)
    assert read(path).n_times == 8000


def lie_about_flac(path, frames):
    """Rewrite the 36 bits of STREAMINFO that count the frames."""
    soundfile.write(path, noise(shape=(5000,)), 8000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    packed = int.from_bytes(content[18:26], "big")
    content[18:26] = ((packed >> 36 << 36) | frames).to_bytes(8, "big")
    path.write_bytes(content)


def test_absurd_promise_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    lie_about_flac(path, 2**36 - 1)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(
        InputError,
        match=r"the header promises 68719476735 frames of 1 channels, more than \d+ bytes",
    ):
        audio.read(path)


def test_a_flac_without_its_length_names_the_cure(tmp_path):
    path = tmp_path / "a.flac"
    lie_about_flac(path, 0)
    with pytest.raises(InputError, match=r"does not say how long.*ffmpeg -i INPUT\.flac"):
        read(path)


@pytest.mark.parametrize("at", [109, 200, 300])
def test_an_mp3_of_two_that_do_not_belong_together(tmp_path, at):
    """libsndfile then says that it stands behind its end."""
    parts = []
    for sfreq in (44100, 8000):
        soundfile.write(tmp_path / "a.mp3", noise(shape=(2, 300)).T, sfreq)
        parts.append((tmp_path / "a.mp3").read_bytes())
    (tmp_path / "a.mp3").write_bytes(parts[0][:160] + parts[1][at:])
    with pytest.raises(InputError, match=r"input=.*a\.mp3: .*truncated"):
        read(tmp_path / "a.mp3")


def test_a_recording_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    save(path, integers(np.random.default_rng(0), 16, 2, 5000), "PCM_16", 16)

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(InputError, match="5000 frames of 2 channels do not fit in memory"):
        audio.read(path)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_junk_is_refused(tmp_path, seed):
    path = tmp_path / "a.wav"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    with pytest.raises(InputError, match=r"input=.*a\.wav: not readable as audio \("):
        read(path)


def test_no_sample_and_one_sample_are_refused(tmp_path):
    for n_times in (0, 1):
        soundfile.write(tmp_path / "a.wav", np.full((n_times, 2), 0.5), 8000)
        with pytest.raises(InputError, match=f"n_times={n_times}: at least one channel and two"):
            read(tmp_path / "a.wav")


def test_not_finite_samples_are_refused(tmp_path):
    data = noise()
    data[1, 7] = np.nan
    soundfile.write(tmp_path / "a.wav", data.T, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN or infinite samples in channel ch1"):
        read(tmp_path / "a.wav")


# Warnings


def test_clipping_is_counted_in_one_warning(tmp_path):
    data = noise(shape=(3, 4000))
    data[0, 100:105] = 1  # a run of five
    data[0, 200:202] = 1  # two in a row may be chance
    data[1, 50:53] = -1
    soundfile.write(tmp_path / "a.wav", data.T, 8000)
    with pytest.warns(SourcesepWarning) as caught:
        read(tmp_path / "a.wav")
    assert len(caught) == 1
    assert str(caught[0].message).startswith("8 samples are clipped, in ch0 (5), ch1 (3):")
    assert caught[0].filename == __file__


def test_a_loud_peak_or_a_low_plateau_is_not_clipping(tmp_path):
    data = noise(shape=(2, 4000))
    data[0, 100] = 0.999
    data[1, 100:110] = 0.9
    soundfile.write(tmp_path / "a.wav", data.T, 8000)
    read(tmp_path / "a.wav")  # warnings are errors


def test_a_dc_offset_is_named_in_one_warning(tmp_path):
    data = noise(shape=(3, 4000)) - noise(shape=(3, 4000)).mean(axis=1, keepdims=True)
    data[1] += 0.05
    soundfile.write(tmp_path / "a.wav", data.T, 8000, subtype="FLOAT")
    with pytest.warns(
        SourcesepWarning, match=r"DC offset in ch1 \(0.05\): it is removed"
    ) as caught:
        read(tmp_path / "a.wav")
    assert len(caught) == 1


# Writing


@settings(max_examples=30, deadline=None)
@given(
    subtype=st.sampled_from([*BITS, "PCM_S8"]),
    bit_depth=st.sampled_from([None, "16", "24"]),
    n_channels=st.integers(1, 4),
    n_times=st.integers(3, 700),
    n_sources=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_integer_files_add_up_to_the_input_bit_by_bit(
    subtype, bit_depth, n_channels, n_times, n_sources, seed
):
    rng = np.random.default_rng(seed)
    bits = BITS.get(subtype, 8)
    whole = integers(rng, bits, n_channels, n_times)
    whole[:, 0] = 2 ** (bits - 1) // 8  # no channel is silent
    whole[:, 1] = -(2 ** (bits - 1)) // 8
    recording = recording_of(
        whole / 2 ** (bits - 1), AudioFormat(subtype, bits, "WAV", lossy=False)
    )
    images = rng.uniform(-0.2, 0.2, (n_sources, n_channels, n_times))
    separation = SimpleNamespace(
        recording=recording,
        keeps_input=True,
        n_components=n_sources,
        blocks=lambda: iter([(recording.data, images)]),
        warnings=[],
    )
    depth = DEPTH_OF.get(bit_depth, bits)
    with TemporaryDirectory() as name:
        facts = audio.write(separation, Path(name), bit_depth=bit_depth)
        total = sum(load_integers(Path(name) / file, depth) for file in facts["files"])
        info = soundfile.info(Path(name) / "source00.wav")
    assert facts["written_as_float"] is False
    assert facts["bit_depth"] == str(depth)
    assert info.subtype == facts["subtype"] == ("PCM_U8" if depth == 8 else f"PCM_{depth}")
    assert (info.channels, info.frames, info.samplerate) == (n_channels, n_times, 8000)
    assert separation.warnings == []
    if depth >= bits:
        assert np.array_equal(total, whole << (depth - bits))
    else:
        assert np.array_equal(total, np.rint(whole / 2 ** (bits - depth)))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_files_add_up_to_the_input(fake, folder, subtype, seed):
    data = noise(seed, scale=2)
    recording = recording_of(data, AudioFormat(subtype, None, "WAV", lossy=False))
    facts = audio.write(fake(recording, 2, seed), folder)
    total = sum(soundfile.read(folder / f)[0] for f in facts["files"]).T
    assert facts == {
        "files": ["source00.wav", "source01.wav", "residual.wav"],
        "subtype": subtype,
        "bit_depth": subtype.lower(),
        "written_as_float": False,
        "adds_up_to": "the input",
    }
    error = np.linalg.norm(total - data) / np.linalg.norm(data)
    assert error < (1e-7 if subtype == "FLOAT" else 1e-15)  # -120 dB is 1e-6


def test_sources_are_the_images(fake, folder):
    separation = fake(recording_of(noise()), 2)
    audio.write(separation, folder)
    for k in range(2):
        written = soundfile.read(folder / f"source0{k}.wav")[0].T
        assert np.allclose(written, separation.image(k), rtol=1e-7, atol=0)


@pytest.mark.parametrize("which", ["source", "residual"])
def test_what_exceeds_full_scale_makes_the_whole_set_float(fake, folder, which):
    data = np.rint(noise() * 2**15) / 2**15
    recording = recording_of(data, AudioFormat("PCM_16", 16, "WAV", lossy=False))
    separation = fake(recording, 2)
    separation.images = np.stack([separation.image(0), separation.image(1)])
    if which == "source":
        separation.images[1, 0, 7] = 1.5
    else:
        separation.images[:, 0, 7] = -0.9
    facts = audio.write(separation, folder)
    assert facts["written_as_float"] is True
    assert facts["subtype"] == "FLOAT"
    assert facts["bit_depth"] == "float"
    assert {soundfile.info(folder / f).subtype for f in facts["files"]} == {"FLOAT"}
    assert separation.warnings == [
        "a source or the residual exceeds full scale at 16 bits: all files are written as "
        "float, not clipped or rescaled"
    ]
    total = sum(soundfile.read(folder / f)[0] for f in facts["files"]).T
    assert np.linalg.norm(total - data) < 1e-6 * np.linalg.norm(data)


@pytest.mark.parametrize(("value", "fits"), [(1 - 2**-15, True), (-1, True), (1, False)])
def test_full_scale_itself_fits(fake, folder, value, fits):
    data = np.rint(noise() * 2**15) / 2**15
    data[0, 7] = min(value, 1 - 2**-15)
    recording = recording_of(data, AudioFormat("PCM_16", 16, "WAV", lossy=False))
    separation = fake(recording, 1)
    separation.images = separation.image(0)[None].copy()
    separation.images[0, 0, 7] = value
    assert audio.write(separation, folder)["written_as_float"] is not fits


def test_large_sources_that_cancel_are_written_as_double(fake, folder):
    data = noise()
    separation = fake(recording_of(data), 2)
    huge = 1e6 * noise(1)
    separation.images = np.stack([huge, data / 2])
    facts = audio.write(separation, folder)
    total = sum(soundfile.read(folder / f)[0] for f in facts["files"]).T
    assert facts["subtype"] == "DOUBLE"
    assert np.linalg.norm(total - data) < 1e-6 * np.linalg.norm(data)


def test_a_source_that_is_not_finite_is_refused(fake, folder):
    separation = fake(recording_of(noise()), 1)
    separation.images = np.full((1, 2, 4000), np.nan)
    with pytest.raises(OutputError, match="a source has NaN or infinite samples"):
        audio.write(separation, folder)


def test_names_have_as_many_digits_as_needed(fake, folder):
    separation = fake(recording_of(noise(shape=(1, 200))), 101)
    files = audio.write(separation, folder)["files"]
    assert files[:2] == ["source000.wav", "source001.wav"]
    assert files[-2:] == ["source100.wav", "residual.wav"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(files)


@pytest.mark.parametrize("bits", [12, 20])
def test_odd_depths_go_to_the_next_that_holds_them(fake, folder, bits):
    data = np.rint(noise() * 2 ** (bits - 1)) / 2 ** (bits - 1)
    recording = recording_of(data, AudioFormat(f"ALAC_{bits}", bits, "CAF", lossy=False))
    facts = audio.write(fake(recording, 1), folder)
    assert facts["bit_depth"] == {12: "16", 20: "24"}[bits]
    total = sum(soundfile.read(folder / f)[0] for f in facts["files"]).T
    assert np.array_equal(total, data)


def test_too_large_files_are_rf64(fake, folder, monkeypatch):
    monkeypatch.setattr(_wav, "MAX_WAV_BYTES", 2 * 4000 * 4 - 1)
    data = noise()
    files = audio.write(fake(recording_of(data), 1), folder)["files"]
    assert {soundfile.info(folder / f).format for f in files} == {"RF64"}
    total = sum(soundfile.read(folder / f)[0] for f in files).T
    assert np.linalg.norm(total - data) < 1e-6 * np.linalg.norm(data)


def test_rf64_holds_more_than_4_gib(tmp_path):
    """The file is sparse: but for its head and end it takes no room on the disk."""
    path, n_times = tmp_path / "a.wav", 2**31 + 10
    end = np.full(4, 2**20, np.int32)
    with _wav.open_wav(path, (1, n_times), 8000, _wav.Codec("PCM_16")) as file:
        file.seek(n_times - len(end))
        file.write(end)
    assert path.stat().st_size > 2**32
    samples = _audio_samples.AudioSamples(path)
    assert samples.shape == (1, n_times)
    with soundfile.SoundFile(path) as file:
        assert file.format == "RF64"
        file.seek(n_times - len(end))
        np.testing.assert_array_equal(file.read(dtype="int32"), end)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "DOUBLE"])
def test_files_hold_no_time_of_writing(fake, folder, subtype):
    bits = 16 if subtype == "PCM_16" else None
    data = noise()
    separation = fake(recording_of(data, AudioFormat(subtype, bits, "WAV", lossy=False)), 1)
    for file in audio.write(separation, folder)["files"]:
        head = (folder / file).read_bytes()[:200]
        if bits is None:
            at = head.index(b"PEAK")
            assert head[at + 8 : at + 16] == struct.pack("<II", 1, 0)
        else:
            assert b"PEAK" not in head


def test_unknown_bit_depth(fake, folder):
    with pytest.raises(
        SettingsError, match="bit_depth=12: must be one of 16, 24, float; leave it out"
    ):
        audio.write(fake(recording_of(noise()), 1), folder, bit_depth="12")


def test_a_rate_that_no_wav_holds(fake, folder):
    with pytest.raises(OutputError, match=r"^sfreq=0\.5: a WAV file holds whole rates"):
        audio.write(fake(recording_of(noise(), sfreq=0.5), 1), folder)


def test_a_folder_that_is_not_there(fake, tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        audio.write(fake(recording_of(noise()), 1), tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_round_trip_of_a_real_file(fake, folder, tmp_path):
    whole = integers(np.random.default_rng(3), 24, 2, 3000)
    save(tmp_path / "a.flac", whole, "PCM_24", 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = audio.write(fake(read(tmp_path / "a.flac"), 2), folder)
    assert np.array_equal(sum(load_integers(folder / f, 24) for f in facts["files"]), whole)
