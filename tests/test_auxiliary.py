"""u says of each sample what it was asked to say, and refuses what it cannot."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep import auxiliary
from sourcesep.auxiliary import (
    LEFT_OUT,
    Auxiliary,
    Scale,
    build,
    build_many,
    check,
    default_spec,
    from_array,
)
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.recording import Event, Recording

modest = settings(max_examples=50, deadline=None)


def recording(n_times=100, sfreq=10.0, *, kind="eeg", seed=0, path=None, **known):
    data = np.random.default_rng(seed).standard_normal((2, n_times))
    return Recording(data, sfreq, ("a", "b"), ("", ""), kind, path=path and Path(path), **known)


def named(u):
    """The name of every sample's label."""
    return [u.scales[0].names[label] for label in u.labels]


def refused(message):
    return re.compile(f"^{re.escape(message)}")


# Segments


def test_segments_have_the_seconds_asked_for_and_names_that_say_so():
    u = build("segments:2.5", recording(100, 10.0))
    assert np.bincount(u.labels).tolist() == [25] * 4
    assert u.scales[0].names == ("0-2.5 s", "2.5-5 s", "5-7.5 s", "7.5-10 s")
    assert u.is_time
    assert u.covariates is None
    assert u.spec == "segments:2.5"


def test_rows_of_a_table_are_named_rows():
    u = build("segments:50", recording(100, 1.0, kind="table"))
    assert u.scales[0].names == ("0-50 rows", "50-100 rows")


@modest
@given(st.integers(40, 400), st.floats(0.1, 1), st.lists(st.integers(2, 9), max_size=2))
def test_scales_go_from_fine_to_coarse_and_are_nested(n_times, seconds, factors):
    scales = [seconds]
    for factor in factors:
        scales.append(scales[-1] * factor)
    scales = [s for s in scales if s <= n_times / 50]
    if not scales:
        return
    u = build("segments:" + ",".join(map(repr, scales[::-1])), recording(n_times, 50.0))
    assert len(u.scales) == len(scales)
    for fine, coarse in zip(u.scales, u.scales[1:], strict=False):
        assert coarse.n_labels <= fine.n_labels
        pairs = set(zip(fine.labels.tolist(), coarse.labels.tolist(), strict=True))
        assert len(pairs) == fine.n_labels
    for scale in u.scales:
        assert np.unique(scale.labels).tolist() == list(range(scale.n_labels))


def test_a_scale_that_is_no_multiple_becomes_one_and_says_so():
    with pytest.warns(SourcesepWarning, match=r"segments of 2\.6 s become 3 s, for they are un"):
        u = build("segments:1,2.6", recording(120, 10.0))
    assert np.bincount(u.scales[1].labels).tolist() == [30] * 4


def test_none_and_bare_segments_are_the_default():
    r = recording(40 * 256, 256.0)
    assert build(None, r).spec == build("segments", r).spec == "segments:.5,2,8"
    assert build("segments+adaptive", r).spec == "segments:.5,2,8+adaptive"


def test_the_default_suits_the_shortest_recording():
    parts = [recording(40 * 256, 256.0), recording(5 * 256, 256.0)]
    assert build_many(None, parts).spec == "segments:.5,2"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "segments:1e308",
            "aux='segments:1e308': seconds=1e308 is longer than the recording of 10 s",
        ),
        (
            "segments:11",
            "aux='segments:11': seconds=11 is longer than the recording of 10 s; choose shorter",
        ),
        (
            "segments:1,1.2",
            "aux='segments:1,1.2': seconds=1.2 is too close to the next finer scale; scales must "
            "be different multiples of the finest, 1 s",
        ),
        (
            "segments:.01",
            "aux='segments:.01': seconds=.01 is shorter than a sample at sfreq=10 Hz; "
            "choose longer segments",
        ),
        ("recording", "aux='recording': 'recording' needs several recordings; give more, or use"),
        ("folder", "aux='folder': 'folder' needs several recordings; give more, or use"),
        ("column:x", "aux='column:x': no column 'x'; there are: none"),
        ("annotations", "aux='annotations': no such annotation lasts any time; there are: none"),
    ],
)
def test_what_a_recording_does_not_have_is_refused(spec, message):
    with pytest.raises(SettingsError, match=refused(message)):
        build(spec, recording(100, 10.0))


# Several recordings


@modest
@given(st.lists(st.integers(10, 60), min_size=2, max_size=4), st.integers(1, 9))
def test_segments_never_cross_from_one_recording_to_the_next(lengths, size):
    parts = [recording(n, 1.0, seed=n) for n in lengths]
    u = build_many(f"segments:{size}", parts)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    assert u.n_times == sum(lengths)
    assert len(set(zip(u.labels.tolist(), owner.tolist(), strict=True))) == u.n_labels
    assert len(set(u.scales[0].names)) == u.n_labels
    start = 0
    for part in parts:
        own = u.labels[start : start + part.n_times]
        np.testing.assert_array_equal(own - own[0], build(f"segments:{size}", part).labels)
        start += part.n_times


def test_recording_and_folder_are_labels_where_there_are_several(tmp_path):
    paths = [tmp_path / "rest" / "s1.fif", tmp_path / "rest" / "s2.fif", tmp_path / "task/s1.fif"]
    parts = [recording(n, path=p) for n, p in zip((10, 20, 30), paths, strict=True)]
    by_recording = build_many("recording", parts)
    assert by_recording.scales[0].names == ("s1 (0)", "s2", "s1 (2)")
    assert np.bincount(by_recording.labels).tolist() == [10, 20, 30]
    by_folder = build_many("folder", parts)
    assert by_folder.scales[0].names == ("rest", "task")
    assert np.bincount(by_folder.labels).tolist() == [30, 30]
    assert not by_recording.is_time
    assert not by_folder.is_time


def test_folders_of_one_name_are_told_apart(tmp_path):
    parts = [recording(path=tmp_path / d / "eeg" / "x.fif") for d in ("s1", "s2")]
    u = build_many("folder", parts)
    assert u.scales[0].names == (str(tmp_path / "s1" / "eeg"), str(tmp_path / "s2" / "eeg"))


def test_folder_needs_files():
    with pytest.raises(SettingsError, match=r"recording \(0\) was not read from a file; use 're"):
        build_many("folder", [recording(), recording()])


def test_segments_of_recordings_are_time():
    parts = [recording(50), recording(70)]
    both = build_many("recording+segments:1", parts)
    alone = build_many("segments:1", parts)
    assert both.is_time
    assert both.spec == "recording+segments:1"
    np.testing.assert_array_equal(both.labels, alone.labels)
    assert both.scales[0].names == alone.scales[0].names


def test_at_least_one_recording_is_needed():
    with pytest.raises(SettingsError, match=r"recordings=\[\]: at least one is needed"):
        build_many("segments:1", [])


def test_annotations_and_columns_mean_the_same_in_all_recordings():
    first = recording(20, 1.0, events=(Event(0, 5, "b"),), columns={"x": np.repeat([1, 2], 10)})
    second = recording(
        10, 1.0, events=(Event(0, 4, "a"), Event(8, 99, "b")), columns={"x": np.full(10, 2)}
    )
    u = build_many("annotations", [first, second])
    assert named(u) == ["b"] * 5 + ["(none)"] * 15 + ["a"] * 4 + ["(none)"] * 4 + ["b"] * 2
    assert named(build_many("column:x", [first, second])) == ["x=1"] * 10 + ["x=2"] * 20


def test_an_event_that_runs_past_its_recording_does_not_reach_the_next():
    first = recording(10, 1.0, events=(Event(8, 50, "a"),))
    assert named(build_many("annotations", [first, recording(10)])) == (
        ["(none)"] * 8 + ["a"] * 2 + ["(none)"] * 10
    )


# Products


@modest
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 5))
def test_labels_are_the_combinations_that_occur(seed, n_first, n_second):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, n_first, 60), rng.integers(0, n_second, 60)
    u = build("column:x,y", recording(60, columns={"x": first, "y": second}))
    assert named(u) == [f"x={a} + y={b}" for a, b in zip(first, second, strict=True)]
    assert u.n_labels == len(set(zip(first.tolist(), second.tolist(), strict=True)))


def test_products_with_very_many_possible_combinations():
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 200, 300) for name in "xyz"}
    u = build("column:x,y,z", recording(300, columns=columns))
    assert named(u) == [
        f"x={x} + y={y} + z={z}" for x, y, z in zip(*columns.values(), strict=True)
    ]


def test_several_scales_stay_several_in_a_product():
    r = recording(100, 10.0, events=(Event(0, 5, "on"),))
    u = build("segments:1,2+annotations", r)
    assert [s.n_labels for s in u.scales] == [10, 6]
    assert u.scales[1].names[2:4] == ("4-6 s + (none)", "4-6 s + on")
    assert not u.is_time
    assert u.spec == "segments:1,2+annotations"


def test_covariates_of_several_terms_stand_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 500))
    np.save(tmp_path / "y.npy", y)
    u = build(f"column:x+file:{tmp_path / 'y.npy'}", recording(500, columns={"x": x}))
    np.testing.assert_array_equal(u.covariates, np.stack([x, y], axis=1))


# Arrays


def test_whole_numbers_text_and_truth_values_are_labels():
    u = from_array([3, 7, 7, -1, 3], 5)
    assert u.labels.tolist() == [0, 1, 1, LEFT_OUT, 0]
    assert u.scales[0].names == ("u=3", "u=7")
    assert not u.is_time
    assert named(from_array(["b", "a"], 2)) == ["u=b", "u=a"]
    assert named(from_array([True, False], 2)) == ["u=True", "u=False"]
    assert from_array(np.array([0, 2**40, 0]), 3).labels.tolist() == [0, 1, 0]
    assert from_array(np.array([0, 2**64 - 1], dtype=np.uint64), 2).labels.tolist() == [0, 1]


def test_whole_numbers_at_the_ends_of_their_type_do_not_wrap():
    small = np.concatenate([np.arange(-1, 128), np.arange(-1, 128)]).astype(np.int8)
    np.testing.assert_array_equal(from_array(small, len(small)).labels, small)
    large = np.repeat(np.array([2**64 - 2, 2**64 - 1], dtype=np.uint64), 5)
    u = from_array(large, 10)
    assert u.labels.tolist() == [0] * 5 + [1] * 5
    assert u.scales[0].names == (f"u={2**64 - 2}", f"u={2**64 - 1}")


def test_a_sample_left_out_in_one_column_is_left_out():
    u = from_array([[1, -1], [1, 0], [-1, 1], [0, 1], [1, 0]], 5)
    assert u.labels.tolist() == [LEFT_OUT, 1, LEFT_OUT, 0, 1]
    assert u.scales[0].names == ("u0=0 + u1=1", "u0=1 + u1=0")


def test_one_hot_rows_are_the_labels_they_stand_for():
    truth = np.random.default_rng(0).integers(0, 40, 1000)
    u = from_array(np.eye(40)[truth], 1000)
    assert u.n_labels == 40
    assert len(set(zip(u.labels.tolist(), truth.tolist(), strict=True))) == 40


@pytest.mark.parametrize("n_columns", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("together", [0, 3])
def test_floats_of_any_width_are_binned_evenly(n_columns, together):
    """Up to 40 of them, or of several columns, also of such as go together, more of 80 rows."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4000, n_columns)) + together * rng.standard_normal((4000, 1))
    u = from_array(values, 4000)
    np.testing.assert_array_equal(u.covariates, values)
    assert 27 <= u.n_labels <= (40 if n_columns == 1 else 50)
    assert np.bincount(u.labels).min() > 0.9 * 4000 / u.n_labels


def test_three_covariates_of_many_rows_make_125_labels():
    values = np.random.default_rng(0).standard_normal((10_000, 3))
    assert from_array(values, 10_000).n_labels == 125


def test_short_floats_get_fewer_bins():
    u = from_array(np.random.default_rng(0).standard_normal(80), 80)
    assert np.bincount(u.labels).tolist() == [8] * 10


@pytest.mark.parametrize(
    ("u", "message"),
    [
        (
            np.zeros(9, dtype=int),
            "u of shape (9,): must be (10,) for labels or (10, n_covariates)",
        ),
        (np.zeros((10, 2, 2)), "u of shape (10, 2, 2): must be (10,) for labels"),
        (np.zeros((10, 0)), "u of shape (10, 0): must be (10,) for labels"),
        (3, "u of shape (): must be (10,)"),
        (np.full(10, -2), "u has the label -2: labels are 0 or above, and -1 leaves a sample out"),
        (np.full((10, 2), np.nan), "u0 has 10 missing or infinite values, the first in row 0"),
        (np.full(10, 1j), "u has values of type complex128: must be numbers, text or truth"),
        ([None] * 10, "u has 10 missing or infinite values"),
    ],
)
def test_arrays_that_cannot_be_are_refused(u, message):
    with pytest.raises(InputError, match=refused(message)):
        from_array(u, 10)


# Check, and the dataclass


def test_check_wants_two_labels_of_two_samples():
    message = (
        "aux='array': labels with two samples or more: 1, and at least 2 are needed, for sources "
        "are told apart by what changes from label to label; choose shorter segments, or another u"
    )
    for u in ([0] * 50 + [1], [0] * 50, [-1] * 50 + [0] * 50, [*range(50), 0]):
        with pytest.raises(SettingsError, match=refused(message)):
            check(from_array(u, len(u)))
    with pytest.raises(SettingsError, match="labels with two samples or more: 0"):
        check(from_array([-1] * 9, 9))


def test_check_warns_when_labels_have_few_samples():
    message = r"half of the 20 labels have 5 samples or fewer, and 8 are wanted; longer segments"
    with pytest.warns(SourcesepWarning, match=message):
        check(build("segments:.5", recording(100)))
    check(build("segments:1", recording(100)))
    with pytest.warns(SourcesepWarning, match="have 10 samples or fewer, and 12 are wanted"):
        check(build("segments:1", recording(100)), n_components=12)


def test_defaults_pass_the_check():
    for kind, n_times, sfreq in [("audio", 9000, 8000.0), ("eeg", 5000, 250.0), ("table", 400, 1)]:
        assert default_spec(kind, n_times, sfreq)
        check(build(None, recording(n_times, sfreq, kind=kind)))


def test_take_keeps_the_meaning_of_labels():
    u = from_array(np.random.default_rng(0).standard_normal(100), 100)
    rows = np.array([5, 3, 99])
    part = u.take(rows)
    np.testing.assert_array_equal(part.labels, u.labels[rows])
    np.testing.assert_array_equal(part.covariates, u.covariates[rows])
    assert part.scales[0].names == u.scales[0].names
    assert part.n_times == 3


def test_used_needs_a_label_on_every_scale():
    fine = Scale(np.array([0, 1, LEFT_OUT]), ("a", "b"))
    coarse = Scale(np.array([0, LEFT_OUT, 0]), ("c",))
    u = Auxiliary((fine, coarse), None, is_time=True, spec="")
    assert u.used.tolist() == [True, False, False]
    x, part = u.in_use(np.arange(6.0).reshape(2, 3))
    assert x.tolist() == [[0.0], [3.0]]
    assert part.n_times == 1
    again = part.in_use(x)
    assert again[0] is x
    assert again[1] is part


@pytest.mark.parametrize("kind", ["audio", "array"])
def test_long_silence_is_left_out(kind):
    sound = recording(1000, 200.0, kind=kind)
    sound.data[:, :150] = 0.2  # a constant offset is silent too
    sound.data[:, 400:499] = 0  # a sample too short
    sound.data[:, 600:720] = 0
    sound.data[0, 800:] = 0  # in one channel only
    left_out = np.flatnonzero(~build("segments:.5", sound).used)
    assert left_out.tolist() == [*range(150), *range(600, 720)]


def test_rows_of_a_table_and_samples_without_a_rate_may_stay_the_same():
    for kind, sfreq in (("table", 200.0), ("array", 1.0)):
        other = recording(1000, sfreq, kind=kind)
        other.data[:, :500] = 0
        assert build(f"segments:{100 / sfreq}", other).used.all()


class TestCovariatesOfOtherRows:
    """A few rows have quantiles of their own; the labels are those of the fit."""

    @pytest.mark.parametrize(
        "draw",
        [
            lambda rng: rng.random(2000),
            lambda rng: rng.random((2000, 2)),
            lambda rng: rng.random((2000, 2)) * 1e-7 - 5,
            lambda rng: rng.standard_cauchy(2000),
            lambda rng: -rng.integers(0, 4, 2000) * 1e-7,
            lambda rng: np.eye(3)[rng.integers(0, 3, 2000)],
        ],
        ids=["bins", "of two", "narrow", "wild", "levels", "one-hot"],
    )
    def test_have_its_labels(self, draw):
        u = draw(np.random.default_rng(0))
        fitted = auxiliary.from_array(u, 2000)
        for some in (np.arange(2000), np.arange(7), np.array([3]), np.arange(0, 2000, 3)):
            found = auxiliary.from_array(u[some], len(some))
            found = auxiliary.renumbered(found, fitted.scales[0].names)
            agree = found.labels == fitted.labels[some]
            assert agree.mean() > 0.998  # names give cuts to a thousandth of what is between
            np.testing.assert_array_equal(found.covariates, fitted.covariates[some])

    def test_beyond_those_that_the_fit_has_seen(self):
        u = np.random.default_rng(0).random(2000)
        names = auxiliary.from_array(u, 2000).scales[0].names
        far = auxiliary.renumbered(auxiliary.from_array(np.array([-9.0, 9.0]), 2), names)
        np.testing.assert_array_equal(far.labels, [0, 39])
        levels = auxiliary.from_array(np.round(u), 2000).scales[0].names
        with pytest.raises(InputError, match="a label that the fit has not seen"):
            auxiliary.renumbered(auxiliary.from_array(np.array([0.5]), 1), levels)

    def test_with_labels_that_say_more_are_not_guessed(self):
        u = np.linspace(0, 1, 1000)
        both = auxiliary.from_arrays([u, u], [1000, 1000])
        with pytest.raises(InputError, match="a label that the fit has not seen"):
            auxiliary.renumbered(auxiliary.from_array(u[:9], 9), both.scales[0].names)
