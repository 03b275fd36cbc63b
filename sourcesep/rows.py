"""Rows as they may be given: one array, several recordings, values that are masked."""

from __future__ import annotations

from typing import Any

import numpy as np

from sourcesep.exceptions import InputError
from sourcesep.ivae.model import Array
from sourcesep.samples import masked_as_nan

__all__ = ["check_complete", "end_to_end", "is_list_of_arrays", "is_list_of_columns"]
__all__ += ["n_labels_in"]


def is_list_of_arrays(X: Any) -> bool:
    """Whether X is several recordings."""
    return isinstance(X, list) and bool(X) and all(getattr(p, "ndim", 0) == 2 for p in X)


def is_list_of_columns(u: Any) -> bool:
    """Whether u is one column for each of several recordings."""
    return isinstance(u, list) and bool(u) and all(np.ndim(part) > 0 for part in u)


def end_to_end(X: Any) -> Any:
    """Return several recordings as one array; what is masked in an array is missing."""
    if is_list_of_arrays(X):
        widths = dict.fromkeys(str(part.shape[1]) for part in X)
        if len(widths) > 1:
            raise InputError(f"X of {', '.join(widths)} columns: all parts must have the same")
        X = (np.ma if any(map(np.ma.isMaskedArray, X)) else np).concatenate(X)
    types = getattr(X, "dtypes", [getattr(X, "dtype", None)])  # of a table, or of an array
    dates = [str(kind) for kind in types if getattr(kind, "kind", None) in ("M", "m")]
    if dates:
        raise InputError(
            f"X of type {dates[0]}: dates and durations are no measurements; leave them out, or "
            "make numbers of them first"
        )
    return masked_as_nan(X)


def check_complete(X: Array, fit: str) -> None:
    """Refuse NaN (InputError) where this fit, as a reader would call it, has no place for it."""
    lost = np.count_nonzero(np.isnan(X))
    if lost:
        raise InputError(
            f"X holds {lost} values that are NaN: {fit} needs them all; fill them in, leave their "
            "rows out, or fit with mixing='factor', for which NaN is a missing value"
        )


def n_labels_in(y: Any) -> int:
    """How many labels y has if it may be labels: values that come again. 0 if it is not.

    Of several recordings, in all of them.
    """
    try:
        values = np.concatenate(y) if is_list_of_columns(y) else np.asarray(y)
    except ValueError:  # of any shape, as it is not asked for
        return 0
    may_be = values.ndim == 1 and values.dtype.kind in "biuUSO"
    n_labels = len(set(map(str, values))) if may_be else 0
    return n_labels if 1 < n_labels <= len(values) / 2 else 0
