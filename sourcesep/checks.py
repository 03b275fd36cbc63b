"""What settings and arrays of every kind are asked."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.exceptions import InputError, SettingsError

__all__ = ["finite", "generator", "is_one_of", "is_whole", "one_of", "real", "whole"]


def is_whole(value: Any) -> bool:
    """Whether this is a whole number; a truth value is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_one_of(value: Any, allowed: Iterable[str]) -> bool:
    """Whether this is one of these names; an array, or what cannot be compared, is none."""
    return isinstance(value, str) and value in tuple(allowed)


def whole(least: int, **settings: Any) -> None:
    """Refuse settings that are not whole numbers, `least` or above (SettingsError)."""
    for name, value in settings.items():
        if not (is_whole(value) and value >= least):
            raise SettingsError(f"{name}={value!r}: must be a whole number, {least} or more")


def one_of(allowed: Collection[str], **settings: Any) -> None:
    """Refuse settings that are none of the names that are allowed (SettingsError)."""
    for name, value in settings.items():
        if not is_one_of(value, allowed):
            raise SettingsError(f"{name}={value!r}: allowed are {', '.join(allowed)}")


def generator(random_state: Any) -> np.random.Generator:
    """Return the generator that this asks for; SettingsError if it asks for none."""
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"random_state={random_state!r}: must be a whole number, 0 or more, a "
            "numpy.random.Generator, or None"
        ) from error


def real(values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as float64; raise TypeError or ValueError if they are no real numbers."""
    if np.iscomplexobj(values):
        raise ValueError("they are complex")
    if np.asarray(values).dtype.kind in "Mm":
        raise TypeError("they are dates")
    return np.asarray(values, dtype=np.float64)


def finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as float64, or say that they are no finite numbers (InputError)."""
    try:
        array = real(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: must be an array of real numbers ({error})") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} has NaN or infinite values: all must be finite")
    return array
