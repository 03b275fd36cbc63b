"""Tables (CSV, NPY, Parquet): `read` columns into a `Recording`, `write` sources as CSV.

A row is a sample, a column a channel. Columns of times or dates are not separated:
they are kept as they were and written back beside the sources.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.adapters._columns import Column, cure_of, filled, from_array, is_time_name
from sourcesep.adapters._csv import NO_ROWS, read_csv
from sourcesep.adapters._parquet import read_parquet
from sourcesep.adapters._separated import Separated
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.messages import first_few
from sourcesep.output import component_name
from sourcesep.recording import Recording
from sourcesep.samples import map_npy

__all__ = ["TableOrigin", "read", "write"]

ROWS_AT_ONCE = 2**16
UNITS = {
    "fit": "columns count alike, each less its mean and divided by its standard deviation",
    "sources.csv": "standard deviations: each source has variance 1 over the rows of the fit",
    "loadings.csv": "units of the column for 1 of the source",
    "prior.csv": "those of sources.csv",
}
"""What the numbers mean, for result.json."""

Table = dict[str, Column]


@dataclass(frozen=True)
class TableOrigin:
    """What a table holds beside its channels.

    Parameters
    ----------
    time : mapping of str to tuple of str
        Columns of times or dates, as they were written.
    """

    time: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(
    path: Path,
    columns: str | Sequence[str] | None = None,
    interpolate: int | None = None,
    beside: Sequence[str] = (),
    known: Sequence[str] | None = None,
) -> Recording:
    """Read a table whose rows are samples and whose columns are channels.

    Parameters
    ----------
    path : pathlib.Path
        A .csv (comma, semicolon or tab; UTF-8), .npy or .parquet file.
    columns : str or sequence of str, optional
        Names of the columns to separate, as a list or joined by commas. By default
        all but those of times and dates, and those in `beside`.
    interpolate : int, optional
        Gaps of up to this many rows are filled by straight lines, column by column. Longer
        ones, and those at the ends, stay missing.
    beside : sequence of str
        Names of columns that are known beside the signal, such as u: they are not separated
        unless `columns` says so.
    known : sequence of str, optional
        Names of the columns of the table that a model was fitted on: those to separate unless
        `columns` says otherwise.

    Returns
    -------
    Recording
        The chosen columns as channels, NaN where a value is missing, and all columns as
        ``columns``. The rate is 1 unless a column of seconds in equal steps says otherwise.
        ``origin`` is a `TableOrigin`.

    Raises
    ------
    InputError
        If the file is damaged or not a table, if a column to separate holds text or no
        value at all, if a column that the model needs is missing, or if a column of dates
        holds something else or they do not rise from row to row.
    SettingsError
        If `columns` names what is not there, or `interpolate` is no number of rows.
    MissingDependencyError
        For Parquet without pandas and pyarrow.

    Warns
    -----
    SourcesepWarning
        Once each about: columns kept as time; columns that are only named like times; names
        made up because there is no header; values filled in; columns that the model does not
        use.
    """
    if interpolate is not None and not (type(interpolate) is int and interpolate >= 1):
        raise SettingsError(f"interpolate={interpolate!r}: must be a number of rows, 1 or more")
    try:
        table = _table(READERS[path.suffix.lower()](path))
        chosen = _chosen(table, columns) or _of_the_model(table, known)
        time = [
            name
            for i, (name, column) in enumerate(table.items())
            if name not in chosen and column.is_time(name, is_first=i == 0)
        ]
        asked = bool(chosen)
        chosen = chosen or [name for name in table if name not in {*time, *beside}]
        _check_numbers(table, chosen)
        _check_order(table, time)
    except InputError as error:
        raise InputError(f"input={path}: {error}") from error
    sfreq, jumps = next((r for name in time if (r := table[name].rate(name))), (1.0, 0))
    notes = []
    if time:
        notes.append(_about_time(time, jumps))
    if not asked and (fallen := [name for name in chosen if is_time_name(name)]):
        notes.append(
            f"{', '.join(fallen)} called like times, but they do not rise from row to row: "
            "separated like any other column; leave them out with --columns"
        )
    left = [name for name in table if name not in {*chosen, *time, *beside}]
    if known and columns is None and left:
        notes.append(f"{first_few(left)} left out: the model was fitted on other columns")
    data = _gathered(table, chosen)
    if interpolate is not None:
        notes.append(_interpolate(data, chosen, interpolate))
    for note in notes:
        warnings.warn(f"{path.name}: {note}", SourcesepWarning, stacklevel=3)
    return Recording(
        data=data,
        sfreq=sfreq,
        names=tuple(chosen),
        units=("",) * len(chosen),
        kind="table",
        columns={name: column.values for name, column in table.items()},
        path=path,
        origin=TableOrigin({name: tuple(table[name].cells) for name in time}),
    )


def _about_time(time: Sequence[str], jumps: int) -> str:
    """Say which columns are kept as time, and whether rows seem to be missing."""
    note = (
        f"{', '.join(time)} kept as time: not separated, written back beside the sources; to "
        "separate it choose it with --columns"
    )
    if jumps:
        steps = "steps are" if jumps > 1 else "step is"
        note += f"; {jumps} {steps} longer or shorter than the rest: are rows missing?"
    return note


def _chosen(table: Table, columns: str | Sequence[str] | None) -> list[str]:
    """Return the names that `columns` asks for; none where it is None."""
    if columns is None:
        return []
    # Quotes protect a comma within a name, as they do in the file.
    parsed = next(csv.reader([columns]), []) if isinstance(columns, str) else columns
    names = [name.strip() for name in parsed]
    if not names:
        raise SettingsError(
            f"columns={columns!r}: names at least two columns, of {', '.join(table)}"
        )
    absent = [name for name in names if name not in table]
    if absent:
        raise SettingsError(
            f"columns={','.join(absent)}: no such column; the file has {', '.join(table)}"
        )
    if len(set(names)) < len(names):
        raise SettingsError(f"columns={','.join(names)}: names a column twice; once is enough")
    return names


def _of_the_model(table: Table, known: Sequence[str] | None) -> list[str]:
    """Return the columns that a model was fitted on; none where there is no model."""
    absent = [name for name in known or () if name not in table]
    if absent:
        raise InputError(
            f"column={','.join(absent)}: the model was fitted on it, and it is not there; the "
            f"file has {', '.join(table)}"
        )
    return list(known or ())


def _check_numbers(table: Table, chosen: Sequence[str]) -> None:
    """Refuse text, columns without a value, and fewer than two columns."""
    for name in chosen:
        column = table[name]
        if column.is_text:
            row, cell = column.first_text()
            found = f"column={name} holds text (row {row}: {cell[:40]!r})"
            others = [name for name in chosen if not table[name].is_text]
            raise InputError(f"{found}: {cure_of(cell, others)}")
        if column.is_empty:
            raise InputError(
                f"column={name} has no value at all: choose the other columns with --columns"
            )
    if len(chosen) < 2:
        raise InputError(
            f"{len(chosen)} column of numbers ({', '.join(chosen) or 'none'}): at least two "
            "are needed to find sources; are the columns separated by comma, semicolon or tab?"
        )


def _check_order(table: Table, time: Sequence[str]) -> None:
    """Refuse what is no date, and dates that repeat or fall, where one column has the dates."""
    if len(time) != 1 or not table[time[0]].is_text:
        return
    cells = table[time[0]].cells
    if (row := table[time[0]].first_stray()) is not None:
        raise InputError(
            f"column={time[0]}: row {row} ({cells[row - 1][:40]!r}) has no date as the others do: "
            "take the row out if it is a sum or a note, or write its date"
        )
    if (row := table[time[0]].first_fall()) is not None:
        raise InputError(
            f"column={time[0]}: row {row} ({cells[row - 1]}) does not come after row {row - 1} "
            f"({cells[row - 2]}): sort the rows by time, one row a time; or take the column out "
            "of the file if the order of the rows means nothing"
        )


def _gathered(table: Table, chosen: Sequence[str]) -> NDArray[np.float64]:
    """The chosen columns as one array, whose rows the floats of the table then share."""
    data = np.empty((len(chosen), len(table[chosen[0]].values)))
    for row, name in zip(data, chosen, strict=True):
        column = table[name]
        row[:] = column.values
        if column.values.dtype == np.float64:
            table[name] = Column(row, column.written)
    return data


def _interpolate(data: NDArray[np.float64], names: Sequence[str], most: int) -> str:
    """Fill short gaps in place; return a sentence that says how many values that were."""
    counts = {}
    for row, name in zip(data, names, strict=True):
        row[:], counts[name] = filled(row, most)
    where = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    return (
        f"{sum(counts.values())} values in gaps of up to {most} rows filled by straight lines"
        f"{': ' * bool(where)}{where}; {int(np.isnan(data).sum())} values are still missing"
    )


def _table(columns: Iterable[tuple[str, Column]]) -> Table:
    """Gather named columns, giving names to those that have none."""
    table: Table = {}
    for i, (given, column) in enumerate(columns):
        if i and not given.strip() and column.is_empty:
            continue  # a comma at the end of every row makes no column
        # pandas writes its index as a first column without a name.
        name = given.strip() or (f"col{i}" if i else "index")
        if name in table:
            raise InputError(f"column={name} is there twice: give each column a name of its own")
        table[name] = column
    if not table or not len(next(iter(table.values())).values):
        raise InputError(NO_ROWS)
    return table


def _read_npy(path: Path) -> list[tuple[str, Column]]:
    """Read names and columns of an array of two axes, or of one whose fields are columns."""
    array = map_npy(path)
    if array.dtype.names and array.ndim == 1:
        return [(name, from_array(name, array[name])) for name in array.dtype.names]
    if array.ndim != 2:
        raise InputError(
            f"shape={array.shape}: a table has two axes, (rows, columns), and at least two columns"
        )
    n_rows, n_columns = array.shape
    if n_columns > n_rows:
        raise InputError(
            f"shape={array.shape}: more columns than rows; rows are samples and columns are "
            "channels: save the transpose"
        )
    return [(f"col{i}", from_array(f"col{i}", array[:, i])) for i in range(n_columns)]


READERS: dict[str, Callable[[Path], Iterable[tuple[str, Column]]]] = {
    ".csv": read_csv,
    ".npy": _read_npy,
    ".parquet": read_parquet,
}
"""What reads names and columns of a file, by its suffix."""


def write(separation: Separated, folder: Path) -> dict[str, Any]:
    """Write ``sources.csv``, ``prior.csv`` and, where the mixing is linear, ``loadings.csv``.

    Numbers are written such that reading them gives the same floats. Sources have no unit:
    their variance is 1. Loadings are in units of their column per 1 of the source. The
    prior has mean and variance of each source given each label of u.

    Parameters
    ----------
    separation : Separation
        What to write.
    folder : pathlib.Path
        An existing, empty folder.

    Returns
    -------
    dict
        ``files``; ``time_columns``: those that stand before the sources; and ``units``, in
        words.

    Raises
    ------
    OSError
        If the files cannot be written.
    """
    recording = separation.recording
    origin = recording.origin
    time = origin.time if isinstance(origin, TableOrigin) else {}
    components = [component_name(k) for k in range(separation.n_components)]
    files = {"sources.csv": _source_rows(separation, time, components)}
    if separation.mixing is not None:
        loadings = zip(recording.names, separation.mixing.tolist(), strict=True)
        files["loadings.csv"] = chain(
            [["column", *components]], ([name, *row] for name, row in loadings)
        )
    files["prior.csv"] = _prior_rows(separation, components)
    for name, rows in files.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return {"files": list(files), "time_columns": list(time), "units": UNITS}


def _source_rows(
    separation: Separated, time: Mapping[str, Sequence[str]], components: Sequence[str]
) -> Iterator[Sequence[Any]]:
    yield [*time, *components]
    for start in range(0, separation.recording.n_times, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        when = [cells[part] for cells in time.values()]
        yield from zip(*when, *separation.sources[:, part].tolist(), strict=True)


def _prior_rows(separation: Separated, components: Sequence[str]) -> Iterator[Sequence[Any]]:
    yield ["component", "label", "mean", "variance"]
    labels, mean, variance = separation.prior_here
    for k, component in enumerate(components):
        for label, m, v in zip(labels, mean[:, k].tolist(), variance[:, k].tolist(), strict=True):
            yield [component, label, m, v]
