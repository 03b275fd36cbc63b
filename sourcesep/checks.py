"""What settings of every kind are asked."""

from typing import Any

import numpy as np

__all__ = ["is_whole"]


def is_whole(value: Any) -> bool:
    """Whether this is a whole number; a truth value is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
