"""Monotone curves, one a channel: what undoes a microphone's or amplifier's saturation.

A curve's slope is positive and piecewise linear between knots, so that the curve itself
is piecewise quadratic: value, gradient and inverse are closed forms, exact to rounding.
Outside the knots it goes on in a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from sourcesep.ivae.model import Array

__all__ = ["BinnedSamples", "Curves", "SlopeFamily", "rail_knots", "splines"]


@dataclass(frozen=True)
class Curves:
    """One increasing function a channel.

    Parameters
    ----------
    knots : ndarray of shape (n_channels, n_knots)
        Increasing; an odd number of them. The middle one is a fixed point.
    log_slopes : ndarray of shape (n_channels, n_knots)
        Logarithm of the slope at each knot; all 0 is the identity.
    """

    knots: Array
    log_slopes: Array

    @classmethod
    def identity(cls, x: Array) -> Self:
        """Curves over the range of x that change nothing."""
        knots = np.linspace(x.min(axis=1), x.max(axis=1), 3, axis=1)
        return cls(knots, np.zeros_like(knots))

    @property
    def is_identity(self) -> bool:
        """Whether the curves change nothing."""
        return not self.log_slopes.any()

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Value and log-slope at x, each (n_channels, n_times)."""
        if self.is_identity:
            return x, np.zeros_like(x)
        value, slope = BinnedSamples(self.knots, x).value(self.log_slopes)
        return value, np.log(slope)

    def inverse(self, y: Array) -> Array:
        """The x at which the curves are y: the root of each piece's quadratic."""
        if self.is_identity:
            return y
        x = np.empty_like(y)
        for knots, log_slopes, row, out in zip(self.knots, self.log_slopes, y, x, strict=True):
            slope = np.exp(log_slopes)
            at_knots = _values_at_knots(knots, slope)
            inside = np.clip(row, at_knots[0], at_knots[-1])
            i = _bins(at_knots, inside)
            rise = inside - at_knots[i]
            bend = (slope[i + 1] - slope[i]) / (knots[i + 1] - knots[i])
            # this form of the root has no cancellation where the piece is straight
            root = np.sqrt(np.maximum(slope[i] ** 2 + 2 * bend * rise, 0))
            out[:] = knots[i] + 2 * rise / (slope[i] + root)
            out += (row - inside) / np.where(row < inside, slope[0], slope[-1])
        return x


def _bins(knots: Array, x: Array) -> NDArray[np.intp]:
    """Index of the piece that each x lies in."""
    return np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)


def _values_at_knots(knots: Array, slope: Array) -> Array:
    """The curve at its knots: the trapezoid rule is exact for a piecewise linear slope."""
    value = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (slope[1:] + slope[:-1]) / 2)])
    middle = len(knots) // 2
    return np.asarray(value - value[middle] + knots[middle], np.float64)


class BinnedSamples:
    """Samples sorted into the pieces of a curve once, for many evaluations.

    Parameters
    ----------
    knots : ndarray of shape (n_channels, n_knots)
        As in `Curves`.
    x : ndarray of shape (n_channels, n_times)
        Where the curves are evaluated.
    """

    def __init__(self, knots: Array, x: Array) -> None:
        self.knots = knots
        self._pieces = []
        for row, points in zip(knots, x, strict=True):
            inside = np.clip(points, row[0], row[-1])
            i = _bins(row, inside)
            width = np.diff(row)
            into = inside - row[i]
            share = into / width[i]
            beyond = points - inside
            # value = curve at the left knot + slope_left * left + slope_right * right
            left = into - into * share / 2 + beyond * (1 - share)
            right = into * share / 2 + beyond * share
            self._pieces.append((i, share, left, right, beyond == 0))

    def value(self, log_slopes: Array) -> tuple[Array, Array]:
        """Value and slope of the curves at the samples, each (n_channels, n_times)."""
        n_times = len(self._pieces[0][0])
        value = np.empty((len(self.knots), n_times))
        slope = np.empty_like(value)
        for c, (i, share, left, right, _) in enumerate(self._pieces):
            at_knots = np.exp(log_slopes[c])
            low, high = at_knots[i], at_knots[i + 1]
            slope[c] = low + (high - low) * share
            value[c] = _values_at_knots(self.knots[c], at_knots)[i] + low * left + high * right
        return value, slope

    def gradient(self, log_slopes: Array, slope: Array, by_value: Array, by_log: Array) -> Array:
        """Pull a gradient back to the log-slopes.

        Parameters
        ----------
        log_slopes, slope : ndarray
            What `value` was given, and the slope it returned.
        by_value : ndarray of shape (n_channels, n_times)
            Derivative of the objective by each value.
        by_log : ndarray of shape (n_times,)
            Derivative by the log-slope of every channel.

        Returns
        -------
        ndarray of shape (n_channels, n_knots)
        """
        n_knots = self.knots.shape[1]
        middle = n_knots // 2
        result = np.empty_like(log_slopes)
        for c, (i, share, left, right, _) in enumerate(self._pieces):
            by_slope = by_log / slope[c]
            at_high = by_slope * share
            low = np.bincount(i, by_slope - at_high + by_value[c] * left, n_knots)
            high = np.bincount(i, at_high + by_value[c] * right, n_knots)
            low[1:] += high[:-1]
            # an interval's area lifts all samples right of it, or lowers those left of it
            per_piece = np.bincount(i, by_value[c], n_knots)
            area = np.cumsum(per_piece[::-1])[::-1][1:]
            area[:middle] -= per_piece.sum()
            half = area * np.diff(self.knots[c]) / 2
            low[:-1] += half
            low[1:] += half
            result[c] = low * np.exp(log_slopes[c])
        return result

    def input_gradient(
        self, log_slopes: Array, slope: Array, by_value: Array, by_log: Array
    ) -> Array:
        """Pull a gradient back to the samples themselves, (n_channels, n_times)."""
        result = by_value * slope
        for c, (i, _, _, _, inside) in enumerate(self._pieces):
            bend = np.diff(np.exp(log_slopes[c])) / np.diff(self.knots[c])
            result[c] += np.where(inside, by_log * bend[i] / slope[c], 0)
        return result


def rail_knots(low: Array, high: Array, x_min: Array, x_max: Array, n_knots: int) -> Array:
    """Knots from x_min to x_max, dense near the rails as the rails demand.

    They are evenly spaced after the curve log((x - low) / (high - x)), which undoes a
    logistic saturation between the rails `low` and `high`.

    Parameters
    ----------
    low, high, x_min, x_max : ndarray of shape (n_channels,)
        low < x_min < x_max < high.
    n_knots : int
        Odd.
    """
    begin = np.log((x_min - low) / (high - x_min))
    end = np.log((x_max - low) / (high - x_max))
    even = np.linspace(begin, end, n_knots, axis=1)
    knots: Array = low[:, None] + (high - low)[:, None] / (1 + np.exp(-even))
    knots[:, 0], knots[:, -1] = x_min, x_max
    return knots


@cache
def splines(n_knots: int, n_bends: int) -> Array:
    """Value of each cubic B-spline at each knot, (n_knots, n_bends)."""
    if n_bends == 0:
        return np.zeros((n_knots, 0))
    breaks = np.linspace(0, 1, n_bends - 2)
    padded = np.concatenate([[0.0] * 3, breaks, [1.0] * 3])
    matrix: Array = BSpline.design_matrix(np.linspace(0, 1, n_knots), padded, 3).toarray()
    return matrix


class SlopeFamily:
    """Log-slopes at fixed knots as a function of few parameters a channel.

    ``rails`` of shape (n_channels, 2) place the rails of a logistic saturation,

        log slope = -log(x - low) - log(high - x) + const,
        low = x_min - range * exp(rails_0),   high = x_max + range * exp(rails_1),

    which is the inverse of tanh, whatever its strength and offset. ``bends`` of shape
    (n_channels, n_bends) are coefficients of cubic B-splines, evenly spaced in the knots'
    index: any other smooth change. Either may have no columns, and then does nothing.

    Parameters
    ----------
    knots : ndarray of shape (n_channels, n_knots)
        As in `Curves`.
    """

    def __init__(self, knots: Array) -> None:
        self.knots = knots
        self._middle = knots.shape[1] // 2
        self._range = knots[:, -1:] - knots[:, :1]

    def log_slopes(self, rails: Array, bends: Array) -> Array:
        """Log-slopes at the knots, (n_channels, n_knots)."""
        result = bends @ splines(self.knots.shape[1], bends.shape[1]).T
        if rails.shape[1]:
            low, high = self._distances(rails)
            logistic = -np.log(low) - np.log(high)
            result += logistic - logistic[:, self._middle, None]
        return result

    def gradient(self, rails: Array, bends: Array, by_log_slopes: Array) -> tuple[Array, Array]:
        """Pull a gradient by the log-slopes back to rails and bends."""
        by_rails = np.zeros_like(rails)
        if rails.shape[1]:
            for side, distance in enumerate(self._distances(rails)):
                inverse = 1 / distance
                relative = inverse[:, self._middle, None] - inverse
                reach = self._range[:, 0] * np.exp(rails[:, side])
                by_rails[:, side] = (by_log_slopes * relative).sum(axis=1) * reach
        return by_rails, by_log_slopes @ splines(self.knots.shape[1], bends.shape[1])

    def rails_at(self, low: Array, high: Array) -> Array:
        """``rails`` of the logistic curve between low and high, each (n_channels,)."""
        below, above = self.knots[:, 0] - low, high - self.knots[:, -1]
        return np.log(np.stack([below, above], axis=1) / self._range)

    def _distances(self, rails: Array) -> tuple[Array, Array]:
        """Distance of the knots to the lower and to the upper rail."""
        reach = self._range * np.exp(rails)
        low = self.knots - self.knots[:, :1] + reach[:, :1]
        high = self.knots[:, -1:] + reach[:, 1:] - self.knots
        return low, high
