"""A Dask cluster: reached, or said in one line why not."""

from __future__ import annotations

import logging
import socket
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.messages import in_brief

__all__ = ["connected", "expect_workers"]

PATIENCE = 5
"""Seconds in which a scheduler must answer, and a worker be there, before something is said."""
LONGEST_GREETING = 2**20
"""Bytes; a scheduler's first words are a few hundred."""


@contextmanager
def connected(address: str, cure: str) -> Iterator[Any]:
    """Give a client of the Dask scheduler at this address.

    Parameters
    ----------
    address : str
        Such as ``tcp://scheduler:8786``.
    cure : str
        What to do once a scheduler that was lost is there again.

    Raises
    ------
    MissingDependencyError
        If Dask is not installed.
    SettingsError
        If the scheduler cannot be reached.
    InputError
        If it is lost on the way.
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
        client = Client(address, set_as_default=False, timeout=PATIENCE)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"dask={address}: no scheduler answers there ({in_brief(error)}); start one with "
            "`dask scheduler`, and give its address as tcp://HOST:8786"
        ) from error
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it complains of is said here, in one line
    try:
        with client:
            yield client
    except CancelledError as error:
        raise InputError(
            f"dask={address}: the scheduler is gone; start it again, and {cure}"
        ) from error
    finally:
        log.setLevel(level)


def expect_workers(client: Any, address: str) -> None:
    """Warn where no worker is there for some seconds to do what the scheduler was given.

    Some clusters start workers only when there is something to do: call it after that.

    Parameters
    ----------
    client : distributed.Client
        As `connected` gives it.
    address : str
        Of the scheduler.
    """
    from distributed import TimeoutError as NoWorkerError

    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except NoWorkerError:
        warnings.warn(
            f"dask={address}: the scheduler has no worker yet, and waits for one; start it with "
            f"`dask worker {address}`",
            SourcesepWarning,
            stacklevel=2,
        )
    except OSError:
        return  # the scheduler is gone, which is said where results are waited for


def _check_answer(address: str) -> None:
    """Raise OSError or ValueError where no scheduler speaks.

    One begins by itself, with the length of what it says as eight bytes.
    """
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.security import Security

    scheme, place = parse_address(address)
    if scheme not in ("tcp", "tls"):
        raise ValueError(f"by {scheme}:// one cannot be reached")
    if scheme == "tls" and Security().get_connection_args("client")["ssl_context"] is None:
        raise ValueError("Dask's configuration, distributed.comm.tls, names no certificates")
    with socket.create_connection(parse_host_port(place), timeout=PATIENCE) as connection:
        if scheme == "tcp":
            first = connection.recv(8, socket.MSG_WAITALL)
            if len(first) < 8 or int.from_bytes(first, "little") > LONGEST_GREETING:
                raise ValueError("what listens there is none")
