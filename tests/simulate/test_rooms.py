"""Rooms against what physics says: direct path, reciprocity, reflections, decay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep import simulate
from sourcesep.exceptions import InputError, SettingsError

SIZE = (6.0, 5.0, 3.0)
C, SFREQ = 343.0, 16000.0


def place(rng, size=SIZE):
    return rng.uniform(0.4, np.array(size) - 0.4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_direct_path_is_exact(seed):
    """With walls that absorb all: one impulse of 1 / (4 pi r) after r / c, at its phase."""
    rng = np.random.default_rng(seed)
    source, microphone = place(rng), place(rng)
    r = np.linalg.norm(source - microphone)
    if r < 1:  # the sinc would start before time 0
        return
    h = simulate.impulse_responses(
        SIZE, [source], [microphone], wall_absorption=1.0, sfreq=SFREQ, n_taps=600
    )[0, 0]
    f = np.fft.rfftfreq(600, 1 / SFREQ)
    expected = np.exp(-2j * np.pi * f * r / C) / (4 * np.pi * r)
    below = f < 7000
    error = np.abs(np.fft.rfft(h) - expected)[below] * 4 * np.pi * r
    assert error.max() < 0.002


def test_a_whole_number_of_samples_is_one_sample():
    r = 100 * C / SFREQ
    h = simulate.impulse_responses(
        SIZE, [[1, 1, 1]], [[1 + r, 1, 1]], wall_absorption=1.0, sfreq=SFREQ, n_taps=300
    )[0, 0]
    assert h[100] == pytest.approx(1 / (4 * np.pi * r), rel=1e-9)
    assert np.abs(np.delete(h, 100)).max() < 1e-9


def test_first_reflections_by_hand():
    """Six walls, six mirror images: their distances and one bounce each."""
    source, microphone = np.array([2.0, 2.2, 1.2]), np.array([4.1, 2.9, 1.7])
    alpha = 0.36  # reflection 0.8
    h = simulate.impulse_responses(
        SIZE, [source], [microphone], wall_absorption=alpha, sfreq=SFREQ, n_taps=1500
    )[0, 0]
    images = [(source, 1.0)]
    for axis in range(3):
        for wall in (0.0, SIZE[axis]):
            mirrored = source.copy()
            mirrored[axis] = 2 * wall - source[axis]
            images.append((mirrored, 0.8))
    reach = 0.9 * min(  # before the nearest image of two bounces
        np.linalg.norm(source * s + np.array(o) - microphone)
        for s, o in (
            ((1, 1, 1), (0, 0, 6)), ((1, 1, 1), (0, 0, -6)),
            ((1, -1, -1), (0, 0, 0)), ((1, -1, -1), (0, 0, 6)),
            ((1, -1, -1), (0, 10, 0)), ((-1, 1, -1), (0, 0, 0)), ((-1, 1, -1), (12, 0, 6)),
        )
    )  # fmt: skip
    n = int(reach * SFREQ / C)
    f = np.fft.rfftfreq(4096, 1 / SFREQ)
    expected = np.zeros(f.size, complex)
    for position, gain in images:
        r = np.linalg.norm(position - microphone)
        expected += gain * np.exp(-2j * np.pi * f * r / C) / (4 * np.pi * r)
    error = h[:n] - np.fft.irfft(expected)[:n]
    assert np.abs(error).max() < 0.02 * np.abs(h).max()
    assert np.abs(h[:n]).max() > 0.02


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reciprocity(seed):
    rng = np.random.default_rng(seed)
    a, b = place(rng), place(rng)
    there = simulate.impulse_responses(SIZE, [a], [b], rt60=0.2)
    back = simulate.impulse_responses(SIZE, [b], [a], rt60=0.2)
    np.testing.assert_allclose(there, back, atol=1e-13)


@pytest.mark.parametrize("size", [SIZE, (5.0, 4.0, 2.7), (8.0, 6.0, 3.2)])
@pytest.mark.parametrize("rt60", [0.15, 0.3, 0.5])
def test_decays_as_fast_as_asked(size, rt60):
    rng = np.random.default_rng(0)
    places = [(place(rng, size), place(rng, size)) for _ in range(2)]
    measured = [
        simulate.reverberation_time(
            simulate.impulse_responses(size, [s], [m], rt60=rt60, sfreq=SFREQ)[0, 0], SFREQ
        )
        for s, m in places
    ]
    assert np.mean(measured) == pytest.approx(rt60, rel=0.12)


def test_shape_is_microphones_by_sources():
    sources = [[1, 1, 1], [2, 4, 1.5], [5, 2, 2]]
    microphones = [[3, 2.5, 1.2], [3.1, 2.5, 1.2]]
    h = simulate.impulse_responses(SIZE, sources, microphones, rt60=0.15, n_taps=1000)
    assert h.shape == (2, 3, 1000)
    one = simulate.impulse_responses(SIZE, sources[2:], microphones[:1], rt60=0.15, n_taps=1000)
    np.testing.assert_array_equal(h[0, 2], one[0, 0])


def test_absorption_formulas():
    k = 24 * np.log(10) / C
    volume, surface = 90.0, 126.0
    sabine = simulate.absorption(SIZE, 0.4, "sabine")
    eyring = simulate.absorption(SIZE, 0.4, "eyring")
    assert sabine == pytest.approx(k * volume / (surface * 0.4))
    assert eyring == pytest.approx(1 - np.exp(-sabine))
    # Grazing directions outlive the diffuse field: walls must absorb more than Eyring says.
    assert simulate.absorption(SIZE, 0.4) > eyring
    times = [0.1, 0.2, 0.5, 1.0]
    values = [simulate.absorption(SIZE, t) for t in times]
    assert values == sorted(values, reverse=True)


def test_reverberation_time_of_an_exponential():
    t = np.arange(16000) / SFREQ
    noise = np.random.default_rng(0).standard_normal(16000)
    decaying = noise * 10 ** (-3 * t / 0.4)
    assert simulate.reverberation_time(decaying, SFREQ) == pytest.approx(0.4, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rt60": None}, SettingsError, "rt60=None, wall_absorption=None: give exactly one"),
        ({"wall_absorption": 0.3}, SettingsError, "rt60=0.2, wall_absorption=0.3: give exactly"),
        ({"rt60": -1}, SettingsError, "rt60=-1: must be a number above 0"),
        ({"rt60": 20.0}, SettingsError, "20 s of reverberation in a room of 90 m3 take more"),
        (
            {"rt60": None, "wall_absorption": 1.2, "n_taps": 9},
            SettingsError,
            "wall_absorption=1.2: must be 1 at most",
        ),
        ({"rt60": None, "wall_absorption": 0.3}, SettingsError, "n_taps=None: must be given"),
        ({"size": (6, 5, 0)}, SettingsError, "size=.* each above 0 m"),
        ({"sources": [[7, 1, 1]]}, InputError, "sources: a position is outside the room"),
        ({"microphones": [1, 1, 1]}, InputError, r"microphones.shape=\(3,\): must be \(n, 3\)"),
        ({"microphones": [[2, 2, 1]]}, InputError, "a source is within 1 cm of a microphone"),
    ],
)
def test_refusals(changes, error, message):
    usual = {"size": SIZE, "sources": [[2, 2, 1]], "microphones": [[3, 3, 1]], "rt60": 0.2}
    with pytest.raises(error, match=message):
        simulate.impulse_responses(**{**usual, **changes})


def test_other_refusals():
    with pytest.raises(SettingsError, match=r"rt60=0\.05: Sabine's formula has no absorption"):
        simulate.absorption(SIZE, 0.05, "sabine")
    with pytest.raises(SettingsError, match="formula='norris': allowed are shoebox, eyring"):
        simulate.absorption(SIZE, 0.3, "norris")
    with pytest.raises(InputError, match="response: 64 samples are too short"):
        simulate.reverberation_time(np.ones(64), SFREQ, high_pass=0)
    with pytest.raises(InputError, match="response: is empty or silent"):
        simulate.reverberation_time(np.zeros(64), SFREQ)
