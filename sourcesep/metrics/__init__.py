"""How close estimates come to the truth.

Of signals and matrices: MCC, SI-SDR, SDR and the Amari distance. Of representations: MCC,
DCI and the mutual information gap.
"""

from sourcesep.metrics.representation import DCI, dci, mig
from sourcesep.metrics.separation import (
    Correlation,
    Match,
    amari_distance,
    match_sources,
    mcc,
    sdr,
    si_sdr,
)

__all__ = [
    "DCI",
    "Correlation",
    "Match",
    "amari_distance",
    "dci",
    "match_sources",
    "mcc",
    "mig",
    "sdr",
    "si_sdr",
]
