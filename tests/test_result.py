"""`Separation`, block by block: what long recordings give is what the whole would."""

import json
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from sourcesep import metrics, read, recording, result, separate, windows
from sourcesep.exceptions import InputError, SourcesepWarning
from sourcesep.ivae.chains.chain import Chain
from sourcesep.ivae.chains.curves import Curves
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.recording import Recording
from sourcesep.result import Separation
from sourcesep.samples import Stamp, pieces

from .conftest import mixture, sources

SFREQ = 8000


def mixed(seconds, seed=0):
    return 0.8 * mixture(n_times=round(seconds * SFREQ), seed=seed)


def wav(path, x, subtype="PCM_16"):
    soundfile.write(path, x.T, SFREQ, subtype)
    return path


def written(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.wav")}


def total_of(folder, facts):
    parts = (soundfile.read(folder / f, dtype="int16")[0] for f in facts["output"]["files"])
    return sum(part.astype(int) for part in parts)


def linear(source, **more):
    return separate(source, mixing="linear", **more)


@pytest.fixture
def long(monkeypatch):
    """Call 2 s of two channels long."""
    monkeypatch.setattr(recording, "MOST_IN_MEMORY", 4 * SFREQ)
    monkeypatch.setattr(recording, "FEWEST_TIMES", 1000)


@pytest.fixture
def small(monkeypatch):
    """Blocks of a quarter of a second."""
    monkeypatch.setattr(result, "MOST_AT_ONCE", 8000)
    monkeypatch.setattr(result, "SHORTEST_BLOCK", 4)


class TestBlocks:
    @pytest.mark.slow
    @pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
    def test_of_any_size_give_the_same_files(self, tmp_path, monkeypatch, subtype):
        model = linear((mixed(2), SFREQ)).ivae
        model.contract_ = {}  # an array is no audio
        found = linear(wav(tmp_path / "a.wav", mixed(180), subtype), model=model)
        facts, files = [], []
        for size in (2**30, 400_003, 30_000):
            monkeypatch.setattr(result, "MOST_AT_ONCE", size)
            folder = tmp_path / str(size)
            facts.append(found.save(folder))
            files.append(written(folder))
            del facts[-1]["run"]
        assert set(files[0]) == {"source00.wav", "source01.wav", "residual.wav"}
        assert files[0] == files[1] == files[2]
        assert facts[0] == facts[1] == facts[2]

    def test_are_bounded_and_whole(self, tmp_path, small, long):
        found = linear(wav(tmp_path / "a.wav", mixed(6)))
        blocks = list(found.blocks())
        assert max(images.size for _, images in blocks) <= 1.5 * 8000
        assert len(blocks) > 10
        np.testing.assert_array_equal(
            np.concatenate([mixture for mixture, _ in blocks], axis=1), found.recording.data[:]
        )

    def test_of_filters_join_without_a_seam(self, tmp_path, small, long, monkeypatch):
        model = filters()
        found = applied(read(wav(tmp_path / "a.wav", mixed(6), "DOUBLE")), model)
        assert len(list(found.blocks())) > 5
        x = found.recording.data[:]
        inside = slice(model.memory, -model.memory)  # filters take a record as a ring

        def error(k):
            whole = model.image(x, k)
            return np.abs(found.image(k) - whole)[:, inside].max() / np.abs(whole).max()

        assert max(error(k) for k in range(2)) < 1e-8
        np.testing.assert_allclose(
            found.images.sum(axis=0) + found.residual, found.mixture, atol=1e-12
        )
        monkeypatch.setattr(result, "pieces", lambda data, size, _: pieces(data, size, 0))
        assert error(0) > 1e-4  # this is how seams look

    def test_of_maps_on_frames_begin_on_their_grid(self, tmp_path, small, long):
        found = applied(read(wav(tmp_path / "a.wav", mixed(6), "DOUBLE")), Frames())
        assert len(list(found.blocks())) > 3
        whole = Frames().images(found.recording.data[:])
        np.testing.assert_allclose(found.images, whole, atol=1e-12)

    def test_what_is_in_memory_is_one_block_for_a_map_with_memory(self, small):
        short = Recording(mixed(4), SFREQ, ("a", "b"), ("", ""), "audio")
        assert len(list(applied(short, Frames()).blocks())) == 1


class Frames:
    """Gains that differ by the frame's own power, on a grid of frames."""

    memory, n_components, is_invertible = 512, 1, True

    def mixture(self, x):
        return x

    def images(self, x, u=None):
        cells = windows.stft(x, self.memory, self.memory // 4)
        power = np.square(np.abs(cells)).sum(axis=(0, 1))
        return windows.istft(cells * power / (1 + power), self.memory, 128, x.shape[1])[None]


def filters():
    """A model with a curve between two filters."""
    rng = np.random.default_rng(3)
    outer, inner = 0.05 * rng.standard_normal((2, 2, 2, 9))
    outer[:, :, 4] += np.eye(2)
    inner[:, :, 4] += np.eye(2)
    curves = Curves(np.tile(np.linspace(-1, 1, 9), (2, 1)), 0.3 * rng.standard_normal((2, 9)))
    model = PostNonlinearModel(2, kernel_size=2, post_kernel_size=2)
    model.chain = Chain(outer, curves, np.zeros(2), inner)
    assert 9 + 8 < model.memory < 600
    return model


def applied(source, model):
    """A separation of a recording by a model, whatever it was fitted on."""
    labels = np.zeros(source.n_times, np.int64)
    u = SimpleNamespace(take=lambda part: labels[part])
    return Separation(source, SimpleNamespace(model_=model), u, {}, (0.0, 0.0))


class TestLong:
    def test_sources_are_those_that_were_mixed(self, tmp_path, long):
        found = linear(wav(tmp_path / "a.wav", mixed(20)))
        assert not found.recording.in_memory
        assert found.u.n_times == 2 * SFREQ
        assert found.verdict.label == "trusted"
        assert metrics.mcc(sources(n_times=20 * SFREQ).T, found.sources.T) > 0.999
        total = found.images.sum(axis=0) + found.residual
        np.testing.assert_allclose(total, found.recording.data[:], atol=1e-12)
        for k, image in enumerate(found.images):
            np.testing.assert_array_equal(image, found.image(k))

    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
    @pytest.mark.parametrize("suffix", ["wav", "flac"])
    def test_files_add_up_bit_by_bit(self, tmp_path, long, suffix, subtype):
        path = wav(tmp_path / f"a.{suffix}", mixed(6), subtype)
        facts = linear(path).save(tmp_path / "r")
        assert facts["output"]["subtype"] == subtype
        total = sum(
            soundfile.read(tmp_path / "r" / f, dtype="int32")[0].astype(np.int64)
            for f in facts["output"]["files"]
        )
        np.testing.assert_array_equal(total, soundfile.read(path, dtype="int32")[0])
        assert facts["judged_on"] == "20 stretches of this recording, 2 s in all"
        assert sum(facts["explained_power"]) == pytest.approx(1, abs=0.05)

    def test_lossy_files_too(self, tmp_path, long):
        path = tmp_path / "a.ogg"
        soundfile.write(path, mixed(6).T, SFREQ, subtype="VORBIS")
        found = linear(path)
        facts = found.save(tmp_path / "r")
        total = sum(soundfile.read(tmp_path / "r" / f)[0] for f in facts["output"]["files"])
        np.testing.assert_allclose(total.T, found.recording.data[:], atol=1e-6)

    def test_the_same_seed_gives_the_same_bytes(self, tmp_path, long):
        path = wav(tmp_path / "a.wav", mixed(6))
        for name in ("one", "two"):
            linear(path).save(tmp_path / name)
        assert written(tmp_path / "one") == written(tmp_path / "two")

    def test_full_scale_anywhere_makes_all_of_it_float(self, tmp_path, long):
        mixing = np.array([[1, 0.9], [0.9, 1]])
        x = mixing @ (0.01 * sources(n_times=6 * SFREQ))
        x[:, -9] = mixing @ [1.2, -1.2]  # each exceeds full scale, and their sum does not
        path = wav(tmp_path / "a.wav", x)
        facts = linear(path).save(tmp_path / "r")
        assert facts["output"]["written_as_float"]
        total = sum(soundfile.read(tmp_path / "r" / f)[0] for f in facts["output"]["files"])
        np.testing.assert_allclose(total, soundfile.read(path)[0], atol=1e-6)

    def test_it_is_fitted_where_it_sounds(self, tmp_path, long):
        """Nineteen parts of twenty are silent: stretches spread evenly would miss the rest."""
        x = np.zeros((2, 40 * SFREQ))
        x[:, 30 * SFREQ : 32 * SFREQ] = mixed(2)
        found = linear(wav(tmp_path / "a.wav", x))
        spans = found.recording.stretches
        assert len(spans) >= 18
        assert all(span.stop > 30 * SFREQ > span.start - 3 * SFREQ for span in spans)
        estimate = found.sources[:, 30 * SFREQ : 32 * SFREQ]
        assert metrics.mcc(sources(n_times=2 * SFREQ).T, estimate.T) > 0.999

    def test_stretches_are_apart_and_everywhere(self, tmp_path, long):
        spans = read(wav(tmp_path / "a.wav", mixed(60))).stretches
        assert len(spans) == 20
        assert all(a.stop <= b.start for a, b in pairwise(spans))
        assert spans[0].start == 0
        assert spans[-1].stop == 60 * SFREQ
        assert np.diff([span.start for span in spans]).max() < 4 * SFREQ

    def test_silent_and_identical_channels_are_said_and_kept(self, tmp_path, long):
        x = mixed(6)
        path = wav(tmp_path / "a.wav", np.concatenate([x, 0 * x[:1], x[1:]]))
        with pytest.warns(SourcesepWarning) as said:
            found = linear(path)
        assert [str(w.message).split(" ", 4)[:4] for w in said] == [
            ["channel", "ch2", "is", "constant"],
            ["channels", "ch1,", "ch3", "are"],
        ]
        assert found.n_components == 2
        facts = found.save(tmp_path / "r")
        np.testing.assert_array_equal(
            total_of(tmp_path / "r", facts), soundfile.read(path, dtype="int16")[0]
        )

    def test_delayed_channels_are_not_identical(self, tmp_path, long):
        x = mixed(6)
        x[:, -8:] = 0
        path = wav(tmp_path / "a.wav", np.concatenate([x, np.roll(x[:1], 8, axis=1)]))
        read(path)  # warnings are errors

    @pytest.mark.parametrize("at", [999, 1600, 3 * SFREQ])
    def test_clipping_is_counted_across_blocks(self, tmp_path, long, at):
        x = mixed(6)
        x[0, at - 2 : at + 3] = 0.99
        x[0, 20_000:20_002] = 0.99  # two in a row may be chance
        with pytest.warns(SourcesepWarning, match=r"^5 samples are clipped, in ch0 \(5\)"):
            read(wav(tmp_path / "a.wav", x, "FLOAT"))

    def test_a_report_says_that_u_is_of_the_stretches(self, tmp_path, long):
        linear(wav(tmp_path / "a.wav", mixed(6))).save(tmp_path / "r", report=True)
        page = (tmp_path / "r" / "report.html").read_text()
        assert "seconds of the stretches fitted on, end to end" in page

    def test_u_of_every_kind(self, tmp_path, long):
        path = wav(tmp_path / "a.wav", mixed(6))
        labels = np.arange(6 * SFREQ) // 160
        np.save(tmp_path / "u.npy", labels // 50)
        for aux in ("segments:.02,.1", "adaptive", labels, f"file:{tmp_path / 'u.npy'}"):
            found = linear(path, aux=aux)
            assert found.u.n_times == 2 * SFREQ
            assert metrics.mcc(sources(n_times=6 * SFREQ).T, found.sources.T) > 0.99
        with pytest.raises(InputError, match=r"u of shape \(7,\): must be \(48000,\)"):
            linear(path, aux=labels[:7])

    def test_segments_do_not_cross_from_one_stretch_to_the_next(self, tmp_path, long):
        found = linear(wav(tmp_path / "a.wav", mixed(60)), aux="segments:.03")
        size = 2 * SFREQ // 20
        by_stretch = found.u.labels.reshape(20, size)
        assert (np.diff(by_stretch, axis=0)[:, 0] > 0).all()
        assert (by_stretch[1:, 0] > by_stretch[:-1, -1]).all()

    def test_a_model_of_a_short_recording(self, tmp_path, long):
        short = linear(wav(tmp_path / "s.wav", mixed(1.5)))
        found = linear(wav(tmp_path / "a.wav", mixed(6)), model=short.ivae)
        assert found._judged_on == "the model's fit"
        np.testing.assert_array_equal(found.mixing, short.mixing)


def test_a_file_that_changed_since_the_fit_is_an_error(tmp_path, long):
    path = wav(tmp_path / "a.wav", mixed(6))
    found = linear(path)
    wav(path, mixed(6, seed=1))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=r"a\.wav: the file was changed or removed since it was"):
        found.save(tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_neither_is_a_short_file_given_the_sum_of_another(tmp_path):
    path = wav(tmp_path / "a.wav", mixed(1))
    found = linear(path)
    assert found.recording.in_memory
    path.unlink()
    with pytest.raises(InputError, match="the file was changed or removed"):
        found.save(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_stamp_is_that_of_reading(tmp_path):
    path = wav(tmp_path / "a.wav", mixed(1))
    assert read(path)._stamp == Stamp.of(path)


@pytest.mark.slow
def test_ten_minutes_fit_in_a_third_of_their_own_size(tmp_path):
    """Two channels at 16 kHz: 154 MB as float64; the process without them takes about 180."""
    script = """
        import json, sys, time
        import numpy as np, soundfile
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(sys.argv[1], "w", 16000, 2, "PCM_16") as file:
            for second in range(600):
                scale = np.exp(rng.normal(size=(50, 1, 2)))
                x = (scale * rng.laplace(size=(50, 320, 2))).reshape(-1, 2)
                file.write(0.003 * x @ [[1, 0.5], [0.4, 1]])
        import sourcesep.estimator
        from sourcesep.separation import separate
        def peak():
            status = open("/proc/self/status").read()  # ru_maxrss is inherited from pytest
            return int(status.split("VmHWM:")[1].split()[0]) / 1024
        before, begin = peak(), time.process_time()
        facts = separate(sys.argv[1]).save(sys.argv[2])
        print(json.dumps([before, peak(), time.process_time() - begin, facts["verdict"]]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path / "a.wav", tmp_path / "r"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    before, peak, seconds, verdict = json.loads(run.stdout)
    assert peak < 600
    assert peak - before < 400
    assert seconds < 0.02 * 600  # half of that by itself, at most
    assert verdict == "trusted"
