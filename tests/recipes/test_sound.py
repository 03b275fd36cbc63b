"""The recipes of rooms and of songs, on simulated sound in files and folders of the real form."""

import csv
import sys

import numpy as np
import pytest
import soundfile

from sourcesep import simulate


def write_librimix(root, n_pairs=1):
    """Write a folder as LibriMix's scripts leave it, with a list made on another machine."""
    base = root / "Libri2Mix/wav16k/min"
    rows = []
    for k in range(n_pairs):
        name = f"61-70968-000{k}_8455-210777-000{k}.wav"
        voices = [simulate.speech(8.2, 16_000, random_state=10 * k + s) for s in (1, 2)]
        for folder, sound in zip(("s1", "s2", "mix_clean"), [*voices, sum(voices)], strict=True):
            path = base / "test" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.4 * sound / np.abs(sound).max(), 16_000)
        there = "/storage/Libri2Mix/wav16k/min/test"
        row = [name[:-4], f"{there}/mix_clean/{name}", f"{there}/s1/{name}", f"{there}/s2/{name}"]
        rows.append([*row, len(voices[0])])
    (base / "metadata").mkdir(parents=True)
    heads = ["mixture_ID", "mixture_path", "source_1_path", "source_2_path", "length"]
    with (base / "metadata/mixture_test_mix_clean.csv").open("w", newline="") as file:
        csv.writer(file).writerows([heads, *rows])


@pytest.mark.slow
def test_a_pair_in_a_room(recipe, tmp_path):
    write_librimix(tmp_path)
    module = recipe("rooms_librimix")
    rows = module.main(tmp_path, quick=True)["rows"]
    gain = {row["method"]: row["SI-SDR gain, dB"] for row in rows}
    assert gain["sourcesep"] > 10
    assert all(gain["sourcesep"] >= other for other in gain.values())


def test_a_list_without_its_files_is_refused(recipe, tmp_path):
    module = recipe("rooms_librimix")
    with pytest.raises(ValueError, match="generate Libri2Mix"):
        module.main(tmp_path)
    write_librimix(tmp_path)
    next((tmp_path / module.SOURCES / "s2").iterdir()).unlink()
    with pytest.raises(ValueError, match="a source of the list is not there"):
        module.main(tmp_path)


def write_song(root, seconds=6.0, sfreq=16_000):
    """Write a song of panned instruments as MUSDB18-HQ has it, but for a lower rate."""
    folder = root / "test" / "A Band - A Song"
    folder.mkdir(parents=True)
    kinds = {"vocals": "melody", "drums": "drums", "bass": "bass", "other": "pad"}
    mix = 0
    for k, (stem, kind) in enumerate(kinds.items()):
        sound = simulate.instrument(seconds, sfreq, kind=kind, random_state=k)
        angle = np.pi / 2 * (0.15 + 0.23 * k)
        stereo = 0.1 / sound.std() * np.outer(sound, [np.cos(angle), np.sin(angle)])
        soundfile.write(folder / f"{stem}.wav", stereo, sfreq, "FLOAT")
        mix = mix + stereo
    soundfile.write(folder / "mixture.wav", mix, sfreq, "FLOAT")


@pytest.mark.slow
def test_a_song_of_panned_instruments(recipe, tmp_path):
    write_song(tmp_path)
    result = recipe("musdb").main(tmp_path, quick=True)
    ours, mixture = result["rows"]
    assert ours["mean gain"] > 8, "panned far apart, where blind separation can do it"
    assert ours["drums"] > mixture["drums"]
    assert set(result["verdicts"]) <= {"doubtful", "not identifiable"}


def test_a_folder_without_songs_is_refused(recipe, tmp_path):
    module = recipe("musdb")
    with pytest.raises(ValueError, match=r"zenodo\.org"):
        module.main(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"no folder with a mixture\.wav"):
        module.main(tmp_path)


def test_gains_leave_silence_out_and_match_the_rest(recipe):
    gains = recipe("musdb").gains
    rng = np.random.default_rng(0)
    true = rng.standard_normal((3, 2, 1000))
    true[1] = 0
    true[2, 1] = 0  # panned to one side
    found = true[[2, 0, 1]] + 0.01 * rng.standard_normal((3, 2, 1000))
    score = gains(true, true.sum(0), found)
    assert np.isnan(score.improvement).tolist() == [False, True, False]
    assert (score.estimate[[0, 2]] > 35).all()
    np.testing.assert_allclose(score.mixture[[0, 2]], [3, -3], atol=0.7)


def test_peers_are_those_that_are_installed(recipe, monkeypatch):
    peers = recipe("rooms_librimix").peers
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    assert peers(16_000.0, 0) == {}
