"""Which channels, and how many components: checked before anything is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from sourcesep.checks import is_whole
from sourcesep.components.channels import pick
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import rank_of_moments
from sourcesep.recording import LOWEST_HIGH_PASS

__all__ = [
    "check_number",
    "choose_number",
    "common_channels",
    "said_rank",
    "warn_about_filters",
]

USUAL_EACH = 20
"""Samples for every squared number of components: EEGLAB's rule of thumb for ICA."""


def common_channels(insts: Sequence[Any], picks: Any) -> list[str]:
    """Return the names of the channels that are picked and good in every recording."""
    chosen = [pick(inst.info, picks) for inst in insts]
    common = [name for name in chosen[0] if all(name in other for other in chosen)]
    dropped = sorted({name for names in chosen for name in names} - set(common))
    if not common:
        raise InputError("the recordings have no good channel in common; give them the same names")
    if len(common) == 1:
        raise InputError(
            f"{common[0]} is the only good channel picked, so there is nothing to separate: pick "
            "more, or clear the bads"
        )
    if dropped:
        warnings.warn(
            f"channels {', '.join(dropped)} are missing or bad in one of the recordings: left out "
            "of all",
            SourcesepWarning,
            stacklevel=3,
        )
    return common


def warn_about_filters(insts: Sequence[Any], *, is_linear: bool) -> None:
    """Warn about data that were never high-passed, or that filters have undone a curve of."""
    high_pass = min(inst.info["highpass"] for inst in insts)
    if is_linear and high_pass < LOWEST_HIGH_PASS:
        warnings.warn(
            f"highpass={high_pass:g} Hz by the header: unless the data were filtered elsewhere, "
            "fit on a copy that is high-passed at 1 Hz, and apply to the original; slow drifts "
            "cost components",
            SourcesepWarning,
            stacklevel=3,
        )
    elif not is_linear and high_pass >= LOWEST_HIGH_PASS:
        warnings.warn(
            f"highpass={high_pass:g} Hz: an amplifier saturates before any filter, and a curve "
            "fitted behind one is not its own; fit mixing='post-nonlinear' on unfiltered data",
            SourcesepWarning,
            stacklevel=3,
        )
    if any(getattr(inst, "baseline", None) is not None for inst in insts):
        warnings.warn(
            "the epochs are baseline-corrected, which gives each an offset of its own: fit on "
            "epochs made with baseline=None, and correct after apply",
            SourcesepWarning,
            stacklevel=3,
        )


def said_rank(insts: Sequence[Any], names: Sequence[str]) -> int:
    """Return the rank that projectors and Maxwell filtering have left, by the headers."""
    import mne

    ranks: list[int] = []
    for inst in insts:
        order = [inst.ch_names.index(name) for name in names]
        info = mne.pick_info(inst.info, order, verbose="error")
        info["bads"] = []
        applied = any(proj["active"] for proj in info["projs"])
        silent = mne.io.RawArray(np.zeros((len(names), 1)), info, verbose="error")
        known = mne.compute_rank(silent, rank="info", proj=applied, verbose="error")
        total = sum(int(rank) for rank in known.values())
        ranks.append(total + info.get_channel_types().count("eog"))
    return min(ranks)


def check_number(asked: Any) -> None:
    """Refuse a number of components that cannot be for any data.

    Raises
    ------
    SettingsError
        If it is neither a whole number, 2 or more, nor a share, nor None.
    """
    share = isinstance(asked, float | np.floating) and 0 < asked < 1
    if not (asked is None or share or (is_whole(asked) and asked >= 2)):
        raise SettingsError(
            f"n_components={asked!r}: must be 2 or more, a share of variance between 0 and 1, or "
            "None for the rank"
        )


def choose_number(mean: Array, covariance: Array, n_times: int, asked: Any, most: int) -> int:
    """Return the number of components: as asked for, by variance, or the rank.

    Parameters
    ----------
    mean : ndarray of shape (n_channels,)
    covariance : ndarray of shape (n_channels, n_channels)
        Of channels on one scale.
    n_times : int
        Of how many samples.
    asked : int, float or None
        A number; the share of variance to explain; or the rank.
    most : int
        The rank by the headers.

    Raises
    ------
    SettingsError
        If the number cannot be.
    """
    rank = min(rank_of_moments(mean, covariance), most)
    if asked is None:
        number = rank
    elif isinstance(asked, float | np.floating):
        values = np.linalg.eigvalsh(covariance)[::-1][:rank]
        share = np.cumsum(values) / values.sum()
        number = int(np.searchsorted(share, asked) + 1)
        if number == 1:
            raise SettingsError(
                f"n_components={asked}: one principal component explains {share[0]:.3f}; ask for "
                "a larger share"
            )
    else:
        number = int(asked)
    if number > rank:
        raise SettingsError(
            f"n_components={number}: the {len(mean)} channels hold {rank} linearly independent "
            f"signals (reference, projectors, interpolated channels); ask for 2 to {rank}"
        )
    if n_times < USUAL_EACH * number**2:
        warnings.warn(
            f"n_times={n_times}: few for {number} components; {USUAL_EACH} n^2 = "
            f"{USUAL_EACH * number**2} samples are usual, see reliability_ for what these bear "
            "out, or ask for fewer components",
            SourcesepWarning,
            stacklevel=4,
        )
    return number
