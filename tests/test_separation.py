"""`separate` from end to end: what comes in, what holds of the sources, what is written."""

import inspect
import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import sourcesep
from sourcesep import IVAE, Recording, Separation, metrics, read, separate, simulate
from sourcesep.auxiliary import Auxiliary, from_array
from sourcesep.exceptions import (
    InputError,
    OutputError,
    SettingsError,
    SourcesepError,
    SourcesepWarning,
)

from .conftest import mixture, sources

SFREQ = 8000


def wav(path, x, subtype="PCM_16"):
    soundfile.write(path, x.T, SFREQ, subtype)
    return path


def table(path, x, header="a,b"):
    rows = [",".join(map(repr, row)) for row in x.T.tolist()]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def raw(x, **info):
    import mne

    meta = mne.create_info([f"E{i}" for i in range(len(x))], 100.0, "eeg", verbose="error")
    with meta._unlock():
        meta["highpass"] = 1.0
    return mne.io.RawArray(1e-5 * x, meta, verbose="error")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return wav(tmp_path_factory.mktemp("audio") / "duo.wav", mixture())


@pytest.fixture(scope="module")
def separation(audio):
    return separate(audio)


@pytest.fixture(scope="module")
def saved(separation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "duo"
    return folder, separation.save(folder)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


class TestSources:
    def test_are_those_that_were_mixed(self, separation):
        assert metrics.mcc(sources().T, separation.sources.T) > 0.999
        assert separation.verdict.label == "trusted"

    def test_add_up_to_the_recording(self, separation):
        total = separation.images.sum(axis=0) + separation.residual
        np.testing.assert_allclose(total, separation.recording.data, atol=1e-12)

    def test_have_unit_variance(self, separation):
        np.testing.assert_allclose(separation.sources.std(axis=1), 1)

    def test_are_ordered_by_power_and_point_up(self, separation):
        power = np.square(separation.images).mean(axis=(1, 2))
        assert (np.diff(power) <= 0).all()
        peaks = separation.mixing[np.abs(separation.mixing).argmax(axis=0), [0, 1]]
        assert (peaks > 0).all()

    def test_images_are_mixing_times_sources(self, separation):
        for k, image in enumerate(separation.images):
            np.testing.assert_allclose(
                image, np.outer(separation.mixing[:, k], separation.sources[k]), atol=1e-12
            )

    def test_residual_keeps_what_is_no_source(self, tmp_path):
        x = mixture() * 0.5 + np.array([[0.25], [-0.1]])
        with pytest.warns(SourcesepWarning, match="DC offset"):
            found = separate(wav(tmp_path / "dc.wav", x))
        np.testing.assert_allclose(
            found.residual, np.broadcast_to(found.recording.data.mean(1)[:, None], x.shape)
        )
        assert metrics.mcc(sources().T, found.sources.T) > 0.999

    def test_fewer_than_channels_leave_the_rest_in_the_residual(self, tmp_path):
        found = separate((mixture(n=3), SFREQ), n_components=1)
        assert found.n_components == 1
        assert np.square(found.residual).sum() > 0.01 * np.square(found.recording.data).sum()
        total = found.images.sum(axis=0) + found.residual
        np.testing.assert_allclose(total, found.recording.data, atol=1e-12)


class TestInput:
    def test_channels_of_an_array_count_alike_whatever_their_units(self):
        x = mixture(n=3)
        units = np.array([[1.0], [1000.0], [0.01]])
        one, other = (
            separate((y, SFREQ), n_components=2, mixing="linear").sources for y in (x, units * x)
        )
        assert metrics.mcc(one.T, other.T) > 0.999

    def test_path_recording_and_array_are_one(self, audio, separation):
        for source in (str(audio), read(audio)):
            np.testing.assert_array_equal(separate(source).sources, separation.sources)
        array = separate((read(audio).data, SFREQ), aux="segments:.02")
        assert metrics.mcc(array.sources.T, separation.sources.T) > 0.9999
        assert array.recording.kind == "array"

    def test_raw(self):
        source = raw(mixture(n=3, n_times=3000))
        before = source.get_data().copy()
        found = separate(source)
        np.testing.assert_array_equal(source.get_data(), before)
        assert found.recording.names == ("E0", "E1", "E2")
        assert found.u.spec == "segments:.5,2,8"
        assert found.ivae.starts == ("segments",)

    def test_labels_as_an_array(self):
        u = np.arange(8000) // 160
        for aux in (u, u.tolist(), u.astype(str), from_array(u, 8000)):
            found = separate((mixture(), SFREQ), aux=aux)
            assert metrics.mcc(sources().T, found.sources.T) > 0.999
            assert found.u.n_labels == 50
            assert not found.u.is_time
            assert isinstance(found.u, Auxiliary)

    def test_columns_of_a_table(self, tmp_path):
        path = table(tmp_path / "t.csv", mixture(n=3), "a,b,c")
        for columns in ("c,a", ["c", "a"], ("c", "a")):
            found = separate(path, columns=columns, n_components=2)
            assert found.recording.names == ("c", "a")
        np.testing.assert_allclose(found.recording.data, mixture(n=3)[[2, 0]])

    def test_a_table_chooses_its_number(self, tmp_path):
        x = mixture(n_times=1600)
        x = np.concatenate([x, x[:1] + x[1:]])
        rng = np.random.default_rng(0)
        x = x + 0.01 * x.std(axis=1, keepdims=True) * rng.standard_normal(x.shape)
        found = separate(table(tmp_path / "t.csv", x, "a,b,c"))
        assert found.n_components == 2
        assert set(found.candidates) == {"n_components", "linear", "factor", "gain"}
        assert set(found.candidates["n_components"]) == {"1", "2", "3"}

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (None, "source of type NoneType: give a path, a Recording, an MNE Raw, or (array"),
            (np.ones((2, 9)), "source of type ndarray: give a path"),
            ((np.ones((2, 9)), 1, 2), "source of type tuple: give a path"),
            ((np.ones(9), 1), "shape=(9,): a recording has two axes, (channels, times)"),
            ((np.ones((1, 2, 9)), 1), "shape=(1, 2, 9): a recording has two axes"),
            ((1.0, 1), "shape=(): a recording has two axes"),
            ((np.ones((2, 9)) * 1j, 1), "not an array of real numbers and its rate (type complex"),
            ((np.array([["a", "b"]]), 1), "not an array of real numbers and its rate (type <U1)"),
            ((np.array([[None, 1]]), 1), "not an array of real numbers and its rate (type object"),
            (([[1, 2], [1]], 1), "not an array of real numbers and its rate (setting an array"),
            ((np.eye(9), "fast"), "and its rate (could not convert string to float: 'fast')"),
            ((np.eye(9), None), "not an array of real numbers and its rate (float() argument"),
            ((np.eye(9), 0), "sfreq=0.0: the sampling rate must be above 0 Hz"),
            ((np.eye(9), np.nan), "sfreq=nan: the sampling rate must be above 0 Hz"),
            ((np.full((2, 9), np.nan), 1), "NaN or infinite samples in channel ch0, ch1"),
            ((np.eye(9) * 1e101, 1), "samples up to 1e+101: 1e+100 is the largest"),
            ((np.eye(7), 1), "n_times=7: too few samples to find sources in"),
            (
                (np.ones((1000, 2)) * [1, 2], 1),
                "at least 8 are needed; are samples and channels the wrong way round?",
            ),
            ((np.ones((2, 9)), 1), "every channel is constant (silent)"),
            ((np.ones((0, 9)), 1), "n_channels=0, n_times=9: at least one channel and two sam"),
            ("no such file.wav", "input=no such file.wav: no such file; check the path"),
            ("a\0b.wav", "no such file; check the path"),
            ("x" * 5000 + ".wav", "cannot be opened (File name too long); check the path"),
            ("\udcff.wav", "cannot be opened (its name is not valid Unicode); check the path"),
            (".", "input=.: is a folder; name a file, or several"),
        ],
        ids=str,
    )
    def test_that_cannot_be(self, source, message):
        with pytest.raises(InputError) as error:
            separate(source)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_epochs_are_no_raw(self):
        import mne

        info = mne.create_info(2, 100.0, "eeg", verbose="error")
        epochs = mne.EpochsArray(np.ones((3, 2, 50)), info, verbose="error")
        with pytest.raises(InputError, match="source of type EpochsArray: give a path"):
            separate(epochs)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_components": 3}, "n_components=3: the 2 channels hold 2 linearly independent si"),
            ({"n_components": 0}, "n_components=0: must be a whole number, 1 or more, or None"),
            ({"n_components": "2"}, "n_components='2': must be a whole number"),
            ({"mixing": "magic"}, "mixing='magic': allowed are auto, linear"),
            ({"mixing": None}, "mixing=None: to choose among are linear"),
            ({"aux": "tides"}, "aux='tides': unknown term 'tides'; known are segments, adaptive"),
            ({"aux": "annotations"}, "aux='annotations': no such annotation lasts any time"),
            ({"aux": "column:c"}, "aux='column:c': no column 'c'"),
            ({"aux": "recording"}, "needs several recordings"),
            ({"columns": "a"}, "columns='a': only files of tables take it"),
            ({"interpolate": 3}, "interpolate=3: only files of tables take it"),
            ({"random_state": None}, "random_state=None: must be a whole number, 0 or more"),
            ({"random_state": -1}, "random_state=-1: must be a whole number, 0 or more"),
            ({"random_state": 1.0}, "random_state=1.0: must be"),
            ({"random_state": True}, "random_state=True: must be"),
            ({"random_state": "0"}, "random_state='0': must be"),
        ],
    )
    def test_that_cannot_be(self, settings, message):
        with pytest.raises(SettingsError) as error:
            separate((mixture(n_times=400), SFREQ), **settings)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_wrong_spec_is_said_before_anything_is_read(self):
        with pytest.raises(SettingsError, match="unknown term"):
            separate("no such file.wav", aux="tides")

    @pytest.mark.parametrize(
        "aux", [5, np.zeros(7, int), np.zeros(400) * 1j, np.array([None] * 400), [[1], [2, 3]]]
    )
    def test_u_that_cannot_be(self, aux):
        with pytest.raises((SourcesepError, ValueError), match=r"u |inhomogeneous"):
            separate((mixture(n_times=400), SFREQ), aux=aux)


class TestHandled:
    def test_mono(self, tmp_path):
        found = separate(wav(tmp_path / "m.wav", mixture()[:1]))
        assert found.n_components == 2
        assert found.verdict.label == "not identifiable"
        assert found.verdict.sentence == "one channel: told apart by spectrum only"
        total = found.images.sum(axis=0) + found.residual
        np.testing.assert_allclose(total, found.recording.data, atol=1e-12)

    def test_dual_mono(self, tmp_path):
        with pytest.warns(SourcesepWarning, match="channels ch0, ch1 are identical: they count"):
            found = separate(wav(tmp_path / "m.wav", mixture()[[0, 0]]))
        assert found.n_components == 2
        assert found.verdict.label == "not identifiable"
        assert len(found.warnings) == 1

    def test_a_silent_channel(self, tmp_path):
        x = np.concatenate([mixture(), np.zeros((1, 8000))])
        with pytest.warns(SourcesepWarning, match=r"channel ch2 is constant \(silent\)"):
            found = separate(wav(tmp_path / "s.wav", x))
        assert found.n_components == 2
        assert metrics.mcc(sources().T, found.sources.T) > 0.999
        np.testing.assert_allclose(found.images[:, 2], 0, atol=1e-12)

    def test_a_channel_that_is_the_sum_of_others(self, tmp_path):
        x = mixture() / 2
        found = separate((np.concatenate([x, x[:1] - x[1:]]), SFREQ))
        assert found.n_components == 2
        assert metrics.mcc(sources().T, found.sources.T) > 0.999
        np.testing.assert_allclose(found.residual - found.residual.mean(1)[:, None], 0, atol=1e-9)

    def test_clipping(self, tmp_path):
        x = np.clip(30 * mixture(), -1, 1)
        with pytest.warns(SourcesepWarning) as said:
            assert separate(wav(tmp_path / "c.wav", x)).n_components == 2
        for words in ("samples are clipped, in ch0", "clipped samples are restored before"):
            assert sum(words in str(w.message) for w in said) == 1

    def test_each_thing_is_said_once(self, tmp_path):
        x = mixture(n_times=160)[:, :12]
        with pytest.warns(SourcesepWarning) as said:
            found = separate((x, SFREQ))
        assert [str(w.message) for w in said] == found.warnings
        assert len(found.warnings) == 1
        assert "labels have" in found.warnings[0]

    @pytest.mark.parametrize("scale", [1e-90, 1e-30, 1e30, 1e90])
    def test_any_units(self, scale):
        found = separate((scale * mixture(n_times=1600), SFREQ))
        assert metrics.mcc(sources(n_times=1600).T, found.sources.T) > 0.99
        json.dumps(found.result(), allow_nan=False)

    @pytest.mark.parametrize("sfreq", [1e-200, 1e-9, 1e9, 1e308])
    def test_any_rate(self, sfreq):
        found = separate((mixture(n_times=1600), sfreq))
        assert metrics.mcc(sources(n_times=1600).T, found.sources.T) > 0.99

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_any_small_array_is_separated_or_refused_in_one_line(self, data):
        shape = data.draw(st.tuples(st.integers(1, 5), st.integers(2, 40)))
        kinds = ["normal", "sparse", "steps", "int8", "bool", "huge", "tiny", "offset", "twins"]
        kind = data.draw(st.sampled_from(kinds))
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        x = rng.standard_normal(shape)
        x = {
            "normal": x,
            "sparse": x * (rng.random(shape) < 0.1),
            "steps": np.sign(x).cumsum(axis=1),
            "int8": (50 * x).astype(np.int8),
            "bool": x > 1,
            "huge": x * 1e99,
            "tiny": x * 1e-320,
            "offset": 1 + 1e-13 * x,
            "twins": x[:1].repeat(shape[0], axis=0),
        }[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SourcesepWarning)
            try:
                found = separate((x, data.draw(st.sampled_from([0.01, 1.0, 44100.0]))))
            except SourcesepError as error:
                assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
                return
            json.dumps(found.result(), allow_nan=False)
        assert np.isfinite(found.sources).all()
        total = found.images.sum(axis=0) + found.residual
        np.testing.assert_allclose(total, x, atol=1e-9 * np.abs(x).max())


def test_saturated_microphones_are_undone(tmp_path):
    """Sources and residual add up to the mixture before the curve, and the files say so."""
    voices = [sourcesep.simulate.speech(4, random_state=40 + k) for k in range(2)]
    truth = sourcesep.simulate.saturated(voices, sfreq=16000, random_state=3)
    path = wav(tmp_path / "bent.wav", truth.data, "FLOAT")
    separation = separate(path)
    assert separation.ivae.model_.family == "post-nonlinear"
    facts = separation.save(tmp_path / "out")
    assert facts["output"]["adds_up_to"] == "the mixture before the distortion that was undone"
    assert "post-nonlinear" in facts["candidates"]
    written = [soundfile.read(tmp_path / "out" / f)[0].T for f in facts["output"]["files"]]
    rest = np.sum(written, axis=0) - separation.mixture
    assert np.linalg.norm(rest) < 1e-6 * np.linalg.norm(separation.mixture)
    for straight, bent in zip(separation.mixture, truth.images.sum(axis=0), strict=True):
        assert metrics.si_sdr(bent, straight) > 20


class TestResult:
    def test_is_what_the_file_says(self, saved):
        folder, result = saved
        text = (folder / "result.json").read_text("utf-8")

        def refuse(constant):
            raise AssertionError(constant)

        assert json.loads(text, parse_constant=refuse) == result

    def test_has_every_field(self, saved, audio):
        from hashlib import sha256

        _, result = saved
        assert result["input"] == {
            "name": "duo.wav",
            "sha256": sha256(audio.read_bytes()).hexdigest(),
            "kind": "audio",
            "n_channels": 2,
            "n_times": 8000,
            "sfreq": 8000.0,
        }
        assert result["settings"] == {
            "n_components": None,
            "mixing": "auto",
            "aux": "segments:.02",
            "prior": None,
            "prior_sha256": None,
            "labels": None,
            "resample": False,
            "model": None,
            "refit": False,
            "model_sha256": None,
            "columns": None,
            "interpolate": None,
            "kernel_size": None,
            "quality": "normal",
            "device": "auto",
            "random_state": 0,
        }
        assert set(result["versions"]) >= {"sourcesep", "numpy"}
        assert result["versions"]["sourcesep"] == sourcesep.__version__
        assert (result["rank"], result["n_components"], result["family"]) == (2, 2, "linear")
        assert result["reason"].startswith("linear mixing, found from ")
        assert set(result["candidates"]["linear"]) == {
            *("segments", "bands", "spectrum", "cells", "non-gaussian")
        }
        assert set(result["elbo"]) == {"unit", "reconstruction", "kl"}
        assert result["verdict"] == "trusted"
        assert set(result["evidence"]) == {"richness", "agreement", "misfit"}
        assert len(result["sentence"]) > 20
        assert set(result["run"]) == {"seconds", "python", "platform"}
        assert result["output"]["files"] == ["source00.wav", "source01.wav", "residual.wav"]
        assert sum(result["explained_power"]) == pytest.approx(1, abs=0.05)
        assert result["warnings"] == []

    def test_elbo_is_the_score(self, saved, separation):
        elbo = saved[1]["elbo"]
        score = separation.ivae.score(separation.recording.data.T, u=separation.u)
        assert elbo["reconstruction"] - elbo["kl"] == pytest.approx(score)

    def test_files_are_there_and_no_others(self, saved):
        folder, result = saved
        assert set(files(folder)) == {*result["output"]["files"], "result.json"}

    def test_files_add_up_to_the_input_bit_by_bit(self, saved, audio):
        total = sum(
            soundfile.read(saved[0] / name, dtype="int16")[0].astype(int)
            for name in saved[1]["output"]["files"]
        )
        np.testing.assert_array_equal(total, soundfile.read(audio, dtype="int16")[0])

    def test_the_same_seed_gives_the_same_bytes_in_another_process(self, saved, audio, tmp_path):
        script = "import sys, sourcesep; sourcesep.separate(sys.argv[1]).save(sys.argv[2])"
        subprocess.run(
            [sys.executable, "-c", script, str(audio), str(tmp_path / "again")],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": "3"},
        )
        one, other = files(saved[0]), files(tmp_path / "again")
        results = [json.loads(f.pop("result.json")) for f in (one, other)]
        assert one == other
        for result in results:
            del result["run"]
        assert results[0] == results[1]

    def test_of_eeg(self, tmp_path):
        found = separate(raw(mixture(n=3, n_times=2000)))
        result = found.save(tmp_path / "r", exclude=[1])
        names = {"sources_raw.fif", "component_maps.png", "cleaned_raw.fif", "model.safetensors"}
        assert set(result["output"]["files"]) == names
        assert set(files(tmp_path / "r")) == names | {"result.json"}
        assert result["output"]["exclude"] == [1]
        cleaned = read(tmp_path / "r" / "cleaned_raw.fif")
        np.testing.assert_allclose(cleaned.data, found.recording.data - found.image(1))
        model = sourcesep.load(tmp_path / "r" / "model.safetensors")
        again = separate(found.recording, model=model)
        np.testing.assert_array_equal(again.sources, found.sources)
        assert again.settings["model"] == "IVAE"

    def test_of_a_table(self, tmp_path):
        x = mixture(n_times=1600)
        path = tmp_path / "t.csv"
        rows = [
            f"2020-01-01T00:{i // 60:02d}:{i % 60:02d},{a!r},{b!r}"
            for i, (a, b) in enumerate(x.T[:1600].tolist())
        ]
        path.write_text("\n".join(["date,a,b", *rows]))
        with pytest.warns(SourcesepWarning, match=r"^t\.csv: date kept as time"):
            found = separate(path, n_components=2)
        result = found.save(tmp_path / "r")
        assert result["output"]["files"] == ["sources.csv", "loadings.csv", "prior.csv"]
        lines = (tmp_path / "r" / "sources.csv").read_text().splitlines()
        assert lines[0] == "date,IVAE000,IVAE001"
        written = np.array([line.split(",")[1:] for line in lines[1:]], float).T
        np.testing.assert_array_equal(written, found.sources)
        assert result["warnings"] == found.warnings

    def test_of_an_array(self, tmp_path):
        found = separate((mixture(n_times=1600), 10.0))
        result = found.save(tmp_path / "r")
        assert result["input"]["name"] is None
        assert result["input"]["sha256"] is None
        assert result["output"]["files"] == ["sources.csv", "loadings.csv", "prior.csv"]


class TestTables:
    """Gaps, noise, regimes; and that numbers are in the units they are said to be in."""

    @pytest.fixture
    def simulated(self):
        return simulate.factors(800, 8, 3, missing=0.1, random_state=30)

    @pytest.fixture
    def path(self, simulated, tmp_path):
        unit = 10.0 ** np.arange(-4, 4)
        rows = [
            f"x{i},r{label}," + ",".join("" if np.isnan(v) else repr(v) for v in row)
            for i, (label, row) in enumerate(
                zip(simulated.u, (unit * simulated.observations).tolist(), strict=True)
            )
        ]
        path = tmp_path / "t.csv"
        path.write_text("\n".join(["code,regime," + ",".join("abcdefgh"), *rows]) + "\n")
        return path

    settings: ClassVar = {"columns": list("abcdefgh"), "aux": "column:regime"}

    def test_gaps_make_it_a_factor_model(self, path, simulated, tmp_path):
        found = separate(path, **self.settings)
        assert found.verdict.label == "trusted"
        assert found.n_components == 3
        assert found.ivae.model_.family == "factor"
        assert metrics.mcc(simulated.sources, found.sources.T) > 0.93
        result = found.save(tmp_path / "r", report=True)
        assert result["output"]["files"] == [
            *("sources.csv", "loadings.csv", "prior.csv", "report.html")
        ]
        assert result["output"]["units"]["loadings.csv"].startswith("units of the column")
        pairs = metrics.match_sources(simulated.sources, found.sources.T)
        rows = (tmp_path / "r" / "loadings.csv").read_text().splitlines()[1:]
        loadings = np.array([row.split(",")[1:] for row in rows], float)[:, pairs.components]
        truth = simulated.loadings[:, pairs.sources] * 10.0 ** np.arange(-4, 4)[:, None]
        spread = np.abs(truth).max(axis=1)[:, None]
        np.testing.assert_allclose(loadings * pairs.signs / spread, truth / spread, atol=0.15)
        prior = (tmp_path / "r" / "prior.csv").read_text().splitlines()
        assert len(prior) == 1 + 3 * 8
        assert prior[1].startswith("IVAE000,regime=r0,")

    def test_what_is_u_is_not_separated(self, path, tmp_path):
        lines = path.read_text().splitlines()
        bare = tmp_path / "bare.csv"
        bare.write_text("\n".join(line.partition(",")[2] for line in lines) + "\n")
        found = separate(bare, n_components=3, aux="column:regime")
        assert found.recording.names == tuple("abcdefgh")
        with pytest.raises(InputError, match="column=regime holds text"):
            separate(bare, n_components=3)

    def test_power_is_a_share_of_every_columns_own(self, path):
        found = separate(path, **self.settings)
        assert 0.75 < sum(found.explained_power) < 1

    @pytest.mark.parametrize("mixing", ["linear", "nonlinear"])
    def test_other_families_need_every_value(self, path, mixing):
        message = (
            rf"^t\.csv: NaN or missing values in channel a \(\d+\), .*: mixing='{mixing}' "
            r"needs every value; fill short gaps with interpolate=ROWS, leave those columns out, "
            r"or take mixing='factor', which allows for missing values$"
        )
        with pytest.raises(InputError, match=message):
            separate(path, mixing=mixing, **self.settings)

    def test_so_does_a_model_of_theirs(self, path, tmp_path):
        whole = separate((mixture(n=8, n_times=800), 1.0), n_components=2)
        whole.ivae.contract_ = {}
        with pytest.raises(InputError, match="the model's mixing='linear' needs every value"):
            separate(path, model=whole.ivae, columns=list("abcdefgh"))

    def test_of_arrays_too(self, simulated):
        with pytest.raises(InputError, match="missing values in channel ch0"):
            separate((simulated.observations.T, 1.0))
        found = separate((simulated.observations.T, 1.0), mixing="factor", n_components=3)
        assert metrics.mcc(simulated.sources, found.sources.T) > 0.9

    def test_filled_gaps_are_counted(self, path):
        with pytest.warns(SourcesepWarning, match="values in gaps of up to 9 rows filled by"):
            found = separate(path, interpolate=9, **self.settings)
        assert found.settings["interpolate"] == 9
        assert any("filled by straight lines" in line for line in found.warnings)

    def test_a_saved_model_allows_for_gaps(self, path, tmp_path):
        found = separate(path, **self.settings)
        found.save_model(tmp_path / "m.safetensors")
        again = separate(path, model=tmp_path / "m.safetensors", **self.settings)
        np.testing.assert_allclose(again.sources, found.sources)
        in_time = separate(
            path, model=tmp_path / "m.safetensors", columns=self.settings["columns"]
        )
        assert metrics.mcc(in_time.sources.T, found.sources.T) > 0.95

    def test_a_model_of_other_units_is_warned_of(self, path, tmp_path):
        found = separate(path, **self.settings)
        lines = path.read_text().splitlines()
        other = tmp_path / "other.csv"
        rows = [line.split(",") for line in lines[1:]]
        scaled = [row[:2] + [v and repr(2.54 * float(v)) for v in row[2:]] for row in rows]
        other.write_text("\n".join([lines[0], *map(",".join, scaled)]) + "\n")
        with pytest.warns(SourcesepWarning, match="explains these rows worse than its own, by"):
            separate(other, model=found.ivae, **self.settings)
        part = tmp_path / "part.csv"
        part.write_text("\n".join([lines[0], *lines[300:500]]) + "\n")
        separate(part, model=found.ivae, **self.settings)

    def test_two_rows_and_a_label_with_one(self, path, tmp_path):
        lines = path.read_text().splitlines()
        short = tmp_path / "short.csv"
        short.write_text("\n".join(lines[:3]) + "\n")
        with pytest.raises(InputError, match=r"n_times=2: too few samples to find sources in"):
            separate(short, **self.settings)
        lines[1] = lines[1].replace(",r0,", ",alone,")
        path.write_text("\n".join(lines) + "\n")
        assert separate(path, **self.settings).verdict.label == "trusted"


class TestSave:
    def test_an_existing_folder_is_refused_and_left_alone(self, separation, tmp_path):
        folder = tmp_path / "r"
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(OutputError):
                separation.save(folder, overwrite=overwrite)
            assert files(folder) == {"mine.txt": b"mine"}

    def test_an_earlier_result_is_replaced_whole(self, separation, tmp_path):
        folder = tmp_path / "r"
        separation.save(folder)
        (folder / "source07.wav").write_text("of an earlier run with more sources")
        before = files(folder)
        with pytest.raises(OutputError, match="exists already"):
            separation.save(folder)
        assert files(folder) == before
        separation.save(folder, overwrite=True)
        assert "source07.wav" not in files(folder)
        assert len(files(folder)) == 4
        assert [p.name for p in tmp_path.iterdir()] == ["r"]

    @pytest.mark.parametrize(
        "error", [OSError(28, "No space left on device"), KeyboardInterrupt()]
    )
    def test_a_failure_leaves_the_earlier_result_and_no_trace(
        self, separation, tmp_path, monkeypatch, error
    ):
        from sourcesep.adapters import audio as adapter

        folder = tmp_path / "r"
        separation.save(folder)
        before = files(folder)

        def fail(separation, folder, **options):
            (folder / "source00.wav").write_text("half")
            raise error

        monkeypatch.setattr(adapter, "write", fail)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            separation.save(folder, overwrite=True)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            separation.save(tmp_path / "deep" / "er")
        assert files(folder) == before
        assert [p.name for p in tmp_path.iterdir()] == ["r"]

    def test_a_run_killed_while_writing_leaves_nothing_under_the_name(self, audio, tmp_path):
        script = """
            import os, sys, sourcesep
            from sourcesep.adapters import audio
            def killed(separation, folder, **options):
                (folder / "source00.wav").write_text("half")
                os._exit(9)
            audio.write = killed
            sourcesep.separate(sys.argv[1]).save(sys.argv[2])
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(audio), str(tmp_path / "r")],
            check=False,
        )
        assert run.returncode == 9
        assert [p for p in tmp_path.iterdir() if not p.name.startswith(".")] == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"bit_depth": "12"}, "bit_depth=12: must be one of 16, 24, float; leave it out for"),
            (
                {"exclude": [0]},
                r"exclude=0: components are removed from EEG only; leave it out",
            ),
        ],
    )
    def test_options_that_audio_has_not(self, separation, tmp_path, options, message):
        with pytest.raises(SettingsError, match=message):
            separation.save(tmp_path / "r", **options)
        assert list(tmp_path.iterdir()) == []

    def test_options_that_tables_have_not(self, tmp_path):
        found = separate((mixture(n_times=1600), 10.0))
        with pytest.raises(SettingsError, match="bit_depth=16: only audio has one; leave it out"):
            found.save(tmp_path / "r", bit_depth="16")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("depth", "subtype"), [("24", "PCM_24"), ("float", "FLOAT")])
    def test_bit_depth(self, separation, tmp_path, depth, subtype):
        separation.save(tmp_path / "r", bit_depth=depth)
        assert soundfile.info(tmp_path / "r" / "source00.wav").subtype == subtype

    def test_the_model_goes_with_its_contract(self, separation, tmp_path):
        separation.save_model(tmp_path / "m.safetensors")
        model = sourcesep.load(tmp_path / "m.safetensors")
        assert model.contract_ == {
            "n_channels": 2,
            "kind": "audio",
            "names": ["ch0", "ch1"],
            "units": ["", ""],
            "sfreq": 8000.0,
        }
        assert isinstance(model, IVAE)


def test_signatures_are_those_of_the_documentation():
    names = list(inspect.signature(separate).parameters)
    assert names == [
        *("source", "n_components", "mixing", "aux", "prior", "labels", "resample", "model"),
        *("refit", "columns", "interpolate", "kernel_size", "quality", "device", "random_state"),
    ]
    assert isinstance(separate((mixture(n_times=1600), 10.0)), Separation)
    assert isinstance(separate((mixture(n_times=1600), 10.0)).recording, Recording)
    assert Path(inspect.getfile(separate)).name == "separation.py"
