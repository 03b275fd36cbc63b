"""What all recipes share: the command line, the table, ``result.json``, and the check of a figure.

A recipe is a folder with a ``README.md`` and a ``run.py`` that offers

    download(root)           puts the data under `root`, or says where to get them
    load(root)               reads them
    main(root, quick=False)  prints a table, writes ``result.json``, returns what is in it

and is run as ``python recipes/NAME/run.py [ROOT] [--quick] [-o DIR]``. What it should give
stands in ``recipes.csv``, once.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep import __version__
from sourcesep.exceptions import InputError, SourcesepError

__all__ = [
    "Clock",
    "Expected",
    "catalogue",
    "command_line",
    "cpu",
    "expected",
    "fastica",
    "fetch_listed",
    "fetching",
    "finish",
    "need",
]

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


class Expected(NamedTuple):
    """A figure that a full run reproduces, and how closely."""

    value: float
    tolerance: float

    def holds(self, figure: float) -> bool:
        """Whether a figure is as close as stated."""
        return abs(figure - self.value) <= self.tolerance


class Clock:
    """CPU seconds of a block of code; filled in when the block ends."""

    seconds = float("nan")


@contextmanager
def cpu() -> Iterator[Clock]:
    """Measure the CPU seconds, user and system, of what runs inside."""
    clock, begun = Clock(), time.process_time()
    yield clock
    clock.seconds = time.process_time() - begun


def catalogue() -> dict[str, dict[str, str]]:
    """Return the rows of ``recipes.csv`` by the recipe's name."""
    with (HERE / "recipes.csv").open(encoding="utf-8", newline="") as file:
        return {Path(row["script"]).parent.name: row for row in csv.DictReader(file)}


def expected(name: str) -> Expected | None:
    """Return the figure that ``recipes.csv`` promises, or None where there is none."""
    text = catalogue()[name]["expected_figure"]
    found = re.search(r"(-?[\d.]+) \+- ([\d.]+)", text)
    return Expected(float(found[1]), float(found[2])) if found else None


def fastica(
    X: NDArray[np.float64], seed: int, n_components: int | None = None
) -> tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], str]:
    """Fit scikit-learn's FastICA to rows; return what separates, and whether it converged."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    model = FastICA(n_components, random_state=seed, max_iter=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X)
    failed = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return model.transform, "did not converge" if failed else ""


def need(path: Path, what: str, where: str) -> Path:
    """Return a path that is there; else say what is missing and where to get it."""
    if not path.exists():
        raise InputError(f"{path}: {what} is not there; {where}")
    return path


@contextmanager
def fetching(what: str, cure: str) -> Iterator[None]:
    """Turn what can go wrong in a download into one line that says what to do."""
    try:
        yield
    except SourcesepError:
        raise
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{what} could not be fetched ({said}); {cure}") from error


def fetch_listed(url: str, names: Sequence[str], folder: Path) -> None:
    """Download files of a folder on PhysioNet, each checked against the folder's own list.

    Parameters
    ----------
    url : str
        The folder, with a slash at its end. It has a ``SHA256SUMS.txt``, with which each file
        has to agree: that tells of damage on the way, and of nothing else.
    names : sequence of str
        The files.
    folder : pathlib.Path
        Where they go.
    """
    import pooch

    with fetching(url, f"download {', '.join(names)} yourself and name their folder"):
        sums = pooch.retrieve(url + "SHA256SUMS.txt", None, path=folder, fname="SHA256SUMS.txt")
        lines = [line.split() for line in Path(sums).read_text("utf-8").splitlines()]
        known = {words[1].removeprefix("./"): words[0] for words in lines if len(words) == 2}
        for name in names:
            if name not in known:
                raise InputError(f"{url}{name}: not in that folder's SHA256SUMS.txt")
            pooch.retrieve(url + name, f"sha256:{known[name]}", path=folder, fname=name)


def finish(
    name: str,
    rows: Sequence[Row],
    *,
    quick: bool,
    output: Path | None,
    figure: float | None = None,
    tables: dict[str, Sequence[Row]] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Print the rows as a table, write them to ``result.json``, and return what is in it.

    Parameters
    ----------
    name : str
        The recipe's folder.
    rows : sequence of dict
        A line of the table each.
    quick : bool
        Whether this was the short run, which promises no figure.
    output : pathlib.Path or None
        Folder of ``result.json``; ``results/NAME`` by default.
    figure : float, optional
        What ``recipes.csv`` has an expectation of.
    tables : dict of str to sequence of dict, optional
        Further tables by their title.
    **facts
        More for ``result.json``.
    """
    promise = None if quick or figure is None else expected(name)
    result = {
        "recipe": name,
        "quick": quick,
        "rows": list(rows),
        "tables": {title: list(its) for title, its in (tables or {}).items()},
        "figure": figure,
        "expected": None if promise is None else promise._asdict(),
        "reproduced": None if promise is None else promise.holds(float(figure or 0.0)),
        **facts,
        "versions": {"sourcesep": __version__, "python": platform.python_version()},
    }
    print("\n".join(table(rows)))
    for title, its in (tables or {}).items():
        print("\n".join(["", f"{title}:", "", *table(its)]))
    if promise is not None:
        said = "reproduced" if result["reproduced"] else "NOT reproduced"
        print(f"\n{figure:.3f}, expected {promise.value:g} +- {promise.tolerance:g}: {said}")
    folder = Path("results") / name if output is None else output
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "result.json").write_text(text + "\n", "utf-8")
    return result


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what is not finite is null."""
    if isinstance(value, dict):
        return {str(key): _plain(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(its) for its in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def table(rows: Sequence[Row]) -> list[str]:
    """Return rows as the lines of a Markdown table; what a row lacks is left empty."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(_cell(row.get(h)) for h in heads) + " |" for row in rows]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool | int | str):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def command_line(name: str, main: Callable[..., dict[str, Any]], about: str | None) -> None:
    """Run a recipe from the command line; exit 1 if it fails or its figure does not hold."""
    parser = argparse.ArgumentParser(description=(about or name).splitlines()[0])
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path("data") / name, help="folder of the data"
    )
    parser.add_argument("--quick", action="store_true", help="a short run, for a first look")
    parser.add_argument("-o", "--output", type=Path, help="folder of result.json")
    options = parser.parse_args()
    try:
        result = main(options.root, options.quick, output=options.output)
    except (SourcesepError, OSError) as error:
        sys.exit(f"{name}: {error}")
    if result["reproduced"] is False:
        sys.exit(1)
