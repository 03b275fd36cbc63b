"""Which samples are held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.auxiliary import from_array
from sourcesep.ivae import heldout
from sourcesep.ivae.heldout import (
    BAND,
    after_splices,
    block_folds,
    draw_halves,
    excerpt,
    random_halves,
    slowed,
)

from ..conftest import in_time


@st.composite
def labellings(draw):
    n_labels = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(-1, n_labels, draw(st.integers(1, 700)))
    return (np.sort(labels) if draw(st.booleans()) else labels), n_labels, rng


class TestFolds:
    @settings(max_examples=60, deadline=None)
    @given(labellings(), st.integers(2, 6))
    def test_every_label_is_shared_out_evenly(self, drawn, n_folds):
        labels, n_labels, _ = drawn
        folds = block_folds(labels, n_labels, n_folds)
        np.testing.assert_array_equal(folds == -1, labels == -1)
        for label in range(n_labels):
            inside = folds[labels == label]
            assert ((inside >= 0) & (inside < n_folds)).all()
            counts = np.bincount(inside, minlength=n_folds)
            assert np.ptp(counts) <= max(1, len(inside) // heldout.SHORTEST_BLOCK)
            if len(inside) >= n_folds:
                assert (counts > 0).all()

    def test_blocks_are_not_shorter_than_they_may_be(self):
        labels = np.repeat(np.arange(4), 100)
        folds = block_folds(labels, 4, 5)
        changes = np.flatnonzero(np.diff(folds) | np.diff(labels))
        assert np.diff(np.r_[-1, changes, 399]).min() >= heldout.SHORTEST_BLOCK

    def test_labels_of_few_samples_leave_no_fold_empty(self):
        labels = np.repeat(np.arange(40), 3)
        assert (np.bincount(block_folds(labels, 40, 5)) > 0).all()


class TestHalves:
    @settings(max_examples=60, deadline=None)
    @given(labellings())
    def test_every_label_is_halved(self, drawn):
        labels, n_labels, rng = drawn
        half = random_halves(labels, n_labels, rng)
        np.testing.assert_array_equal(half == -1, labels == -1)
        for label in range(n_labels):
            inside = half[labels == label]
            assert abs((inside == 0).sum() - (inside == 1).sum()) <= max(
                1, 1 + len(inside) // (2 * heldout.SHORTEST_BLOCK)
            )

    def test_they_are_drawn(self):
        labels = np.repeat(np.arange(10), 200)
        draws = [random_halves(labels, 10, np.random.default_rng(s)) for s in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).mean() > 0.2

    def test_segments_stay_whole(self):
        u = in_time(4000, 100)
        x = np.random.default_rng(0).standard_normal((2, 4000))
        half = draw_halves(x, u, 2, np.random.default_rng(1))
        assert all(np.ptp(half[u.labels == k]) == 0 for k in range(40))
        assert half.mean() == pytest.approx(0.5)

    @pytest.mark.parametrize("u", [in_time(400, 100), from_array(np.arange(400) // 20, 400)])
    def test_few_segments_and_labels_are_halved_inside(self, u):
        x = np.random.default_rng(0).standard_normal((2, 400))
        half = draw_halves(x, u, 2, np.random.default_rng(1))
        assert all(0 < half[u.labels == k].mean() < 1 for k in range(u.n_labels))

    def test_a_source_heard_in_one_segment_is_in_both_halves(self):
        u = in_time(4000, 100)
        x = np.random.default_rng(0).standard_normal((2, 4000))
        x[1, 100:] = 0
        half = draw_halves(x, u, 2, np.random.default_rng(1))
        assert all(np.ptp(x[1, half == which]) > 0 for which in (0, 1))

    def test_a_source_heard_once_cannot_be(self):
        x = np.random.default_rng(0).standard_normal((2, 4000))
        x[1, 1:] = 0
        assert draw_halves(x, in_time(4000, 100), 2, np.random.default_rng(1)) is None

    @pytest.mark.parametrize("n_times", [1500, 4000, 20_000])
    def test_maps_with_memory_get_few_long_stretches(self, n_times):
        x = np.random.default_rng(0).standard_normal((2, n_times))
        draws = [
            draw_halves(x, in_time(n_times, 20), 2, np.random.default_rng(s), memory=100)
            for s in range(6)
        ]
        for half in draws:
            assert half.mean() == pytest.approx(0.5, abs=0.001)
            changes = np.flatnonzero(np.diff(half))
            edges = np.concatenate([[-1], changes, [n_times - 1]])
            assert np.diff(edges).min() >= heldout.STRETCH * 100
        assert any((half != draws[0]).any() for half in draws)


class TestExcerpt:
    def test_short_records_are_taken_whole(self):
        x = np.arange(1000)
        np.testing.assert_array_equal(x[excerpt(in_time(1000, 10))], x)

    @pytest.mark.parametrize("spare", [0, 1, 7, 5000])
    def test_long_ones_from_beginning_to_end(self, monkeypatch, spare):
        monkeypatch.setattr(heldout, "EXCERPT", 2000)
        n_times = 2000 + spare
        chosen = np.arange(n_times)[excerpt(in_time(n_times, 10))]
        assert len(chosen) == 2000
        assert (np.diff(chosen) > 0).all()
        assert chosen[0] == 0
        assert chosen[-1] == n_times - 1

    @pytest.mark.parametrize("sfreq", [22_050, 44_100, 48_000, 96_000])
    def test_the_same_seconds_at_every_rate(self, sfreq):
        def begins_and_ends(rate):
            n_times = 10 * rate
            chosen = np.arange(n_times)[excerpt(in_time(n_times, rate // 50), sfreq=rate)]
            cuts = np.flatnonzero(np.diff(chosen) != 1)
            first = chosen[np.concatenate([[0], cuts + 1])]
            last = chosen[np.concatenate([cuts, [-1]])]
            return len(chosen) / rate, np.stack([first, last + 1]) / rate

        seconds, stretches = begins_and_ends(16_000)
        others, found = begins_and_ends(sfreq)
        assert seconds == others == heldout.SECONDS
        np.testing.assert_allclose(found, stretches, atol=2 / 16_000)

    @pytest.mark.parametrize("sfreq", [1, 250, 8000, 16_000])
    def test_a_number_of_samples_where_that_is_longer(self, sfreq):
        u = in_time(200_000, 400)
        np.testing.assert_array_equal(excerpt(u, sfreq=sfreq), excerpt(u))

    @pytest.mark.parametrize("memory", [2, 50, 5000])
    def test_maps_with_memory_get_longer_stretches(self, memory):
        n_times = 300_000
        chosen = np.arange(n_times)[excerpt(in_time(n_times, 10), memory)]
        assert len(chosen) <= max(heldout.EXCERPT, 4 * heldout.STRETCH * memory)
        assert len(chosen) > 0.9 * heldout.EXCERPT
        edges = np.flatnonzero(np.diff(chosen) != 1)
        sizes = np.diff(np.concatenate([[-1], edges, [len(chosen) - 1]]))
        assert sizes.min() >= 2 * heldout.STRETCH * memory
        assert chosen[-1] == n_times - 1 or len(sizes) == 1


def test_what_follows_a_splice_is_known():
    at = np.array([0, 1, 2, 7, 8, 9, 10, 20])
    expected = [False, False, False, True, True, False, False, True]
    assert after_splices(at, 2).tolist() == expected
    assert not after_splices(np.arange(50), 32).any()
    assert after_splices(np.array([5]), 32).tolist() == [False]  # a beginning is no splice


@pytest.mark.parametrize("sfreq", [8000.0, 11025.0, 44100.0, 48000.0])
def test_what_is_slowed_keeps_its_time_and_loses_what_is_high(sfreq):
    places = np.concatenate([np.arange(6000), np.arange(9000, 13_001)])
    low, high = (np.sin(2 * np.pi * f * places / sfreq) for f in (440.0, 5000.0))
    slow = slowed(np.stack([low, high]), places, sfreq)
    n_slower = slow.rows.shape[1]
    assert n_slower == len(slow.at) == len(slow.places)
    assert n_slower == pytest.approx(len(places) * min(1, BAND / sfreq), abs=2)
    assert (np.diff(slow.at) > 0).all()
    assert slow.at[-1] < len(places)
    (splice,) = np.flatnonzero(np.diff(slow.at < 6000))
    np.testing.assert_array_equal(np.flatnonzero(np.diff(slow.places) != 1), splice)
    inside = np.ones(n_slower, bool)
    for at_end in (slice(32), slice(-32, None), slice(splice - 32, splice + 33)):
        inside[at_end] = False
    error = (slow.rows[0] - low[slow.at])[inside]
    assert np.abs(error).max() < 2 * np.pi * 440 / sfreq + 0.01  # `at` is a whole sample
    if sfreq > 10_000:
        assert np.square(slow.rows[1][inside]).mean() < 0.01
