"""One function over many items, wherever it runs."""

import os
import signal
import socket
import threading

import pytest

from sourcesep import workers
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.workers import in_order


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


class TestNoScheduler:
    """Said in one line, at once, and nothing is left that complains at the end."""

    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch):
        pytest.importorskip("distributed", reason="Dask is not installed")
        monkeypatch.setattr(workers, "PATIENCE", 1)

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
