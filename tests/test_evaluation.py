"""`evaluate`, `simulate` and `info` on files."""

import json

import numpy as np
import pytest
import soundfile

from sourcesep import IVAE, metrics, read, save, separate
from sourcesep.evaluation import Score, describe, evaluate_files, simulate_files
from sourcesep.exceptions import InputError, ModelFileError, OutputError, SettingsError

SFREQ = 8000


def signals(n, n_times=4000, seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * rng.laplace(size=(n, n_times)) * np.exp(rng.normal(size=(n, 25))).repeat(160, 1)


def wav(path, x, sfreq=SFREQ):
    soundfile.write(path, np.atleast_2d(x).T, sfreq, "DOUBLE")
    return str(path)


class TestEvaluate:
    def test_matches_and_scores(self, tmp_path):
        a, b = signals(2)
        noise = 0.01 * np.random.default_rng(1).standard_normal(4000)
        names = [
            wav(tmp_path / f"{n}.wav", x)
            for n, x in zip("abcd", [a, b, 3 * b, a + noise], strict=True)
        ]
        rows = evaluate_files(names[:2], names[2:])
        assert [(r.reference, r.estimate) for r in rows] == [
            (names[0], names[3]),
            (names[1], names[2]),
        ]
        assert rows[0].si_sdr == pytest.approx(metrics.si_sdr(a, a + noise), abs=1e-6)
        assert rows[0].sdr == pytest.approx(metrics.sdr(a, a + noise), abs=1e-6)
        assert rows[0].correlation == pytest.approx(np.corrcoef(a, a + noise)[0, 1])
        assert rows[1].si_sdr > 200
        assert rows[1].correlation == pytest.approx(1)
        assert rows[1].sdr == pytest.approx(10 * np.log10(1 / 4), abs=0.01)

    def test_a_result_folder_stands_for_its_sources(self, tmp_path):
        files = simulate_files(tmp_path / "s", kind="instantaneous", seconds=1)
        separate(files[0]).save(tmp_path / "r")
        rows = evaluate_files([str(f) for f in files[1:]], [str(tmp_path / "r")])
        assert len(rows) == 2
        assert min(row.si_sdr for row in rows) > 30
        assert {row.estimate for row in rows} == {
            str(tmp_path / "r" / f"source0{k}.wav") for k in (0, 1)
        }

    def test_one_channel_is_compared_with_every_channel(self, tmp_path):
        a = signals(1)
        noisy = np.concatenate([a, a + 0.02 * signals(1, seed=5)])
        names = wav(tmp_path / "a.wav", a), wav(tmp_path / "e.wav", noisy)
        row = evaluate_files(names[:1], names[1:])[0]
        assert row.correlation == pytest.approx((1 + np.corrcoef(noisy)[0, 1]) / 2, abs=1e-9)

    def test_channels_in_which_a_source_is_silent_do_not_count(self, tmp_path):
        x = signals(2)
        x[1] = 0
        with pytest.warns(UserWarning, match="constant"):
            rows = evaluate_files([wav(tmp_path / "a.wav", x)], [wav(tmp_path / "b.wav", 2 * x)])
        assert rows[0].correlation == pytest.approx(1)

    def test_no_channel_in_common(self, tmp_path):
        a, b = signals(2), signals(2)
        a[0], b[1] = 0, 0
        with pytest.warns(UserWarning, match="constant"):
            row = evaluate_files([wav(tmp_path / "a.wav", a)], [wav(tmp_path / "b.wav", b)])[0]
        assert (row.si_sdr, row.correlation) == (-np.inf, 0)
        assert row.as_dict()["si_sdr"] == "-inf"

    @pytest.mark.parametrize(
        ("references", "estimates", "message"),
        [
            (["a", "a"], ["a"], "estimates=1, references=2: give an estimate for each reference"),
            (["a"], ["short"], "short.wav: 800 samples at 8000 Hz, "),
            (["a"], ["fast"], "fast.wav: 4000 samples at 16000 Hz, "),
            (["two"], ["a"], "two.wav: 2 channels, "),
            (["a"], ["none"], "none.wav: no such file; check the path"),
            (["none"], ["a"], "none.wav: no such file"),
        ],
    )
    def test_that_cannot_be(self, tmp_path, references, estimates, message):
        x = signals(2)
        wav(tmp_path / "a.wav", x[0])
        wav(tmp_path / "two.wav", x)
        wav(tmp_path / "short.wav", x[0, :800])
        wav(tmp_path / "fast.wav", x[0], 16000)
        paths = [[str(tmp_path / f"{n}.wav") for n in each] for each in (references, estimates)]
        with pytest.raises((InputError, SettingsError)) as error:
            evaluate_files(*paths)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_folder_without_sources(self, tmp_path):
        with pytest.raises(InputError, match=r"no source\*\.wav in this folder; name a result"):
            evaluate_files([wav(tmp_path / "a.wav", signals(1))], [str(tmp_path)])

    def test_what_json_cannot_hold_is_text(self):
        score = Score("a", "b", np.inf, -np.inf, 1.0)
        assert json.dumps(score.as_dict(), allow_nan=False)
        assert score.as_dict()["si_sdr"] == "inf"


class TestSimulate:
    @pytest.mark.parametrize("kind", ["instantaneous", "saturated", "room"])
    def test_images_add_up_before_saturation(self, tmp_path, kind):
        room = {"rt60": 0.1} if kind == "room" else {}
        files = simulate_files(tmp_path / "s", kind=kind, seconds=0.5, **room)
        assert [f.name for f in files] == ["mixture.wav", "image00.wav", "image01.wav"]
        mixture, *images = (read(f).data for f in files)
        gap = np.abs(mixture - sum(images)).max() / np.abs(mixture).max()
        assert (gap > 0.01) if kind == "saturated" else (gap < 1e-6)
        facts = json.loads((tmp_path / "s" / "result.json").read_text())["simulation"]
        assert facts.items() >= {"kind": kind, "seed": 0, "from": [], **room}.items()
        assert ("rt60" in facts) == (kind == "room")

    def test_the_mixing_matrix_is_told(self, tmp_path):
        files = simulate_files(tmp_path / "s", seconds=0.5, n_sources=3)
        facts = describe(tmp_path / "s")["simulation"]
        mixture, *images = (read(f).data for f in files)
        for k, image in enumerate(images):
            column = np.array(facts["mixing"])[:, k]
            strongest = np.abs(column).argmax()
            np.testing.assert_allclose(
                image, np.outer(column / column[strongest], image[strongest]), atol=1e-6
            )
        assert len(mixture) == 3

    def test_a_seed_gives_the_same_bytes(self, tmp_path):
        for name in "ab":
            simulate_files(tmp_path / name, seconds=0.5, seed=3)
        simulate_files(tmp_path / "c", seconds=0.5, seed=4)
        contents = [
            {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc"
        ]
        assert contents[0] == contents[1] != contents[2]

    def test_of_recordings(self, tmp_path):
        a, b = signals(2)
        sources = [wav(tmp_path / "a.wav", a), wav(tmp_path / "b.wav", b[:3000])]
        files = simulate_files(tmp_path / "s", sources)
        mixture, *images = (read(f) for f in files)
        assert (mixture.n_times, mixture.sfreq) == (3000, SFREQ)
        for source, image in zip((a, b), images, strict=True):
            for channel in image.data:
                assert abs(np.corrcoef(channel, source[:3000])[0, 1]) > 0.999
        assert describe(tmp_path / "s")["simulation"]["from"] == sources

    def test_of_recordings_at_unequal_rates(self, tmp_path):
        a, b = signals(2)
        sources = [wav(tmp_path / "a.wav", a), wav(tmp_path / "b.wav", b, 16000)]
        with pytest.raises(InputError, match="sfreq=8000, 16000: the recordings must have one"):
            simulate_files(tmp_path / "s", sources)
        assert not (tmp_path / "s").exists()

    def test_of_one_recording(self, tmp_path):
        with pytest.raises(
            SettingsError, match="one recording makes no mixture; give two or more"
        ):
            simulate_files(tmp_path / "s", [wav(tmp_path / "a.wav", signals(1))])

    def test_of_no_file(self, tmp_path):
        with pytest.raises(InputError, match=r"b\.wav: no such file"):
            simulate_files(
                tmp_path / "s", [wav(tmp_path / "a.wav", signals(1)), str(tmp_path / "b.wav")]
            )
        assert not (tmp_path / "s").exists()

    @pytest.mark.parametrize("settings", [{"seconds": np.nan}, {"kind": "room", "rt60": np.nan}])
    def test_settings_that_cannot_be(self, tmp_path, settings):
        with pytest.raises(SettingsError, match="=nan: must be"):
            simulate_files(tmp_path / "s", **({"seconds": 0.5} | settings))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("setting", [{"rt60": 1.0}, {"n_sources": 3}, {"seconds": 2.0}])
    def test_settings_that_would_change_nothing(self, tmp_path, setting):
        sources = [] if "rt60" in setting else [wav(tmp_path / "a.wav", signals(1))] * 2
        (name,) = setting
        with pytest.raises(SettingsError, match=f"{name}=.*only; .*leave it out"):
            simulate_files(tmp_path / "s", sources, **setting)
        assert not (tmp_path / "s").exists()

    def test_an_earlier_simulation_is_replaced_when_asked(self, tmp_path):
        simulate_files(tmp_path / "s", seconds=0.5)
        with pytest.raises(OutputError, match="exists already"):
            simulate_files(tmp_path / "s", seconds=0.5)
        assert len(simulate_files(tmp_path / "s", seconds=0.5, n_sources=3, overwrite=True)) == 4

    def test_nothing_else_is_replaced(self, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(OutputError, match="is not the result of an earlier run"):
            simulate_files(tmp_path, seconds=0.5, overwrite=True)
        assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(*args, **kwargs):
            raise soundfile.SoundFileRuntimeError("No space left on device")

        monkeypatch.setattr(soundfile.SoundFile, "write", full)
        with pytest.raises(OutputError) as error:
            simulate_files(tmp_path / "s", seconds=0.5)
        assert str(error.value) == (
            f"output={tmp_path / 's'}: cannot be written (No space left on device); free some "
            "space or choose another with -o"
        )
        assert list(tmp_path.iterdir()) == []


class TestDescribe:
    def test_a_model(self, tmp_path):
        path = tmp_path / "m.safetensors"
        save(IVAE(random_state=0, starts=("segments",)).fit(signals(2).T), path)
        facts = describe(path)
        assert facts["family"] == "linear"
        assert facts["contract"] == {"n_channels": 2}

    def test_a_result(self, tmp_path):
        result = separate((signals(2), SFREQ)).save(tmp_path / "r")
        assert describe(tmp_path / "r") == describe(tmp_path / "r" / "result.json") == result

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (
                "none",
                None,
                "none: is neither a model nor a result (no such file or folder); name a .saf",
            ),
            ("void", b"", "void: is neither a model nor a result (ends in nothing); name a .safe"),
            ("none.json", None, "nor a result (no such file or folder); name"),
            ("a.wav", b"RIFF", "nor a result (ends in .wav); name"),
            ("a.json", b"[1]", "nor a result (holds a list, not an object); name"),
            ("a.json", b"{", "nor a result (Expecting property name"),
            ("a.json", b"\xff\xfe", "nor a result ("),
            ("a.json", b"[" * 100_000, "nor a result (maximum recursion depth"),
            ("x" * 300, None, "nor a result (File name too long"),
        ],
    )
    def test_anything_else(self, tmp_path, name, content, message):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as error:
            describe(path)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_folder_that_is_no_result(self, tmp_path):
        with pytest.raises(InputError, match=r"a result \(has no result\.json\); name"):
            describe(tmp_path)

    def test_a_file_that_is_no_model(self, tmp_path):
        path = tmp_path / "m.safetensors"
        path.write_bytes(b"x" * 99)
        with pytest.raises(ModelFileError, match="is no sourcesep model file"):
            describe(path)
