"""What the recipes of simulated nonlinear mixtures share: methods, scores, summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import common
import numpy as np
from common import cpu
from numpy.typing import NDArray

import sourcesep
from sourcesep.metrics import mcc
from sourcesep.simulate import Protocol

__all__ = ["Fit", "Run", "fastica", "flow_without_u", "ivae", "runs", "summary"]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Fit = Callable[[Array, Labels], tuple[Callable[[Array], Array], str]]
"""From samples and their labels to what separates other samples, and the verdict's label."""
UNSEEN = 5
"""One in so many samples is seen by no method, and MCC is measured on these."""


class Run(NamedTuple):
    """One method on one data set."""

    method: str
    mcc: float
    seconds: float
    verdict: str


def ivae(seed: int, *, shuffle: bool = False, aux: str | None = None, **settings: Any) -> Fit:
    """Fit `sourcesep.IVAE` with the labels as u, with shuffled ones, or with a SPEC and none."""

    def fit(x: Array, u: Labels) -> tuple[Callable[[Array], Array], str]:
        model = sourcesep.IVAE(random_state=seed, **settings)
        if aux is not None:
            model.set_params(aux=aux).fit(x)
        else:
            model.fit(x, u=np.random.default_rng(seed).permutation(u) if shuffle else u)
        return model.transform, model.verdict_.label

    return fit


def flow_without_u(seed: int, quality: str) -> Fit:
    """Fit the nonlinear family with shuffled u: what `IVAE` refuses, to see how bad it was."""

    def fit(x: Array, u: Labels) -> tuple[Callable[[Array], Array], str]:
        from sourcesep.auxiliary import from_array
        from sourcesep.ivae.coupling import CouplingModel
        from sourcesep.ivae.settings import Settings

        rng = np.random.default_rng(seed)
        labels = from_array(rng.permutation(u), len(u))
        model = CouplingModel.configured(Settings(quality=quality)).fit(x.T, labels, rng)
        return lambda new: model.posterior(new.T).mean.T, ""

    return fit


def fastica(seed: int) -> Fit:
    """Fit scikit-learn's FastICA."""
    return lambda x, u: common.fastica(x, seed)


def runs(data: Protocol, methods: dict[str, Fit]) -> Iterable[Run]:
    """Fit every method to four fifths of the samples, and score it on the others."""
    seen = np.arange(len(data.u)) % UNSEEN > 0
    for name, fit in methods.items():
        with cpu() as clock:
            separate, verdict = fit(data.observations[seen], data.u[seen])
        score = mcc(data.sources[~seen], separate(data.observations[~seen]))
        yield Run(name, score, clock.seconds, verdict)


def summary(found: Iterable[Run], **facts: Any) -> list[dict[str, Any]]:
    """Return a row for each method: means over its data sets, and the verdicts counted."""
    by_method: dict[str, list[Run]] = {}
    for run in found:
        by_method.setdefault(run.method, []).append(run)
    rows = []
    for method, its in by_method.items():
        verdicts = [run.verdict for run in its if run.verdict]
        rows.append(
            facts
            | {
                "method": method,
                "MCC": float(np.mean([run.mcc for run in its])),
                "least": min(run.mcc for run in its),
                "CPU s": float(np.mean([run.seconds for run in its])),
                "verdict": ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)),
            }
        )
    return rows
