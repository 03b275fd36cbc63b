"""Two talkers on two microphones: the mixture, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from drawing import SERIES, command_line, picture

import sourcesep

SFREQ = 8000.0


def draw(path: Path, *, fast: bool = False) -> dict[str, Any]:
    """Mix, separate, and draw the waves."""
    seconds = 3 if fast else 6
    talkers = [sourcesep.simulate.speech(seconds, SFREQ, random_state=s) for s in (11, 12)]
    mixture = sourcesep.simulate.instantaneous(talkers, sfreq=SFREQ, random_state=1)
    separation = sourcesep.separate((mixture.data, SFREQ))
    gain = sourcesep.metrics.si_sdr(mixture.images[:, 0], mixture.data[0])
    table = sourcesep.metrics.si_sdr(mixture.images[:, None, 0], separation.images[None, :, 0])
    order = table.argmax(1)

    rows = [
        ("microphone 1", mixture.data[0], "0.4"),
        ("talker 1, found", separation.images[order[0], 0], SERIES[0]),
        ("talker 1, true", mixture.images[0, 0], "0.6"),
        ("talker 2, found", separation.images[order[1], 0], SERIES[1]),
        ("talker 2, true", mixture.images[1, 0], "0.6"),
    ]
    with picture(path, len(rows), 1, (5.5, 4), sharex=True, sharey=True) as axes:
        t = np.arange(mixture.data.shape[1]) / SFREQ
        for ax, (name, x, colour) in zip(axes[:, 0], rows, strict=True):
            ax.plot(t, x, color=colour, lw=0.4)
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
            ax.set_yticks([])
        axes[-1, 0].set_xlabel("seconds")
    best = table.max(1)
    return {
        "SI-SDR of the mixture, dB": [round(float(g), 1) for g in gain],
        "SI-SDR of what was found, dB": [round(float(b), 1) for b in best],
        "verdict": separation.verdict.label,
    }


if __name__ == "__main__":
    command_line(__file__, draw)
