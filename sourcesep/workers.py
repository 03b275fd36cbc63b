"""One function over many items: in this process, in others, or on a Dask cluster.

One thread works on an item, wherever that is, so that results are equal to the bit. There are
two ways to do it in other processes, as it is asked for in two ways:

- `in_order` leaves the processes to joblib. `train` uses it, which scripts and notebooks call:
  joblib's processes do not run the script again, as others do where it has no ``if __name__ ==
  "__main__"``, and take what it has defined. Every item is needed, so an error, or a process
  that dies, ends it.
- `as_done` has processes of its own. The command line uses it, for recordings that have nothing
  to do with each other. They are forked from one that has imported everything, where joblib's
  import anew, which takes longer than a short recording. One that dies takes no other with it;
  one that is told to end tidies up; none waits for work when the first process is gone.

A ProcessPoolExecutor for `as_done` would save no code: its processes all end when one dies, are
ended by SIGTERM before they can tidy up, and stay when the first process is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

from threadpoolctl import threadpool_limits

from sourcesep.cluster import connected, expect_workers
from sourcesep.exceptions import InputError, MissingDependencyError, SettingsError
from sourcesep.messages import in_brief

__all__ = ["as_done", "in_order"]

Item = TypeVar("Item")
Found = TypeVar("Found")

METHODS = ("forkserver", "spawn") if sys.platform == "linux" else ("spawn",)
"""How processes are started, the first that works. On Linux they are forked from one that has
imported everything once and done nothing else; libraries of other systems may not survive that."""
PRELOADED = ["sourcesep.separation", "sourcesep.estimator", "sourcesep.adapters.audio", "picard"]
"""What nearly every recording needs."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries read when they are loaded."""
TIDYING = 10
"""Seconds in which a process that is told to end must have done so."""
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
        If a process died over an item, or the scheduler did.
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


def as_done(
    function: Callable[[Item], Found], items: Sequence[Item], *, n_jobs: int
) -> Iterator[tuple[int, Found | None]]:
    """Apply a function to items in other processes, and give each result when it is there.

    If a process dies, another takes its place, and only the item that it had is lost. Where
    the results are not wanted any more, processes are told to end, and tidy up as after
    Ctrl-C. If this process is killed, they finish what they have in hand.

    Parameters
    ----------
    function : callable
        Of one item; importable by name. It must not raise. The main module is imported too,
        so what that runs must be below ``if __name__ == "__main__"``.
    items : sequence
        What it is applied to, the first ones first.
    n_jobs : int
        Processes, each on one thread.

    Yields
    ------
    number, result
        Of an item; the result is None if the process has died.

    Raises
    ------
    SettingsError
        If the system starts no process.
    """
    waiting = deque(enumerate(items))
    processes: dict[Connection, BaseProcess] = {}
    idle: list[Connection] = []
    at_work: dict[Connection, int] = {}
    done: list[tuple[int, Found | None]] = []
    try:
        while True:
            while waiting and len(at_work) < n_jobs:
                if not idle:
                    connection, process = _started(function, n_jobs)
                    processes[connection] = process
                    idle.append(connection)
                connection = idle.pop()
                at_work[connection], item = waiting.popleft()
                with suppress(OSError):  # one that is dead by now is found out below
                    connection.send(item)
            yield from done  # what is made of these does not hold up the others
            if not at_work:
                return
            done = []
            for connection in cast("list[Connection]", wait(list(at_work))):
                found = None
                with suppress(EOFError, OSError):
                    found = connection.recv()
                    idle.append(connection)
                done.append((at_work.pop(connection), found))
            if not waiting:
                while idle:
                    idle.pop().close()  # at which the process ends
    finally:
        for connection, process in processes.items():
            if connection in at_work:
                process.terminate()
            connection.close()
        for process in processes.values():
            process.join(TIDYING)
            process.kill()


def _started(function: Callable[[Any], Any], n_jobs: int) -> tuple[Connection, BaseProcess]:
    """Start a process that works; return it, and the connection by which it is given work."""
    reason = None
    for method in METHODS:
        context: Any = multiprocessing.get_context(method)
        context.set_forkserver_preload(PRELOADED)
        try:
            ours, theirs = context.Pipe()
            with theirs, _one_thread_each(), _uninterrupted():
                process = context.Process(target=_work, args=(function, theirs), daemon=True)
                process.start()
            return ours, process
        except (OSError, EOFError) as error:
            reason = in_brief(error)
    raise SettingsError(f"n_jobs={n_jobs}: no process can be started ({reason}); ask for fewer")


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give processes that are started an environment in which libraries make no threads."""
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name in THREADS:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait, and not reach processes while they start, which would show where."""
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    resource_tracker.ensure_running()  # when it is started, it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    """Work in a process of its own until there is no more to do, or nobody who wants it."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # tidying up is not disturbed
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of which the first process says what it means
    signal.signal(signal.SIGTERM, end)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            connection.send(function(connection.recv()))


def _on_one_thread(function: Callable[[Item], Found], item: Item) -> Found:
    # sums in another order, as more threads make them, round otherwise
    with threadpool_limits(limits=1, user_api="blas"):
        return function(item)


def _on_cluster(
    function: Callable[[Item], Found], items: Sequence[Item], address: str
) -> Iterator[Found]:
    with connected(address, "run this again") as client:
        from distributed import KilledWorker

        tasks = [client.submit(_on_one_thread, function, item, pure=False) for item in items]
        expect_workers(client, address)
        try:
            while tasks:
                yield tasks.pop(0).result()
        except KilledWorker as error:
            raise InputError(DIED) from error
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"dask={address}: its workers have no {error.name}; install sourcesep there"
            ) from error
