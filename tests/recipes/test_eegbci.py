"""The motor imagery recipe, on two simulated heads in files of the real form."""

import json
from pathlib import Path

import mne
import numpy as np
import pytest

from sourcesep import simulate

N_CHANNELS = 32
SECONDS = dict.fromkeys(range(1, 7), 16)


def file_name(name: str) -> str:
    """Return a channel's name as the files have it: three letters, then dots."""
    return f"{name[0].upper()}{name[1:].lower()}".ljust(4, ".")


def write(root: Path, subject: int) -> None:
    """Write runs 1 to 6 of a simulated head as EDF+ with annotations."""
    total = sum(SECONDS.values())
    head = simulate.eeg(10, total, 160.0, n_channels=N_CHANNELS, random_state=subject)
    info = mne.create_info([file_name(n) for n in head.names], 160.0, "eeg")
    folder = root / "MNE-eegbci-data/files/eegmmidb/1.0.0" / f"S{subject:03d}"
    folder.mkdir(parents=True)
    begun = 0
    for run, seconds in SECONDS.items():
        samples = slice(begun * 160, (begun + seconds) * 160)
        begun += seconds
        raw = mne.io.RawArray(head.data[:, samples], info, verbose="error")
        onsets = np.arange(0, seconds, 4.0)
        names = ["T0"] * len(onsets) if run < 3 else ["T0", "T1", "T0", "T2"]
        raw.set_annotations(mne.Annotations(onsets, 3.9, names[: len(onsets)]))
        mne.export.export_raw(folder / f"S{subject:03d}R{run:02d}.edf", raw, verbose="error")


@pytest.mark.slow
def test_two_heads(recipe, tmp_path):
    for subject in (1, 2):
        write(tmp_path / "data", subject)
    result = recipe("eegbci").main(tmp_path / "data", quick=True)
    assert json.loads(Path("results/eegbci/result.json").read_text("utf-8")) == result
    assert [(r["subject"], r["method"]) for r in result["rows"]] == [
        (subject, method) for subject in (1, 2) for method in ("sourcesep", "MNE Picard")
    ]
    for row in result["rows"]:
        if row["method"] == "sourcesep":
            assert row["blinks"] >= 10
            assert row["left, uV"] < 0.3 * row["blink, uV"]
            assert row["alpha kept"] > 0.5
            assert row["removed"] <= 3
            assert row["median reliability"] > 0.5
    # nothing in these heads follows the tasks, so that nothing may be matched by them
    assert [row["sources in two heads or more"] for row in result["tables"]["Matched"][:2]] == [
        0,
        0,
    ]
