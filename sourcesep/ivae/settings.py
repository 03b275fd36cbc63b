"""What may be asked of a fit, for all families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import SettingsError

__all__ = ["DEVICES", "GAUSSIAN", "QUALITIES", "Settings", "WatchedDefaults"]

QUALITIES = ("fast", "normal", "best")
"""Values of ``quality=``: how much time a fit may take."""
DEVICES = ("auto", "cpu", "cuda", "mps")
"""Values of ``device=``."""
GAUSSIAN = (2.0,)
"""Value of ``shapes``, the exponents among which p(z|u) is chosen, that keeps it Gaussian."""


@dataclass(frozen=True)
class Settings:
    """What may be asked of a fit, for all families; each reads what concerns it.

    Parameters
    ----------
    n_components : int, optional
        Number of sources.
    starts : tuple of str
        Signs of independence from which linear fits start.
    shapes : tuple of float
        Exponents among which each source's p(z|u) is chosen (2 is Gaussian).
    standardise : bool
        Whether channels count alike whatever their units.
    kernel_size : int, optional
        Taps of the mixing, or samples that an encoder sees; the family's own by default.
    post_kernel_size : int
        Taps of a filter behind the curves.
    condition_decoder : bool
        Whether the decoder sees u too: p(x|z,u).
    n_restarts : int, optional
        Fits by stochastic gradient that are trained side by side; as many as `quality`
        allows by default.
    quality : {"fast", "normal", "best"}
        How much time a fit may take for how good a result.
    device : str
        Where gradients are computed.
    sfreq : float
        Samples a second, for settings that are durations.
    source_prior : trained_variances.Trained, optional
        What sources sound like, learned from other recordings.
    source_labels : tuple of str, optional
        This prior's label of each source.

    Raises
    ------
    SettingsError
        If a setting is not possible for any data.
    """

    n_components: int | None = None
    starts: tuple[str, ...] = ("segments",)
    shapes: tuple[float, ...] = GAUSSIAN
    standardise: bool = False
    kernel_size: int | None = None
    post_kernel_size: int = 1
    condition_decoder: bool = False
    n_restarts: int | None = None
    quality: str = "normal"
    device: str = "auto"
    sfreq: float = 1.0
    source_prior: Any = None
    source_labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("kernel_size", "post_kernel_size", "n_restarts"):
            value = getattr(self, name)
            if value is not None or name == "post_kernel_size":
                whole(1, **{name: value})
        for name in ("standardise", "condition_decoder"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise SettingsError(f"{name}={getattr(self, name)!r}: must be True or False")
        one_of(QUALITIES, quality=self.quality)
        one_of(DEVICES, device=self.device)
        if self.source_labels is not None and self.source_prior is None:
            raise SettingsError(
                f"source_labels={self.source_labels!r}: are labels of a source_prior, and none is "
                "given; give one, or leave them out"
            )
        number = isinstance(self.sfreq, float | int | np.number)
        if not (number and np.isfinite(self.sfreq) and self.sfreq > 0):
            raise SettingsError(f"sfreq={self.sfreq!r}: must be a number of rows a second above 0")


class WatchedDefaults:
    """Default settings that remember which of them are read."""

    def __init__(self) -> None:
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(Settings(), name)
