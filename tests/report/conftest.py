"""Three separations with names that would do harm, each saved with its report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import sourcesep

from ..conftest import mixture

SCRIPT = "<script>document.title='harmed'</script>"
QUOTED = "\"quoted\" 'n' & Käse"
IMAGE = "<img src=x onerror=alert(1)>"
SFREQ = 8000


@dataclass(frozen=True)
class Saved:
    """A separation, where it is saved, and what result.json says."""

    separation: sourcesep.Separation
    folder: Path
    result: dict

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text("utf-8")


def saved(separation, folder):
    return Saved(separation, folder, separation.save(folder, report=True))


@pytest.fixture(scope="session")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    path = folder / '<b> & "duo".wav'
    soundfile.write(path, mixture(n_times=2 * SFREQ).T, SFREQ, "PCM_16")
    return saved(sourcesep.separate(path), folder / "out")


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    quoted = QUOTED.replace('"', '""')
    head = f'day,"{SCRIPT}","{quoted}",mood'
    levels = ['"' + IMAGE + '"', '"' + quoted + '"']
    rows = [
        f"2020-{i:04d},{a!r},{b!r},{levels[i // 150 % 2]}"
        for i, (a, b) in enumerate(mixture(n_times=1200).T.tolist())
    ]
    path = folder / "series.csv"
    path.write_text("\n".join([head, *rows]) + "\n", "utf-8")
    separation = sourcesep.separate(path, columns=[SCRIPT, QUOTED], aux="column:mood")
    return saved(separation, folder / "out")


@pytest.fixture(scope="session")
def eeg(tmp_path_factory):
    import mne

    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    reach = np.where(np.arange(8) % 2, 0.3, 0.8)
    places = np.stack([reach * np.cos(angles), reach * np.sin(angles), np.sqrt(1 - reach**2)], 1)
    names = [f"E{i}" for i in range(8)]
    info = mne.create_info(names, 100.0, "eeg", verbose="error").set_montage(
        mne.channels.make_dig_montage(
            dict(zip(names, 0.095 * places, strict=True)), coord_frame="head"
        )
    )
    with info._unlock():
        info["highpass"] = 1.0
    raw = mne.io.RawArray(1e-5 * mixture(n=8, n_times=6000), info, verbose="error")
    raw.set_annotations(mne.Annotations([0, 20, 40], [20] * 3, [SCRIPT, QUOTED, IMAGE]))
    separation = sourcesep.separate(raw, n_components=4, aux="annotations")
    return saved(separation, tmp_path_factory.mktemp("eeg") / "out")


@pytest.fixture(scope="session", params=["audio", "eeg", "table"])
def any_kind(request):
    """Each of the three in turn."""
    return request.getfixturevalue(request.param)
