"""What goes wrong on real machines: full disks, killed runs, files that change, no memory."""

import errno
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from sourcesep import batch, output, separation
from sourcesep.adapters import eeg, table
from sourcesep.batch import Job, separate_file, separate_files
from sourcesep.cli import main
from sourcesep.exceptions import InputError, OutputError
from sourcesep.output import alone, beside, recover, replacing
from sourcesep.reading import read

from .conftest import mixture, names_in

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OPTIONS = list(inspect.signature(separation.separate).parameters.values())[1:]
SETTINGS = {option.name: option.default for option in OPTIONS} | {"mixing": "linear"}


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, mixture().T, 8000)
    return Job(path, tmp_path / "out" / "a", SETTINGS, {"overwrite": False})


# A full disk


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("inputs")
    soundfile.write(folder / "sound.wav", mixture().T, 8000)
    np.save(folder / "table.npy", mixture(n=3).T)
    info = mne.create_info(["E0", "E1", "E2"], 100.0, "eeg", verbose="error")
    with info._unlock():
        info["highpass"] = 1.0
    raw = mne.io.RawArray(1e-5 * mixture(n=3), info, verbose="error")
    raw.save(folder / "brain_raw.fif", verbose="error")
    return folder


@contextmanager
def files_no_larger_than(size):
    """What a full disk looks like to whoever writes: so far, and no further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["sound.wav", "table.npy", "brain_raw.fif"])
def test_a_full_disk_leaves_nothing_half_written(inputs, tmp_path, name):
    words = ["separate", str(inputs / name), "-o", str(tmp_path / "out"), "--report"]
    words += ["--mixing", "linear"]
    assert CliRunner().invoke(main, words).exit_code == 0
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    sizes = sorted({p.stat().st_size for p in written if p.suffix != ".npy"})
    shutil.rmtree(tmp_path / "out")
    for size in (0, 100, *(size - 1 for size in sizes)):  # each file in turn is one too many
        with files_no_larger_than(size):
            found = CliRunner().invoke(main, words)
        assert found.exit_code == 1, size
        last = found.stderr.splitlines()[-1]
        assert last.startswith("error: "), found.output
        assert "cannot" in last
        assert os.strerror(errno.EFBIG) in last
        assert "unforeseen" not in last
        assert ".new" not in last  # the hidden folder that it was written in
        assert names_in(tmp_path) == [], size


def test_a_full_disk_leaves_no_half_model(inputs, tmp_path):
    model = tmp_path / "m.safetensors"
    words = ["separate", str(inputs / "sound.wav"), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(main, [*words, "--save-model", str(model)]).exit_code == 0
    before = model.read_bytes()
    with files_no_larger_than(len(before) - 1):
        found = CliRunner().invoke(main, [*words, "-f", "--save-model", str(model)])
    assert found.exit_code == 1
    assert model.read_bytes() == before
    assert [n for n in names_in(tmp_path) if n.startswith(".")] == []


# Folders


@pytest.mark.parametrize("number", [13, 30])
def test_a_folder_that_may_not_be_written(job, monkeypatch, number):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = separate_file(job)
    assert f"cannot be written ({os.strerror(number)}); free some space or choose" in outcome.error


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_read(job, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(separation, "separate", lambda *_, **__: pytest.fail("was read"))
    assert "cannot be written; choose another with -o" in separate_file(job).error


def test_a_file_that_may_not_be_read_stops_no_other(job, tmp_path, monkeypatch):
    access, refused = os.access, tmp_path / "b.csv"
    refused.write_text("a,b\n1,2\n")
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != refused and access(path, mode)
    )
    words = ["separate", str(refused), str(job.path), "-o", str(tmp_path / "out")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 1
    assert found.stderr.splitlines()[0] == (
        f"error: input={refused}: may not be read; change its permissions, or its owner"
    )
    assert names_in(tmp_path / "out")[0] == "a"


def test_a_folder_that_vanishes_while_it_is_written(job, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):  # noqa: PT012, SIM117
        with replacing(tmp_path / "gone" / "a") as new:
            shutil.rmtree(new.parent)
            (new / "source00.wav").write_bytes(b"")
    assert separate_file(job).error is None  # and all goes on


# Two processes


def test_one_process_writes_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "PATIENCE", 0.1)
    with alone(tmp_path / "a"):
        with (
            pytest.raises(OutputError, match="another process is writing it; wait until"),
            replacing(tmp_path / "a"),
        ):
            pass
        with replacing(tmp_path / "b"):
            pass
    assert names_in(tmp_path) == ["b"]


@pytest.mark.parametrize("without", ["module", "file system"])
def test_where_nothing_can_be_locked_it_is_written_all_the_same(job, monkeypatch, without):
    if without == "module":  # as on Windows
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:

        def flock(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("fcntl.flock", flock)
    assert separate_file(job).error is None
    assert names_in(job.folder.parent) == sorted(
        ["a", *(f"a/{n}" for n in ("residual.wav", "result.json", "source00.wav", "source01.wav"))]
    )


def test_the_next_goes_on_when_the_first_has_ended(tmp_path):
    order = []

    def write(number):
        with replacing(tmp_path / "a") as new:
            order.append(number)
            time.sleep(0.05)
            (new / f"{number}").write_text("")
            order.append(number)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order[::2] == order[1::2]  # each was alone
    assert names_in(tmp_path) == ["a", f"a/{order[-1]}"]


@pytest.fixture
def raced(job, monkeypatch):
    """A job that another process does while it is done."""
    real = separation.separate

    def while_another_does(*arguments, **settings):
        monkeypatch.setattr(separation, "separate", real)
        assert separate_file(job).error is None
        return real(*arguments, **settings)

    monkeypatch.setattr(separation, "separate", while_another_does)
    return job


def test_one_wins_and_the_other_says_so(raced):
    assert "exists already; name another folder" in separate_file(raced).error


def test_even_at_the_last_moment(tmp_path):
    with (
        pytest.raises(OutputError, match="exists by now, written by another process; name"),
        replacing(tmp_path / "a", overwrite=False),
    ):
        (tmp_path / "a").mkdir()
    assert names_in(tmp_path) == ["a"]


def test_who_resumes_takes_what_the_other_has_written(raced):
    outcome = separate_file(replace(raced, resume=True))
    assert (outcome.error, outcome.resumed) == (None, True)


# Killed


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_killed_at_random_times(more):
    script = [sys.executable, "kill.py", "--kills", "3", "--jobs", "1", "--fork"]
    script += ["--mixing", "linear", *more]  # soon at what counts here: to write
    done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=BENCHMARKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3 kills within ")
    assert done.stdout.endswith(": 0 problems\n")


def ends(group, seconds=10):
    """Whether no process of a group is left before long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "jobs", "code", "said"),
    [(signal.SIGINT, 2, 130, "Aborted!\n"), (signal.SIGTERM, 1, 143, "")],
)
def test_told_to_end(tmp_path, number, jobs, code, said):
    """Nothing half-written stays, and no process; what is whole stays."""
    for name, seconds in (("a", 1), ("b", 20), ("c", 20), ("d", 20)):
        soundfile.write(tmp_path / f"{name}.wav", mixture(n_times=8000 * seconds).T, 8000)
    words = ["separate", *(f"{name}.wav" for name in "abcd"), "--json", "-j", str(jobs)]
    command = [sys.executable, "-m", "sourcesep", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes) as run:
        name = json.loads(run.stdout.readline())["input"]["name"]
        os.killpg(run.pid, number)  # as a terminal does
        assert run.stderr.read() == said
        assert run.wait() == code
    assert ends(run.pid)
    written = list((tmp_path / "separated").iterdir())
    assert Path(name).stem in [folder.name for folder in written]
    assert all(len(names_in(folder)) == 4 for folder in written)
    assert len(written) < 4


@pytest.mark.parametrize(
    ("left", "stays"),
    [
        ({"new": "half"}, None),
        ({"new": "half", "a": "old"}, "old"),
        ({"old": "old"}, "old"),
        ({"old": "old", "new": "new"}, "new"),
        ({"old": "old", "a": "new"}, "new"),
        ({"lock": ""}, None),
    ],
)
def test_what_a_killed_process_leaves(tmp_path, left, stays):
    for name, content in left.items():
        place = tmp_path / "a" if name == "a" else beside(tmp_path / "a", name)
        if name == "lock":
            place.touch()
        else:
            place.mkdir()
            (place / content).touch()
    recover(tmp_path / "a")
    assert names_in(tmp_path) == ([] if stays is None else ["a", f"a/{stays}"])


def test_a_run_that_was_killed_while_it_replaced_loses_nothing(job):
    assert separate_file(job).error is None
    before = names_in(job.folder)
    job.folder.rename(beside(job.folder, "old"))
    assert separate_file(replace(job, resume=True)).resumed
    assert names_in(job.folder) == before


# Input


@pytest.mark.parametrize(("name", "adapter"), [("table.npy", table), ("brain_raw.fif", eeg)])
@pytest.mark.parametrize("change", ["truncated", "removed"])
def test_a_file_that_changes_while_it_is_read(
    inputs, tmp_path, monkeypatch, name, adapter, change
):
    path = tmp_path / name
    shutil.copy(inputs / name, path)
    real = adapter.read

    def meanwhile(path, **options):
        found = real(path, **options)
        os.truncate(path, 50) if change == "truncated" else path.unlink()
        return found

    monkeypatch.setattr(adapter, "read", meanwhile)
    with pytest.raises(InputError, match="was changed or removed since it was opened; run again"):
        read(path)


# Memory, and what nobody has thought of


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; run fewer at once (-j), ask for fewer components"),
        (ZeroDivisionError("x"), "unforeseen ZeroDivisionError (test_faults.py, line "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of mem"),
        (RuntimeError("two\nlines"), "): two lines; please report it as a bug"),
    ],
)
def test_one_that_fails_in_an_unforeseen_way_stops_no_other(
    job, tmp_path, monkeypatch, error, said
):
    real = separation.separate

    def fail(path, **settings):
        if path.name == "b.wav":
            raise error
        return real(path, **settings)

    monkeypatch.setattr(separation, "separate", fail)
    shutil.copy(job.path, tmp_path / "b.wav")
    other = replace(job, path=tmp_path / "b.wav", folder=tmp_path / "out" / "b")
    outcomes = list(separate_files([other, job]))
    assert said in outcomes[0].error
    assert "\n" not in outcomes[0].error
    assert outcomes[1].error is None
    assert names_in(tmp_path / "out")[0] == "a"


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_process_that_may_not_have_more_memory_says_so(inputs):
    script = (
        "import resource, sys\n"
        "from click.testing import CliRunner\n"
        "import sourcesep.separation\n"
        "from sourcesep.cli import main\n"
        "words = ['separate', sys.argv[1], '-o', sys.argv[2]]\n"
        "main(words, standalone_mode=False)\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, size + 2**20))\n"
        "main([*words, '-f', '--mixing', 'convolutive', '-k', '2'])\n"
    )
    path, folder = inputs / "long.wav", inputs / "out"
    soundfile.write(path, mixture(n_times=800_000).T, 8000)
    arguments = [sys.executable, "-c", script, str(path), str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "memory" in lines[0]
    assert "Traceback" not in done.stderr


# A clock that goes back


def test_a_clock_that_goes_back(job, monkeypatch):
    assert separate_file(job).error is None
    content = {p: p.read_bytes() for p in job.folder.iterdir() if p.suffix == ".wav"}
    for path in (job.path, *job.folder.iterdir()):
        os.utime(path, (4e9, 4e9))  # in the year 2096
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert separate_file(replace(job, resume=True)).resumed
    again = replace(job, saving={"overwrite": True})
    outcome = separate_file(again)
    assert outcome.error is None
    assert {p: p.read_bytes() for p in content} == content
    assert json.loads((job.folder / "result.json").read_text())["run"]["seconds"] >= 0
    assert batch.separate_file(replace(again, resume=True)).resumed
