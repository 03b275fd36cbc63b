"""Runs that are killed at random times: nothing half-written, and resuming gives the same bytes.

    python benchmarks/kill.py [--kills 100] [--seed 0] [--jobs 2] [--fork] [--overwrite]
                              [--mixing auto]

`sourcesep separate A B C -j 2 --resume` is started again and again, and killed (SIGKILL; every
second time with all its workers) after a random part of the time that a whole run takes. Every
result that stands there after a kill must be whole. At the end, and whenever all three are done,
a last run must give what one undisturbed run gives, but for the block `run` of result.json, and
leave nothing else. With --fork the runs are forked from this process, which spares their imports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile

COMMAND = [sys.executable, "-c", "from sourcesep.cli import main; main()"]
FIRST_SEED = 4000


def recordings(folder: Path, n_times: int = 16_000) -> list[Path]:
    """Write three mixtures of two sources."""
    paths = []
    for k, name in enumerate("abc"):
        rng = np.random.default_rng(FIRST_SEED + k)
        scale = np.exp(rng.normal(size=(2, n_times // 160))).repeat(160, axis=1)
        x = rng.standard_normal((2, 2)) @ (rng.laplace(size=(2, n_times)) * scale)
        paths.append(folder / f"{name}.wav")
        soundfile.write(paths[-1], 0.5 * x.T / np.abs(x).max(), 16_000)
    return paths


def start(words: list[str], fork: bool) -> int:
    """Start `sourcesep` with these words in a process group of its own; return its number."""
    if not fork:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([*COMMAND, *words], start_new_session=True, **quiet).pid
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        from sourcesep.cli import main

        code = 1
        try:
            main(words, standalone_mode=False)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return child


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what is said of the run itself."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "result.json":
            content = json.dumps(json.loads(content) | {"run": None}).encode()
        found[str(path.relative_to(folder))] = content
    return found


def half_written(folder: Path, whole: dict[str, bytes]) -> Iterator[str]:
    """Name what stands under its name and is not what it should be."""
    for place in sorted(folder.iterdir()) if folder.exists() else ():
        if not place.name.startswith("."):
            expected = {n: c for n, c in whole.items() if n.startswith(place.name + "/")}
            if {f"{place.name}/{n}": c for n, c in contents(place).items()} != expected:
                yield place.name


def main() -> None:
    """Kill as often as asked for, and say what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there each time")
    parser.add_argument("--mixing", default="auto")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        inputs = [str(path) for path in recordings(Path(name))]
        output = Path(name) / "out"
        words = ["separate", *inputs, "-o", str(output), "-j", str(options.jobs)]
        words += ["--mixing", options.mixing, "-f" if options.overwrite else "--resume"]
        if options.fork:  # what a run imports is loaded once, for all
            from sourcesep import separate

            separate(inputs[0], mixing=options.mixing).save(Path(name) / "first")
        begin = time.monotonic()
        code = os.waitpid(start(words, options.fork), 0)[1]
        seconds, whole = time.monotonic() - begin, contents(output)
        if code or len(whole) != 12:
            sys.exit(f"the first run has failed with exit code {code}")
        shutil.rmtree(output)
        problems, n_whole, killed, groups = [], 0, 0, []
        while killed < options.kills:
            run = start(words, options.fork)
            time.sleep(float(rng.uniform(0, 1.1 * seconds)))
            alive = os.waitpid(run, os.WNOHANG)[0] == 0
            if alive:
                groups.append(run)
                (os.killpg if killed % 2 else os.kill)(run, signal.SIGKILL)
                os.waitpid(run, 0)
                killed += 1
            problems += [f"kill {killed}: {name}" for name in half_written(output, whole)]
            there = {p.name for p in output.iterdir()} if output.exists() else set()
            if (not alive or {"a", "b", "c"} <= there) and killed < options.kills:
                end(groups)
                problems += finished(words, options.fork, output, whole)
                n_whole += 1
                shutil.rmtree(output)
        end(groups)
        problems += finished(words, options.fork, output, whole)
        for problem in problems:
            print(problem)
        print(
            f"{killed} kills within {seconds:.1f} s of the start of a run, "
            f"{n_whole + 1} times run to the end: {len(problems)} problems"
        )
        sys.exit(bool(problems))


def end(groups: list[int]) -> None:
    """End the workers that have outlived their killed parents: they may still write."""
    while groups:
        with suppress(ProcessLookupError):
            os.killpg(groups.pop(), signal.SIGKILL)
    time.sleep(0.1)


def finished(words: list[str], fork: bool, output: Path, whole: dict[str, bytes]) -> list[str]:
    """Run to the end, and say what is not as one undisturbed run leaves it."""
    code = os.waitpid(start(words, fork), 0)[1]
    found = contents(output)
    problems = [f"exit code {code} at the end"] if code else []
    if found != whole:
        names = sorted(set(found) ^ set(whole)) or [n for n in whole if found[n] != whole[n]]
        problems.append(f"at the end other files than of one run: {', '.join(names)}")
    return problems


if __name__ == "__main__":
    main()
