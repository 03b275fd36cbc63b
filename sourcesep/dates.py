"""Dates as tables write them: in the order of ISO 8601, or with dots, as in 31.12.1990."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["date_of", "year_of"]

DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d)")
"""Day, month and year; between slashes their order would be a guess."""
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
YEAR = re.compile(r"(\d{4})(?=-\d\d|(?:\.0)?$)")
"""At the beginning of a date, or alone; as a float where a column of years has gaps."""


def date_of(text: str) -> datetime:
    """Read a date, a year and a month, or either with a time of day; ValueError if it is none."""
    iso = _with_hyphens(text)
    return datetime.fromisoformat(f"{iso}-01" if MONTH.fullmatch(iso) else iso)


def year_of(text: str) -> int:
    """Read the year of a date, or a year; ValueError if it is neither."""
    found = YEAR.match(_with_hyphens(text))
    if found is None:
        raise ValueError(f"no year in {text!r}")
    return int(found[1])


def _with_hyphens(text: str) -> str:
    return DOTTED.sub(lambda d: f"{d[3]}-{d[2]:0>2}-{d[1]:0>2}", text.strip(), count=1)
