"""A fit with a trained prior: the prior may come from anywhere."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from sourcesep import auxiliary, metrics, simulate
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.stft.cells import power, to_signal, to_spectrum
from sourcesep.ivae.stft.guided import guidance_of, numbers_of, search
from sourcesep.ivae.stft.level import Level
from sourcesep.ivae.stft.source_prior import Explained
from sourcesep.ivae.whitening import Basis
from sourcesep.recording import from_array

from ...conftest import talk

SIZE = 1024
SFREQ = 4000


@dataclass
class Known:
    """A prior that knows the sources' own cells, if smoothed; it is no network."""

    power: np.ndarray
    labels: tuple[str, ...] = ("low", "high")
    sfreq: float = SFREQ
    size: int = SIZE
    likeness: tuple[float, float] = (0.0, 1e6)
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def explain(self, power, labels):
        self.asked.append(tuple(labels.tolist()))
        level = power.mean(axis=(1, 2), keepdims=True)
        return Explained((self.power[labels] * level).astype(np.float32), np.zeros(len(labels)))


def scene(seed, rt60=0.15):
    said = np.stack([talk(label, 5.0, 100 * seed + i) for i, label in enumerate(("low", "high"))])
    mixture = simulate.room(said, sfreq=SFREQ, rt60=rt60, random_state=seed)
    cells = power(to_spectrum(mixture.images[:, 0], SIZE))
    cells /= cells.mean(axis=(1, 2), keepdims=True)
    smooth = sum(np.roll(cells, shift, axis=2) for shift in range(-3, 4)) / 7
    return mixture, Known(smooth + 1e-3)


def level_of(mixture):
    y = Basis.of(mixture.data).coordinates(mixture.data).astype(np.float32)
    return Level(y, SIZE, len(y))


def gains(mixture, signals):
    """SI-SDR of every true image (rows) by every estimate, dB, up to a filter of the channel."""
    return metrics.si_sdr(mixture.images[:, 0][:, None], signals[None])


@pytest.mark.parametrize("seed", [1, 2])
def test_bands_that_are_swapped_are_put_right(seed):
    mixture, prior = scene(seed)
    level = level_of(mixture)
    right = search(prior, ("low", "high"), level, []).signals
    cells = to_spectrum(right, SIZE)
    cells[:, :, 150:350] = cells[::-1, :, 150:350]
    swapped = to_signal(cells, right.shape[1])
    proposal = search(prior, None, level, [swapped])
    found, wrong = (guidance_of(prior, None, level, s) for s in (proposal.signals, swapped))
    assert found.evidence > wrong.evidence + 0.05
    assert set(found.labels) == {"low", "high"}
    assert np.abs(np.corrcoef(right, proposal.signals)[:2, 2:]).max(axis=1).min() > 0.99


def test_the_fit_takes_labels_and_says_what_it_took_them_for():
    mixture, prior = scene(3)
    u = auxiliary.build(None, from_array(mixture.data, SFREQ))
    model = ConvolutiveModel(2, sfreq=SFREQ, source_prior=prior)
    model.fit(mixture.data, u, np.random.default_rng(0))
    found = model.findings["source_prior"]
    table = gains(mixture, model.images(mixture.data, u)[:, 0])
    assert table.max(axis=1).min() > 12
    order = table.argmax(axis=0)
    assert found["labels"] == [("low", "high")[i] for i in order]
    assert [
        evidence[label]
        for evidence, label in zip(found["label_evidence"], found["labels"], strict=True)
    ] == [0, 0]
    assert model.blank().source_labels == tuple(found["labels"])
    assert set(model.state().facts) == {"sfreq", "size", "scores", "starts", "start", "base"}


def test_a_prior_that_is_wrong_does_no_harm():
    mixture, prior = scene(1)
    prior.power[:, :, 100:220] = prior.power[::-1, :, 100:220].copy()
    u = auxiliary.build(None, from_array(mixture.data, SFREQ))
    misled, blind = (
        ConvolutiveModel(2, sfreq=SFREQ, source_prior=known)
        .fit(mixture.data, u, np.random.default_rng(0))
        .images(mixture.data, u)[:, 0]
        for known in (prior, None)
    )
    best, usual = (gains(mixture, found).max(axis=1) for found in (misled, blind))
    assert (best > usual - 0.5).all()
    evidence = {
        name: guidance_of(prior, None, level_of(mixture), signals).evidence
        for name, signals in (
            ("swapped", search(prior, None, level_of(mixture), []).signals),
            ("right", mixture.images[:, 0]),
        )
    }
    assert evidence["swapped"] > evidence["right"]  # or there was nothing to withstand


def test_without_a_prior_nothing_is_found_out():
    mixture, _ = scene(3)
    u = auxiliary.build(None, from_array(mixture.data, SFREQ))
    model = ConvolutiveModel(2, sfreq=SFREQ).fit(mixture.data, u, np.random.default_rng(0))
    assert model.findings == {}


def test_labels_that_are_given_are_the_only_ones_tried():
    mixture, prior = scene(1)
    search(prior, ("high", "high"), level_of(mixture), [])
    assert {numbers for numbers in prior.asked if numbers != (0, 0)} == {(1, 1)}


@pytest.mark.parametrize(
    ("labels", "k", "message"),
    [
        (("low", "nobody"), None, "the prior does not know nobody; it knows low, high"),
        (("lwo", "high"), None, "does not know lwo; did you mean low[?] It knows low, high"),
        (("low",), 2, "1 labels for 2 sources"),
        (("low", "high", "low"), 2, "3 labels for 2 sources"),
    ],
)
def test_labels_that_cannot_be(labels, k, message):
    with pytest.raises(SettingsError, match=message):
        numbers_of(labels, ("low", "high"), k)


def test_too_many_labels_to_try_all():
    mixture, prior = scene(1)
    prior.labels = tuple(map(str, range(10)))
    with pytest.raises(SettingsError, match="2 of 10 labels are more sets than are tried, 36"):
        search(prior, None, level_of(mixture), [])


def test_a_rate_or_channels_that_cannot_be():
    mixture, prior = scene(1)
    rng = np.random.default_rng(0)
    for data, sfreq, message in (
        (mixture.data, 8000.0, "the prior knows sounds at 4000 Hz"),
        (mixture.data[[0, 0]], 4000.0, "needs two channels that differ"),
        (mixture.data[:, :1500], 4000.0, "2048 samples or more"),
    ):
        u = auxiliary.build(None, from_array(data, sfreq))
        model = ConvolutiveModel(None, sfreq=sfreq, source_prior=prior)
        with pytest.raises(SettingsError, match=message):
            model.fit(data, u, rng)
