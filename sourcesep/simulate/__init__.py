"""Simulated signals, mixtures and protocols with a known truth.

Everything is drawn from ``random_state`` (a seed or a `numpy.random.Generator`): the same
seed gives the same samples.
"""

from sourcesep.simulate.heads import EEGSimulation, dipole_potentials, eeg
from sourcesep.simulate.instruments import instrument
from sourcesep.simulate.mixtures import (
    Mixture,
    MixtureKind,
    from_recordings,
    instantaneous,
    room,
    saturated,
)
from sourcesep.simulate.protocols import (
    Protocol,
    icebeem,
    ivae,
    linear_sources,
    shuffled_labels,
)
from sourcesep.simulate.rooms import absorption, impulse_responses, reverberation_time
from sourcesep.simulate.sprites import ImageSimulation, images
from sourcesep.simulate.voices import speech

__all__ = [
    "EEGSimulation",
    "ImageSimulation",
    "Mixture",
    "MixtureKind",
    "Protocol",
    "absorption",
    "dipole_potentials",
    "eeg",
    "from_recordings",
    "icebeem",
    "images",
    "impulse_responses",
    "instantaneous",
    "instrument",
    "ivae",
    "linear_sources",
    "reverberation_time",
    "room",
    "saturated",
    "shuffled_labels",
    "speech",
]
