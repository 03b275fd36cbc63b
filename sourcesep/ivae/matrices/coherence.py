"""Whether components of a sound go together within bands of frequencies."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.fft import next_fast_len, rfft

from sourcesep.ivae.matrices.starts import N_BANDS, band_gains
from sourcesep.ivae.model import Array

__all__ = ["MOST_COHERENT", "N_STRONGEST", "QUIET", "SHORTEST", "SURE", "coherence_in_bands"]

MOST_COHERENT = 0.05
"""Largest that sources seem to have. In development .04 at most in 39 of 40 matrices with 30 dB or
more (.054 in one), .14 or more in 23 of 24 with three or four sources in two channels."""
SHORTEST = 256
"""Samples; fewer say nothing about misfit."""
N_STRONGEST = 8
"""Components that are compared with each other; the strongest come first."""
SURE = 4.0
"""Standard errors that a correlation in labels or bands, or its square, loses to chance."""
QUIET = 1e-2
"""Share of a component's mean power below which a moment counts as less: in pauses of one the
faintest trace of another would decide. In development right curves had an `energy` of up to 17
with 0, and 6 now; matrices for microphones of a soft knee a `power` of 34 to 66, now 50 to 110."""


def coherence_in_bands(z: Array) -> float:
    """How strongly two components go together within a band of frequencies, if not over all.

    Sources are independent in every band. A fit makes the correlation of components 0 over all
    bands together. Where they have a source in common, or noise, they go together in the bands
    where it is louder than what else is in them, and against each other in others.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components, of a sound; the strongest first, of which `N_STRONGEST` are compared.

    Returns
    -------
    float
        Correlation in the band that shows most, less `SURE` standard errors, for the worst pair; 0
        to 1. By chance phases are random in every bin of a band: a tone is one bin, and proves
        nothing. Components are taken to have at least `QUIET` of their power in every band.
    """
    n_times = z.shape[1]
    if n_times < SHORTEST:
        return 0.0
    z = z[:N_STRONGEST]
    z = z[np.ptp(z, axis=1) > 0]
    z = z - z.mean(axis=1, keepdims=True)
    n_fft = next_fast_len(n_times, real=True)
    spectra = rfft(z / np.linalg.norm(z, axis=1, keepdims=True), n_fft) * np.sqrt(2 / n_fft)
    worst = 0.0
    for gains in band_gains(spectra.shape[1], 2 * N_BANDS):
        heard = gains > 0
        band = spectra[:, heard] * gains[heard]
        power = np.square(np.abs(band)).sum(axis=1) + QUIET
        for i, j in combinations(range(len(z)), 2):
            cross = band[i] * band[j].conj()
            chance = np.linalg.norm(cross) / np.sqrt(2)
            beyond = abs(cross.real.sum()) - SURE * chance
            worst = max(worst, float(beyond / np.sqrt(power[i] * power[j])))
    return worst
