"""Motor imagery: eye artefacts out, and one source found in several heads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sourcesep

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, cpu, fetching, finish

NAME = "eegbci"
SUBJECTS = (1, 2, 3, 4)
TASKS = {
    1: {"T0": "eyes open"},
    2: {"T0": "eyes closed"},
    3: {"T0": "rest", "T1": "move left fist", "T2": "move right fist"},
    4: {"T0": "rest", "T1": "imagine left fist", "T2": "imagine right fist"},
    5: {"T0": "rest", "T1": "move fists", "T2": "move feet"},
    6: {"T0": "rest", "T1": "imagine fists", "T2": "imagine feet"},
}
"""What the annotations of each run stand for."""
WHERE = (
    "download the runs from https://physionet.org/content/eegmmidb/1.0.0/ into "
    "ROOT/MNE-eegbci-data/files/eegmmidb/1.0.0/S001/S001R01.edf and so on"
)
EYES = ("Fp1", "Fp2")
BACK = ("O1", "Oz", "O2")
N_COMPONENTS = 30
SEED = 0
Array = NDArray[np.float64]


def download(root: Path, subjects: tuple[int, ...] = SUBJECTS) -> dict[int, list[Path]]:
    """Fetch runs 1 to 6 through MNE, which knows their hashes; what is there is kept."""
    from mne.datasets import eegbci

    root.mkdir(parents=True, exist_ok=True)
    found = {}
    for subject in subjects:
        with fetching(f"subject {subject}", WHERE):
            paths = eegbci.load_data(
                subject, list(TASKS), path=root, update_path=False, verbose="error"
            )
        found[subject] = [Path(path) for path in paths]
    return found


def load(root: Path, subjects: tuple[int, ...] = SUBJECTS) -> dict[int, Any]:
    """Read one Raw a subject, its runs end to end, annotations saying what was done."""
    import mne

    found = {}
    for subject, paths in download(root, subjects).items():
        runs = []
        for path, names in zip(paths, TASKS.values(), strict=True):
            raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
            raw.annotations.rename(
                {k: v for k, v in names.items() if k in raw.annotations.description}
            )
            runs.append(raw)
        raw = mne.concatenate_raws(runs, verbose="error")
        mne.datasets.eegbci.standardize(raw)
        found[subject] = raw.set_eeg_reference(verbose="error")
    return found


def ours(raw: Any, high_passed: Any, n: int, aux: str) -> tuple[Any, Any, list[int]]:
    """Fit `ComponentAnalysis`, find the eyes, remove them."""
    ca = sourcesep.ComponentAnalysis(n, aux=aux, random_state=SEED).fit(high_passed)
    eyes, _ = ca.find_bads_eog(high_passed, EYES)
    return ca, ca.apply(raw.copy(), exclude=eyes), eyes


def picard(raw: Any, high_passed: Any, n: int) -> tuple[Any, Any, list[int]]:
    """Do the same by MNE's ICA, method Picard, each step with its defaults."""
    from mne.preprocessing import ICA

    ica = ICA(n, method="picard", random_state=SEED, verbose="error")
    ica.fit(high_passed, verbose="error")
    eyes, _ = ica.find_bads_eog(high_passed, ch_name=list(EYES), verbose="error")
    return ica, ica.apply(raw.copy(), exclude=eyes, verbose="error"), eyes


def blinks(raw: Any) -> NDArray[np.int64]:
    """Return the samples of blinks: peaks of the forehead far above the rest."""
    from scipy.signal import find_peaks

    front = raw.copy().pick(list(EYES)).filter(1.0, 10.0, verbose="error").get_data().mean(0)
    spread = np.median(np.abs(front)) / 0.6745
    return find_peaks(front, height=6 * spread, distance=round(0.4 * raw.info["sfreq"]))[0]


def score(raw: Any, cleaned: Any) -> dict[str, float]:
    """Say what is left of blinks (uV, peak to peak of the mean) and of alpha at the back."""
    at, sfreq = blinks(raw), raw.info["sfreq"]
    window = np.arange(round(-0.3 * sfreq), round(0.3 * sfreq))
    at = at[(at + window[0] >= 0) & (at + window[-1] < raw.n_times)]

    def blink(inst: Any) -> float:
        front = inst.get_data(list(EYES)).mean(0)
        return 1e6 * float(np.ptp(front[at[:, None] + window].mean(0))) if len(at) else np.nan

    def alpha(inst: Any) -> float:
        back = inst.copy().pick(list(BACK)).filter(8.0, 12.0, verbose="error")
        return float((back.get_data() ** 2).mean())

    return {
        "blinks": len(at),
        "blink, uV": blink(raw),
        "left, uV": blink(cleaned),
        "alpha kept": alpha(cleaned) / alpha(raw),
    }


def shuffled(raw: Any, rng: np.random.Generator) -> Any:
    """Return a copy whose annotations say something else than what was done."""
    raw = raw.copy()
    said = raw.annotations.description
    tasks = np.flatnonzero([not text.endswith("boundary") for text in said])
    said[tasks] = said[rng.permutation(tasks)]
    return raw


def matched(title: str, analyses: list[Any], by: str) -> dict[str, Any]:
    """Count the sources that were found in several heads."""
    groups = sourcesep.match_components(analyses, by=by).groups
    return {
        "compared": title,
        "sources in two heads or more": len(groups),
        "in all": sum(len(g.components) == len(analyses) for g in groups),
        "median correlation": float(np.median([g.correlation for g in groups]))
        if groups
        else None,
    }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Clean every subject by both methods, then match components; quick: two subjects."""
    aux = "segments:.5,2,8+annotations"
    n = 12 if quick else N_COMPONENTS
    rng = np.random.default_rng(SEED)
    rows, analyses, controls = [], [], []
    for subject, raw in load(root, SUBJECTS[:2] if quick else SUBJECTS).items():
        high_passed = raw.copy().filter(1.0, None, verbose="error")
        for method, run in (
            ("sourcesep", lambda r, h: ours(r, h, n, aux)),
            ("MNE Picard", lambda r, h: picard(r, h, n)),
        ):
            with cpu() as clock:
                fitted, cleaned, eyes = run(raw, high_passed)
            row = {"subject": subject, "method": method, "removed": len(eyes)}
            row |= score(raw, cleaned) | {"CPU s": clock.seconds}
            if method == "sourcesep":
                analyses.append(fitted)
                row["median reliability"] = float(np.median(fitted.reliability_))
            rows.append(row)
        control = sourcesep.ComponentAnalysis(n, aux=aux, random_state=SEED)
        controls.append(control.fit(shuffled(high_passed, rng)))
    matching = [
        matched("power in each task", analyses, "prior"),
        matched("the same, tasks shuffled", controls, "prior"),
        matched("maps", analyses, "maps"),
    ]
    return finish(NAME, rows, quick=quick, output=output, tables={"Matched": matching})


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
