"""One function over many items, wherever it runs."""

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sourcesep import cluster, workers
from sourcesep.cluster import expect_workers
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.workers import as_done, in_order


def half(number):
    if number < 0:
        raise SettingsError(f"number={number}: must be 0 or more")
    return number / 2


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_the_order_of_the_items():
    items = list(range(20))
    expected = [n / 2 for n in items]
    assert list(in_order(half, items)) == list(in_order(half, items, n_jobs=2)) == expected


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_is_the_function_s_own(n_jobs):
    with pytest.raises(SettingsError, match="number=-1: must be 0 or more"):
        list(in_order(half, [1, -1, 2], n_jobs=n_jobs))


def test_a_process_that_dies_is_said():
    with pytest.raises(InputError, match="a process that read recordings died"):
        list(in_order(die, [1, 2, 3], n_jobs=2))


class TestAsDone:
    """Items are Python expressions, as other processes cannot import these tests."""

    @staticmethod
    def end(number):
        return f"__import__('os').kill(__import__('os').getpid(), {number})"

    def test_only_what_kills_its_process_is_lost(self):
        items = ["1", self.end(9), "3", self.end(11), "5", "6"]
        expected = {0: 1, 1: None, 2: 3, 3: None, 4: 5, 5: 6}
        assert dict(as_done(eval, items, n_jobs=2)) == expected

    def test_each_process_has_one_thread_and_this_one_keeps_its_own(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        item = "[__import__('os').environ[name + '_NUM_THREADS'] for name in ('OMP', 'MKL')]"
        assert list(as_done(eval, [item], n_jobs=3)) == [(0, ["1", "1"])]
        assert os.environ["OMP_NUM_THREADS"] == "4"
        assert "MKL_NUM_THREADS" not in os.environ

    def test_those_whose_results_are_not_wanted_tidy_up(self, tmp_path):
        code = (
            "import pathlib, time\n"
            "here = pathlib.Path({!r})\n"
            "try: here.touch(); time.sleep(60)\n"
            "finally: here.unlink()\n"
        ).format(str(tmp_path / "half-written"))
        results = as_done(eval, [f"exec({code!r})", "2"], n_jobs=2)
        assert next(results) == (1, 2)
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        results.close()
        assert list(tmp_path.iterdir()) == []

    def test_another_way_to_start_them_is_tried(self, monkeypatch):
        def refuse(self):
            raise OSError(errno.ENAMETOOLONG, "File name too long")  # as with a long TMPDIR

        first, *others = workers.METHODS
        process = type(multiprocessing.get_context(first).Process())
        monkeypatch.setattr(process, "start", refuse)
        if others:
            assert list(as_done(eval, ["1"], n_jobs=2)) == [(0, 1)]
        monkeypatch.setattr(workers, "METHODS", [first])
        with pytest.raises(SettingsError) as error:
            list(as_done(eval, ["1"], n_jobs=2))
        assert str(error.value) == (
            "n_jobs=2: no process can be started (File name too long); ask for fewer"
        )

    def test_ctrl_c_waits_until_a_process_has_started(self):
        words = """
            import os, signal
            from sourcesep import workers
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                with workers._uninterrupted():
                    os.kill(os.getpid(), signal.SIGINT)
                    print("started", flush=True)
                print("never", flush=True)
            except KeyboardInterrupt:
                print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """
        command = [sys.executable, "-c", textwrap.dedent(words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["started", "False"]

    def test_a_process_ends_when_the_first_is_gone(self, monkeypatch):
        """It finishes what it has, finds nobody who wants it, and waits for no more."""
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        ours, theirs = multiprocessing.Pipe()
        done = []
        ours.send(1)
        ours.close()
        workers._work(done.append, theirs)
        assert done == [1]


def test_dask_is_asked_for_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError) as error:
        list(in_order(half, [1, 2], dask="tcp://127.0.0.1:9"))
    assert str(error.value) == (
        "dask=tcp://127.0.0.1:9: needs Dask; pip install 'sourcesep[dask]'"
    )


class TestNoWorker:
    """Of a scheduler; it is waited for all the same."""

    class Client:
        """Where none comes, or the scheduler is lost."""

        def __init__(self, error):
            self.error = error

        def wait_for_workers(self, n_workers, timeout):
            assert (n_workers, timeout) == (1, cluster.PATIENCE)
            raise self.error

    def test_is_said(self):
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        with pytest.warns(SourcesepWarning) as caught:
            expect_workers(self.Client(distributed.TimeoutError()), "tcp://h:1")
        assert [str(w.message) for w in caught] == [
            "dask=tcp://h:1: the scheduler has no worker yet, and waits for one; start it with "
            "`dask worker tcp://h:1`"
        ]

    def test_is_not_said_where_the_scheduler_is_gone(self):
        pytest.importorskip("distributed", reason="Dask is not installed")
        expect_workers(self.Client(OSError("closed")), "tcp://h:1")

    @pytest.mark.slow
    def test_comes_later(self, monkeypatch):
        distributed = pytest.importorskip("distributed", reason="Dask is not installed")
        monkeypatch.setattr(cluster, "PATIENCE", 0.5)
        with distributed.LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tcp",
            dashboard_address=None,
            silence_logs=50,
        ) as made:
            later = threading.Timer(2, made.scale, [1])
            later.start()
            with pytest.warns(SourcesepWarning, match="has no worker yet"):
                assert list(in_order(half, [1, 2], dask=made.scheduler_address)) == [0.5, 1.0]
            later.join()


class TestNoScheduler:
    """Said in one line, at once, and nothing is left that complains at the end."""

    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch):
        pytest.importorskip("distributed", reason="Dask is not installed")
        monkeypatch.setattr(cluster, "PATIENCE", 1)

    def refusal(self, address):
        with pytest.raises(SettingsError) as error:
            list(in_order(half, [1, 2], dask=address))
        message = str(error.value)
        assert message.startswith(f"dask={address}: no scheduler answers there (")
        assert message.endswith("start one with `dask scheduler`, and give its address as "
                                "tcp://HOST:8786")  # fmt: skip
        assert "\n" not in message
        return message

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("tcp://127.0.0.1:9", "Connection refused"),
            ("nonsense", "missing port number"),
            ("foo://x:1", "by foo:// one cannot be reached"),
            ("tls://127.0.0.1:9", "configuration, distributed.comm.tls, names no certificates"),
        ],
    )
    def test_at_this_address(self, address, reason):
        assert reason in self.refusal(address)

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (b"", "timed out"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is none"),
        ],
    )
    def test_but_something_else(self, words, reason):
        """Dask would take the second for the length of a message of 3 EiB."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            held = []

            def serve():
                held.append(server.accept()[0])
                held[0].sendall(words)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            assert reason in self.refusal(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            thread.join(5)
            held[0].close()
