"""What hostile files, SPECs and command lines are handed to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_corpus import NUMBERS, Files, Rng, csv, mutated, npy, signal

from sourcesep import Recording, auxiliary, load, read
from sourcesep.component_analysis import read_components
from sourcesep.exceptions import InputError, SourcesepError
from sourcesep.recording import Event

__all__ = ["TARGETS", "WORDS", "written"]


def written(case: Files | str | list[str]) -> Any:
    """Write the files of a case where we are and return the path of the first; words stay."""
    if not isinstance(case, dict):
        return case
    for name, content in case.items():
        Path(name).write_bytes(content)
    return Path(next(iter(case)))


# Files


def read_file(path: Path) -> None:
    """Read a recording, and all that would be fitted on."""
    read(path).excerpt()


def read_table(path: Path) -> None:
    """Read a table whole, or two columns of it; then as labels."""
    try:
        read(path).excerpt()
    except InputError:
        with suppress(SourcesepError):
            read(path, columns="x,y")
        with suppress(SourcesepError):
            auxiliary.build(f"file:{path}", recording(60))
        raise


def read_model(path: Path) -> None:
    """Read a model, and use it; or whatever else it says that it is."""
    from sourcesep.evaluation import describe

    describe(path)
    try:
        model = load(path)
    except SourcesepError:
        read_components(path)
        return
    vars(model).pop("feature_names_in_", None)
    x = signal(model.n_features_in_, 600).T
    with np.errstate(all="ignore"):
        u = auxiliary.build(None, recording(600)) if model.model_.needs_u else None
        with suppress(SourcesepError):
            model.transform(x, u=u)


# Words


def recording(n_times: int = 400) -> Recording:
    """A small recording with everything that a SPEC may name."""
    column = np.arange(n_times)
    return Recording(
        signal(3, n_times),
        100.0,
        ("a", "b", "c"),
        ("V",) * 3,
        "eeg",
        events=(Event(0.5, 0.2, "blink"), Event(1, 1, "task/left"), Event(-1, 1e9, "BAD_x")),
        columns={"label": np.array(["p", "q"])[column % 2].astype(object), "x": column * 0.37},
    )


TERMS = ("segments", "adaptive", "annotations", "column", "file", "folder", "recording", "segment")
PIECES = (
    *("+", "+", ":", ":", ",", " ", "", "\t", "\n", "\0", "\\", "(", "[a", "a+", "^", "$", ".*"),
    *("label", "x", "blink", "task", "a.csv", "a.npy", "/etc", "..", "\u0664", "\udcff", "1e-9"),
    *(".5", "2", "8", "0", "-1", "nan", "inf", "1e308", "1_0", ".1,.2", "1,1", "%s", "{0}"),
)


def any_spec(rng: Rng) -> str:
    """Terms and pieces of them in any order."""
    if rng.random() < 0.5:
        count = rng.integers(1, 4)
        term = [
            f"{TERMS[rng.integers(len(TERMS))]}:{PIECES[rng.integers(len(PIECES))]}"
            for _ in range(count)
        ]
        return "+".join(term)
    known = TERMS + PIECES
    return "".join(known[i] for i in rng.integers(len(known), size=rng.integers(1, 9)))


def build_spec(spec: str) -> None:
    """Read a SPEC, build what it says, and read again what is written of it."""
    for name, content in {**npy()[0], **csv()[0]}.items():
        Path(name).write_bytes(content)
    terms = auxiliary.parse(spec)
    if auxiliary.parse(auxiliary.canonical(terms)) != terms:
        raise RuntimeError("what is written of it is read as another")
    u = auxiliary.build(spec, recording())
    auxiliary.check(u)


OPTIONS = (
    *("-o", "-k", "--n-components", "--mixing", "--aux", "--model", "--save-model", "-j", "-d"),
    *("--bit-depth", "--exclude", "--columns", "--kernel-size", "--quality", "--device", "--seed"),
    *("--shard", "--resume", "-f", "--report", "--json", "-q", "-v", "--", "-h", "--version"),
)
VALUES = (
    *("a.wav", "a.wav", "a.csv", "b.wav", ".", "..", "/", "", "-", "no.wav", "nul\0.wav", "\n"),
    *("a.wav/", "x" * 300, "\udcff.wav", "~", "*", "--help", "1", "2", "-1", "0", "1/2", "2/1"),
    *("linear", "auto", "amortised", "fast", "cpu", "cuda", "16", "float", "0,3", "x,y", "x,x"),
    *("segments:.01", "column:label", "m.safetensors", "a.wav.safetensors", "out", "../out"),
    *map(str, NUMBERS[-5:]),
)
COMMANDS = ("separate", "separate", "separate", "evaluate", "info", "match", "simulat")


def any_words(rng: Rng) -> list[str]:
    """A command line: options, values that suit none, and files good and bad."""
    words = [COMMANDS[rng.integers(len(COMMANDS))]]
    if rng.random() < 0.7:
        words += ["a.wav"] if rng.random() < 0.7 else ["a.csv"]
    for _ in range(rng.integers(0, 6)):
        if rng.random() < 0.6:
            words.append(OPTIONS[rng.integers(len(OPTIONS))])
        if rng.random() < 0.7:
            words.append(VALUES[rng.integers(len(VALUES))])
    return words


def run_words(words: list[str]) -> None:
    """Run a command line on small files; its exit code must be 0, 1 or 2, with no traceback."""
    import soundfile
    from click.testing import CliRunner

    from sourcesep.cli import main

    x = signal(2, 400) * np.repeat([0.3, 1, 2, 0.5], 100)
    soundfile.write("a.wav", x.T, 8000)
    Path("b.wav").write_bytes(b"RIFF" + bytes(60))
    Path("a.csv").write_bytes(mutated(csv(), np.random.default_rng(len(words)))["a.csv"])
    found = CliRunner().invoke(main, words)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    if found.exit_code not in (0, 1, 2) or "Traceback" in found.output:
        raise RuntimeError(f"exit code {found.exit_code}: {found.output[-300:]}")
    if found.exit_code and not found.stderr.strip():
        raise RuntimeError("it fails and does not say why")


TARGETS: dict[str, Callable[[Any], None]] = {
    "read": read_file,
    **dict.fromkeys(("csv", "npy", "parquet"), read_table),
    "model": read_model,
    "spec": build_spec,
    "cli": run_words,
}
WORDS: dict[str, Callable[[Rng], Any]] = {"spec": any_spec, "cli": any_words}
