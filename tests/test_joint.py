"""One model of several recordings: component k is the same source in each."""

import dataclasses

import numpy as np
import pytest
import soundfile

from sourcesep import Recording, joint, lending, separate, separation, simulate, train
from sourcesep.componentwise import DEPENDENT
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.moments import Moments
from sourcesep.metrics import mcc
from sourcesep.simulate import scenes
from sourcesep.workers import in_order

SFREQ = 8000


def scene(seed, n=2, **settings):
    return scenes(n, 3, 20, 200, 1, random_state=seed, **settings)


def arrays(recordings):
    return [(r.observations.T, 100.0) for r in recordings]


def order(truth, z):
    """Which source each component is."""
    correlation = np.corrcoef(truth, z, rowvar=False)[: truth.shape[1], truth.shape[1] :]
    return np.abs(correlation).argmax(axis=0).tolist()


def voices(folder, seeds, n_times=4000, sfreq=SFREQ, n_channels=2):
    """Files of one scene: two sources through one matrix."""
    matrix = np.array([[1.0, 0.6], [-0.5, 1.0], [0.3, 0.9]])[:n_channels]
    paths = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        scale = np.exp(rng.normal(size=(2, n_times // 160))).repeat(160, axis=1)
        x = matrix @ (rng.laplace(size=(2, scale.shape[1])) * scale)
        paths.append(folder / f"take{seed}.wav")
        soundfile.write(paths[-1], 0.02 * x.T, sfreq, "FLOAT")
    return paths


@pytest.fixture
def little(monkeypatch):
    """Recordings of a few thousand samples count as long."""
    monkeypatch.setattr(joint, "MOST_TOGETHER", 12_000)
    monkeypatch.setattr(lending, "FEWEST_LENT", 500)


class TestTrain:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_component_k_is_the_same_source_in_each_and_in_a_third(self, seed):
        recordings = scene(seed, 3)
        ivae = train(arrays(recordings[:2]))
        found = [ivae.transform(r.observations) for r in recordings]
        assert all(mcc(r.sources, z) > 0.99 for r, z in zip(recordings, found, strict=True))
        orders = [order(r.sources, z) for r, z in zip(recordings, found, strict=True)]
        assert orders[0] == orders[1] == orders[2]
        assert ivae.verdict_.label == "trusted"

    def test_each_recording_has_a_prior_of_its_own(self):
        ivae = train(arrays(scene(1)), aux="recording")
        assert ivae.u_names_ == ("recording 0", "recording 1")
        means, variances = ivae.model_.prior_moments()
        assert len(means) == 2
        assert np.abs(np.log(variances[0] / variances[1])).max() > 0.1

    def test_a_table_s_column_tells_what_is_common(self, tmp_path):
        recordings = scenes(2, 3, 6, 300, 1, sensors="other", random_state=3)
        for r, name in zip(recordings, "ab", strict=True):
            rows = [
                ",".join(map(str, [*x, f"stage {u}"]))
                for x, u in zip(r.observations, r.u, strict=True)
            ]
            (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,z,stage", *rows]))
        ivae = train(
            [tmp_path / f"{name}.csv" for name in "ab"],
            aux="recording+column:stage",
            columns=["x", "y", "z"],
            n_components=3,
        )
        assert len(ivae.u_names_) == 12
        assert {name.split(" + ")[0] for name in ivae.u_names_} == {"a", "b"}

    def test_an_offset_that_differs_does_no_harm(self, tmp_path):
        paths = voices(tmp_path, [1, 2])
        plain = train(paths)
        x, _ = soundfile.read(paths[1])
        soundfile.write(paths[1], x + 0.3, SFREQ, "FLOAT")
        with pytest.warns(SourcesepWarning, match=r"^take2.wav: DC offset in ch0"):
            moved = train(paths)
        np.testing.assert_allclose(moved.components_, plain.components_, rtol=1e-4)


class TestMuchData:
    def test_the_matrix_is_that_of_all_segments(self, little):
        recordings = scene(4, 3)
        few = train(arrays(recordings), mixing="linear")
        assert "its matrix from all 120 segments" in few.reason_
        whole = Moments.joined(
            [
                lending.moments_of(
                    Recording(x, f, ("a", "b", "c"), ("",) * 3, "array"), "segments"
                )
                for x, f in arrays(recordings)
            ]
        )
        everything = np.concatenate([r.observations for r in recordings])
        mean, covariance = whole.overall
        np.testing.assert_allclose(mean, everything.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(everything.T, bias=True), rtol=1e-10)

    def test_fits_as_well_as_all_samples_at_once(self, monkeypatch):
        recordings = scene(5, 3)
        at_once = train(arrays(recordings), mixing="linear")
        monkeypatch.setattr(joint, "MOST_TOGETHER", 12_000)
        monkeypatch.setattr(lending, "FEWEST_LENT", 500)
        summed = train(arrays(recordings), mixing="linear")
        assert "segments" in summed.reason_
        for r in recordings:
            z, other = (ivae.transform(r.observations) for ivae in (at_once, summed))
            assert mcc(z, other) > 0.9999

    def test_a_recording_that_lends_nothing_counts_too(self, little, monkeypatch):
        monkeypatch.setattr(joint, "MOST_LENT", 2)
        ivae = train(arrays(scene(6, 3)), mixing="linear")
        assert "all 120 segments" in ivae.reason_
        assert ivae.label_counts_.sum() == 2 * 2000  # of 12,000 values in three channels

    def test_a_recording_shorter_than_a_segment_is_one(self, little):
        (long, f), (short, _) = arrays(scene(9))
        aux = "recording+segments:1,8"  # of 40 s and of 3 s
        ivae = train([(long, f), (short[:, :300], f)], mixing="linear", aux=aux)
        assert "its matrix from all 43 segments" in ivae.reason_
        alone = Recording(short[:, :300], f, tuple("abc"), ("",) * 3, "array")
        (group,) = lending.moments_of(alone, "segments:1,8").groups
        assert group.counts.tolist() == [100, 100, 100]

    def test_two_processes_and_one_agree_to_the_bit(self, little):
        recordings = arrays(scene(7, 3))
        one, two = (train(recordings, mixing="linear", n_jobs=n).components_ for n in (1, 2))
        assert one.tobytes() == two.tobytes()

    def test_long_files_are_read_piece_by_piece(self, little, tmp_path, monkeypatch):
        paths = voices(tmp_path, [1, 2], n_times=16_000)
        at_once = train(paths, mixing="linear")
        monkeypatch.setattr("sourcesep.recording.MOST_IN_MEMORY", 8_000)
        monkeypatch.setattr("sourcesep.recording.FEWEST_TIMES", 4_000)
        monkeypatch.setattr("sourcesep.adapters.audio.longest_in_memory", lambda n: 4_000)
        pieces = train(paths, mixing="linear")
        assert mcc(np.eye(2), at_once.components_ @ pieces.mixing_) > 0.999

    def test_more_than_can_be_held_is_refused_by_name(self, monkeypatch):
        monkeypatch.setattr(joint, "MOST_MOMENTS", 400)
        with pytest.raises(InputError, match=r"^recording 1: with it .*choose longer segments"):
            train(arrays(scene(1)))

    def test_and_nothing_more_is_read_then(self, monkeypatch):
        read = []
        monkeypatch.setattr(joint, "MOST_MOMENTS", 400)
        monkeypatch.setattr(
            lending,
            "as_recording",
            lambda *a, **k: read.append(1) or separation.as_recording(*a, **k),
        )
        with pytest.raises(InputError, match=r"^recording 1: with it "):
            train(arrays(scene(1, 4)), on_failure=lambda name, error: None)
        assert len(read) == 2

    @pytest.mark.slow
    @pytest.mark.usefixtures("late_workers")
    def test_a_cluster_gives_the_same_bits(self, tmp_path):
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        paths = voices(tmp_path, [1, 2, 3])
        here = train(paths, mixing="linear")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster:
            there = train(paths, mixing="linear", dask=cluster.scheduler_address)
            summed = list(in_order(joint_moments, paths, dask=cluster.scheduler_address))
        assert here.components_.tobytes() == there.components_.tobytes()
        for path, moments in zip(paths, summed, strict=True):
            for one, other in zip(joint_moments(path).groups, moments.groups, strict=True):
                assert one.covariances.tobytes() == other.covariances.tobytes()


def joint_moments(path):
    """Moments of one file, wherever it is computed."""
    import sourcesep

    return lending.moments_of(sourcesep.read(path), "segments")


class TestLeavingOut:
    def table(self, path, names, seed):
        rng = np.random.default_rng(seed)
        scale = np.repeat(rng.uniform(0.2, 2, (2, 20)), 20, axis=1)
        x = np.array([[1, 0.5], [0.3, 1]]) @ (rng.laplace(size=(2, 400)) * scale)
        rows = "\n".join(",".join(map(repr, row)) for row in x.T.tolist())
        path.write_text(",".join(names) + "\n" + rows + "\n")
        return path

    def test_a_table_without_the_columns_is_named_and_the_others_are_fitted(self, tmp_path):
        good = [self.table(tmp_path / f"t{k}.csv", "ab", k) for k in range(2)]
        bad = self.table(tmp_path / "bad.csv", "ax", 2)
        said = []
        ivae = train(
            [bad, *good],
            columns="a,b",
            mixing="linear",
            on_failure=lambda name, error: said.append((name, str(error))),
        )
        assert said == [(str(bad), "columns=b: no such column; the file has a, x")]
        alone = train(good, columns="a,b", mixing="linear")
        np.testing.assert_array_equal(ivae.components_, alone.components_)
        with pytest.raises(SettingsError, match="columns=b: no such column"):
            train([bad, *good], columns="a,b")

    def test_arrays_go_by_their_number(self):
        x = [(x, 1.0) for x, _ in arrays(scene(1, 2))]
        said = []
        with pytest.raises(InputError, match="1 of 3 recordings can be fitted together"):
            train(
                [x[0], (np.full((2, 9), np.nan), 1.0), (np.zeros((2, 9)), 1.0)],
                on_failure=lambda name, error: said.append(name),
            )
        assert said == ["recording 1", "recording 2"]

    def test_where_none_can_be_used_the_first_error_is_raised(self):
        with pytest.raises(InputError, match=r"gone\.wav: no such file"):
            train(["gone.wav", "lost.wav"], on_failure=lambda name, error: None)


class TestBadInput:
    def test_other_channels_rates_and_units_are_named(self, tmp_path):
        first, second = voices(tmp_path, [1, 2])
        with pytest.raises(InputError, match=r"take3.wav: sfreq=4000.*take1.wav has 8000"):
            train([first, second, *voices(tmp_path, [3], sfreq=4000)])
        with pytest.raises(InputError, match=r"take4.wav: channels differ .*extra \['ch2'\]"):
            train([first, *voices(tmp_path, [4], n_channels=3)])
        table = tmp_path / "t.csv"
        table.write_text("ch0,ch1\n" + "\n".join(f"{i},{i * i % 7}" for i in range(50)))
        with pytest.raises(InputError, match=r"t.csv: kind=table, take1.wav has kind=audio"):
            train([first, table])
        x = Recording(
            np.random.default_rng(0).normal(size=(2, 400)), 10.0, ("a", "b"), ("V", "V"), "array"
        )
        with pytest.raises(InputError, match=r"1: other units .*0: b \('uV', not 'V'\)"):
            train([x, dataclasses.replace(x, units=("V", "uV"))])

    @pytest.mark.parametrize(
        ("sources", "settings", "message"),
        [
            (["a.wav"], {}, "at least two recordings"),
            ("a.wav", {}, "at least two recordings"),
            (["a.wav", "b.wav", "a.wav"], {}, "a.wav: is given 2 times"),
            (["a.wav", "b.wav"], {"aux": "file:u.npy"}, "rows of one recording"),
            (["a.wav", "b.wav"], {"aux": "recordin"}, "did you mean 'recording'"),
        ],
    )
    def test_what_cannot_be_is_said_before_anything_is_read(self, sources, settings, message):
        with pytest.raises(SettingsError, match=message):
            train(sources, **settings)

    def test_a_file_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            train([*voices(tmp_path, [1]), tmp_path / "gone.wav"])

    def test_what_was_handled_is_said(self, tmp_path):
        paths = voices(tmp_path, [1, 2], n_channels=3)
        for path in paths:
            x, _ = soundfile.read(path)
            x[:, 2] = 0
            soundfile.write(path, x, SFREQ, "FLOAT")
        with pytest.warns(SourcesepWarning, match=r"^take1.wav, take2.wav: channel ch2"):
            train(paths, mixing="linear")


class TestUse:
    def test_refit_keeps_every_index_and_is_judged_on_the_new_data(self):
        recordings = scene(8, 3)
        ivae = train(arrays(recordings[:2]), mixing="linear")
        third = recordings[2]
        x = (third.observations.T, 100.0)
        again = separate(x, model=ivae, refit=True)
        assert order(third.sources, again.sources.T) == order(
            recordings[0].sources, ivae.transform(recordings[0].observations)
        )
        assert again.result()["judged_on"] == "this recording"
        assert separate(x, model=ivae).result()["judged_on"] == "the model's fit"
        assert not np.array_equal(again.ivae.components_, ivae.components_)

    def test_refit_without_a_model_is_refused(self):
        with pytest.raises(SettingsError, match="refit=True: needs the model"):
            separate("gone.wav", refit=True)
        with pytest.raises(SettingsError, match="refit=True: needs the model"):
            separate(arrays(scene(1, 1))[0], refit=True)


def test_of_eeg_it_says_which_components_come_out_again():
    mne = pytest.importorskip("mne")
    head = simulate.eeg(4, 20.0, n_channels=8, random_state=0)
    info = mne.create_info(list(head.names), head.sfreq, "eeg")
    raw = mne.io.RawArray(head.data, info, verbose="error").filter(1.0, None, verbose="error")
    halves = [raw.copy().crop(0, 9.9), raw.copy().crop(10)]
    verdict = train(halves, n_components=4).verdict_
    assert verdict.label == "doubtful"
    assert verdict.sentence == (
        f"from random halves of the data 4 of 4 components come out again, but {DEPENDENT}"
    )
