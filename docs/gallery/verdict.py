"""The verdict: separations that are right and others that cannot be, and what tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drawing import SERIES, command_line, picture

import sourcesep
from sourcesep.simulate import instantaneous, linear_sources, saturated

KINDS = {
    "power that changes": "modulated",
    "not Gaussian": "laplace",
    "white and Gaussian": "gaussian",
    "power that changes, saturated sensors": "modulated",
}
MARKERS = {"trusted": "o", "doubtful": "s", "not identifiable": "x"}


def draw(path: Path, *, fast: bool = False) -> dict[str, Any]:
    """Separate mixtures of four kinds; draw the truth's MCC against what the verdict saw."""
    n_seeds = 3 if fast else 12
    with picture(path, 1, 1, (5, 3)) as axes:
        ax = axes[0, 0]
        counts: dict[str, dict[str, int]] = {}
        for colour, (name, kind) in zip(SERIES, KINDS.items(), strict=False):
            for seed in range(n_seeds):
                S = linear_sources(kind, 4000, 3, random_state=50 + seed)
                mix = saturated if "saturated" in name else instantaneous
                mixed = mix(S, sfreq=1.0, random_state=seed)
                ivae = sourcesep.IVAE(mixing="linear", random_state=0).fit(mixed.data.T)
                label = ivae.verdict_.label
                richness = max(min(ivae.verdict_.richness), 0.1)
                score = sourcesep.metrics.mcc(S.T, ivae.transform(mixed.data.T))
                ax.scatter(richness, score, color=colour, marker=MARKERS[label], s=22)
                its = counts.setdefault(name, {})
                its[label] = its.get(label, 0) + 1
            ax.scatter([], [], color=colour, label=name)
        for label, marker in MARKERS.items():
            ax.scatter([], [], color="0.4", marker=marker, label=label)
        ax.axvline(3, color="0.4", lw=0.6, ls="--")
        ax.set(xscale="log", xlabel="richness of the weakest component (below .1 drawn at .1)")
        ax.set_ylabel("MCC with the truth")
        ax.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    return counts


if __name__ == "__main__":
    command_line(__file__, draw)
