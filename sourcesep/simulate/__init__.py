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
    hidden_markov,
    icebeem,
    ivae,
    linear_sources,
    shuffled_labels,
)
from sourcesep.simulate.rooms import absorption, impulse_responses, reverberation_time
from sourcesep.simulate.scenes import scenes
from sourcesep.simulate.sprites import ImageSimulation, images
from sourcesep.simulate.tables import FactorTable, factors
from sourcesep.simulate.voices import speech

__all__ = [
    "EEGSimulation",
    "FactorTable",
    "ImageSimulation",
    "Mixture",
    "MixtureKind",
    "Protocol",
    "absorption",
    "dipole_potentials",
    "eeg",
    "factors",
    "from_recordings",
    "hidden_markov",
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
    "scenes",
    "shuffled_labels",
    "speech",
]
