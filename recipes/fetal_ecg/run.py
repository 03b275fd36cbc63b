"""A mother's and her child's heartbeat apart, from electrodes on the mother's skin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sourcesep
from sourcesep.exceptions import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import beats
import common
from common import command_line, cpu, fetch_listed, finish

NAME = "fetal_ecg"
PHYSIONET = "https://physionet.org/files/adfecgdb/1.0.0/"
DAISY = "foetal_ecg.dat"
DAISY_SFREQ = 250.0
RECORDINGS = ("r01", "r04", "r07", "r08", "r10")
SCALP = "Direct_1"
BAND = (1.0, 90.0)
SFREQ = 250.0
SEED = 0
Array = NDArray[np.float64]


class Belly(NamedTuple):
    """A recording from the skin, and the child's beats where an electrode saw them directly."""

    name: str
    x: Array
    sfreq: float
    reference: Array | None


def download(root: Path) -> Path:
    """Fetch PhysioNet's recordings, checked against PhysioNet's own list of sha256 sums.

    Where `root` has DaISy's file already, or some of PhysioNet's, nothing is fetched, and
    what is missing is said.
    """
    there = [path.stem for path in _edf_files(root)]
    if not (root / DAISY).is_file() and not there:
        fetch_listed(PHYSIONET, [f"{name}.edf" for name in RECORDINGS], root)
    elif 0 < len(there) < len(RECORDINGS):
        missing = ", ".join(f"{name}.edf" for name in RECORDINGS if name not in there)
        print(f"{root}: without {missing}", file=sys.stderr)
    return root


def load(root: Path) -> list[Belly]:
    """Read what there is: DaISy's text file, PhysioNet's EDF files."""
    found = [_daisy(root / DAISY)] if (root / DAISY).is_file() else []
    found += [_edf(path) for path in _edf_files(root)]
    if not found:
        raise InputError(f"root={root}: neither {DAISY} nor {', '.join(RECORDINGS)}.edf is there")
    return found


def _edf_files(root: Path) -> list[Path]:
    return [p for p in (root / f"{name}.edf" for name in RECORDINGS) if p.is_file()]


def _daisy(path: Path) -> Belly:
    """Read time, five leads of the belly and three of the chest."""
    try:
        table = np.loadtxt(path)
    except ValueError as error:
        raise InputError(f"{path}: numbers in columns are needed; {error}") from error
    if table.ndim != 2 or table.shape[1] != 9:
        raise InputError(f"{path}: {table.shape} numbers; a row has the time and 8 leads")
    return Belly("DaISy", _filtered(table[:, 1:].T, DAISY_SFREQ), DAISY_SFREQ, None)


def _edf(path: Path) -> Belly:
    """Read four leads of the belly, and the beats that the electrode on the scalp saw."""
    import mne

    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    if SCALP not in raw.ch_names:
        raise InputError(f"{path}: no channel {SCALP}, only {', '.join(raw.ch_names)}")
    reference = beats.find(raw.get_data([SCALP])[0], raw.info["sfreq"])
    belly = raw.pick([n for n in raw.ch_names if n.startswith("Abdomen")])
    belly = belly.resample(SFREQ, verbose="error")
    return Belly(path.stem, _filtered(belly.get_data(), SFREQ), SFREQ, reference)


def _filtered(x: Array, sfreq: float) -> Array:
    from scipy.signal import butter, sosfiltfilt

    band = butter(2, BAND, "bandpass", fs=sfreq, output="sos")
    return np.asarray(sosfiltfilt(band, x))


def ours(belly: Belly) -> tuple[Array, str]:
    """Separate by `sourcesep` as it is."""
    found = sourcesep.separate((belly.x, belly.sfreq), mixing="linear", random_state=SEED)
    return found.sources, found.verdict.label


def fastica(belly: Belly) -> tuple[Array, str]:
    """Separate by scikit-learn's FastICA."""
    separate, said = common.fastica(belly.x.T, SEED)
    return separate(belly.x.T).T, said


def picard(belly: Belly) -> tuple[Array, str]:
    """Separate by Picard, extended."""
    from picard import Picard

    model = Picard(extended=True, ortho=False, random_state=SEED, max_iter=500)
    return model.fit_transform(belly.x.T).T, ""


def electrodes(belly: Belly) -> tuple[Array, str]:
    """Take the leads as they are."""
    return belly.x, ""


METHODS: dict[str, Callable[[Belly], tuple[Array, str]]] = {
    "sourcesep": ours,
    "FastICA": fastica,
    "Picard (extended)": picard,
    "the leads themselves": electrodes,
}


def score(belly: Belly, sources: Array) -> dict[str, Any]:
    """Say which component is the mother's heart, which the child's, and how clean that one is.

    Of the components that beat regularly, the child's is the one above 105 beats a minute
    whose beats are most alike, the mother's that below: nothing of the reference is used.
    """
    found = []
    for z in sources:
        its = beats.find(z, belly.sfreq)
        share = beats.locked_share(z, its, belly.sfreq)
        if beats.regularity(its) >= 0.8 and np.isfinite(share):
            found.append((share, beats.rate(its), its, z))
    mother = max((f for f in found if f[1] < 105), key=lambda f: f[0], default=None)
    child = max((f for f in found if f[1] >= 105), key=lambda f: f[0], default=None)
    row: dict[str, Any] = {
        "mother, 1/min": mother[1] if mother else None,
        "child, 1/min": child[1] if child else None,
        "child's own": child[0] if child else None,
        "mother's in it": None,
    }
    if mother and child:
        row["mother's in it"] = beats.locked_share(child[3], mother[2], belly.sfreq)
    if belly.reference is not None:
        row["F1"] = beats.f1(child[2], belly.reference) if child else 0.0
    return row


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Separate every recording by every method; quick: the first minute of each."""
    rows = []
    for belly in load(download(root)):
        if quick:
            belly = belly._replace(x=belly.x[:, : round(60 * belly.sfreq)])
            if belly.reference is not None:
                belly = belly._replace(reference=belly.reference[belly.reference < 60])
        for method, separate in METHODS.items():
            with cpu() as clock:
                sources, verdict = separate(belly)
            row = {"recording": belly.name, "method": method, **score(belly, sources)}
            rows.append(row | {"CPU s": clock.seconds, "verdict": verdict})
    daisy = [r["child, 1/min"] for r in rows if r["recording"] == "DaISy"]
    return finish(NAME, rows, quick=quick, output=output, figure=daisy[0] if daisy else None)


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
