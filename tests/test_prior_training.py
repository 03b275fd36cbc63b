"""A prior is trained on clean recordings, kept in a file, and separates mixtures."""

import dataclasses
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from scipy.signal import resample_poly

import sourcesep
from sourcesep import persistence, prior_training, recording, simulate
from sourcesep.clean_recordings import gather
from sourcesep.cli import main
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    ModelFileError,
    OutputError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.source_priors import prepared, save_prior

from .conftest import talk

SFREQ = 4000


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    for label in ("low", "high"):
        for k in range(3):
            wav(folder / label / f"{k}.wav", talk(label, 9.0, 10 * k + len(label)))
    return folder


@pytest.fixture(scope="module")
def file(clean, tmp_path_factory):
    path = tmp_path_factory.mktemp("prior") / "talkers.safetensors"
    sourcesep.train_prior(clean, n_steps=50, save_model=path)
    return path


@pytest.fixture(scope="module")
def whole(clean, tmp_path_factory):
    """A short training that nothing has interrupted."""
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    sourcesep.train_prior(clean, n_steps=6, save_model=path)
    return path


@pytest.fixture(scope="module")
def prior(file):
    return sourcesep.load_prior(file)


@pytest.fixture(scope="module")
def room():
    said = np.stack([talk("low", 5.0, 901), talk("high", 5.0, 902)])
    return simulate.room(said, sfreq=SFREQ, rt60=0.15, random_state=4)


def wav(path, signal, sfreq=SFREQ):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(signal).T, sfreq, subtype="FLOAT")


class TestTraining:
    def test_the_label_is_worth_something_on_held_out_windows(self, prior):
        elbo = prior.card["elbo"]
        assert elbo["with_u"] > elbo["without_u"] + 0.02
        assert elbo["labels_found"] >= 0.75

    def test_the_card_says_what_it_was_trained_on(self, prior):
        card = prior.card
        assert prior.labels == ("high", "low")
        assert (prior.sfreq, prior.size) == (SFREQ, 1024)
        assert (card["files"], card["seconds"]) == (6, {"high": 27.0, "low": 27.0})
        assert card["n_steps"] == 50

    @pytest.mark.parametrize("n_written", [1, 2])
    def test_one_that_is_killed_ends_in_the_same_bytes(
        self, clean, whole, tmp_path, monkeypatch, n_written
    ):
        broken = tmp_path / "broken.safetensors"
        write = prior_training._Kept.write
        written = []

        def write_and_die(kept, arrays):
            write(kept, arrays)
            written.append(kept.path)
            if len(written) == n_written:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(prior_training._Kept, "write", write_and_die)
            with pytest.raises(KeyboardInterrupt):
                sourcesep.train_prior(clean, n_steps=6, save_model=broken)
        assert not broken.exists()
        state = broken.with_suffix(".training.safetensors")
        assert state.exists()
        sourcesep.train_prior(clean, n_steps=6, save_model=broken)
        assert broken.read_bytes() == whole.read_bytes()
        assert sorted(p.name for p in tmp_path.iterdir()) == [broken.name]

    def test_the_state_of_another_training_is_not_taken_up(self, clean, tmp_path, monkeypatch):
        path = tmp_path / "a.safetensors"
        kept = prior_training._Kept(path.with_suffix(".training.safetensors"), {"other": 1})
        kept.write({"steps": np.zeros(1)})
        with pytest.warns(SourcesepWarning, match="is of another training"):
            sourcesep.train_prior(clean, n_steps=1, save_model=path)
        assert path.exists()

    def test_a_time_budget_is_told_and_can_be_repeated(self, clean, tmp_path):
        short = sourcesep.train_prior(clean, n_steps=4000, seconds=2.0)
        assert 1 <= short.card["n_steps"] < 4000
        again = sourcesep.train_prior(clean, n_steps=short.card["n_steps"])
        for name, tensor in short.tensors.items():
            np.testing.assert_array_equal(tensor, again.tensors[name])

    def test_no_space_left(self, clean, tmp_path, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(persistence.os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot be written .No space left on device"):
            sourcesep.train_prior(clean, n_steps=1, save_model=tmp_path / "a.safetensors")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"quality": "good"}, "quality='good': allowed are fast, normal, best"),
            ({"device": "tpu"}, "device='tpu'"),
            ({"n_steps": 0}, "n_steps=0"),
            ({"seconds": 0}, "seconds=0"),
            ({"noisy": 2}, "noisy=2"),
            ({"random_state": -1}, "random_state=-1"),
            ({"aux": "segments"}, "labels from folder, column:NAME or annotations"),
            ({"aux": "folders"}, "did you mean 'folder'"),
        ],
    )
    def test_settings_that_cannot_be(self, clean, settings, message):
        with pytest.raises(SettingsError, match=message):
            sourcesep.train_prior(clean, **settings)

    def test_a_file_that_cannot_be(self, clean):
        with pytest.raises(OutputError, match=r"must end in .safetensors"):
            sourcesep.train_prior(clean, save_model="a.pt")


class TestRecordings:
    """Whatever is wrong with the folder is said before anything is trained."""

    def refused(self, folder, message, aux="folder"):
        with pytest.raises(InputError, match=message):
            sourcesep.train_prior(folder, aux=aux, n_steps=1)

    def test_no_folder(self, tmp_path):
        self.refused(tmp_path / "none", "no such folder")

    def test_an_empty_folder(self, tmp_path):
        self.refused(tmp_path, "holds no audio files")

    def test_one_label(self, clean, tmp_path):
        shutil.copytree(clean / "low", tmp_path / "low")
        self.refused(tmp_path, "one label, 'low': at least two are needed")

    def test_no_label(self, clean, tmp_path):
        shutil.copy(clean / "low" / "0.wav", tmp_path)
        self.refused(tmp_path, "no recording in it lies in a folder that names its label")

    def test_mixed_rates(self, clean, tmp_path):
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        wav(tmp_path / "other" / "a.wav", talk("low", 1.0, 5), 8000)
        self.refused(tmp_path, "a.wav: 8000 Hz, .* has 4000 Hz")

    def test_stereo(self, clean, tmp_path):
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        wav(tmp_path / "low" / "both.wav", np.stack([talk("low", 1.0, k) for k in (5, 6)]))
        self.refused(tmp_path, "both.wav: n_channels=2, clean recordings have one")

    def test_bad_ones_are_left_out_where_that_is_asked_for(self, clean, tmp_path):
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        whole = gather(tmp_path, "folder")
        wav(tmp_path / "a" / "first.wav", talk("low", 1.0, 5), 8000)
        wav(tmp_path / "low" / "both.wav", np.stack([talk("low", 1.0, k) for k in (5, 6)]))
        wav(tmp_path / "stray.wav", talk("low", 1.0, 5))
        (tmp_path / "low" / "junk.wav").write_text("no sound")
        said = {}
        clean = gather(tmp_path, "folder", lambda name, error: said.update({name: str(error)}))
        assert clean.sha256 == whole.sha256
        assert clean.n_files == whole.n_files
        assert sorted(Path(name).name for name in said) == sorted(
            ["first.wav", "both.wav", "stray.wav", "junk.wav"]
        )
        assert all(Path(name).name in text for name, text in said.items())

    def test_silence(self, clean, tmp_path):
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        wav(tmp_path / "low" / "still.wav", np.zeros(4000))
        self.refused(tmp_path, "still.wav: every channel is constant .silent.")

    def test_two_seconds(self, tmp_path):
        for label in ("low", "high"):
            wav(tmp_path / label / "a.wav", talk(label, 1.0, 5))
        self.refused(tmp_path, "1 s of 'high', at least 20 s of every label")

    def test_columns(self, clean, tmp_path):
        shutil.copytree(clean, tmp_path, dirs_exist_ok=True)
        self.refused(tmp_path, "0 .csv files", aux="column:who")
        table = tmp_path / "who.csv"
        table.write_text("file,talker\nlow/0.wav,a\n")
        self.refused(tmp_path, "no column who; it has file, talker", aux="column:who")
        table.write_text("file,who\nlow/9.wav,a\n")
        self.refused(tmp_path, "file=low/9.wav: no such recording", aux="column:who")
        table.write_text("file,who\nlow/0.wav\n")
        self.refused(tmp_path, "line 2 lacks a value", aux="column:who")

    def test_annotations(self, tmp_path):
        for k in range(2):
            both = np.concatenate([talk("low", 12.0, k), talk("high", 12.0, 9 + k)])
            wav(tmp_path / f"{k}.wav", both)
        self.refused(tmp_path, "no 0.csv beside it", aux="annotations")
        for k in range(2):
            rows = "onset,duration,label\n0,12,low\n12,12,high\n3,1,noise\n"
            (tmp_path / f"{k}.csv").write_text(rows)
        prior = sourcesep.train_prior(tmp_path, aux="annotations:low|high", n_steps=1)
        assert prior.card["seconds"] == {"high": 24.0, "low": 24.0}
        for times in ("1,x", "-1,2", "1,-2", "nan,2", "1,inf"):
            (tmp_path / "1.csv").write_text(f"onset,duration,label\n{times},low\n")
            onset, duration = times.split(",")
            said = f"onset={onset}, duration={duration}: must be seconds"
            self.refused(tmp_path, said, aux="annotations")


class TestFile:
    def test_holds_all_of_it(self, file, prior, tmp_path):
        again = tmp_path / "again.safetensors"
        save_prior(prior, again)
        assert again.read_bytes() == file.read_bytes()

    def test_info_shows_the_card(self, file):
        shown = json.loads(CliRunner().invoke(main, ["info", str(file)]).stdout)
        assert shown["labels"] == ["high", "low"]
        assert shown["sfreq"] == SFREQ
        assert shown["stft"] == {"hop": 256, "size": 1024, "window": "root of Hann"}
        assert shown["card"]["files"] == 6

    def test_of_another_kind(self, file, tmp_path, room):
        with pytest.raises(ModelFileError, match=r"read it with sourcesep\.load_prior or --p"):
            sourcesep.load(file)
        model = tmp_path / "model.safetensors"
        sourcesep.separate((room.data, SFREQ), mixing="linear").save_model(model)
        said = r"^prior=.*read it with sourcesep\.load or --model$"
        with pytest.raises(ModelFileError, match=said):
            sourcesep.separate((room.data, SFREQ), prior=model)
        noise = tmp_path / "noise.safetensors"
        noise.write_text("no prior")
        with pytest.raises(ModelFileError, match=r"^prior=.*written by sourcesep train --kind pr"):
            sourcesep.load_prior(noise)

    @pytest.mark.parametrize(
        "change",
        [
            {"sfreq": "fast"},
            {"stft": {"size": 512, "hop": 128}},
            {"labels": ["a"]},
            {"network": {}},
        ],
    )
    def test_damaged(self, file, tmp_path, change):
        with persistence.read_file(file, persistence.SOURCE_PRIOR) as (facts, tensors):
            pass
        broken = tmp_path / "broken.safetensors"
        persistence.write_file(broken, persistence.SOURCE_PRIOR, facts | change, tensors)
        with pytest.raises(ModelFileError, match="damaged model file"):
            sourcesep.load_prior(broken)


class TestSeparation:
    def test_finds_the_talkers_and_is_as_good_as_without(self, room, prior):
        found = sourcesep.separate((room.data, SFREQ), prior=prior, labels="low,high")
        blind = sourcesep.separate((room.data, SFREQ), mixing="convolutive")
        best, usual = (
            sourcesep.metrics.si_sdr(room.images[:, 0][:, None], s.images[:, 0][None])
            .max(axis=1)
            .mean()
            for s in (found, blind)
        )
        assert best > usual - 1
        said = found.result()["source_prior"]
        assert sorted(said["labels"]) == ["high", "low"]
        assert found.result()["family"] == "convolutive"
        assert found.settings["labels"] == "low,high"

    def test_the_fitted_model_needs_the_prior_no_more(self, room, prior, tmp_path):
        found = sourcesep.separate((room.data, SFREQ), prior=prior)
        path = tmp_path / "model.safetensors"
        found.save_model(path)
        loaded = sourcesep.load(path)
        assert loaded.source_prior is None
        again = sourcesep.separate((room.data, SFREQ), model=loaded)
        np.testing.assert_allclose(again.sources, found.sources, atol=1e-9)

    def test_another_rate_is_refused_or_resampled(self, room, prior, tmp_path):
        path = tmp_path / "a.wav"
        wav(path, resample_poly(room.data, 2, 1, axis=1), 2 * SFREQ)
        with pytest.raises(
            InputError, match=r"sfreq=8000: the prior knows .* 4000 Hz; ask for --re"
        ):
            sourcesep.separate(path, prior=prior)
        with pytest.warns(SourcesepWarning, match="resampled from 8000 Hz to the prior's 4000 Hz"):
            found = sourcesep.separate(path, prior=prior, resample=True)
        result = found.save(tmp_path / "out")
        assert result["output"]["adds_up_to"] == "the input"
        assert soundfile.info(tmp_path / "out" / "source00.wav").samplerate == SFREQ

    def test_a_long_file_is_resampled_when_it_is_sliced(self, room, prior, tmp_path, monkeypatch):
        path, longer = tmp_path / "a.wav", np.tile(room.data, 3)
        wav(path, resample_poly(longer, 2, 1, axis=1), 2 * SFREQ)
        for name in ("MOST_IN_MEMORY", "FEWEST_TIMES"):
            monkeypatch.setattr(recording, name, room.data.shape[1])
        known = sourcesep.read(path)
        with pytest.warns(SourcesepWarning, match="resampled from"):
            found = prepared(known, prior, resample=True)
        assert (found.sfreq, found.in_memory, found.n_times) == (SFREQ, False, longer.shape[1])
        whole = resample_poly(known.data[:], 1, 2, axis=1)
        np.testing.assert_allclose(found.data[:], whole, atol=1e-12)
        spans = found.stretches
        assert len(spans) > 1
        expected = np.concatenate([whole[:, span] for span in spans], axis=1)
        np.testing.assert_allclose(found.excerpt(), expected, atol=1e-12)
        with pytest.warns(SourcesepWarning):
            separation = sourcesep.separate(path, prior=prior, resample=True)
        rest = np.concatenate([x - images.sum(axis=0) for x, images in separation.blocks()], 1)
        assert rest.shape == found.data.shape
        assert np.square(rest).mean() < 1e-4 * np.square(whole).mean()

    def test_what_sounds_otherwise_is_said(self, prior):
        strict = dataclasses.replace(prior, likeness=(2.0, 0.1))
        rng = np.random.default_rng(0)
        hiss = rng.standard_normal((2, 5 * SFREQ)) * np.repeat(rng.uniform(0, 1, (2, 50)), 400, 1)
        mixture = simulate.room(hiss, sfreq=SFREQ, rt60=0.15, random_state=1)
        with pytest.warns(SourcesepWarning, match="unlike what the prior was trained on"):
            found = sourcesep.separate((mixture.data, SFREQ), prior=strict)
        assert not found.result()["source_prior"]["like_the_training"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"labels": "low,nobody"}, "does not know nobody"),
            ({"labels": ["low"], "n_components": 2}, "1 labels for 2 sources"),
            ({"mixing": "linear"}, "for convolutive mixing only"),
            ({"model": "m.safetensors"}, "give one of the two"),
        ],
    )
    def test_settings_that_do_not_go_together(self, room, prior, settings, message):
        with pytest.raises(SettingsError, match=message):
            sourcesep.separate((room.data, SFREQ), prior=prior, **settings)

    def test_settings_without_a_prior(self, room):
        with pytest.raises(SettingsError, match="labels=a,b: goes with a trained prior"):
            sourcesep.separate((room.data, SFREQ), labels="a,b")
        with pytest.raises(SettingsError, match="resample=True"):
            sourcesep.separate((room.data, SFREQ), resample=True)
        with pytest.raises(SettingsError, match="must be a file of train_prior"):
            sourcesep.separate((room.data, SFREQ), prior=7)

    def test_torch_that_cannot_be_imported(self, clean, file, room, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingDependencyError, match="a trained prior needs torch"):
            sourcesep.separate((room.data, SFREQ), prior=file)
        with pytest.raises(MissingDependencyError, match="a trained prior needs torch"):
            sourcesep.train_prior(clean, n_steps=1)

    def test_one_channel(self, room, prior):
        with pytest.raises(InputError, match="does not help with one"):
            sourcesep.separate((room.data[:1], SFREQ), prior=prior)

    def test_more_labels_than_channels(self, room, prior):
        with pytest.raises(SettingsError, match="n_components=3: the 2 channels hold 2"):
            sourcesep.separate((room.data, SFREQ), prior=prior, labels="low,high,low")


class TestCommandLine:
    def test_train_and_separate(self, clean, room, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        wav(tmp_path / "mixture.wav", room.data)
        run = CliRunner().invoke
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trained = run(
                main,
                [
                    "train",
                    "--kind",
                    "prior",
                    str(clean),
                    "--seconds",
                    "1",
                    "--save-model",
                    "p.safetensors",
                ],
            )
            assert trained.exit_code == 0, trained.output
            assert "p.safetensors: high, low; held-out ELBO" in trained.stdout
            done = run(main, ["separate", "mixture.wav", "--prior", "p.safetensors"])
        assert done.exit_code == 0, done.output
        result = json.loads((tmp_path / "separated" / "mixture" / "result.json").read_text())
        assert len(result["source_prior"]["labels"]) == 2
        assert result["settings"]["prior"] == "p.safetensors"
        again = run(
            main, ["separate", "mixture.wav", "--prior", "p.safetensors", "--resume", "-v"]
        )
        assert "was there already" in again.stdout
        assert re.search(r"convolutive .*: -?[0-9.]+ nats a cell and source\n", again.stderr)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["none", "--save-model", "a.safetensors"], 1, "no such folder"),
            (["none", "--aux", "recording", "--save-model", "a.safetensors"], 2, "aux="),
            (["none", "more", "--save-model", "a.safetensors"], 2, "2 INPUTs: a prior is trained"),
        ],
    )
    def test_one_line_of_what_is_wrong(self, arguments, code, message):
        found = CliRunner().invoke(main, ["train", "--kind", "prior", *arguments])
        assert found.exit_code == code
        assert message in found.stderr
        assert len(found.stderr.splitlines()) == 1


def test_a_prior_that_is_not_there_is_called_one():
    with pytest.raises(ModelFileError, match="prior=gone"):
        sourcesep.load_prior("gone.safetensors")
