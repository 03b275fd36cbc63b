from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sourcesep.auxiliary import build
from sourcesep.exceptions import InputError
from sourcesep.recording import Event, Recording, from_array


def make(data, names=None, units=None, sfreq=100.0, path=None):
    data = np.asarray(data, dtype=float)
    n = data.shape[0]
    return Recording(
        data=data,
        sfreq=sfreq,
        names=tuple(f"c{i}" for i in range(n)) if names is None else names,
        units=("",) * n if units is None else units,
        kind="array",
        path=path,
    )


def noise(shape=(3, 100)):
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


def test_a_part_has_its_own_annotations_and_columns():
    events = (Event(1.0, 3.0, "a"), Event(6.0, 1.0, "b"))
    whole = replace(make(noise(), sfreq=10.0), events=events, columns={"c": np.arange(100)})
    part = whole.part(slice(20, 80))
    np.testing.assert_array_equal(part.data, whole.data[:, 20:80])
    np.testing.assert_array_equal(part.columns["c"], np.arange(20, 80))
    labels = [
        [u.scales[0].names[label] for label in u.labels]
        for u in (build("annotations", whole).take(slice(20, 80)), build("annotations", part))
    ]
    assert labels[0] == labels[1]


def test_facts():
    recording = make(noise())
    assert (recording.n_channels, recording.n_times, recording.seconds) == (3, 100, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": np.zeros(5)}, r"shape=\(5,\): a recording has two axes, \(channels, times\)"),
        ({"data": noise(), "names": ("a",)}, "3 channels but 1 names and 3 units: give one of"),
        ({"data": noise(), "units": ("V",)}, "3 channels but 3 names and 1 units"),
        ({"data": noise(), "sfreq": 0}, "sfreq=0: the sampling rate must be above 0 Hz"),
        ({"data": noise(), "sfreq": np.nan}, "sfreq=nan: the sampling rate"),
        ({"data": noise(shape=(0, 9))}, "n_channels=0, n_times=9: at least one channel and two"),
        ({"data": noise(shape=(2, 1))}, "n_channels=2, n_times=1: at least one channel and two"),
        ({"data": np.ones((2, 9))}, r"every channel is constant \(silent\): there is nothing"),
        (
            {"data": np.where(noise() == noise()[1, 4], np.inf, noise())},
            "NaN or infinite samples in channel c1: all must be finite",
        ),
        ({"data": np.full((7, 9), np.nan)}, r"in channel c0, c1, c2, c3, c4 and 2 more: all must"),
    ],
)
def test_what_cannot_be_separated(arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)


def test_what_is_masked_is_missing():
    """And not the value that lies beneath the mask."""
    data = np.ma.masked_array(noise(), noise() > 1)
    found = from_array(data, 1.0).data
    np.testing.assert_array_equal(np.isnan(found), noise() > 1)
    np.testing.assert_array_equal(found[noise() <= 1], noise()[noise() <= 1])


def test_the_file_is_named():
    with pytest.raises(InputError, match=r"^odd\.wav: every channel is constant"):
        make(np.ones((2, 9)), path=Path("there/odd.wav"))
