"""The sleep recipe, on two simulated nights in files of the real form."""

from pathlib import Path

import edfio
import mne
import numpy as np
import pytest

CYCLE = ("W", "1", "2", "3", "4", "2", "R", "W")
SFREQ = 100
EPOCHS = 1
"""Of 30 s, a stage."""
DEVIATIONS = {
    "W": (1.0, 1.0, 1.5),
    "1": (1.5, 0.8, 0.5),
    "2": (2.0, 0.6, 0.3),
    "3": (3.5, 0.5, 0.2),
    "4": (4.0, 0.4, 0.2),
    "R": (1.2, 0.7, 2.5),
}
MIXING = np.array([[1.0, 0.4, 0.3], [0.5, 1.0, 0.1], [0.4, 0.1, 1.0]])


def write(root: Path, psg: str, hypnogram: str, seed: int) -> None:
    """Write a night of three channels, and its hypnogram as EDF+ without signals."""
    rng = np.random.default_rng(seed)
    n = 30 * EPOCHS * SFREQ
    z = np.concatenate([rng.standard_normal((n, 3)) * DEVIATIONS[s] for s in CYCLE])
    z = np.apply_along_axis(np.convolve, 0, z, np.hanning(9) / 4, "same")
    names = ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal", "Resp oro-nasal"]
    x = np.c_[20e-6 * z @ MIXING.T, 1e-6 * rng.standard_normal(len(z))].T
    raw = mne.io.RawArray(x, mne.create_info(names, SFREQ, "eeg"), verbose="error")
    folder = root / "physionet-sleep-data"
    folder.mkdir(parents=True, exist_ok=True)
    mne.export.export_raw(folder / psg, raw, verbose="error")
    notes = [
        edfio.EdfAnnotation(30.0 * EPOCHS * k, 30.0 * EPOCHS, f"Sleep stage {stage}")
        for k, stage in enumerate(CYCLE)
    ]
    last = edfio.EdfAnnotation(30.0 * EPOCHS * len(CYCLE), 600.0, "Sleep stage ?")
    edfio.Edf([], annotations=[*notes, last]).write(folder / hypnogram)


@pytest.mark.slow
def test_two_nights(recipe, tmp_path):
    write(tmp_path, "SC4001E0-PSG.edf", "SC4001EC-Hypnogram.edf", 1)
    write(tmp_path, "SC4002E0-PSG.edf", "SC4002EC-Hypnogram.edf", 2)
    result = recipe("sleep").main(tmp_path, quick=True, output=tmp_path / "out")
    assert (tmp_path / "out" / "result.json").is_file()
    agree = {row["method"]: row["nights agree"] for row in result["rows"]}
    assert agree["u = stage"] > 0.99
    assert agree["u = stage"] > agree["u = stage, shuffled"] + 0.05
    (priors,) = result["tables"].values()
    assert len(priors) == 6
    slow = [row for row in priors if row["N3"] > 2 * row["R"]]
    assert {row["night"] for row in slow} == {"SC4001", "SC4002"}, "deep sleep is one component's"


def test_a_scoring_without_sleep_is_refused(recipe, tmp_path):
    write(tmp_path, "SC4001E0-PSG.edf", "SC4001EC-Hypnogram.edf", 1)
    folder = tmp_path / "physionet-sleep-data"
    awake = [edfio.EdfAnnotation(0.0, 480.0, "Sleep stage W")]
    edfio.Edf([], annotations=awake).write(folder / "none.edf")
    module = recipe("sleep")
    with pytest.raises(ValueError, match="no sleep in it"):
        module._night(folder / "SC4001E0-PSG.edf", folder / "none.edf")
