"""A thousand short files: memory, seconds of CPU, and what becomes of files that cannot be read.

    python benchmarks/many_files.py [--files 1000] [--jobs 2] [--check]

Files of a second at 8 kHz with two simulated sources each (seeds from 3000); every hundredth is
poisoned: cut off, empty, text, silent or not finite. They are separated three times: one by one in
this process, whose memory is watched; by `separate_files` with several jobs; and by the command
`sourcesep separate -j`. Where other work runs on the machine, seconds by the clock say little, so
what is compared is seconds of CPU: those of all processes of the parallel run, over those of the
same files one by one. With --check the exit code is 1 if a bound of the table is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from kill import contents

from sourcesep.batch import Job, separate_file

FIRST_SEED = 3000
PR_SET_CHILD_SUBREAPER = 36
"""Of Linux: orphans among this process's descendants become its children."""
SFREQ, N_TIMES = 8000, 8000
WARM = 50
"""Files after which memory must not grow any more."""
MOST_GROWTH, MOST_RATIO = 0.05, 1.1
"""The first file that calls for a family other than the linear loads it, which takes 5 MB."""
SETTINGS: dict[str, Any] = {
    **{"n_components": None, "mixing": "auto", "aux": None, "model": None, "columns": None},
    **{"kernel_size": None, "quality": "normal", "device": "auto", "random_state": 0},
}
COMMAND = [sys.executable, "-c", "from sourcesep.cli import main; main()"]


def write_files(folder: Path, n_files: int) -> tuple[list[Path], set[str]]:
    """Write the files; return them, and the names of those that are poisoned."""
    paths, bad = [], set()
    for k in range(n_files):
        rng = np.random.default_rng(FIRST_SEED + k)
        scale = np.exp(rng.normal(size=(2, N_TIMES // 160))).repeat(160, axis=1)
        x = rng.standard_normal((2, 2)) @ (rng.laplace(size=(2, N_TIMES)) * scale)
        x *= 0.5 / np.abs(x).max()
        path = folder / f"{k:04}.wav"
        poison = k // 100 % 5 if k % 100 == 99 else -1
        if poison == 3:
            x[:] = 0
        elif poison == 4:
            x[0, 99] = np.nan
        soundfile.write(path, x.T, SFREQ, "FLOAT" if poison == 4 else "PCM_16")
        if poison == 0:
            os.truncate(path, 9999)
        elif poison in (1, 2):
            path.write_bytes(b"" if poison == 1 else b"not a sound\n" * 99)
        if poison >= 0:
            bad.add(path.name)
        paths.append(path)
    return paths, bad


def megabytes() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu() -> float:
    """Seconds of CPU of this process and of all that came of it, once they have ended."""
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return sum(os.times()[:4])


def one_by_one(paths: list[Path], folder: Path) -> tuple[float, dict[int, float], set[str]]:
    """Separate in this process: seconds of CPU, memory along the way, and what has failed."""
    saving = {"overwrite": False, "bit_depth": None, "exclude": (), "report": False}
    memory, failed, begin = {}, set(), time.process_time()
    for number, path in enumerate(paths, 1):
        outcome = separate_file(Job(path, folder / path.stem, SETTINGS, saving))
        if outcome.error is not None:
            failed.add(path.name)
        if number % WARM == 0 or number == min(WARM, len(paths)):
            memory[number] = megabytes()
    return time.process_time() - begin, memory, failed


def by_command(paths: list[Path], folder: Path, jobs: int) -> tuple[float, float, set[str], int]:
    """Separate by the command: seconds of CPU and by the clock, what has failed, exit code."""
    names = [str(path) for path in paths]
    # processes that outlive the one that started them are counted here
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, begin = cpu(), time.monotonic()
    words = ["separate", *names, "-o", str(folder), "-j", str(jobs), "--json"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    clock, seconds = time.monotonic() - begin, cpu() - before
    separated = {json.loads(line)["input"]["name"] for line in done.stdout.splitlines()}
    failed = {path.name for path in paths} - separated
    said = [name for name in failed if name not in done.stderr]
    if said:
        print(f"not reported: {', '.join(said)}")
    return seconds, clock, failed, done.returncode


def main() -> None:
    """Separate them all, three times, and print what that took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2, help="0: one by one only")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths, bad = write_files(root, options.files)
        alone, memory, failed = one_by_one(paths, root / "alone")
        first, last = memory[min(memory)], memory[max(memory)]
        growth = last / first - 1
        print(f"{options.files} files of {N_TIMES / SFREQ:g} s, {len(bad)} of them poisoned")
        print(f"one by one, in this process: {alone:.1f} s of CPU")
        print("memory, MB: " + ", ".join(f"{m:.0f} after {n}" for n, m in memory.items()))
        most = 100 * MOST_GROWTH
        print(f"growth after {min(memory)} files: {100 * growth:.1f} % (at most {most:g})")
        print(f"failed: {'the poisoned ones and no other' if failed == bad else failed ^ bad}")
        if not options.jobs:
            return
        together, clock, failed_too, code = by_command(paths, root / "side", options.jobs)
        ratio = together / alone
        print(
            f"by the command, -j {options.jobs}: {together:.1f} s of CPU, {clock:.1f} s by the "
            f"clock, exit code {code}"
        )
        print(f"CPU over one by one: {ratio:.3f} (at most {MOST_RATIO})")
        same = contents(root / "alone") == contents(root / "side")
        print(f"failed: {'the same' if failed_too == bad else failed_too ^ bad}")
        print(f"the same bytes: {'yes' if same else 'no'}")
        shutil.rmtree(root / "side")
    good = growth <= MOST_GROWTH and ratio <= MOST_RATIO and code == 1 and same
    if options.check and not (good and failed == failed_too == bad):
        sys.exit(1)


if __name__ == "__main__":
    main()
