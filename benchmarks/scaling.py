"""Time and memory against length, channels, sources and files: a table, and docs/scaling.png.

    python benchmarks/scaling.py [length channels sources files] [--plot docs/scaling.png]

White noise sources whose loudness changes every 20 ms, mixed by a matrix, at 16 kHz (seed 0), from
16-bit WAV file to result. Each point is a process of its own that is forked when all imports are
done: seconds of CPU are without them, memory (the largest resident set) with them. The exponent is
the slope of log seconds over the last half of the points.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sourcesep.batch import Job, separate_file

SFREQ = 16_000
AXES = {
    "length": ("seconds of 2 channels", (10, 20, 40, 80, 160, 320, 640)),
    "channels": ("channels of 20 s, all of them sources", (2, 4, 8, 16, 32)),
    "sources": ("sources of 32 channels of 10 s", (2, 4, 8, 16, 32)),
    "files": ("files of 2 s", (1, 5, 10, 20, 40)),
}


def write(path: Path, n_channels: int, seconds: int) -> None:
    """Write one mixture."""
    rng = np.random.default_rng(0)
    mixing = np.eye(n_channels) + 0.4 * rng.uniform(-1, 1, (n_channels, n_channels))
    with soundfile.SoundFile(path, "w", SFREQ, n_channels, "PCM_16") as file:
        for _ in range(seconds):
            loudness = np.clip(rng.normal(size=(n_channels, 50)), -2, 2)
            scale = 0.006 * np.exp(loudness).repeat(SFREQ // 50, axis=1)
            file.write((mixing @ (scale * rng.laplace(size=(n_channels, SFREQ)))).T)


def jobs(paths: list[Path], n_components: int | None, folder: Path) -> list[Job]:
    """What is to be done with the files."""
    settings: dict[str, Any] = {
        **{"n_components": n_components, "mixing": "linear", "aux": None, "model": None},
        **{"columns": None, "kernel_size": None, "quality": "normal", "device": "auto"},
        "random_state": 0,
    }
    return [Job(path, folder / path.stem, settings, {"overwrite": False}) for path in paths]


def measured(todo: list[Job]) -> tuple[float, float]:
    """Separate in a forked process; return seconds of CPU and megabytes at the most."""
    child = os.fork()
    if child == 0:
        os._exit(any(separate_file(job).error is not None for job in todo))
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError("it has failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def points(axis: str, root: Path) -> tuple[list[float], list[float]]:
    """Measure along one axis."""
    seconds, memory = [], []
    for value in AXES[axis][1]:
        folder = Path(tempfile.mkdtemp(dir=root))
        n_channels = {"channels": value, "sources": 32}.get(axis, 2)
        length = {"length": value, "channels": 20, "sources": 10}.get(axis, 2)
        first = folder / "0.wav"
        write(first, n_channels, length)
        paths = [first, *(folder / f"{k}.wav" for k in range(1, value if axis == "files" else 1))]
        for path in paths[1:]:
            path.write_bytes(first.read_bytes())
        taken, most = measured(jobs(paths, value if axis == "sources" else None, folder))
        seconds.append(taken)
        memory.append(most)
        print(f"{axis:9} {value:5} {taken:9.2f} s of CPU {most:7.0f} MB", flush=True)
    return seconds, memory


def exponent(values: tuple[int, ...], seconds: list[float]) -> float:
    """How seconds grow with the value, over the last half of the points."""
    half = len(values) // 2
    return float(np.polyfit(np.log(values[half:]), np.log(seconds[half:]), 1)[0])


def plot(found: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Draw a panel an axis: seconds and megabytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(found), 4.6), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False, sharex="col")
    for (axis, lines), column in zip(found.items(), axes.T, strict=True):
        title, values = AXES[axis]
        for ax, line, unit in zip(column, lines, ("seconds of CPU", "MB"), strict=True):
            ax.plot(values, line, "o-")
            ax.set(xscale="log", ylabel=unit)
            ax.grid(alpha=0.3)
        column[0].set(yscale="log", ylim=(0.1, 30))
        column[1].set_ylim(0, 1.1 * max(lines[1]))
        column[1].set(xlabel=title, xticks=values, xticklabels=values)
        column[1].minorticks_off()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure along the axes that are asked for, and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("axes", nargs="*", default=list(AXES), metavar="axis")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "warm.wav", 2, 2)
        [warm] = jobs([Path(name) / "warm.wav"], None, Path(name))
        if separate_file(warm).error is not None:  # all that is imported is imported now
            raise RuntimeError("it has failed")
        for axis in options.axes:
            found[axis] = points(axis, Path(name))
            print(f"{axis:9} exponent {exponent(AXES[axis][1], found[axis][0]):.2f}")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
