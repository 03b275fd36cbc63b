"""Tables (CSV, NPY, Parquet): `read` columns into a `Recording`, `write` sources as CSV.

A row is a sample, a column a channel. Columns of times or dates are not separated:
they are kept as they were and written back beside the sources.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.adapters._columns import Column, from_array, from_cells, is_number
from sourcesep.adapters._separated import Separated
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    OutputError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.output import component_name
from sourcesep.recording import Recording
from sourcesep.samples import map_npy

__all__ = ["TableOrigin", "read", "write"]

DELIMITERS = (",", ";", "\t")
ROWS_AT_ONCE = 2**16
MOST_AT_EASE, MOST_PACKED = 2**28, 2**10
"""Bytes that any Parquet file may unpack to, and for each of its own where that is more."""

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


def read(path: Path, columns: str | Sequence[str] | None = None) -> Recording:
    """Read a table whose rows are samples and whose columns are channels.

    Parameters
    ----------
    path : pathlib.Path
        A .csv (comma, semicolon or tab; UTF-8), .npy or .parquet file.
    columns : str or sequence of str, optional
        Names of the columns to separate, as a list or joined by commas. By default
        all but those of times and dates.

    Returns
    -------
    Recording
        The chosen columns as channels, and all columns as ``columns``. The rate is 1
        unless a column of seconds in equal steps says otherwise. ``origin`` is a
        `TableOrigin`.

    Raises
    ------
    InputError
        If the file is damaged or not a table, or if a column to separate holds text
        or gaps.
    SettingsError
        If `columns` names what is not there.
    MissingDependencyError
        For Parquet without pandas and pyarrow.

    Warns
    -----
    SourcesepWarning
        Once about columns kept as time, once about names made up for want of a header.
    """
    readers = {".csv": _read_csv, ".npy": _read_npy, ".parquet": _read_parquet}
    try:
        table = readers[path.suffix.lower()](path)
        chosen = _chosen(table, columns)
        time = [
            name
            for i, (name, column) in enumerate(table.items())
            if name not in chosen and column.is_time(name, is_first=i == 0)
        ]
        chosen = chosen or [name for name in table if name not in time]
        _check_numbers(table, chosen)
    except InputError as error:
        raise InputError(f"input={path}: {error}") from error
    sfreq, jumps = next((r for name in time if (r := table[name].rate(name))), (1.0, 0))
    if time:
        missing = (
            f"; {jumps} steps are longer or shorter than the rest: are rows missing?"
            if jumps
            else ""
        )
        warnings.warn(
            f"{path.name}: {', '.join(time)} kept as time: not separated, written back beside "
            f"the sources; to separate it choose it with --columns{missing}",
            SourcesepWarning,
            stacklevel=3,
        )
    return Recording(
        data=np.array([table[name].values for name in chosen], dtype=np.float64),
        sfreq=sfreq,
        names=tuple(chosen),
        units=("",) * len(chosen),
        kind="table",
        columns={name: column.values for name, column in table.items()},
        path=path,
        origin=TableOrigin({name: tuple(table[name].cells) for name in time}),
    )


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


def _check_numbers(table: Table, chosen: Sequence[str]) -> None:
    """Refuse text, gaps, and fewer than two columns."""
    for name in chosen:
        column = table[name]
        if column.is_text:
            row, cell = column.first_text()
            raise InputError(
                f"column={name} holds text (row {row}: {cell[:40]!r}): only numbers can be "
                "separated; choose the columns of numbers with --columns"
            )
        gap = column.first_gap()
        if gap is not None:
            raise InputError(
                f"column={name} has a gap in row {gap}: missing values are not supported yet; "
                "fill them, drop those rows, or choose other columns with --columns"
            )
    if len(chosen) < 2:
        raise InputError(
            f"{len(chosen)} column of numbers ({', '.join(chosen) or 'none'}): at least two "
            "are needed to find sources; are the columns separated by comma, semicolon or tab?"
        )


def _table(columns: Iterable[tuple[str, Column]]) -> Table:
    """Gather named columns, giving names to those that have none."""
    table: Table = {}
    for i, (given, column) in enumerate(columns):
        # pandas writes its index as a first column without a name.
        name = given.strip() or (f"col{i}" if i else "index")
        if name in table:
            raise InputError(f"column={name} is there twice: give each column a name of its own")
        table[name] = column
    if not table or not len(next(iter(table.values())).cells):
        raise InputError("no rows: a table needs a row for each sample")
    return table


def _read_csv(path: Path) -> Table:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text (byte {error.start}); save the table as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise InputError("holds binary data, not text; save the table as CSV in UTF-8")
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        for row in reader:
            if not any(map(str.strip, row[:1])) and len(row) < 2:
                continue  # a blank line
            if rows and len(row) != len(rows[0]):
                raise InputError(
                    f"line {reader.line_num} has {len(row)} values, the first row has "
                    f"{len(rows[0])}: every row needs the same number"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: {error}; save the table as CSV anew") from error
    if not rows:
        raise InputError("no rows: a table needs a row for each sample")
    names = rows[0]
    if all(map(is_number, names)):
        names = [f"col{i}" for i in range(len(names))]
        warnings.warn(
            f"{path.name}: the first row holds numbers, no names: it is data, and the columns "
            f"are called col0 to col{len(names) - 1}",
            SourcesepWarning,
            stacklevel=4,
        )
    else:
        del rows[0]
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return _table((n, from_cells(cells)) for n, cells in zip(names, columns, strict=True))


def _delimiter(text: str) -> str:
    """Return the delimiter that gives the first rows the same and the largest width."""

    def score(delimiter: str) -> tuple[bool, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            widths = [len(row) for row in islice(filter(None, reader), 50)]
        except csv.Error:
            return False, 0
        return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0

    return max(DELIMITERS, key=score)


def _read_npy(path: Path) -> Table:
    array = map_npy(path)
    if array.dtype.names and array.ndim == 1:
        return _table((name, from_array(name, array[name])) for name in array.dtype.names)
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
    return _table((f"col{i}", from_array(f"col{i}", array[:, i])) for i in range(n_columns))


def _read_parquet(path: Path) -> Table:
    try:
        import pandas
        import pyarrow.parquet
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"input={path}: Parquet needs pandas and pyarrow ({error}): "
            "pip install 'sourcesep[tables]'"
        ) from error
    try:
        about = pyarrow.parquet.read_metadata(path)
        promised, size = 8 * about.num_rows * about.num_columns, path.stat().st_size
        if promised > max(MOST_AT_EASE, MOST_PACKED * size):
            raise InputError(
                f"{about.num_rows} rows of {about.num_columns} columns in {size} bytes: far more "
                "than such a file can tell; write it anew"
            )
        frame = pandas.read_parquet(path, engine="pyarrow")
    except InputError:
        raise
    except Exception as error:  # what pandas and pyarrow raise is of no fixed type
        raise InputError(
            f"not a readable Parquet file ({' '.join(str(error).split())[:200]}); write it anew"
        ) from error
    if not isinstance(frame.index, pandas.RangeIndex):
        frame = frame.reset_index()
    return _table(
        (str(name), _from_series(str(name), frame.iloc[:, i]))
        for i, name in enumerate(frame.columns)
    )


def _from_series(name: str, series: Any) -> Column:
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(series.dtype):
        gaps = series.isna()
        return from_cells(
            ["" if gap else str(value) for gap, value in zip(gaps, series, strict=True)]
        )
    if series.isna().any():
        return from_array(name, series.to_numpy(dtype=np.float64, na_value=np.nan))
    return from_array(name, series.to_numpy())


def write(separation: Separated, folder: Path) -> dict[str, Any]:
    """Write ``sources.csv`` and, where the mixing is linear, ``loadings.csv``.

    Numbers are written such that reading them gives the same floats.

    Parameters
    ----------
    separation : Separation
        What to write.
    folder : pathlib.Path
        An existing, empty folder.

    Returns
    -------
    dict
        ``files``, and ``time_columns``: those that stand before the sources.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    recording = separation.recording
    origin = recording.origin
    time = origin.time if isinstance(origin, TableOrigin) else {}
    components = [component_name(k) for k in range(separation.n_components)]
    files = ["sources.csv"]
    try:
        with (folder / "sources.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*time, *components])
            for start in range(0, recording.n_times, ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                when = [cells[part] for cells in time.values()]
                writer.writerows(zip(*when, *separation.sources[:, part].tolist(), strict=True))
        if separation.mixing is not None:
            files.append("loadings.csv")
            with (folder / "loadings.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["column", *components])
                for name, row in zip(recording.names, separation.mixing.tolist(), strict=True):
                    writer.writerow([name, *row])
    except OSError as error:
        raise OutputError(
            f"output={folder}: cannot write ({error}); check space and permissions"
        ) from error
    return {"files": files, "time_columns": list(time)}
