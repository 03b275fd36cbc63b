"""Pictures of what each component's map looks like on the sensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.adapters._separated import Separated, loadings
from sourcesep.output import component_name

__all__ = ["draw_maps", "scalp_maps"]

N_COLUMNS = 8
DPI = 100
OUTLINE = "#808080"
"""Can be seen on white and on black: single maps have a transparent background."""


def draw_maps(separation: Separated, info: Any, path: Path) -> None:
    """Draw the components' maps as a PNG file, without any window.

    Scalp maps where the channels' positions are known and span a surface, else the
    mixing matrix as a heat map.

    Parameters
    ----------
    separation : Separation
        Whose components are drawn.
    info : mne.Info
        Of the recording's channels, in their order.
    path : pathlib.Path
        The file to write.
    """
    from matplotlib.figure import Figure
    from scipy.spatial import QhullError

    maps = loadings(separation)
    figure = Figure()  # not pyplot's: it opens no window and is freed with this function
    try:
        drawn = _has_scalp(info) and _draw_scalps(figure, maps, info)
    except QhullError:  # few electrodes on one line or circle span no surface
        drawn = False
    if not drawn:
        figure = Figure()
        _draw_matrix(figure, maps, info["ch_names"])
    figure.savefig(path, dpi=DPI, bbox_inches="tight")


def scalp_maps(maps: NDArray[np.float64], info: Any) -> list[bytes]:
    """Draw one PNG picture for each component, on a transparent background.

    Parameters
    ----------
    maps : ndarray of shape (n_channels, n_components)
        Loadings.
    info : mne.Info
        Of the recording's channels, in their order.

    Returns
    -------
    list of bytes
        Empty where the channels have no places on a scalp.
    """
    import mne
    from matplotlib.figure import Figure
    from scipy.spatial import QhullError

    if not _has_scalp(info):
        return []
    pictures = []
    for column in maps.T:
        figure = Figure(figsize=(1.6, 1.6))
        ax = figure.add_axes((0, 0, 1, 1))
        try:
            mne.viz.plot_topomap(column, info, axes=ax, show=False, contours=0, res=48)
        except QhullError:  # as in draw_maps
            return []
        for line in ax.lines:
            line.set_color(OUTLINE)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, transparent=True)
        pictures.append(buffer.getvalue())
    return pictures


def _has_scalp(info: Any) -> bool:
    """Whether every channel lies on the head at a place of its own."""
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    kinds = set(info.get_channel_types())
    # Pairs of gradiometers share a place, and intracranial electrodes have no scalp.
    return (
        kinds <= {"eeg", "mag"}
        and len(places) >= 4
        and bool(np.isfinite(places).all() and places.any(axis=1).all())
        and len(np.unique(places.round(6), axis=0)) == len(places)
    )


def _draw_scalps(figure: Any, maps: NDArray[np.float64], info: Any) -> bool:
    import mne

    n = maps.shape[1]
    columns = min(N_COLUMNS, n)
    rows = -(-n // columns)
    figure.set_size_inches(1.5 * columns, 1.7 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, ax in enumerate(axes[:n]):
        # Contour lines and a finer grid would take most of the time and show little.
        mne.viz.plot_topomap(maps[:, k], info, axes=ax, show=False, contours=0, res=48)
        ax.set_title(component_name(k), fontsize="small")
    for ax in axes[n:]:
        ax.set_axis_off()
    return True


def _draw_matrix(figure: Any, maps: NDArray[np.float64], names: list[str]) -> None:
    # A name may hold what matplotlib would take for mathematics.
    labels = [name.replace("$", r"\$") for name in names]
    n_channels, n_components = maps.shape
    figure.set_size_inches(3 + 0.3 * n_components, 2 + 0.2 * n_channels)
    ax = figure.subplots()
    shown = maps / np.abs(maps).max(axis=0).clip(min=np.finfo(float).tiny)
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(n_components), map(component_name, range(n_components)), rotation=90)
    ax.set_yticks(range(n_channels), labels)
    figure.colorbar(image, label="loading, largest of each component = 1")
