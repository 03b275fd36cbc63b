"""One column of a table: numbers, text, or time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError

__all__ = ["Column", "from_array", "from_cells", "is_number"]

MISSING = frozenset({"", "na", "n/a", "nan", "nat", "null", "none", "<na>", "?", "-", "."})
"""How tables write that a value is missing, in lower case."""

CLOCKS = frozenset({"time", "date", "datetime", "timestamp"})
SECONDS = frozenset({"time", "t", "seconds", "second", "secs", "sec", "s"})
TIMES = CLOCKS | SECONDS | {"dates", "times", "timestamps", "index", "day", "year", "unnamed: 0"}
"""Names of time columns in lower case; `SECONDS` may hold seconds, `CLOCKS` any text."""

UNIT = re.compile(r"(?P<base>.*?)[ _]*(?:[\[(](?P<a>.*)[\])]|_(?P<b>s|sec|seconds|ms|us|ns))?")

ROUNDING = 0.05
"""Share by which a step may differ from the others: times are rounded when written."""

EVEN = 0.99
"""Share of the steps that must be equal for the rows to have a rate."""


@dataclass(frozen=True)
class Column:
    """The values of a column.

    Parameters
    ----------
    values : ndarray of shape (n_rows,)
        int64; or float64, NaN where there is a gap; or, for text, objects of type str.
    cells : sequence of str
        The values as they were written.
    """

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.object_]
    cells: Sequence[str]

    @property
    def is_text(self) -> bool:
        """Whether some cell is neither a number nor empty."""
        return self.values.dtype == object

    def first_text(self) -> tuple[int, str]:
        """Return row (from 1) and content of the first cell that is no number."""
        return next((i, c) for i, c in enumerate(self.cells, 1) if not (_empty(c) or is_number(c)))

    def first_gap(self) -> int | None:
        """Return the row (from 1) of the first gap among numbers, or None."""
        gaps = np.flatnonzero(np.isnan(self.values.astype(np.float64)))
        return int(gaps[0]) + 1 if len(gaps) else None

    def is_time(self, name: str, *, is_first: bool) -> bool:
        """Whether this is when the rows were measured, rather than what was.

        Numbers must have a name for time and rise from row to row; text must consist
        of ISO 8601 dates, or be called a clock.
        """
        base, _ = _name_and_unit(name)
        if not self.is_text:
            return base in TIMES and bool(np.all(np.diff(self.values.astype(np.float64)) > 0))
        return base in CLOCKS or ((is_first or base in TIMES) and all(map(_is_date, self.cells)))

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
    gaps = [_empty(c) for c in cells]
    if not all(gap or is_number(c) for gap, c in zip(gaps, cells, strict=True)):
        return Column(np.array(cells, dtype=object), cells)
    if not any(gaps):
        try:
            return Column(np.array([int(c) for c in cells], dtype=np.int64), cells)
        except (ValueError, OverflowError):
            pass  # not all are integers of 64 bits: floats hold them
    numbers = [np.nan if gap else float(c) for gap, c in zip(gaps, cells, strict=True)]
    return Column(np.array(numbers), cells)


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
    return Column(values, list(map(repr, values.tolist())))


def is_number(cell: str) -> bool:
    """Whether `cell` is a number as tables write it (Python's 1_000 is not)."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _empty(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _is_date(cell: str) -> bool:
    try:
        datetime.fromisoformat(cell.strip())
    except ValueError:
        return re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", cell.strip()) is not None
    return True


def _name_and_unit(name: str) -> tuple[str, str]:
    """Split ``"Time (s)"`` or ``"time_s"`` into ``("time", "s")``."""
    match = UNIT.fullmatch(" ".join(name.lower().split()))
    return (match["base"], match["a"] or match["b"] or "") if match else (name.lower(), "")
