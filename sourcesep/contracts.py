"""Contracts: what a recording must be to go with a model, or with other recordings.

A contract is a JSON-ready mapping with some of ``kind``, ``names``, ``units``, ``sfreq`` (as in
a recording) and ``n_channels``. What it does not name may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sourcesep.exceptions import InputError
from sourcesep.messages import first_few
from sourcesep.recording import Recording

__all__ = ["check_alike", "contract_of"]

MOST_NAMED = 5
"""The most channels that a message lists."""


def contract_of(recording: Recording) -> dict[str, Any]:
    """Return what a model fitted on this recording needs of another."""
    return {
        "kind": recording.kind,
        "names": list(recording.names),
        "units": list(recording.units),
        "sfreq": recording.sfreq,
    }


def check_alike(
    needed: Mapping[str, Any], given: Mapping[str, Any], *, where: str, other: str
) -> None:
    """Refuse what does not have the kind, channels, units and rate that are needed.

    Parameters
    ----------
    needed : mapping
        The contract that counts.
    given : mapping
        The whole contract of a recording.
    where, other : str
        What messages call the recording, and what the contract belongs to.

    Raises
    ------
    InputError
        Naming the first thing that differs.
    """
    own = list(given["names"])
    wanted = {"n_channels": len(own)} | dict(given) | dict(needed)
    if wanted["kind"] != given["kind"]:
        raise InputError(
            f"{where}: kind={given['kind']}, {other} has kind={wanted['kind']}; both must be of "
            "one kind"
        )
    names = list(wanted["names"])
    if names != own:
        missing = [name for name in names if name not in own][:MOST_NAMED]
        extra = [name for name in own if name not in names][:MOST_NAMED]
        differ = (
            f"missing {missing or 'none'}, extra {extra or 'none'}"
            if missing or extra
            else "they come in another order"
        )
        raise InputError(
            f"{where}: channels differ from those of {other}: {differ}; give the same channels in "
            "the same order"
        )
    if wanted["n_channels"] != len(own):
        raise InputError(
            f"{where}: n_channels={len(own)}, {other} has {wanted['n_channels']}; give the same "
            "channels"
        )
    if wanted["sfreq"] != given["sfreq"]:
        raise InputError(
            f"{where}: sfreq={given['sfreq']:g}, {other} has {wanted['sfreq']:g}; resample it "
            "first"
        )
    units = zip(own, given["units"], wanted["units"], strict=True)
    differing = [
        f"{name} ({here!r}, not {there!r})" for name, here, there in units if here != there
    ]
    if differing:
        raise InputError(
            f"{where}: other units than {other}: {first_few(differing)}; convert them first"
        )
