"""EEG: the component of the eyes, and the recording without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from drawing import SERIES, command_line, picture

import sourcesep


def draw(path: Path, *, fast: bool = False) -> dict[str, Any]:
    """Fit components, find the eyes, remove them, and draw the forehead before and after."""
    import mne

    seconds = 40.0 if fast else 120.0
    head = sourcesep.simulate.eeg(12, seconds, n_channels=32, random_state=4)
    info = mne.create_info(list(head.names), head.sfreq, "eeg")
    raw = mne.io.RawArray(head.data, info, verbose="error").filter(1.0, None, verbose="error")
    ca = sourcesep.ComponentAnalysis(12).fit(raw)
    eyes, scores = ca.find_bads_eog(raw, ["Fp1", "Fp2"])
    cleaned = ca.apply(raw.copy(), exclude=eyes)

    with picture(path, 2, 1, (5.5, 3.4)) as axes:
        colours = [SERIES[1] if k in eyes else "0.7" for k in range(len(scores))]
        axes[0, 0].bar(range(len(scores)), scores, color=colours)
        axes[0, 0].axhline(0.5, color="0.4", lw=0.6, ls="--")
        axes[0, 0].set(xlabel="component", ylabel="correlation\nwith the forehead")
        shown = slice(int(5 * head.sfreq), int(15 * head.sfreq))
        t = np.arange(shown.start, shown.stop) / head.sfreq
        for inst, colour, name in ((raw, SERIES[1], "before"), (cleaned, SERIES[0], "after")):
            axes[1, 0].plot(
                t, 1e6 * inst.get_data(["Fp1"])[0, shown], color=colour, lw=0.6, label=name
            )
        axes[1, 0].set(xlabel="seconds", ylabel="Fp1, uV")
        axes[1, 0].legend(loc="lower right", ncols=2)
    blink = head.sources[head.source_names.index("blink")]
    z = ca.get_sources(raw).get_data()
    best = max(abs(np.corrcoef(blink, z[k])[0, 1]) for k in eyes) if eyes else 0.0
    return {"components removed": len(eyes), "correlation with the true blinks": round(best, 3)}


if __name__ == "__main__":
    command_line(__file__, draw)
