"""One thread, no screen, and Ctrl-C: set before anything that reads them is imported.

And mixtures, labels and the command line, which several files use.
"""

import os
import signal

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# jobs in the background of a shell ignore it, and what they start does so too
signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np  # noqa: E402, after what it reads
import pytest  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from sourcesep import simulate, windows  # noqa: E402
from sourcesep.auxiliary import Auxiliary, Scale, build  # noqa: E402
from sourcesep.cli import main  # noqa: E402
from sourcesep.recording import Recording  # noqa: E402


def sources(n=2, n_times=8000, seed=0):
    """Laplace sources whose loudness changes every 160 samples, 20 ms at 8 kHz."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=(n, -(-n_times // 160)))).repeat(160, axis=1)
    return rng.laplace(size=(n, n_times)) * scale[:, :n_times]


def mixture(n=2, n_times=8000, seed=0):
    """Such sources through a random matrix, in as many channels, up to .5 in size."""
    x = np.random.default_rng(seed + 100).standard_normal((n, n)) @ sources(n, n_times, seed)
    return 0.5 * x / np.abs(x).max()


class InOrder:
    """Samples that are given out once, in order."""

    def __init__(self, data):
        self.data, self.shape, self.position = data, data.shape, 0

    def __getitem__(self, key):
        channels, times = key
        start, stop, _ = times.indices(self.shape[1])
        assert start == self.position
        self.position = stop
        return self.data[channels, times].copy()


def mixed_by_matrix(kind, seed, n=3, n_times=4000, n_channels=None, noise=0.0):
    """Sources through a random matrix, with noise that is as loud beside every channel."""
    rng = np.random.default_rng(seed)
    sources = simulate.linear_sources(kind, n_times, n, random_state=seed)
    x = rng.standard_normal((n_channels or n, n)) @ sources
    # otherwise it would not be isotropic where channels count alike
    return x + noise * x.std(axis=1, keepdims=True) * rng.standard_normal(x.shape)


def talk(label, seconds, seed, sfreq=4000):
    """One of two simulated talkers, "low" and "high", says something."""
    pitch, scale = {"low": (100.0, 1.0), "high": (210.0, 1.2)}[label]
    return simulate.speech(seconds, sfreq, pitch=pitch, formant_scale=scale, random_state=seed)


def u_of(x, spec=None):
    """u that a SPEC says of an array, by default that of an array."""
    names = tuple(map(str, range(len(x))))
    return build(spec, Recording(x, 1.0, names, ("",) * len(x), "array"))


def labelled(labels, *, is_time=True):
    """u of whole numbers from 0, at one scale."""
    labels = np.asarray(labels, np.int64)
    names = tuple(map(str, range(labels.max() + 1)))
    return Auxiliary((Scale(labels, names),), None, is_time, "segments" if is_time else "array")


def in_time(n_times, length=200):
    """u of segments of so many samples."""
    return labelled(windows.segments(n_times, length))


def names_in(folder):
    """What lies in a folder, and in its folders."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def run(*arguments):
    """Run the command line in this process; what is no clean exit is the test's failure."""
    found = CliRunner().invoke(main, list(map(str, arguments)))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


@pytest.fixture
def late_workers(monkeypatch):
    """Workers of a Dask cluster may come late, as they do on a machine that is busy."""
    monkeypatch.setattr("sourcesep.cluster.PATIENCE", 60)


@pytest.fixture
def unasked_for_noise(monkeypatch):
    """Verdicts do without the check for noise: of a short nonlinear fit it is the longest part."""
    monkeypatch.setattr("sourcesep.verdict.share_hidden_by_noise", lambda *_: None)
