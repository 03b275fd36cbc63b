"""A mixture that is bent: what a matrix makes of it, and what the iVAE does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from drawing import command_line, picture

import sourcesep
from sourcesep.metrics import match_sources, mcc


def draw(path: Path, *, fast: bool = False) -> dict[str, Any]:
    """Draw sources, mixture, the linear and the nonlinear answer; colours are labels of u."""
    data = sourcesep.simulate.ivae(2, 20, 300 if fast else 500, 3, random_state=8)
    answers = {}
    for mixing in ("linear", "nonlinear"):
        model = sourcesep.IVAE(mixing=mixing, quality="fast", random_state=0)
        answers[mixing] = model.fit(data.observations, u=data.u).transform(data.observations)

    panels = [("the sources", data.sources), ("the mixture", data.observations)]
    scores = {}
    for mixing, found in answers.items():
        match = match_sources(data.sources, found)
        scores[mixing] = round(mcc(data.sources, found), 3)
        panels.append(
            (f"{mixing}: MCC {scores[mixing]}", found[:, match.components] * match.signs)
        )
    with picture(path, 1, 4, (7.2, 2.1)) as axes:
        some = np.arange(0, len(data.u), max(1, len(data.u) // 1500))
        for ax, (title, x) in zip(axes[0], panels, strict=True):
            ax.scatter(*x[some].T, c=data.u[some] % 10, s=2, cmap="tab10", linewidths=0)
            ax.set(title=title, xticks=[], yticks=[])
    return {f"MCC, {mixing}": score for mixing, score in scores.items()}


if __name__ == "__main__":
    command_line(__file__, draw)
