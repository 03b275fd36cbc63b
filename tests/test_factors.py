"""Each term of a SPEC says of the samples what it should, and refuses what it cannot use."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sourcesep.auxiliary import (
    LEFT_OUT,
    build,
    build_many,
    check,
    from_array,
)
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.recording import Event, Recording


def recording(n_times=100, sfreq=10.0, *, kind="eeg", seed=0, **known):
    data = np.random.default_rng(seed).standard_normal((2, n_times))
    return Recording(data, sfreq, ("a", "b"), ("", ""), kind, **known)


def named(u):
    """The name of every sample's label."""
    return [u.scales[0].names[label] for label in u.labels]


def refused(message):
    return re.compile(f"^{re.escape(message)}")


# Adaptive


@pytest.mark.parametrize("kind", ["audio", "eeg", "table"])
@pytest.mark.parametrize("seed", range(3))
def test_adaptive_finds_where_the_power_changes(kind, seed):
    sfreq = {"audio": 8000.0, "eeg": 250.0, "table": 1.0}[kind]
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((2, 24_000)) + 5  # an offset is no power
    data[0, 8000:] = (data[0, 8000:] - 5) * 3 + 5
    data[1, 16_000:] = (data[1, 16_000:] - 5) / 4 + 5
    u = build("adaptive", Recording(data, sfreq, ("a", "b"), ("", ""), kind))
    frame = {"audio": 160, "eeg": 25, "table": 60}[kind]
    assert u.n_labels == 3
    assert np.abs(np.flatnonzero(np.diff(u.labels)) + 1 - [8000, 16_000]).max() <= 2 * frame
    assert u.is_time


def test_adaptive_ignores_a_silent_channel_and_survives_digital_silence():
    half = np.random.default_rng(0).integers(-9, 10, 8000)
    half[6400:] = 0
    data = np.zeros((2, 16_000))
    data[0] = np.concatenate([half, -half[::-1]])  # of mean 0, so that silence stays 0
    u = build("adaptive", Recording(data, 8000.0, ("a", "b"), ("", ""), "audio"))
    assert (np.flatnonzero(np.diff(u.labels)) + 1).tolist() == [6400, 9600]


def test_adaptive_sees_no_change_within_silence():
    rng = np.random.default_rng(0)
    levels = (1.0, 1.0, 1e-4, 1e-8)  # the last two are 80 dB and more below the others
    halves = [level * rng.standard_normal((1, 2000)) for level in levels]
    data = np.concatenate([part for x in halves for part in (x, -x)], axis=1)  # of mean 0
    u = build("adaptive", Recording(data, 8000.0, ("a",), ("",), "audio"))
    assert (np.flatnonzero(np.diff(u.labels)) + 1).tolist() == [8000]


def test_adaptive_sees_through_gaps():
    whole = recording(4000, seed=3, kind="table")
    loud = whole.data.copy()
    loud[:, 2000:] *= 5
    holed = loud.copy()
    holed[0, 500:900] = holed[1, 1700:1760] = np.nan
    for data in (loud, holed):
        ends = np.flatnonzero(np.diff(build("adaptive", replace(whole, data=data)).labels))
        assert np.abs(ends - 2000).min() <= 20
        assert len(ends) <= 3


def test_adaptive_never_crosses_recordings_and_needs_change_to_pass_the_check():
    parts = [recording(2000, seed=1), recording(3000, seed=2)]
    u = build_many("adaptive", parts)
    assert np.bincount(u.labels).tolist() == [2000, 3000]
    with pytest.raises(SettingsError, match="labels with two samples or more: 1, and at least 2"):
        check(build("adaptive", parts[0]))


def test_adaptive_on_a_very_short_recording_is_one_stretch():
    assert build("adaptive", recording(5)).n_labels == 1


# Annotations


def test_annotations_are_labels_and_what_is_between_is_a_label_too():
    r = recording(100, 10.0, events=(Event(0, 3, "wake"), Event(5, 2, "sleep")))
    u = build("annotations", r)
    assert named(u) == ["wake"] * 30 + ["(none)"] * 20 + ["sleep"] * 20 + ["(none)"] * 30
    assert u.scales[0].names == ("(none)", "sleep", "wake")
    assert not u.is_time


def test_a_regex_chooses_annotations_anywhere_in_the_description():
    r = recording(100, 10.0, events=(Event(0, 3, "eyes open"), Event(5, 2, "noise")))
    assert set(named(build("annotations:op+en|closed", r))) == {"(none)", "eyes open"}


def test_where_annotations_overlap_they_are_a_label_together():
    r = recording(10, 1.0, events=(Event(0, 6, "b"), Event(4, 4, "a"), Event(1, 2, "b")))
    assert named(build("annotations", r)) == (
        ["b"] * 4 + ["a & b"] * 2 + ["a"] * 2 + ["(none)"] * 2
    )


def test_annotations_without_duration_or_match_are_refused_with_what_there_is():
    r = recording(events=(Event(1, 0, "stim"), Event(2, 1, "rest")))
    message = (
        "aux='annotations:stim': no such annotation lasts any time; there are: 'rest', 'stim'"
    )
    with pytest.raises(SettingsError, match=refused(message)):
        build("annotations:stim", r)


@pytest.mark.parametrize(
    "event", [Event(np.nan, 1, "x"), Event(0, np.inf, "x"), Event(0, -1, "x")]
)
def test_events_that_cannot_be_are_refused(event):
    with pytest.raises(InputError, match=r"event 'x' has onset=.*: must be finite, and the dur"):
        build("annotations", recording(events=(event,)))


@pytest.mark.parametrize("spec", ["segments:1,2", "adaptive", "annotations", "column:c"])
def test_bad_samples_are_left_out_whatever_the_spec(spec):
    events = (Event(2, 2.5, "BAD_blink"), Event(9, 9, "bad muscle"), Event(0, 6, "task"))
    r = recording(100, 10.0, events=events, columns={"c": np.repeat([0, 1], 50)})
    bad = np.zeros(100, dtype=bool)
    bad[20:45] = bad[90:] = True
    u = build(spec, r)
    np.testing.assert_array_equal(u.used, ~bad)
    for scale in u.scales:
        np.testing.assert_array_equal(scale.labels == LEFT_OUT, bad)
        assert np.unique(scale.labels[~bad]).tolist() == list(range(scale.n_labels))
    assert build_many(spec, [r], reject_by_annotation=False).used.all()


def test_labels_keep_their_names_when_others_are_left_out():
    r = recording(100, 10.0, events=(Event(2, 2, "BAD"),))
    u = build("segments:1", r)
    assert u.scales[0].names == tuple(f"{i}-{i + 1} s" for i in (0, 1, 4, 5, 6, 7, 8, 9))
    assert named(u)[45] == "4-5 s"


# Columns


def test_columns_of_few_values_are_labels():
    columns = {
        "sex": np.array(["m", "f"] * 50),
        "on": np.arange(100) < 30,
        "side": np.repeat([-1, 1], 50),
        "site": np.array(["x", "y", "x", "x"] * 25, dtype=object),
    }
    r = recording(columns=columns)
    assert named(build("column:sex", r))[:2] == ["sex=m", "sex=f"]
    assert set(named(build("column:on", r))) == {"on=True", "on=False"}
    assert set(named(build("column:side", r))) == {"side=-1", "side=1"}
    assert np.bincount(build("column:site", r).labels).tolist() == [75, 25]
    u = build("column:sex,on", r)
    assert u.n_labels == 4
    assert named(u)[0] == "sex=m + on=True"
    assert u.covariates is None


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_covariates_and_quantile_bins(seed):
    age = np.random.default_rng(seed).lognormal(size=4000)
    u = build("column:age", recording(4000, columns={"age": age}))
    np.testing.assert_array_equal(u.covariates, age[:, None])
    assert np.bincount(u.labels).tolist() == [100] * 40
    order = np.argsort(age)
    assert (np.diff(u.labels[order]) >= 0).all()
    assert re.fullmatch(r"age in \[-inf, 0\.\d+\)", u.scales[0].names[0])


def test_whole_numbers_of_many_values_are_covariates():
    u = build("column:row", recording(4000, columns={"row": np.arange(4000)}))
    assert u.covariates.shape == (4000, 1)
    assert u.n_labels == 40


def test_numbers_of_few_values_are_not_cut():
    u = build("column:dose", recording(columns={"dose": np.tile([0.0, 0.5, 2.0, 2.0], 25)}))
    assert np.bincount(u.labels).tolist() == [25, 25, 50]
    assert u.scales[0].names == ("dose=0", "dose=.5", "dose=2")
    assert u.covariates.shape == (100, 1)


@pytest.mark.parametrize(
    ("dates", "years"),
    [
        (["1989-12-31", "1990-01-01", "1999-06-01T12:00", "2000-01"], [1989, 1990, 1999, 2000]),
        (["31.12.1989", "1.1.1990", "01.06.1999 12:00", "2000"], [1989, 1990, 1999, 2000]),
        ([1989, 1990, 1999, 2000], [1989, 1990, 1999, 2000]),
        ([1989.0, 1990.0, 1999.0, 2000.0], [1989, 1990, 1999, 2000]),
    ],
)
def test_years_and_decades_of_dates(dates, years):
    r = recording(4, columns={"date": np.array(dates, dtype=object)})
    assert named(build("year:date", r)) == [str(year) for year in years]
    assert named(build("year:date,10", r)) == [
        *("1980-1989", "1990-1999", "1990-1999", "2000-2009")
    ]
    assert not build("year:date", r).is_time


@pytest.mark.parametrize(
    "cell", ["1/2/1990", "1.2.19901", "90-01-01", "", "1990.5", "199012", np.nan]
)
def test_what_is_no_date_has_no_year(cell):
    r = recording(3, columns={"date": np.array(["1990", cell, "1991"], dtype=object)})
    with pytest.raises(InputError, match=r"^column 'date', row 2 \(.*\): no year is read from it"):
        build("year:date", r)
    with pytest.raises(SettingsError, match="no column 'dat'; did you mean 'date'"):
        build("year:dat", r)


def test_a_column_that_is_also_a_channel_brings_a_warning():
    r = recording(columns={"a": np.arange(100) % 2})
    with pytest.warns(SourcesepWarning, match="column 'a' is also a channel that is separated"):
        build("column:a", r)


def test_columns_that_cannot_be_are_refused():
    columns = {
        "weight": np.array([1.0, np.nan] * 50),
        "name": np.array(["x", None] * 50, dtype=object),
        "date": np.arange(100).astype("datetime64[D]"),
        "short": np.zeros(5),
    }
    r = recording(columns=columns)
    message = "no column 'wieght'; did you mean 'weight'? There are: weight, name"
    with pytest.raises(SettingsError, match=re.escape(message)):
        build("column:wieght", r)
    message = "weight has 50 missing or infinite values, the first in row 1: every sample needs"
    with pytest.raises(InputError, match=refused(message)):
        build("column:weight", r)
    with pytest.raises(InputError, match=refused("name has 50 missing or infinite values")):
        build("column:name", r)
    message = "date has values of type datetime64[D]: must be numbers, text or truth values"
    with pytest.raises(InputError, match=refused(message)):
        build("column:date", r)
    message = "column 'short' has shape (5,): must have a value for each of the 100 samples"
    with pytest.raises(InputError, match=refused(message)):
        build("column:short", r)


# Files


@pytest.mark.parametrize("header", ["", "state\n"])
def test_a_file_with_a_row_a_sample(tmp_path, header):
    path = tmp_path / "u.csv"
    path.write_text(header + "0\n0\n5\n-1\n5\n")
    u = build(f"file:{path}", recording(5))
    name = "state" if header else "u0"
    assert u.scales[0].names == (f"{name}=0", f"{name}=5")
    assert u.labels.tolist() == [0, 0, 1, LEFT_OUT, 1]


def test_a_file_of_several_columns_mixes_labels_and_covariates(tmp_path):
    path = tmp_path / "u.csv"
    rows = [f"{'ab'[i % 2]},{i / 7}" for i in range(200)]
    path.write_text("who,when\n" + "\n".join(rows))
    u = build(f"file:{path}", recording(200))
    np.testing.assert_allclose(u.covariates[:, 0], np.arange(200) / 7)
    assert named(u)[1].startswith("who=b + when in [-inf, ")


def test_a_file_of_events_is_like_annotations(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("onset,duration,label\n0,3,wake\n5,2,sleep\n")
    r = recording(100, 10.0, events=(Event(0, 3, "wake"), Event(5, 2, "sleep")))
    from_file, from_events = build(f"file:{path}", r), build("annotations", r)
    np.testing.assert_array_equal(from_file.labels, from_events.labels)
    assert from_file.scales[0].names == from_events.scales[0].names
    with pytest.raises(SettingsError, match="onsets belong to one recording, and there are 2"):
        build_many(f"file:{path}", [r, r])


def test_npy_files_are_read_as_arrays_are(tmp_path):
    values = np.random.default_rng(0).standard_normal((100, 2))
    np.save(tmp_path / "u.npy", values)
    u, wanted = build(f"file:{tmp_path / 'u.npy'}", recording()), from_array(values, 100)
    np.testing.assert_array_equal(u.labels, wanted.labels)
    np.testing.assert_array_equal(u.covariates, values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file; check the path"),
        ("u.txt", b"1\n2\n", "cannot read .txt; use .npy or .csv"),
        ("u.csv", b"1\n2\n3\n", r"has shape \(3, 1\), and a row for each of the 100 samples"),
        ("u.csv", b"", r"has shape \(0,\), and a row for each of the 100 samples is needed"),
        ("u.csv", b"1,2\n3\n", "cannot be read"),
        ("u.csv", b"\xff\xfe\x00", "cannot be read"),
        ("u.npy", b"\x93NUMPY\x01\x00", "cannot be read"),
        ("u.npy", b"", "cannot be read"),
        ("e.csv", b"onset,duration,label\n0,x,a\n", "numbers of seconds, and duration has 'x'$"),
        ("e.csv", b"onset,duration,label\n0,1\n", "'0,1' has other columns than the first row"),
        ("e.csv", b"onset;duration;label\n0;1;a\n", "or .* rows under onset,duration,label"),
        ("e.csv", b"onset,duration,label\n99,1,a\n", "no row lasts any time within the recordi"),
        ("e.csv", b"onset,duration,label\n", "no row lasts any time within the recording"),
        ("u.csv", b"1.5\nnan\n" * 50, "u0 has 50 missing or infinite values, the first in row 1"),
        ("u.csv", b"-2\n0\n" * 50, "u0 has the label -2: labels are 0 or above"),
    ],
)
def test_files_that_cannot_be_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        build(f"file:{tmp_path / name}", recording())


def test_a_pickled_file_is_never_loaded(tmp_path):
    np.save(tmp_path / "u.npy", np.array([{}] * 100, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cannot be read .*without Python objects"):
        build(f"file:{tmp_path / 'u.npy'}", recording())


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((100, 0)), r"has shape \(100, 0\)"), (np.zeros(()), r"has shape \(\)")],
)
def test_an_array_that_says_nothing_of_any_sample(tmp_path, values, message):
    np.save(tmp_path / "u.npy", values)
    with pytest.raises(InputError, match=message):
        build(f"file:{tmp_path / 'u.npy'}", recording())


def test_an_array_that_promises_more_than_it_holds(tmp_path):
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117)
    (tmp_path / "u.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + head + b"\n" + bytes(80))
    with pytest.raises(InputError, match=r"not a readable \.npy file"):
        build(f"file:{tmp_path / 'u.npy'}", recording())


def test_a_cell_that_would_blow_up_the_table(tmp_path):
    rows = ["x" * 2000, *(["a"] * 99)]
    (tmp_path / "u.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="a cell has more than 1000 letters"):
        build(f"file:{tmp_path / 'u.csv'}", recording())
