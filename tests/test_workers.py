"""One function over many items, wherever it runs."""

import os
import signal

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


def test_says_when_no_scheduler_answers(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1)
    pytest.importorskip("distributed", reason="Dask is not installed")
    with pytest.raises(SettingsError, match="no scheduler answers there"):
        list(in_order(half, [1, 2], dask="tcp://127.0.0.1:9"))
