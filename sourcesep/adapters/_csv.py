"""Read CSV chunk by chunk, so that numbers take 8 bytes each however long their text is."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sourcesep.adapters._columns import Column, is_number, is_time_name, numbers
from sourcesep.exceptions import InputError, SourcesepWarning

__all__ = ["NO_ROWS", "read_csv"]

DELIMITERS = (",", ";", "\t")
DECLARED = tuple(f"sep={delimiter}".strip() for delimiter in DELIMITERS)
"""First lines by which Excel is told the delimiter; it is found without them."""
ROWS_AT_ONCE = 2**13
NO_ROWS = "no rows: a table needs a row for each sample"


@dataclass
class _Growing:
    """A column that grows chunk by chunk: numbers, until a cell is text."""

    keeps_cells: bool
    parts: list[Any] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    is_text: bool = False

    def extend(self, cells: Sequence[str]) -> None:
        """Append a chunk."""
        whole = not self.parts or self.parts[0].dtype == np.int64
        values = None if self.is_text else numbers(cells, whole=whole)
        if values is None:
            self.is_text = True
            self.parts.clear()
        else:
            self.parts.append(values)
        if self.is_text or self.keeps_cells:
            self.cells.extend(cells)

    def column(self) -> Column:
        """What it has grown to."""
        if self.is_text:
            return Column(np.array(self.cells, dtype=object), self.cells)
        values = np.concatenate(self.parts) if self.parts else np.zeros(0)
        self.parts.clear()
        return Column(values, self.cells if self.keeps_cells else None)


def read_csv(path: Path) -> list[tuple[str, Column]]:
    """Read names and columns of a file in UTF-8, separated by comma, semicolon or tab.

    Raises
    ------
    InputError
        If it is not such a file, or has no row.

    Warns
    -----
    SourcesepWarning
        If the first row holds numbers: the names are then made up.
    """
    delimiter = max(DELIMITERS, key=lambda d: _score(path, d))
    names, columns, n_rows = _columns(path, delimiter, ())
    late = [i for i, column in enumerate(columns) if column.is_text and len(column.cells) < n_rows]
    if late:  # numbers at first, whose cells were not kept
        names, columns, _ = _columns(path, delimiter, late)
    return [(name, column.column()) for name, column in zip(names, columns, strict=True)]


def _columns(
    path: Path, delimiter: str, texts: Sequence[int]
) -> tuple[list[str], list[_Growing], int]:
    """Read names, columns and number of rows; columns whose index is in `texts` are text."""
    with _opened(path) as file:
        rows = _rows(file, delimiter)
        names = next(rows, None)
        if names is None:
            raise InputError(NO_ROWS)
        first = [names] if all(map(is_number, names)) else []
        if first:
            names = [f"col{i}" for i in range(len(names))]
            if not texts:
                warnings.warn(
                    f"{path.name}: the first row holds numbers, no names: it is data, and the "
                    f"columns are called col0 to col{len(names) - 1}",
                    SourcesepWarning,
                    stacklevel=5,
                )
        columns = [
            _Growing(is_time_name(name.strip() or "index"), is_text=i in texts)
            for i, name in enumerate(names)
        ]
        n_rows = 0
        while chunk := first + list(islice(rows, ROWS_AT_ONCE)):
            for column, cells in zip(columns, zip(*chunk, strict=True), strict=True):
                column.extend(cells)
            n_rows, first = n_rows + len(chunk), []
    return names, columns, n_rows


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open the file as text; if it is not UTF-8, say at which byte."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if file.readline(8).strip().strip('"') not in DECLARED:
                file.seek(0)
            yield file
    except UnicodeDecodeError:
        try:
            path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8 text (byte {error.start}); save the table as CSV in UTF-8"
            ) from error
        raise


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file of text."""
    for line in file:
        if "\0" in line:
            raise InputError("holds binary data, not text; save the table as CSV in UTF-8")
        yield line


def _rows(file: TextIO, delimiter: str) -> Iterator[list[str]]:
    """Yield all rows except blank lines; each must be as wide as the first."""
    reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
    width = 0
    try:
        for row in reader:
            if len(row) < 2 and not any(map(str.strip, row)):
                continue  # a blank line
            width = width or len(row)
            if len(row) != width:
                titled = "; take out what stands above the names of the columns" * (width == 1)
                raise InputError(
                    f"line {reader.line_num} has {len(row)} values, the first row has {width}: "
                    f"every row needs the same number{titled}"
                )
            yield row
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: {error}; save the table as CSV anew") from error


def _score(path: Path, delimiter: str) -> tuple[bool, int]:
    """How well a delimiter fits: whether the first rows are equally wide, and how wide."""
    with _opened(path) as file:
        try:
            rows = csv.reader(file, delimiter=delimiter)
            widths = [len(row) for row in islice(filter(None, rows), 50)]
        except csv.Error:
            return False, 0
    return len(set(widths)) == 1 and widths[0] > 1, widths[0] if widths else 0
