"""Parquet files, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sourcesep.adapters._columns import Column, from_array, from_cells
from sourcesep.exceptions import InputError, MissingDependencyError
from sourcesep.messages import in_brief

__all__ = ["read_parquet"]

MOST_AT_EASE, MOST_PACKED = 2**28, 2**10
"""Bytes that a Parquet file may unpack to: the first, or the second for each byte it has."""


def read_parquet(path: Path) -> Iterator[tuple[str, Column]]:
    """Yield the columns of a Parquet file by name, its index among them.

    Raises
    ------
    InputError
        If it cannot be read, or promises far more than its size can hold.
    MissingDependencyError
        Without pandas and pyarrow.
    """
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
            f"not a readable Parquet file ({in_brief(error)}); write it anew"
        ) from error
    if not isinstance(frame.index, pandas.RangeIndex):
        frame = frame.reset_index()
    for i, name in enumerate(frame.columns):
        yield str(name), _from_series(str(name), frame.iloc[:, i])


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
