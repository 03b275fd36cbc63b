from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from sourcesep.exceptions import InputError
from sourcesep.samples import Resampled, Stamp, check_unchanged, pieces, summarise

from .conftest import InOrder


def noise(n_channels, n_times, seed=0):
    return np.random.default_rng(seed).standard_normal((n_channels, n_times)) + 1


@settings(max_examples=60, deadline=None)
@given(n_times=st.integers(1, 200), size=st.integers(1, 90), margin=st.integers(0, 50))
def test_pieces_are_the_whole_with_margins_and_read_it_once(n_times, size, margin):
    data = noise(2, n_times)
    joined, end = [], 0
    for x, span, core in pieces(InOrder(data), size, margin):
        assert span.start == end
        assert span.start % size == 0  # on the grid that maps on frames need
        end = span.stop
        first, last = max(0, span.start - margin), min(n_times, span.stop + margin)
        np.testing.assert_array_equal(x, data[:, first:last])
        joined.append(x[:, core])
    np.testing.assert_array_equal(np.concatenate(joined, axis=1), data)


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_a_summary_is_that_of_the_whole(size):
    data = noise(3, 500)
    data[1] = 0.1
    summary = summarise(data, size)
    np.testing.assert_array_equal(summary.low, data.min(axis=1))
    np.testing.assert_array_equal(summary.high, data.max(axis=1))
    np.testing.assert_allclose(summary.mean, data.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(summary.variance, data.var(axis=1), rtol=1e-12, atol=1e-30)
    assert summary.constant.tolist() == [False, True, False]
    for span, power in zip(summary.spans, summary.power, strict=True):
        assert power == pytest.approx(data[:, span].var(axis=1).sum())


def test_a_summary_tells_what_is_not_finite():
    data = noise(3, 500)
    data[0, 7], data[2, 499] = np.nan, -np.inf
    summary = summarise(data, 100)
    good = np.isfinite(summary.low) & np.isfinite(summary.high)
    assert good.tolist() == [True, True, False]
    assert summary.missing.tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [7, 100, 500])
def test_what_is_missing_does_not_count(size):
    data = noise(4, 500) + 5
    data[0, 3:20], data[1, ::3], data[2] = np.nan, np.nan, np.nan
    summary = summarise(data, size)
    assert summary.missing.tolist() == [17, 167, 500, 0]
    some = [0, 1, 3]
    for found, expected in (
        (summary.mean, np.nanmean),
        (summary.variance, np.nanvar),
        (summary.low, np.nanmin),
        (summary.high, np.nanmax),
    ):
        np.testing.assert_allclose(found[some], expected(data[some], axis=1), rtol=1e-12)
    assert np.isnan(summary.low[2])
    assert not summary.constant.any()


def test_a_stamp_tells_whether_a_file_changed(tmp_path):
    path = tmp_path / "a"
    path.write_text("a")
    stamp = Stamp.of(path)
    check_unchanged(path, stamp)
    for change in (lambda: path.write_text("ab"), path.unlink):
        change()
        with pytest.raises(InputError, match=r"input=.*a: the file was changed or removed since"):
            check_unchanged(path, stamp)


@pytest.mark.parametrize(
    "ratio", [Fraction(160, 441), Fraction(2), Fraction(1, 3), Fraction(3, 2)]
)
def test_resampled_parts_are_those_of_the_whole_and_read_it_once(ratio):
    data = noise(2, 5000)
    whole = resample_poly(data, ratio.numerator, ratio.denominator, axis=1)
    resampled = Resampled(InOrder(data), ratio)
    assert resampled.shape == whole.shape
    parts = [x[:, core] for x, _, core in pieces(resampled, 300, margin=40)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-12)
    again = Resampled(data, ratio)
    for span in (slice(700, 900), slice(10, 20), slice(15, 15), slice(-30, None), slice(None)):
        np.testing.assert_allclose(again[:, span], whole[:, span], atol=1e-12)
    np.testing.assert_allclose(again[1, 5:9], whole[1, 5:9], atol=1e-12)
    with pytest.raises(IndexError, match="steps of 1"):
        again[:, ::2]
