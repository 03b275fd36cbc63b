"""Cutting into pieces is exact, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.windows import (
    change_points,
    edges,
    frames,
    istft,
    overlap_add,
    segments,
    stft,
)

modest = settings(max_examples=60, deadline=None)


@st.composite
def settings_of_frames(draw):
    """n_times, size and hop <= size, the degenerate ones included."""
    size = draw(st.integers(1, 48))
    return draw(st.integers(1, 200)), size, draw(st.integers(1, size))


def signal(n_times, seed=0, n_channels=2):
    return np.random.default_rng(seed).standard_normal((n_channels, n_times))


def error(got, wanted):
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


# Segments


@modest
@given(st.integers(1, 500), st.integers(1, 60))
def test_segments_partition_the_samples_in_order(n_times, length):
    labels = segments(n_times, length)
    counts = np.bincount(labels)
    assert labels.shape == (n_times,)
    assert (np.diff(labels) >= 0).all()
    assert (counts > 0).all()
    assert (counts[:-1] == length).all()
    if n_times >= length:
        assert length / 2 <= counts[-1] < 1.5 * length


@modest
@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 6))
def test_longer_segments_are_unions_of_shorter_ones(n_times, length, multiple):
    assert set(edges(n_times, multiple * length)) <= set(edges(n_times, length))


def test_a_last_segment_under_half_is_joined_to_the_one_before():
    assert edges(24, 10).tolist() == [0, 10, 24]
    assert edges(25, 10).tolist() == [0, 10, 20, 25]
    assert edges(3, 10).tolist() == [0, 3]


# Change points


@pytest.mark.parametrize("n_features", [1, 2, 8])
def test_stationary_features_have_no_change_points(n_features):
    found = [
        change_points(np.random.default_rng(seed).standard_normal((400, n_features))).size
        for seed in range(30)
    ]
    assert np.count_nonzero(found) <= 2


@pytest.mark.parametrize("seed", range(3))
def test_changes_of_mean_and_of_variance_are_found_where_they_are(seed):
    features = np.random.default_rng(seed).standard_normal((600, 2))
    features[200:, 0] += 3
    features[400:, 1] *= 5
    found = change_points(features)
    assert found.shape == (2,)
    assert abs(found[0] - 200) <= 2
    assert abs(found[1] - 400) <= 10


def test_features_that_move_together_count_once():
    """64 copies of one feature are no more evidence than one."""
    one = np.random.default_rng(0).standard_normal((300, 1))
    one[150:] += 2
    np.testing.assert_array_equal(change_points(np.tile(one, 64)), change_points(one))


def test_stretches_have_eight_frames():
    features = 0.01 * np.random.default_rng(0).standard_normal((200, 1))
    features[50:53] += 1
    found = change_points(features)
    assert found.size > 0
    assert np.diff(np.concatenate([[0], found, [len(features)]])).min() >= 8


def test_weak_directions_around_a_strong_one_do_not_hide_a_change():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((300, 1))
    one[150:] += 0.8
    many = one + 0.1 * rng.standard_normal((300, 8))
    np.testing.assert_allclose(change_points(many), change_points(one), atol=5)


def test_constant_and_short_features_have_no_change_points():
    assert change_points(np.ones((50, 2))).size == 0
    assert change_points(np.arange(3.0)[:, None]).size == 0


# Frames and the STFT


@modest
@given(settings_of_frames(), st.integers(0, 3))
def test_overlap_add_inverts_frames(sizes, seed):
    n_times, size, hop = sizes
    x = signal(n_times, seed)
    assert error(overlap_add(frames(x, size, hop), hop, n_times), x) < 1e-14


@modest
@given(settings_of_frames(), st.integers(0, 3))
def test_istft_inverts_stft(sizes, seed):
    n_times, size, hop = sizes
    x = signal(n_times, seed)
    assert error(istft(stft(x, size, hop), size, hop, n_times), x) < 1e-12


@pytest.mark.parametrize(("size", "hop"), [(4096, 1024), (8192, 2048), (1024, 1024), (1000, 333)])
def test_istft_inverts_stft_at_the_sizes_in_use(size, hop):
    x = signal(20_000)
    assert error(istft(stft(x, size, hop), size, hop, 20_000), x) < 1e-12


def test_float32_stays_float32():
    x = signal(1000).astype(np.float32)
    spectrum = stft(x, 64, 16)
    back = istft(spectrum, 64, 16, 1000)
    assert spectrum.dtype == np.complex64
    assert back.dtype == np.float32
    assert error(back, x) < 1e-6


def test_the_inverse_owns_its_samples_and_the_input_is_untouched():
    x = signal(100)
    before = x.copy()
    overlap_add(frames(x, 16, 4), 4, 100)[:] = 0
    np.testing.assert_array_equal(x, before)


@modest
@given(settings_of_frames())
def test_stft_is_linear(sizes):
    n_times, size, hop = sizes
    x, y = signal(n_times, 1), signal(n_times, 2)
    whole = stft(2 * x - 3 * y, size, hop)
    parts = 2 * stft(x, size, hop) - 3 * stft(y, size, hop)
    assert error(whole, parts) < 1e-13


@modest
@given(st.integers(1, 24), st.integers(1, 4), st.integers(1, 5))
def test_a_delay_by_whole_hops_moves_the_frames(hop, overlap, n_hops):
    size, n_times = hop * overlap, 300
    x = signal(n_times)
    late = np.concatenate([np.zeros((2, n_hops * hop)), x], axis=1)
    np.testing.assert_allclose(
        stft(late, size, hop)[:, :, n_hops:], stft(x, size, hop), atol=1e-12
    )


@pytest.mark.parametrize("overlap", [2, 4, 8])
def test_energy_is_kept_up_to_the_overlap(overlap):
    """Squared sine windows that overlap by an even factor sum to half that factor."""
    size = 64
    x = signal(1000)
    spectrum = stft(x, size, size // overlap)
    twice = np.full(size // 2 + 1, 2.0)
    twice[[0, -1]] = 1  # bins without a mirror image
    energy = (twice[:, None] * np.abs(spectrum) ** 2).sum() / size
    assert energy == pytest.approx(overlap / 2 * (x**2).sum(), rel=1e-12)


def test_a_sine_peaks_at_its_frequency():
    sfreq, size = 8000, 256
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / sfreq)[None]
    power = np.abs(stft(tone, size, 64)[0, :, 10:-10]) ** 2
    assert (power.argmax(axis=0) * sfreq / size == 1000).all()


def test_overlap_add_is_the_nearest_signal_to_changed_frames():
    """The residual of changed frames is orthogonal to every signal's frames."""
    rng = np.random.default_rng(0)
    changed = rng.standard_normal(frames(signal(90), 16, 5).shape)
    best = frames(overlap_add(changed, 5, 90), 16, 5)
    for seed in range(3):
        other = frames(signal(90, seed), 16, 5)
        assert abs(((changed - best) * other).sum()) < 1e-10
