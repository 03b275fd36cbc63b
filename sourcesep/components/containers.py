"""Sources, and cleaned data, in MNE's own containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sourcesep.components.channels import kind_of
from sourcesep.ivae.model import Array
from sourcesep.output import component_name

__all__ = ["put_back", "wrap"]


def wrap(inst: Any, sources: Array, excluded: Sequence[int]) -> Any:
    """Return sources as an object of the type of `inst`, a misc channel each.

    Parameters
    ----------
    inst : mne.io.BaseRaw, mne.BaseEpochs or mne.Evoked
        Whose times, annotations, date, events and metadata the result gets.
    sources : ndarray of shape (n_components, n_times)
        Epochs follow each other.
    excluded : sequence of int
        Components that are marked bad.
    """
    import mne

    kind = kind_of(inst)
    names = [component_name(k) for k in range(len(sources))]
    info = mne.create_info(names, inst.info["sfreq"], "misc", verbose="error")
    info["bads"] = [names[k] for k in excluded]
    if kind == "raw":
        out = mne.io.RawArray(sources, info, first_samp=inst.first_samp, verbose="error")
        out.set_meas_date(inst.info["meas_date"])
        return out.set_annotations(inst.annotations, emit_warning=False)
    if kind == "evoked":
        return mne.EvokedArray(
            sources,
            info,
            tmin=inst.tmin,
            comment=inst.comment,
            nave=inst.nave,
            kind=inst.kind,
            verbose="error",
        )
    return mne.EpochsArray(
        sources.reshape(len(sources), len(inst), len(inst.times)).swapaxes(0, 1),
        info,
        events=inst.events,
        tmin=inst.tmin,
        event_id=inst.event_id,
        metadata=inst.metadata,
        selection=inst.selection,
        drop_log=inst.drop_log,
        verbose="error",
    )


def put_back(inst: Any, names: Sequence[str], data: Array) -> None:
    """Write samples, (n_channels, n_times), over those of a loaded `inst`."""
    kind = kind_of(inst)
    order = [inst.ch_names.index(name) for name in names]
    if kind == "raw":
        inst[order, :] = data
    elif kind == "evoked":
        inst.data[order] = data
    else:
        # get_data without a copy is the epochs' own memory
        own = inst.get_data(copy=False, verbose="error")
        own[:, order] = data.reshape(len(order), len(inst), len(inst.times)).swapaxes(0, 1)
