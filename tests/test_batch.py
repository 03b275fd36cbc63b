"""Many recordings: side by side, resumed, in shares, and what happens when a worker dies."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import soundfile

from sourcesep import batch, exceptions
from sourcesep.batch import Job, separate_file, separate_files, share
from sourcesep.separation import separate
from sourcesep.workers import in_order

from .conftest import mixture

OPTIONS = list(inspect.signature(separate).parameters.values())[1:]
SETTINGS = {option.name: option.default for option in OPTIONS} | {"mixing": "linear"}
SAVING = {"overwrite": False, "bit_depth": None, "exclude": ()}


@pytest.fixture
def jobs(tmp_path):
    """Four recordings, the longest last."""
    made = []
    for seed in range(4):
        path = tmp_path / f"in{seed}.wav"
        soundfile.write(path, mixture(n_times=4000 + 800 * seed, seed=seed).T, 8000, "PCM_16")
        made.append(Job(path, tmp_path / "out" / f"in{seed}", SETTINGS, SAVING))
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what is said of the run itself."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "result.json":
            facts = json.loads(path.read_text("utf-8"))
            found[str(path.relative_to(folder))] = json.dumps(facts | {"run": None}).encode()
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


class TestShare:
    def test_every_item_is_in_one_share(self):
        items = list(range(11))
        shares = [share(items, f"{k}/4") for k in (1, 2, 3, 4)]
        assert sorted(k for part in shares for k in part) == items
        assert shares[1] == [1, 5, 9]

    @pytest.mark.parametrize("part", ["0/4", "5/4", "1", "1/", "/4", "1/4/2", "a/b", "-1/4", ""])
    def test_refuses(self, part):
        with pytest.raises(exceptions.SettingsError, match=r"shard=.*: must be I/N"):
            share([1, 2], part)


class TestSideBySide:
    def test_writes_the_same_bytes_as_one_by_one(self, jobs, tmp_path):
        assert all(o.error is None for o in separate_files(jobs))
        one_by_one = files(tmp_path / "out")
        again = [replace(job, folder=tmp_path / "two" / job.folder.name) for job in jobs]
        outcomes = list(separate_files(again, n_jobs=2))
        assert {o.path for o in outcomes} == {job.path for job in jobs}
        assert files(tmp_path / "two") == one_by_one
        assert len(one_by_one) == 4 * 4

    def test_the_largest_begins_first(self, jobs):
        assert batch._largest_first(jobs) == jobs[::-1]

    def test_one_that_fails_does_not_stop_the_others(self, jobs, tmp_path):
        jobs[1].path.write_bytes(b"no sound at all")
        jobs.append(replace(jobs[0], path=tmp_path / "nowhere.wav", folder=tmp_path / "x"))
        outcomes = {o.path.name: o for o in separate_files(jobs, n_jobs=2)}
        assert {name for name, o in outcomes.items() if o.error} == {"in1.wav", "nowhere.wav"}
        assert not (tmp_path / "x").exists()
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["in0", "in2", "in3"]

    def test_only_what_kills_its_worker_fails(self, jobs):
        class Deadly:
            """A setting at whose arrival in a worker the process is gone."""

            def __reduce__(self):
                return exec, ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)",)

        jobs[2] = replace(jobs[2], settings=SETTINGS | {"columns": Deadly()})
        outcomes = {o.path.name: o for o in separate_files(jobs, n_jobs=2)}
        assert len(outcomes) == 4
        assert "died" in outcomes["in2.wav"].error
        assert [o.error for name, o in outcomes.items() if name != "in2.wav"] == [None] * 3


def test_relative_paths_in_settings_mean_the_same_in_a_worker_that_stands_elsewhere(
    jobs, tmp_path, monkeypatch
):
    tmp_path = tmp_path / "a+column:b"  # where a path looks like a SPEC
    shutil.copytree(jobs[0].path.parent, tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(4000) // 400)
    monkeypatch.chdir(tmp_path)
    by_file = SETTINGS | {"aux": "file:labels.npy"}
    model = Path("m.safetensors")
    assert separate_file(replace(jobs[0], settings=by_file, save_model=model)).error is None
    named = by_file | {"model": "m.safetensors"}
    here = Job(Path("in0.wav"), Path("here"), named, SAVING)
    assert separate_file(here).error is None
    sent = batch._absolute(replace(here, folder=Path("there")))
    monkeypatch.chdir("/")
    outcome = separate_file(sent)
    assert outcome.error is None
    assert outcome.result["settings"]["model"] == "m.safetensors"
    assert outcome.result["settings"]["aux"] == "file:labels.npy"
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert separate_file(replace(sent, resume=True)).resumed


def test_an_option_of_another_kind_is_refused_before_anything_is_fitted(jobs, monkeypatch):
    monkeypatch.setattr("sourcesep.separation.separate", None)
    outcome = separate_file(replace(jobs[0], saving=SAVING | {"exclude": ("eog",)}))
    assert outcome.error == ("exclude=eog: components are removed from EEG only; leave it out")


class TestResume:
    def test_keeps_what_is_there_and_makes_the_rest(self, jobs, tmp_path):
        first = separate_file(jobs[0])
        assert first.error is None
        before = (jobs[0].folder / "result.json").stat().st_mtime_ns
        outcomes = list(separate_files([replace(job, resume=True) for job in jobs]))
        assert [o.resumed for o in outcomes] == [True, False, False, False]
        assert outcomes[0].result == first.result
        assert (jobs[0].folder / "result.json").stat().st_mtime_ns == before
        assert len(list((tmp_path / "out").iterdir())) == 4

    @pytest.mark.parametrize(
        "change",
        [
            {"settings": SETTINGS | {"random_state": 1}},
            {"settings": SETTINGS | {"aux": "segments:.1"}},
            {"settings": SETTINGS | {"quality": "fast"}},
            {"saving": SAVING | {"bit_depth": "24"}},
        ],
    )
    def test_other_settings_are_not_the_same_result(self, jobs, change):
        assert separate_file(jobs[0]).error is None
        outcome = separate_file(replace(jobs[0], resume=True, **change))
        assert "exists already, but not whole or from another input, version or settings" in (
            outcome.error
        )
        assert "exists already; name" in separate_file(replace(jobs[0], **change)).error
        change["saving"] = change.get("saving", SAVING) | {"overwrite": True}
        outcome = separate_file(replace(jobs[0], resume=True, **change))
        assert (outcome.error, outcome.resumed) == (None, False)
        assert separate_file(replace(jobs[0], resume=True, **change)).resumed

    def test_the_default_u_is_the_same_when_it_is_spelled_out(self, jobs):
        assert separate_file(jobs[0]).error is None
        for aux in ("segments", "segments:.02"):
            spelled = replace(jobs[0], resume=True, settings=SETTINGS | {"aux": aux})
            assert separate_file(spelled).resumed

    def test_another_input_or_a_file_that_is_gone_is_not(self, jobs):
        again = replace(jobs[0], resume=True, saving=SAVING | {"overwrite": True})
        assert separate_file(jobs[0]).error is None
        (jobs[0].folder / "source01.wav").unlink()
        assert not separate_file(again).resumed
        assert separate_file(again).resumed
        soundfile.write(jobs[0].path, mixture(seed=9).T, 8000, "PCM_16")
        assert not separate_file(again).resumed

    @pytest.mark.parametrize("exclude", [(0,), (1, "eog")])
    def test_with_components_excluded(self, tmp_path, exclude):
        info = mne.create_info(["Fp1", "Cz", "EOG"], 100.0, ["eeg", "eeg", "eog"])
        x = 1e-5 * np.vstack([mixture(), mixture()[:1]])
        path = tmp_path / "rest_raw.fif"
        mne.io.RawArray(x, info, verbose="error").save(path, verbose="error")
        job = Job(path, tmp_path / "out", SETTINGS, SAVING | {"exclude": exclude}, resume=True)
        assert separate_file(job).error is None
        assert separate_file(job).resumed
        other = replace(job, saving=SAVING | {"exclude": (*exclude[::-1], 1)})
        assert "exists already" in separate_file(other).error

    def test_another_version_is_not(self, jobs, monkeypatch):
        assert separate_file(jobs[0]).error is None
        monkeypatch.setattr(batch, "__version__", "99.0")
        assert not separate_file(replace(jobs[0], resume=True)).resumed

    def test_a_model_that_was_not_written_any_more_is(self, jobs, tmp_path):
        model = tmp_path / "m.safetensors"
        job = replace(jobs[0], save_model=model, resume=True)
        assert separate_file(job).error is None
        before, result = model.read_bytes(), files(job.folder)
        model.unlink()
        outcome = separate_file(job)
        assert (outcome.error, outcome.resumed) == (None, False)
        assert (model.read_bytes(), files(job.folder)) == (before, result)
        assert separate_file(job).resumed

    def test_a_model_that_changed_is_not(self, jobs, tmp_path):
        models = [tmp_path / f"m{k}.safetensors" for k in (0, 1)]
        for job, model in zip(jobs, models, strict=False):
            assert separate_file(replace(job, save_model=model)).error is None
        given = SETTINGS | {"model": str(models[0])}
        job = replace(jobs[2], settings=given, resume=True)
        assert separate_file(job).error is None
        assert separate_file(job).resumed
        models[0].write_bytes(models[1].read_bytes())
        assert "exists already" in separate_file(job).error


@pytest.mark.slow
class TestCluster:
    @pytest.fixture
    def cluster(self, late_workers):
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as made:
            yield made

    @pytest.fixture
    def scheduler(self, tmp_path):
        """A scheduler in a process of its own, with one worker; and its address."""
        pytest.importorskip("distributed", reason="Dask is not installed")

        def start(*words):
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
            )

        with start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard") as first:
            said = next(line for line in first.stderr if "Scheduler at" in line)
            address = said.split()[-1]
            with start(
                "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"
            ) as one:
                next(line for line in one.stderr if "Registered to" in line)
                yield first, address
                one.kill()
            first.kill()

    def test_gives_the_same_bytes_with_a_worker_killed_in_mid_run(self, cluster, jobs, tmp_path):
        assert all(o.error is None for o in separate_files(jobs))
        again = [replace(job, folder=tmp_path / "two" / job.folder.name) for job in jobs]
        outcomes = separate_files(again, dask=cluster.scheduler_address)
        done = [next(outcomes)]
        victim = next(iter(cluster.workers.values())).process.pid
        os.kill(victim, signal.SIGKILL)
        done += list(outcomes)
        assert [o.error for o in done] == [None] * 4
        assert {o.path for o in done} == {job.path for job in jobs}
        assert files(tmp_path / "two") == files(tmp_path / "out")

    @pytest.mark.usefixtures("late_workers")
    def test_what_a_worker_cannot_do_is_said_of_that_recording(self, jobs, monkeypatch):
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        dask = pytest.importorskip("dask", reason="Dask is not installed")

        def lethal(job):
            if job.path.name == "in1.wav":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ModuleNotFoundError("No module named 'sourcesep'", name="sourcesep")

        monkeypatch.setattr(batch, "separate_file", lethal)
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as cluster,
        ):
            [died] = separate_files(jobs[1:2], dask=cluster.scheduler_address)
            [failed] = separate_files(jobs[2:3], dask=cluster.scheduler_address)
            with pytest.raises(exceptions.InputError, match="a process that read recordings died"):
                list(in_order(lethal, jobs[1:2], dask=cluster.scheduler_address))
            with pytest.raises(exceptions.MissingDependencyError, match="workers have no source"):
                list(in_order(lethal, jobs[2:3], dask=cluster.scheduler_address))
        assert "the process that worked on it died" in died.error
        assert failed.error == (
            "a Dask worker cannot do it (ModuleNotFoundError: No module named 'sourcesep'); it "
            "needs this machine's version of sourcesep, and the same files"
        )

    def test_a_scheduler_that_dies_leaves_what_is_done(self, jobs, tmp_path, scheduler):
        process, address = scheduler
        outcomes = separate_files(jobs, dask=address)
        first = next(outcomes)
        assert first.error is None
        process.kill()
        with pytest.raises(exceptions.InputError) as error:
            list(outcomes)
        assert str(error.value) == (
            f"dask={address}: the scheduler is gone; start it again, and go on from what is done "
            "with resume=True"
        )
        done = list(separate_files([replace(job, resume=True) for job in jobs]))
        assert [o.error for o in done] == [None] * 4
        assert next(o.resumed for o in done if o.path == first.path)
        alone = [replace(job, folder=tmp_path / "two" / job.folder.name) for job in jobs]
        assert all(o.error is None for o in separate_files(alone))
        assert files(tmp_path / "out") == files(tmp_path / "two")

    @pytest.mark.usefixtures("late_workers")
    def test_a_result_that_was_written_before_its_worker_died_counts(self, jobs, monkeypatch):
        """The task comes again, and finds its own result."""
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")

        def twice(job):
            assert separate_file(job).error is None
            return separate_file(job)

        monkeypatch.setattr(batch, "separate_file", twice)
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster:
            (outcome,) = separate_files(jobs[:1], dask=cluster.scheduler_address)
        assert (outcome.error, outcome.resumed) == (None, False)

    def test_says_when_no_scheduler_answers(self, jobs):
        pytest.importorskip("distributed", reason="Dask is not installed")
        with pytest.raises(exceptions.SettingsError, match="no scheduler answers there"):
            list(separate_files(jobs, dask="tcp://127.0.0.1:9"))
