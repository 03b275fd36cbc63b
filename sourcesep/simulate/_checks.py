"""What the simulators share: seeds, and what is asked of numbers."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from sourcesep.checks import is_whole
from sourcesep.exceptions import SettingsError

__all__ = ["RandomState", "at_least", "generator", "n_samples", "positive"]

RandomState = int | np.random.Generator


def generator(random_state: RandomState) -> np.random.Generator:
    """Return the generator of a seed; a generator is used, and advanced, as it is."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if not is_whole(random_state):
        raise SettingsError(
            f"random_state={random_state!r}: must be an int or a numpy.random.Generator"
        )
    if random_state < 0:
        raise SettingsError(f"random_state={random_state}: a seed must be 0 or more")
    return np.random.default_rng(random_state)


def positive(**settings: float) -> None:
    """Refuse settings that are not finite numbers above 0."""
    for name, value in settings.items():
        if not (_is_finite(value) and value > 0):
            raise SettingsError(f"{name}={value}: must be a number above 0")


def at_least(minimum: float, **settings: float) -> None:
    """Refuse settings that are not finite numbers, `minimum` or above."""
    for name, value in settings.items():
        if not (_is_finite(value) and value >= minimum):
            raise SettingsError(f"{name}={value}: must be a number, {minimum} or more")


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def n_samples(seconds: float, sfreq: float) -> int:
    """Return the number of samples in `seconds`, at least 2."""
    positive(seconds=seconds, sfreq=sfreq)
    n_times = round(seconds * sfreq)
    if n_times < 2:
        raise SettingsError(
            f"seconds={seconds}, sfreq={sfreq}: that is {n_times} samples and two are needed; "
            "ask for more seconds"
        )
    return n_times
