"""What settings of every kind are asked."""

from typing import Any

import numpy as np

from sourcesep.exceptions import SettingsError

__all__ = ["generator", "is_whole"]


def is_whole(value: Any) -> bool:
    """Whether this is a whole number; a truth value is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def generator(random_state: Any) -> np.random.Generator:
    """Return the generator that this asks for; SettingsError if it asks for none."""
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"random_state={random_state!r}: must be a whole number, 0 or more, a "
            "numpy.random.Generator, or None"
        ) from error
