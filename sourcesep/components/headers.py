"""What a model file keeps of MNE's Info: channels and filters, and nobody's name."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["from_plain", "to_plain"]

CHANNEL = ("kind", "coil_type", "coord_frame", "unit", "unit_mul", "cal", "range")
"""Numbers of a channel's header that plots and picks depend on."""
FILTERS = ("highpass", "lowpass", "custom_ref_applied")


def to_plain(info: Any) -> dict[str, Any]:
    """Return what is kept, JSON-ready."""
    channels = [
        {"name": channel["ch_name"], "loc": [_number(v) for v in channel["loc"]]}
        | {key: _number(channel[key]) for key in CHANNEL}
        for channel in info["chs"]
    ]
    return {
        "sfreq": float(info["sfreq"]),
        "channels": channels,
        "types": info.get_channel_types(),
        "projectors": sorted(proj["desc"] for proj in info["projs"] if proj["active"]),
    } | {key: _number(info[key]) for key in FILTERS}


def _number(value: Any) -> float | int | None:
    """A plain number; positions that are not known are NaN, which JSON has not."""
    number = float(value)
    if not np.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def from_plain(facts: dict[str, Any]) -> Any:
    """Rebuild an Info of what `to_plain` gave."""
    import mne

    names = [channel["name"] for channel in facts["channels"]]
    info = mne.create_info(names, facts["sfreq"], facts["types"], verbose="error")
    with info._unlock():
        for own, kept in zip(info["chs"], facts["channels"], strict=True):
            own.update({key: kept[key] for key in CHANNEL})
            own.update(cal=float(kept["cal"]), range=float(kept["range"]))
            own["loc"] = np.array(kept["loc"], np.float64)  # a null becomes NaN
        for key in FILTERS:
            info[key] = facts[key]
        # projectors have been applied; what is left of them is that they must be
        info["projs"] = [
            mne.Projection(
                active=True,
                desc=name,
                kind=1,
                data={
                    "nrow": 1,
                    "ncol": len(names),
                    "row_names": None,
                    "col_names": names,
                    "data": np.zeros((1, len(names))),
                },
            )
            for name in facts["projectors"]
        ]
    return info
