"""The report's cards: what there is to hear and see of each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sourcesep.adapters._separated import loadings
from sourcesep.adapters.eeg import scalp_pictures
from sourcesep.adapters.table import TableOrigin
from sourcesep.output import component_name
from sourcesep.recording import Recording
from sourcesep.report import panels
from sourcesep.report.panels import Axis, Panel
from sourcesep.report.players import MOST_CHANNELS, Excerpt, choose_excerpt, listening_gain, mp3

if TYPE_CHECKING:
    from sourcesep.result import Separation

__all__ = [
    "Card",
    "Gallery",
    "Player",
    "along",
    "gallery",
    "names",
    "signed",
    "standard_loadings",
    "time_axis",
]

Array = NDArray[np.float64]

DYNAMICS = 80.0
"""Decibels from the darkest to the brightest colour of a spectrogram."""
LEVELS = (-60.0, 0.0)
"""Decibels that a curve of power spans."""
FAINT = -100.0
"""Decibels. A residual below this, against the mixture, gets no pictures."""
ROUNDING = -120.0
"""Decibels. A residual below this, against the mixture, is nothing but rounding."""
N_STRETCHES = 120
"""The most stretches over which power is averaged."""
LOWEST = 1.0
"""Hertz at which the spectra of EEG begin."""


@dataclass(frozen=True)
class Player:
    """Sound within the page.

    Parameters
    ----------
    copy : str
        Data URI of the listening copy.
    start : float
        Where in the recording it begins, seconds.
    file : str
        The whole of it, beside the page; empty if there is none.
    """

    copy: str
    start: float
    file: str = ""


@dataclass(frozen=True)
class Card:
    """One source, or the mixture or the residual beside it.

    Parameters
    ----------
    name : str
        As files and other parts of the page call it.
    note : str
        One line about it.
    panels : tuple of Panel
        Drawn below each other.
    aside : tuple of Panel
        Drawn beside them.
    scalp : str
        Data URI of its map on the scalp; empty if there is none.
    player : Player or None
        If it can be heard.
    """

    name: str
    note: str = ""
    panels: tuple[Panel, ...] = ()
    aside: tuple[Panel, ...] = ()
    scalp: str = ""
    player: Player | None = None


@dataclass(frozen=True)
class Gallery:
    """All cards.

    Parameters
    ----------
    sources : list of Card
        One a source.
    mixture, residual : Card or None
        What they were in and what they leave; of audio only.
    notes : list of str
        What there is to know of the players, in sentences.
    """

    sources: list[Card]
    mixture: Card | None = None
    residual: Card | None = None
    notes: list[str] = field(default_factory=list)


def names(separation: Separation, files: Sequence[str]) -> list[str]:
    """What each source is called: as its file, or as its column or channel."""
    if separation.recording.kind == "audio":
        return [file.removesuffix(".wav") for file in files[: separation.n_components]]
    return [component_name(k) for k in range(separation.n_components)]


def gallery(separation: Separation, called: Sequence[str]) -> Gallery:
    """Return a card for each source and, of audio, for mixture and residual."""
    kind = separation.recording.kind
    if kind == "audio":
        return _audio_gallery(separation, called)
    make = _eeg_cards if kind == "eeg" else _table_cards
    return Gallery(make(separation, called))


def time_axis(recording: Recording) -> Axis:
    """What stands along time: seconds, or of tables their own column of times, or rows."""
    if isinstance(recording.origin, TableOrigin) and recording.origin.time:
        label, cells = next(iter(recording.origin.time.items()))
        rows = [round(share * (len(cells) - 1)) for share in (0, 0.25, 0.5, 0.75)]
        return Axis(label, tuple((100 * (i + 0.5) / len(cells), cells[i]) for i in rows))
    if recording.kind == "table":
        return panels.linear_axis(0, recording.n_times, "row")
    return panels.seconds_axis(recording.seconds)


def along(recording: Recording) -> str:
    """In words, what the samples follow: rows of a table without a column of times are no time."""
    timeless = not (isinstance(recording.origin, TableOrigin) and recording.origin.time)
    return "row by row" if recording.kind == "table" and timeless else "over time"


def standard_loadings(separation: Separation) -> Array:
    """Loadings in standard deviations of each channel, (n_channels, n_components)."""
    spread = np.sqrt(separation.recording.summary.variance)[:, None]
    scaled: Array = loadings(separation) / np.where(spread > 0, spread, 1)
    return scaled


def _power_panel(image: Array, full: float, x: Axis, name: str, way: str = "over time") -> Panel:
    """Power along the samples in dB against `full`."""
    level = _decibel(_powers(image) / full)
    return Panel(
        f"Power {way}",
        f"Power of {name} {way}, in decibels; its loudest stretch has "
        f"{max(level.max(), ROUNDING):.0f}, the median one {max(np.median(level), ROUNDING):.0f}.",
        x,
        panels.linear_axis(*LEVELS, "dB", most=3),
        path=panels.curve(level, *LEVELS),
    )


def _decibel(power: Array) -> Array:
    level: Array = 10 * np.log10(np.maximum(power, 1e-30))
    return level


def _mean_level(x: Array) -> float:
    return float(_decibel(np.square(x).mean()))


def _powers(x: Array) -> Array:
    """Power of each stretch of a signal, averaged over channels."""
    n_bins = int(np.clip(x.shape[1] // 8, 2, N_STRETCHES))
    return panels.binned(np.square(x).mean(axis=0), n_bins)


def _loudest(x: Array) -> float:
    return float(_powers(x).max()) or 1.0


def _audio_gallery(separation: Separation, called: Sequence[str]) -> Gallery:
    recording, recorded = separation.recording, separation.recording.data[:]
    excerpt = choose_excerpt(recorded, recording.sfreq, len(called) + 2)
    x, y = time_axis(recording), panels.mel_axis(recording.sfreq)
    full = _loudest(recorded)
    top = panels.mel_powers(recorded, recording.sfreq).max() or 1.0
    heard: dict[str, Array] = {}

    def card(name: str, signal: Array, note: str = "") -> Card:
        density = _decibel(panels.mel_powers(signal, recording.sfreq) / top)
        spectrogram = Panel(
            "Spectrogram",
            f"Spectrogram of {name}, up to {recording.sfreq / 2000:g} kHz over "
            f"{recording.seconds:.1f} seconds.",
            None,
            y,
            picture=panels.picture(density, -DYNAMICS, 0),
        )
        heard[name] = excerpt.of(signal)
        return Card(name, note, (spectrogram, _power_panel(signal, full, x, name)))

    mixture = card("mixture", recorded, "as it was recorded")
    residual = separation.mixture.copy()
    found = []
    for k, name in enumerate(called):
        image = separation.image(k)
        residual -= image
        found.append(card(name, image))
    level = _mean_level(residual) - _mean_level(separation.mixture)
    what = "what no source explains: "
    left = f"{panels.number(level, 0)} dB against the mixture"
    rest = card(
        "residual", residual, what + (left if level > ROUNDING else "nothing but rounding")
    )
    if level < FAINT:
        rest = replace(rest, panels=())
    gain = listening_gain(max(float(np.abs(part).max()) for part in heard.values()))

    def playing(card: Card, file: str) -> Card:
        copy = mp3(gain * heard[card.name], recording.sfreq)
        return replace(card, player=Player(copy, excerpt.start / recording.sfreq, file))

    return Gallery(
        [playing(card, f"{card.name}.wav") for card in found],
        playing(mixture, ""),
        playing(rest, "residual.wav"),
        _playing_notes(excerpt, gain, recording),
    )


def _playing_notes(excerpt: Excerpt, gain: float, recording: Recording) -> list[str]:
    notes = ["If you start a player while another one plays, it goes on from the same place."]
    if not excerpt.is_whole:
        start, stop = excerpt.start / recording.sfreq, excerpt.stop / recording.sfreq
        notes.append(
            f"The copies inside this page hold only the loudest part, from {start:.1f} to "
            f"{stop:.1f} s. The mixture always plays its copy; the sources play the files beside "
            "the page, and their copies where these are missing."
        )
    if recording.n_channels > MOST_CHANNELS:
        notes.append(f"The copies inside this page have the first {MOST_CHANNELS} channels only.")
    if gain < 1:
        notes.append(
            f"The copies inside this page are turned down by {-20 * np.log10(gain):.0f} dB, all "
            "alike, so that nothing clips."
        )
    return notes


def _eeg_cards(separation: Separation, called: Sequence[str]) -> list[Card]:
    from scipy.signal import welch

    recording = separation.recording
    x = time_axis(recording)
    scalps = scalp_pictures(separation)
    nyquist = recording.sfreq / 2
    found = []
    for k, name in enumerate(called):
        source = separation.sources[k]
        frequencies, density = welch(
            source, recording.sfreq, nperseg=min(len(source), round(2 * recording.sfreq))
        )
        seen = frequencies >= min(LOWEST, nyquist / 4)
        level = _decibel(density[seen] / density[seen].max())
        low = frequencies[seen][0]
        peak = frequencies[seen][level.argmax()]
        spectrum = Panel(
            "Spectrum",
            f"Power spectrum of {name} from {low:.3g} to {nyquist:.4g} hertz, largest at "
            f"{peak:.3g} hertz.",
            panels.log_axis(low, nyquist, "Hz"),
            panels.linear_axis(*LEVELS, "dB", most=3),
            path=panels.curve(
                level, *LEVELS, at=np.log(frequencies[seen] / low) / np.log(nyquist / low)
            ),
        )
        power = _power_panel(source[None], _loudest(source[None]), x, name)
        scalp = panels.data_uri("image/png", scalps[k]) if scalps else ""
        course = _course(source, None, name, "Time course")
        found.append(Card(name, "", (course, power), (spectrum,), scalp))
    return found


def _table_cards(separation: Separation, called: Sequence[str]) -> list[Card]:
    recording = separation.recording
    x = time_axis(recording)
    way = along(recording)
    scaled = standard_loadings(separation)
    found = []
    for k, name in enumerate(called):
        strongest = np.argsort(-np.abs(scaled[:, k]), kind="stable")[:3]
        parts = [f"{recording.names[i]} ({signed(scaled[i, k])})" for i in strongest]
        source = separation.sources[k]
        course = _course(source, None, name, f"Factor {way}", way)
        power = _power_panel(source[None], _loudest(source[None]), x, name, way)
        found.append(Card(name, f"strongest in {', '.join(parts)}", (course, power)))
    return found


def _course(source: Array, x: Axis | None, name: str, title: str, way: str = "over time") -> Panel:
    """A source along its samples: a line, or where it has many what they span."""
    reach = float(np.abs(source).max()) or 1.0
    span = (-reach, reach)
    many = len(source) > 2 * panels.N_COLUMNS
    return Panel(
        title,
        f"{name} {way}, in standard deviations; its largest value is {reach:.1f}.",
        x,
        panels.linear_axis(*span, "SD", most=5),
        path=panels.band(source, *span) if many else panels.curve(source, *span),
        filled=many,
    )


def signed(value: float) -> str:
    """Write a number with its sign, and two decimals."""
    return ("+" if value >= 0 else "") + panels.number(value, 2)
