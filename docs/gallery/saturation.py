"""A microphone that saturates: its curve, found from the mixture alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from drawing import SERIES, command_line, picture

import sourcesep

SFREQ = 16000.0


def draw(path: Path, *, fast: bool = False) -> dict[str, Any]:
    """Saturate, undo it, and draw each microphone's curve, true and found."""
    seconds = 4 if fast else 8
    talkers = [sourcesep.simulate.speech(seconds, SFREQ, random_state=s) for s in (21, 22)]
    scene = sourcesep.simulate.saturated(talkers, sfreq=SFREQ, random_state=2)
    sound = scene.images.sum(0)
    separation = sourcesep.separate((scene.data, SFREQ), mixing="post-nonlinear")
    undone = separation.mixture
    linear = sourcesep.separate((scene.data, SFREQ), mixing="linear")

    with picture(path, 1, 2, (5.5, 2.6), sharex=True, sharey=True) as axes:
        for c, ax in enumerate(axes[0]):
            order = np.argsort(sound[c])[:: max(1, sound.shape[1] // 400)]
            true, found = sound[c, order], undone[c, order]
            soft = np.abs(true) < 0.3 * np.abs(true).max()  # where the curve is a line
            found = found * (true[soft] @ true[soft]) / (found[soft] @ true[soft])
            ax.plot(true, scene.data[c, order], color="0.6", lw=3, label="true")
            by_found = np.argsort(found)
            ax.plot(
                found[by_found],
                scene.data[c, order][by_found],
                color=SERIES[1],
                lw=1,
                label="found",
            )
            ax.set(title=f"microphone {c + 1}", xlabel="sound before it")
        axes[0, 0].set_ylabel("what it recorded")
        axes[0, 0].legend()

    def best(found: Any) -> list[float]:
        table = sourcesep.metrics.si_sdr(scene.images[:, None, 0], found.images[None, :, 0])
        return [round(float(v), 1) for v in table.max(1)]

    return {"SI-SDR, linear, dB": best(linear), "SI-SDR, curves undone, dB": best(separation)}


if __name__ == "__main__":
    command_line(__file__, draw)
