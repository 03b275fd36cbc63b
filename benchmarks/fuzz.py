"""Hostile input: mutated files of every kind, SPECs and command lines; only errors that help.

    python benchmarks/fuzz.py [--cases 100000] [--seconds S] [--seed 0] [--only wav fif ...]
                              [--jobs 2] [--keep fuzz_findings]
    python benchmarks/fuzz.py --only fif --case 1234     # one case again, with its traceback

Each case is made from the seed, its kind and its number alone. It runs in a worker process under
an alarm of 10 s and a limit on memory. A finding is: an exception other than `SourcesepError` or a
message of several lines; a process that dies or hangs; memory beyond 256 MB; a file written,
removed or renamed outside the case's own folder, a pickle, a process or a connection opened.
The exit code is 1 if there is one, and its files are kept.

Linux only, as it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from ctypes import c_longlong
from multiprocessing import connection, get_context, sharedctypes
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_corpus import CORPORA, Files, mutated
from fuzz_targets import TARGETS, WORDS, written

from sourcesep.exceptions import SourcesepError

KINDS = [*CORPORA, *WORDS]
SHARES = {"set": 0.5, "model": 0.7, "parquet": 0.7, "cli": 0.01, "spec": 0.7}
"""How many cases of a kind there are for one of the others: slow ones are fewer."""
PATIENCE = 10
"""Seconds that a case may take."""
MOST_MEMORY = 2**28
"""Bytes by which a case may make a process grow."""
MOST_ADDRESSES = 2**31
"""Bytes of address space that a worker may take on top of what it has."""
LONGEST_MESSAGE = 2000
"""Letters of an error, which is one line."""
AT_ONCE = 500
"""Cases of one worker process."""
WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink")
NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
NEVER += ("os.fork", "socket.connect", "socket.bind", "shutil.rmtree", "ctypes.dlopen")


def case_of(kind: str, number: int, seed: int) -> Files | str | list[str]:
    """Make a case again from its number."""
    rng = np.random.default_rng([seed, KINDS.index(kind), number])
    if kind in WORDS:
        return WORDS[kind](rng)
    return mutated(corpus(kind), rng)


_CORPORA: dict[str, list[Files]] = {}


def corpus(kind: str) -> list[Files]:
    """The valid files of a kind, made once."""
    if kind not in _CORPORA:
        _CORPORA[kind] = CORPORA[kind]()
    return _CORPORA[kind]


class Guard:
    """Hears from the interpreter what a case opens, and whether that is its business."""

    def __init__(self) -> None:
        self.home = ""
        self.found: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what may not be."""
        if not self.home:
            return
        if event in NEVER:
            self.found.append(f"{event}{arguments[:2]!r}")
        elif event in WRITES or (event == "open" and _for_writing(arguments)):
            paths = [p for p in arguments[:2] if isinstance(p, str | bytes)]
            outside = [p for p in paths if not self._is_inside(os.fsdecode(p))]
            if outside:
                self.found.append(f"{event} {outside!r}")

    def _is_inside(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.home + os.sep) or path == os.devnull


def _for_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = (*arguments, None, 0)[:3]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def memory(what: str) -> int:
    """Bytes that this process holds, by the name that /proc gives it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return 1024 * int(line.split()[1])
    raise LookupError(what)


def attempt(kind: str, case: Files | str | list[str], folder: Path, guard: Guard) -> str:
    """Try a case; return what is wrong with how that went, or nothing."""
    place = folder / "case"
    place.mkdir()
    before = os.getcwd()  # noqa: PTH109 (names need not be text)
    guard.home, guard.found = os.path.realpath(place), []
    found = ""
    try:
        os.chdir(place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS.get(kind, TARGETS["read"])(written(case))
    except SourcesepError as error:
        if "\n" in str(error) or len(str(error)) > LONGEST_MESSAGE:
            found = f"message: {str(error)!r:.300}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {str(error)[:200]!r} ({last.filename}:{last.lineno})"
    finally:
        guard.home = ""
        os.chdir(before)
        shutil.rmtree(place, ignore_errors=True)
    return "; ".join(guard.found) or found


def work(
    kind: str, numbers: range, seed: int, folder: Path, at: Any, log: Path, quiet: bool = True
) -> None:
    """Try cases one after the other, in a process of its own."""
    if quiet:  # libraries in C write to stderr
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
    guard = Guard()
    sys.addaudithook(guard)
    corpus(kind) if kind in CORPORA else None
    limit = memory("VmSize") + MOST_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for number in numbers:
        at.value = number
        case = case_of(kind, number, seed)
        before, peak = memory("VmRSS"), memory("VmHWM")
        signal.alarm(PATIENCE)
        found = attempt(kind, case, folder, guard)
        signal.alarm(0)
        after = memory("VmHWM")
        if not found and after > peak and after - before > MOST_MEMORY:
            found = f"memory: {(after - before) / 2**20:.0f} MB"
        if found:
            with log.open("a") as file:
                file.write(f"{number} {found}\n")
    at.value = numbers.stop


class Worker:
    """A process that works on some cases, and what becomes of it."""

    def __init__(self, kind: str, numbers: range, seed: int, root: Path) -> None:
        self.kind, self.numbers, self.seed = kind, numbers, seed
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self.log = self.folder / "log"
        self.at = sharedctypes.RawValue(c_longlong, numbers.start)
        arguments = (kind, numbers, seed, self.folder, self.at, self.log)
        self.process = get_context("fork").Process(target=work, args=arguments)
        self.process.start()

    def ended(self) -> tuple[list[tuple[int, str]], range]:
        """Return findings, and the cases that are left where the process has died."""
        self.process.join()
        text = self.log.read_text() if self.log.exists() else ""
        found = [(int(n), what) for n, what in (line.split(" ", 1) for line in text.splitlines())]
        at, code = self.at.value, self.process.exitcode
        shutil.rmtree(self.folder, ignore_errors=True)
        if code == 0:
            return found, range(0)
        why = "hang" if code == -signal.SIGALRM else f"crash: exit code {code}"
        return [*found, (at, why)], range(at + 1, self.numbers.stop)


def batches(cases: int, only: list[str]) -> Iterator[tuple[str, range]]:
    """Share the cases out among the kinds, a little of each in turn."""
    weights = {kind: SHARES.get(kind, 1.0) for kind in only}
    counts = {kind: round(cases * w / sum(weights.values())) for kind, w in weights.items()}
    for start in range(0, max(counts.values()), AT_ONCE):
        for kind, count in counts.items():
            if start < count:
                yield kind, range(start, min(count, start + AT_ONCE))


def fuzz(
    cases: int,
    *,
    seconds: float = float("inf"),
    seed: int = 0,
    only: list[str] | None = None,
    jobs: int = 1,
) -> tuple[dict[str, int], list[tuple[str, int, str]]]:
    """Try many cases side by side; return how many of each kind were tried, and what was found."""
    only = only or KINDS
    if "model" in only:
        with suppress(ImportError):
            import torch  # noqa: F401 (some models load it, and with little memory left it hangs)
        import sourcesep.estimator  # noqa: F401 (on a busy machine its imports alone take seconds)
    for kind in only:  # what workers share is made and loaded before they are forked
        if kind in CORPORA:
            corpus(kind)
    todo, begin = batches(cases, only), time.monotonic()
    done = dict.fromkeys(only, 0)
    findings: list[tuple[str, int, str]] = []
    busy: dict[int, Worker] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at:
        while True:
            while len(busy) < jobs and time.monotonic() - begin < seconds:
                batch = next(todo, None)
                if batch is None:
                    break
                worker = Worker(*batch, seed, Path(at))
                busy[worker.process.sentinel] = worker
            if not busy:
                return done, findings
            for sentinel in connection.wait(list(busy)):
                worker = busy.pop(sentinel)  # type: ignore[call-overload]
                found, left = worker.ended()
                done[worker.kind] += len(worker.numbers) - len(left)
                findings += [(worker.kind, number, what) for number, what in found]
                if left:
                    again = Worker(worker.kind, left, seed, Path(at))
                    busy[again.process.sentinel] = again


def keep(kind: str, number: int, seed: int, what: str, folder: Path) -> None:
    """Keep the files of a finding, and what was found."""
    place = folder / f"{kind}-{seed}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    case = case_of(kind, number, seed)
    files = case if isinstance(case, dict) else {"words.txt": repr(case).encode()}
    for name, content in (files | {"found.txt": what.encode()}).items():
        (place / name).write_bytes(content)


def main() -> None:
    """Try as many cases as are asked for, and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--case", type=int, help="this one alone, in this process")
    options = parser.parse_args()
    if options.case is not None:
        case = case_of(options.only[0], options.case, options.seed)
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            TARGETS.get(options.only[0], TARGETS["read"])(written(case))
        return
    begin, cpu = time.monotonic(), os.times()
    done, findings = fuzz(
        options.cases,
        seconds=options.seconds,
        seed=options.seed,
        only=options.only,
        jobs=options.jobs,
    )
    alike: dict[tuple[str, str], list[int]] = {}
    for kind, number, what in findings:
        alike.setdefault((kind, re.sub(r"'.*'|\d+", "*", what)), []).append(number)
    for (kind, _), numbers in alike.items():  # the first of those that look alike is kept
        what = next(w for k, n, w in findings if (k, n) == (kind, numbers[0]))
        print(f"{kind} {numbers[0]} ({len(numbers)} times): {what}")
        keep(kind, numbers[0], options.seed, what, options.keep)
    for kind, count in done.items():
        print(f"{kind:8} {count:8} cases {sum(k == kind for k, *_ in findings):4} findings")
    used = os.times()
    seconds = used.children_user + used.children_system - cpu.children_user - cpu.children_system
    print(
        f"{sum(done.values())} cases of seed {options.seed}, {len(findings)} findings; "
        f"{seconds:.0f} s of CPU, {time.monotonic() - begin:.0f} s by the clock"
    )
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
