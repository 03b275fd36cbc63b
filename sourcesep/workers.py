"""One function over many items: in this process, in others, or on a Dask cluster."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from sourcesep.exceptions import InputError, MissingDependencyError, SettingsError

__all__ = ["connected", "in_order"]

Item = TypeVar("Item")
Found = TypeVar("Found")

PATIENCE = 5
"""Seconds in which a Dask scheduler must answer."""
LONGEST_GREETING = 2**20
"""Bytes; a scheduler's first words are a few hundred."""
DIED = "a process that read recordings died, perhaps for want of memory; try with fewer jobs"


def in_order(
    function: Callable[[Item], Found],
    items: Sequence[Item],
    *,
    n_jobs: int = 1,
    dask: str | None = None,
) -> Iterator[Found]:
    """Apply a function to items, each on one thread, and give its results in their order.

    Wherever it runs, the function is given the same and does the same: results are equal
    to the bit on machines of one kind.

    Parameters
    ----------
    function : callable
        Of one item; importable by name where it is to run elsewhere.
    items : sequence
        What it is applied to.
    n_jobs : int
        Processes.
    dask : str, optional
        Address of a Dask scheduler, such as ``tcp://scheduler:8786``.

    Raises
    ------
    MissingDependencyError
        If Dask is asked for and not installed.
    SettingsError
        If the scheduler cannot be reached.
    InputError
        If a process died over an item.
    """
    if dask is not None:
        yield from _on_cluster(function, items, dask)
    elif n_jobs == 1 or len(items) < 2:
        for item in items:
            yield _on_one_thread(function, item)
    else:
        yield from _in_processes(function, items, n_jobs)


def _in_processes(
    function: Callable[[Item], Found], items: Sequence[Item], n_jobs: int
) -> Iterator[Found]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with parallel_config("loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs, return_as="generator", pre_dispatch=2 * n_jobs)
        try:
            yield from parallel(delayed(_on_one_thread)(function, item) for item in items)
        except TerminatedWorkerError as error:
            raise InputError(DIED) from error


def _on_one_thread(function: Callable[[Item], Found], item: Item) -> Found:
    # sums in another order, as more threads make them, round otherwise
    with threadpool_limits(limits=1, user_api="blas"):
        return function(item)


def _on_cluster(
    function: Callable[[Item], Found], items: Sequence[Item], address: str
) -> Iterator[Found]:
    with connected(address) as client:
        from distributed import KilledWorker

        tasks = [client.submit(_on_one_thread, function, item, pure=False) for item in items]
        try:
            while tasks:
                yield tasks.pop(0).result()
        except KilledWorker as error:
            raise InputError(DIED) from error


def connected(address: str) -> Any:
    """Return a client of the Dask scheduler at this address, to be used in a ``with``.

    Raises
    ------
    MissingDependencyError
        If Dask is not installed.
    SettingsError
        If the scheduler cannot be reached.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            f"dask={address}: needs Dask; pip install 'sourcesep[dask]'"
        ) from error
    # a client that reaches nobody tries until its time is over, and complains when it goes
    try:
        _check_answer(address)
        return Client(address, set_as_default=False, timeout=PATIENCE)
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise SettingsError(
            f"dask={address}: no scheduler answers there ({reason}); start one with `dask "
            "scheduler`, and give its address as tcp://HOST:8786"
        ) from error


def _check_answer(address: str) -> None:
    """Raise OSError or ValueError where no scheduler speaks.

    One begins by itself, with the length of what it says as eight bytes.
    """
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    scheme, place = parse_address(address)
    get_backend(scheme)
    if scheme not in ("tcp", "tls"):
        return
    with socket.create_connection(parse_host_port(place), timeout=PATIENCE) as connection:
        if scheme == "tcp":
            first = connection.recv(8, socket.MSG_WAITALL)
            if len(first) < 8 or int.from_bytes(first, "little") > LONGEST_GREETING:
                raise ValueError("what listens there is none")
