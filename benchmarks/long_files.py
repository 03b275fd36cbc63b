"""Long audio files: peak memory and CPU of the whole command, and how much a fit has to hear.

    python benchmarks/long_files.py [memory] [enough] [--cases 10-minutes 1-hour 32-channels]

Files of `memory` are written to a temporary folder: up to 6 GB. Seeds of `enough` begin at
6000; the constants were chosen on others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from sourcesep import IVAE, Recording, auxiliary, metrics, simulate

Array = NDArray[np.float64]
SFREQ = 44_100
CASES = {
    "10-minutes": (600, 2, "instantaneous"),
    "1-hour": (3600, 2, "instantaneous"),
    "saturated": (600, 2, "saturated"),
    "32-channels": (60, 32, "instantaneous"),
}
FIRST_SEED = 6000


def scene(seconds: int, n_channels: int, kind: str) -> Iterator[tuple[Array, Array]]:
    """Yield the first source's image and the mixture of each second, (channels, times)."""
    rng = np.random.default_rng(0)
    mixing = np.eye(n_channels) + 0.4 * rng.uniform(-1, 1, (n_channels, n_channels))
    for _ in range(seconds):
        loudness = np.clip(rng.normal(size=(n_channels, 50)), -2, 2)
        z = (
            0.006
            * np.exp(loudness).repeat(SFREQ // 50, axis=1)
            * rng.laplace(size=(n_channels, SFREQ))
        )
        x = mixing @ z
        yield np.outer(mixing[:, 0], z[0]), np.tanh(4 * x) / 4 if kind == "saturated" else x


def memory(names: list[str]) -> None:
    """Separate a file of each case by the command, and print what it took."""
    print("case           s       peak MB   CPU s  CPU s / s   SI-SDR of one source, dB")
    for name in names:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            path, output = Path(folder) / "mixture.wav", Path(folder) / "out"
            with soundfile.SoundFile(path, "w", SFREQ, case[1], "PCM_16") as file:
                for _, x in scene(*case):
                    file.write(x.T)
            command = [sys.executable, "-c", "from sourcesep.cli import main; main()"]
            run = subprocess.Popen([*command, "separate", str(path), "-o", str(output)])
            usage = os.wait4(run.pid, 0)[2]
            seconds = usage.ru_utime + usage.ru_stime
            print(
                f"{name:12} {case[0]:5} {usage.ru_maxrss / 1024:11.0f} {seconds:8.1f} "
                f"{seconds / case[0]:9.4f} {score(case, output / 'mixture'):8.1f}",
                flush=True,
            )


def score(case: tuple[int, int, str], folder: Path) -> float:
    """SI-SDR of the written source that is most like the first one, at the first channel."""
    n_sources = len(list(folder.glob("source*.wav")))
    products = np.zeros((n_sources, 3))
    files = [soundfile.SoundFile(path) for path in sorted(folder.glob("source*.wav"))]
    for image, _ in scene(*case):
        for row, file in zip(products, files, strict=True):
            heard = file.read(SFREQ, always_2d=True)[:, 0]
            row += [image[0] @ heard, heard @ heard, image[0] @ image[0]]
    correlation = products[:, 0] ** 2 / (products[:, 1] * products[:, 2])
    best = correlation.max()
    return float(10 * np.log10(best / (1 - best)))


def enough(n_seeds: int = 2, seconds: int = 300, sfreq: int = 16_000) -> None:
    """Print the gain for fits on ever more of a recording, in 20 stretches from all over it."""
    print("talkers  seed   fitted on, s   SI-SDR gain, dB   verdict")
    for seed in range(FIRST_SEED, FIRST_SEED + 10 * n_seeds, 10):
        for d in (2, 3):
            voices = [simulate.speech(seconds, random_state=seed + k) for k in range(d)]
            mixture = simulate.instantaneous(voices, sfreq=sfreq, random_state=seed)
            x = np.rint(mixture.data * 2**15) / 2**15
            for total in (2, 5, 10, 20, 40, 80, 160):
                size = total * sfreq // 20
                begins = np.linspace(0, x.shape[1] - size, 20).astype(int)
                parts = [x[:, begin : begin + size] for begin in begins]
                names = tuple(f"ch{k}" for k in range(d))
                recordings = [Recording(p, sfreq, names, ("",) * d, "audio") for p in parts]
                u = auxiliary.build_many(None, recordings)
                ivae = IVAE(mixing="linear", sfreq=sfreq, random_state=0)
                ivae.fit(np.concatenate(parts, axis=1).T, u=u)
                estimates = np.stack([ivae.model_.image(x, k)[0] for k in range(d)])
                truth = mixture.images[:, 0]
                table = metrics.si_sdr(truth[:, None], estimates[None])
                gain = (table.max(axis=1) - metrics.si_sdr(truth, x[0])).mean()
                print(
                    f"{d:7} {seed:5} {total:14} {gain:17.1f}   {ivae.verdict_.label}", flush=True
                )


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", default=["memory", "enough"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    if "memory" in arguments.tables:
        memory(arguments.cases)
    if "enough" in arguments.tables:
        enough()


if __name__ == "__main__":
    main()
