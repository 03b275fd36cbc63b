"""One column of a table: numbers, text, or time."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sourcesep.dates import date_of
from sourcesep.exceptions import InputError

__all__ = [
    "Column",
    "cure_of",
    "filled",
    "from_array",
    "from_cells",
    "is_number",
    "is_time_name",
    "numbers",
]

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "nat", "null", "none", "<na>", "?", "-", "."})
"""What cells hold where a value is missing, in lower case."""

CLOCKS = frozenset({"time", "date", "datetime", "timestamp"})
SECONDS = frozenset({"time", "t", "seconds", "second", "secs", "sec", "s"})
TIMES = CLOCKS | SECONDS | {"dates", "times", "timestamps", "index", "day", "year", "unnamed: 0"}
"""Names of time columns, in lower case. Those in `SECONDS` may hold seconds, those in `CLOCKS` any
text."""

DECIMAL_COMMA = re.compile(r"\s*[+-]?[\d.\s]*,\d+\s*")
"""A number with a decimal comma, as many languages write it."""

FORMATTED = re.compile(r"\s*[+-]?[$€£]?(\d{1,3}(,\d{3})+(\.\d+)?|[\d.]+\s*%|(?<=[$€£])[\d.]+)\s*")
"""A number with thousands separators, a percent sign or a currency sign."""

UNIT = re.compile(r"(?P<base>.*?)[ _]*(?:[\[(](?P<a>.*)[\])]|_(?P<b>s|sec|seconds|ms|us|ns))?")

LISTED = 200
"""Characters, at most, in which a message lists names of columns."""

ROUNDING = 0.05
"""Share by which a step of time may differ from the median: written times are rounded."""

EVEN = 0.99
"""Share of the steps that must be equal for the table to have a sampling rate."""


@dataclass(frozen=True, eq=False)
class Column:
    """The values of a column.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        int64; or float64, NaN where there is a gap; or, for text, objects of type str.
    written : sequence of str, optional
        The values as they were written; numbers may go without, and are as Python writes them.
    """

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.object_]
    written: Sequence[str] | None = None

    @property
    def cells(self) -> Sequence[str]:
        """The values as they were written."""
        if self.written is not None:
            return self.written
        return list(map(repr, self.values.tolist()))

    @property
    def is_text(self) -> bool:
        """Whether some cell is neither a number nor empty."""
        return self.values.dtype == object

    @property
    def is_empty(self) -> bool:
        """Whether it has no value at all."""
        return self.values.dtype == np.float64 and bool(np.isnan(self.values).all())

    def first_text(self) -> tuple[int, str]:
        """Return row (from 1) and content of the first cell that is no number."""
        return next((i, c) for i, c in enumerate(self.cells, 1) if not (_empty(c) or is_number(c)))

    @cached_property
    def dates(self) -> list[datetime | None]:
        """The cells as dates, None for those that are none."""
        return list(map(_date, self.cells))

    @property
    def is_of_dates(self) -> bool:
        """Whether most cells are dates."""
        return 2 * sum(date is not None for date in self.dates) > len(self.dates)

    def first_stray(self) -> int | None:
        """Return the first row (from 1) with neither a date nor a gap among dates, or None."""
        if not self.is_of_dates:
            return None
        cells = enumerate(zip(self.cells, self.dates, strict=True), 1)
        return next((i for i, (cell, date) in cells if date is None and not _empty(cell)), None)

    def first_fall(self) -> int | None:
        """Return the first row (from 1) whose date is not after that of the row before, or None.

        None also where the cells are no dates, or compare with and without a zone.
        """
        dates = [date for date in self.dates if date is not None]
        if len(dates) < len(self.dates):
            return None
        falls = (i for i, (a, b) in enumerate(pairwise(dates), 2) if not a < b)
        try:
            return next(falls, None)
        except TypeError:
            return None

    def is_time(self, name: str, *, is_first: bool) -> bool:
        """Whether this is when the rows were measured, rather than what was.

        Numbers must have a name for time and rise from row to row; text must consist
        of dates (ISO 8601, or as in 31.12.1990) for the most part, or be called a clock.
        """
        base, _ = _name_and_unit(name)
        if not self.is_text:
            return base in TIMES and bool(np.all(np.diff(self.values.astype(np.float64)) > 0))
        return base in CLOCKS or ((is_first or base in TIMES) and self.is_of_dates)

    def rate(self, name: str) -> tuple[float, int] | None:
        """Return rows a second and the number of jumps, if this is a column of seconds.

        Nearly all steps must be equal; where rows are missing time jumps.
        """
        base, unit = _name_and_unit(name)
        if base not in SECONDS or unit not in SECONDS | {""} or self.is_text:
            return None
        steps = np.diff(self.values.astype(np.float64))
        if not len(steps):
            return None
        step = np.median(steps)
        equal = np.abs(steps - step) <= ROUNDING * step
        if equal.mean() < EVEN:
            return None
        # The mean undoes the rounding of the steps; the last digits are the division's.
        rate = float(f"{1 / steps[equal].mean():.9g}")
        return rate, int(np.count_nonzero(~equal))


def from_cells(cells: Sequence[str]) -> Column:
    """Return the column that was written as `cells`: integers, floats or text."""
    values = numbers(cells)
    return Column(np.array(cells, dtype=object) if values is None else values, cells)


def numbers(
    cells: Sequence[str], *, whole: bool = True
) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """Read cells as int64, or as float64 with NaN where there is a gap; None where one is text.

    Parameters
    ----------
    cells : sequence of str
        As they are written.
    whole : bool
        Whether all of them may be whole numbers.
    """
    if "_" in "".join(cells):  # which Python takes within a number
        return None
    try:
        if whole:
            return np.fromiter(map(int, cells), np.int64, len(cells))
    except (ValueError, OverflowError):
        pass  # not all are integers of 64 bits: floats hold them
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass  # there are gaps, or text
    try:
        return np.array([np.nan if _empty(c) else float(c) for c in cells])
    except ValueError:
        return None


def filled(values: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], int]:
    """Fill gaps of up to `most` rows by straight lines, and count the values filled.

    A gap at an end has no other side, and stays.
    """
    lost = np.isnan(values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    inside = (begins > 0) & (ends < len(values)) & (ends - begins <= most)
    rows = np.concatenate(
        [np.arange(a, b) for a, b in zip(begins[inside], ends[inside], strict=True)]
        or [np.zeros(0, np.int64)]
    )
    known = np.flatnonzero(~lost)
    out = values.copy()
    out[rows] = np.interp(rows, known, values[known]) if len(rows) else 0.0
    return out, len(rows)


def from_array(name: str, array: NDArray[np.generic]) -> Column:
    """Return the column that holds `array`, of shape (n_rows,).

    Raises
    ------
    InputError
        If its type is neither real number, text nor date.
    """
    kind = array.dtype.kind
    if kind in "iub" and np.can_cast(array.dtype, np.int64):
        values: NDArray[np.int64] | NDArray[np.float64] = array.astype(np.int64)
    elif kind in "fiu":
        values = array.astype(np.float64)
    elif kind in "UM":
        return from_cells(list(map(str, array)))
    else:
        raise InputError(
            f"column={name}: type {array.dtype} cannot be separated; real numbers, text and "
            "dates are read"
        )
    return Column(values)


def cure_of(cell: str, others: Sequence[str]) -> str:
    """What to do about a cell of text; `others` are names of the columns that hold numbers."""
    if DECIMAL_COMMA.fullmatch(cell):
        return "a decimal comma is not read as a number; write numbers with a point, as in 1.5"
    if FORMATTED.fullmatch(cell):
        return "write plain numbers, without marks of thousands, percent or currency"
    only = "only numbers can be separated"
    if len(others) < 2:
        return (
            f"{only}; are the columns separated by comma, semicolon or tab, and do their names "
            "stand in the first line?"
        )
    names = io.StringIO()
    csv.writer(names, lineterminator="").writerow(others)
    listed = f" {shlex.quote(names.getvalue())}" if len(names.getvalue()) <= LISTED else ""
    return (
        f"{only}; put a number there or nothing, or choose the columns of numbers with "
        f"--columns{listed}"
    )


def is_number(cell: str) -> bool:
    """Whether `cell` is a number as tables write it (Python's 1_000 is not)."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_time_name(name: str) -> bool:
    """Whether a column of numbers of this name may be one of times."""
    return _name_and_unit(name)[0] in TIMES


def _empty(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _date(cell: str) -> datetime | None:
    try:
        return date_of(cell)
    except ValueError:
        return None


def _name_and_unit(name: str) -> tuple[str, str]:
    """Split ``"Time (s)"`` or ``"time_s"`` into ``("time", "s")``."""
    match = UNIT.fullmatch(" ".join(name.lower().split()))
    return (match["base"], match["a"] or match["b"] or "") if match else (name.lower(), "")
