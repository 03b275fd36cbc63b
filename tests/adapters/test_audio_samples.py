import os
import pickle

import numpy as np
import pytest
import soundfile

from sourcesep.adapters import _audio_samples
from sourcesep.adapters._audio_samples import AudioSamples
from sourcesep.exceptions import InputError

CODECS = [
    ("wav", "PCM_16"),
    ("flac", "PCM_24"),
    ("caf", "ALAC_16"),
    ("mp3", "MPEG_LAYER_III"),
    ("ogg", "VORBIS"),
    ("ogg", "OPUS"),
    ("wav", "IMA_ADPCM"),
]
N_TIMES = 60_000


def noise(n_times=N_TIMES, n_channels=2):
    return 0.1 * np.random.default_rng(0).standard_normal((n_times, n_channels))


def file(path, subtype="PCM_16", **more):
    soundfile.write(path, noise(**more), 48000, subtype=subtype)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), CODECS)
def test_slices_in_any_order_are_those_of_the_whole(tmp_path, suffix, subtype):
    """libsndfile is not exact near the end of Vorbis files if it seeks, and of Opus if it does
    not, but is asked for few frames."""
    path = file(tmp_path / f"a.{suffix}", subtype)
    whole = soundfile.read(path, always_2d=True)[0].T
    samples = AudioSamples(path)
    assert samples.shape == whole.shape
    n = whole.shape[1]
    for start, stop in ((0, 10), (10, 5000), (20_000, n), (n - 3000, n), (7, 7), (100, 30_000)):
        np.testing.assert_array_equal(samples[:, start:stop], whole[:, start:stop])
    np.testing.assert_array_equal(samples[:], whole)
    np.testing.assert_array_equal(samples[1], whole[1])
    np.testing.assert_array_equal(samples[[False, True], -5:], whole[1:, -5:])
    np.testing.assert_array_equal(np.asarray(samples), whole)


def test_only_steps_of_one(tmp_path):
    with pytest.raises(IndexError, match="sliced in steps of 1"):
        AudioSamples(file(tmp_path / "a.wav"))[:, ::2]


def test_they_can_be_sent_elsewhere(tmp_path):
    samples = AudioSamples(file(tmp_path / "a.wav"))
    first = samples[:, :100]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(samples))[:, :100], first)


def overwrite(path):
    content = bytearray(path.read_bytes())
    content[-100:] = bytes(100)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def truncate(path):
    os.truncate(path, 30_000)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [overwrite, truncate, remove])
@pytest.mark.parametrize("where", ["before a pass", "in the midst of one"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, change, where):
    monkeypatch.setattr(_audio_samples, "BLOCK", 1000)
    path = file(tmp_path / "a.wav")
    samples = AudioSamples(path)
    if where == "in the midst of one":
        samples[:, :100]
    change(path)
    with pytest.raises(InputError, match=r"input=.*a\.wav: the file was changed or removed"):
        samples[:, 100:]


@pytest.mark.parametrize("cut", [100, 600, 1000])
def test_an_mp3_may_end_a_little_early(tmp_path, cut):
    path = file(tmp_path / "a.mp3", "MPEG_LAYER_III")
    path.write_bytes(path.read_bytes()[:-cut])
    samples = AudioSamples(path)
    assert 0 < N_TIMES - samples.shape[1] <= 2304
    assert samples[:].shape == samples.shape


def test_an_mp3_that_is_cut_short_is_refused(tmp_path):
    path = file(tmp_path / "a.mp3", "MPEG_LAYER_III")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=rf"truncated: \d+ of {N_TIMES} frames can be read"):
        AudioSamples(path)[:]
