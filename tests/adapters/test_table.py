import builtins
import csv
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.adapters import _csv, _parquet, table
from sourcesep.exceptions import (
    InputError,
    MissingDependencyError,
    SettingsError,
    SourcesepWarning,
)
from sourcesep.reading import read
from sourcesep.recording import Recording


def write_csv(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# Reading CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_newlines_and_byte_order_marks(tmp_path, delimiter, newline, mark):
    lines = ["a,b,c", "1,2.5,-3e-2", "4,5.5,6", "", "7,8.5,9"]
    text = mark + newline.join(lines).replace(",", delimiter) + newline
    recording = read(write_csv(tmp_path, text))
    assert recording.names == ("a", "b", "c")
    assert np.array_equal(recording.data, [[1, 4, 7], [2.5, 5.5, 8.5], [-0.03, 6, 9]])
    assert recording.sfreq == 1
    assert recording.kind == "table"
    assert recording.units == ("", "", "")
    assert recording.origin.time == {}


@pytest.mark.parametrize("declared", ["sep=;\r\n", '\ufeff"sep=;"\r\n', ""])
def test_what_spreadsheets_add(tmp_path, declared):
    """A line that names the delimiter, a delimiter at the end of every row, dates with dots."""
    days = ["28.02.2020", "1.3.2020", "02.03.2020"]
    cells = ["0;0;#N/A", "1;1;5", "2;4;7"]
    rows = [f"{day};{values};" for day, values in zip(days, cells, strict=True)]
    text = declared + "\r\n".join(["Datum;a;b;c;", *rows])
    with pytest.warns(SourcesepWarning, match="Datum kept as time"):
        recording = read(write_csv(tmp_path, text))
    assert recording.names == ("a", "b", "c")
    assert np.array_equal(recording.data[:2], [[0, 1, 2], [0, 1, 4]])
    assert np.isnan(recording.data[2]).tolist() == [True, False, False]
    assert recording.origin.time == {"Datum": tuple(days)}
    swapped = text.replace("1.3.2020", "31.01.2020")
    with pytest.raises(InputError, match=r"row 2 \(31.01.2020\) does not come after row 1"):
        read(write_csv(tmp_path, swapped))


@settings(max_examples=30, deadline=None)
@given(
    data=st.integers(2, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-1e100, 1e100), min_size=n, max_size=n),
            min_size=2,
            max_size=6,
        )
    )
)
def test_floats_come_back_exactly(data):
    """The writer's file, read again, is the same floats to the last bit."""
    values = np.array(data).T
    n_sources = len(values)
    values[:, 0] = np.arange(1, n_sources + 1)  # no source is constant, no two alike
    values[:, 1] = -np.arange(1, n_sources + 1)
    recording = Recording(
        values, 1.0, tuple(map(str, range(n_sources))), ("",) * n_sources, "array"
    )

    class Separation:
        def __init__(self):
            self.recording, self.sources, self.mixing = recording, values, values[:, :n_sources]
            self.n_components, self.warnings = n_sources, []
            self.prior_here = ((), np.zeros((0, n_sources)), np.zeros((0, n_sources)))

        def image(self, k):
            raise AssertionError(k)

    with TemporaryDirectory() as name:
        facts = table.write(Separation(), Path(name))
        again = table.read(Path(name) / "sources.csv")
    assert facts["files"] == ["sources.csv", "loadings.csv", "prior.csv"]
    assert facts["time_columns"] == []
    assert np.array_equal(again.data, values)
    assert np.array_equal(np.signbit(again.data), np.signbit(values))


def test_quotes_protect_delimiters_in_names(tmp_path):
    path = write_csv(tmp_path, '"a, b",c,"../../d"\n1,2,3\n4,6,5\n')
    assert read(path).names == ("a, b", "c", "../../d")
    assert read(path, columns='"a, b",c').names == ("a, b", "c")


def test_a_header_of_numbers_is_data(tmp_path):
    path = write_csv(tmp_path, "1,2\n3,5\n4,4\n")
    with pytest.warns(
        SourcesepWarning, match="the first row holds numbers.*called col0 to col1"
    ) as caught:
        recording = read(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert recording.names == ("col0", "col1")
    assert np.array_equal(recording.data, [[1, 3, 4], [2, 5, 4]])


def test_all_columns_stay_available_in_their_type(tmp_path):
    text = "stage,label,x,y,gappy\n1,rem,.5,2,\n2,wake,.25,4,7\n1,,.75,1,NA\n"
    recording = read(write_csv(tmp_path, text), columns=["x", "y"])
    columns = recording.columns
    assert recording.names == ("x", "y")
    assert list(columns) == ["stage", "label", "x", "y", "gappy"]
    assert columns["stage"].dtype == np.int64
    assert list(columns["stage"]) == [1, 2, 1]
    assert list(columns["label"]) == ["rem", "wake", ""]
    assert columns["x"].dtype == np.float64
    assert [math.isnan(v) for v in columns["gappy"]] == [True, False, True]


def test_times_in_an_array_are_kept_as_python_writes_them(tmp_path):
    rows = [(0.25, 1, 2), (0.5, 3, 5), (0.75, 4, 4)]
    np.save(tmp_path / "a.npy", np.array(rows, [("t", float), ("x", int), ("y", int)]))
    with pytest.warns(SourcesepWarning, match="t kept as time"):
        recording = read(tmp_path / "a.npy")
    assert recording.origin.time == {"t": ("0.25", "0.5", "0.75")}
    assert (recording.names, recording.sfreq) == (("x", "y"), 4.0)


@pytest.mark.parametrize("columns", ["y,x", ["y", "x"], ("y", "x"), " y , x "])
def test_columns_are_chosen_in_the_given_order(tmp_path, columns):
    path = write_csv(tmp_path, "x,y,z\n1,2,3\n3,5,9\n")
    assert read(path, columns=columns).names == ("y", "x")


# Time


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("date", ["2020-01-01", "2020-01-02", "2020-01-05"]),
        ("anything", ["2020-01-01T00:00:00Z", "2020-01-01 00:10", "2020-01-02"]),
        ("month", ["2020-01", "2020-02", "2020-03"]),
        ("Date", ["1/2/2020", "2/2/2020", "3/2/2020"]),
        ("time", ["12:00", "12:05", "12:10"]),
        ("year", ["1990", "1991", "1995"]),
        ("", ["0", "1", "2"]),
        ("Index", ["10", "20", "30"]),
        ("time (ms)", ["0", "4", "8"]),
    ],
)
def test_time_is_kept_verbatim(fake, folder, tmp_path, name, cells):
    text = f"{name},a,b\n" + "".join(f"{c},{i},{i * i}\n" for i, c in enumerate(cells))
    name = name or "index"
    with pytest.warns(SourcesepWarning) as caught:
        recording = read(write_csv(tmp_path, text))
    assert [str(w.message) for w in caught] == [
        f"a.csv: {name} kept as time: not separated, written back beside the sources; to "
        "separate it choose it with --columns"
    ]
    assert caught[0].filename == __file__
    assert recording.names == ("a", "b")
    assert recording.sfreq == 1
    separation = fake(recording, 2)
    facts = table.write(separation, folder)
    assert facts["time_columns"] == [name]
    rows = rows_of(folder / "sources.csv")
    assert rows[0] == [name, "IVAE000", "IVAE001"]
    assert [row[0] for row in rows[1:]] == cells
    assert np.array_equal(np.array([r[1:] for r in rows[1:]], float).T, separation.sources)


@pytest.mark.parametrize("name", ["time", "t", "Time (s)", "time_s", "Seconds"])
@pytest.mark.parametrize(("rate", "digits"), [(250, 4), (256, 4), (44100, 7), (0.1, 1)])
def test_seconds_in_equal_steps_give_the_rate(tmp_path, name, rate, digits):
    rng = np.random.default_rng(0)
    lines = [f"{i / rate + 3:.{digits}f},{a},{b}" for i, (a, b) in enumerate(rng.random((500, 2)))]
    path = write_csv(tmp_path, f"{name},a,b\n" + "\n".join(lines))
    with pytest.warns(SourcesepWarning, match="kept as time"):
        recording = read(path)
    assert recording.sfreq == pytest.approx(rate, rel=1e-3)
    if rate != 256 and rate != 44100:  # whole numbers of the last digit
        assert recording.sfreq == rate
    assert recording.origin.time[name][1] == f"{1 / rate + 3:.{digits}f}"


def test_a_few_missing_rows_are_mentioned(tmp_path):
    times = [i * 0.004 for i in range(400) if i not in (17, 18)]
    rows = "".join(f"{t:.4f},{i % 7},{i % 5}\n" for i, t in enumerate(times))
    with pytest.warns(SourcesepWarning, match="1 step is longer or shorter"):
        assert read(write_csv(tmp_path, "time,a,b\n" + rows)).sfreq == 250


def test_rows_without_a_date_are_kept_among_dates(tmp_path):
    """Spreadsheets write empty rows at the end."""
    text = "Datum,a,b\n1.1.2020,1,2\n2.1.2020,2,5\n3.1.2020,4,3\n,,\n"
    with pytest.warns(SourcesepWarning, match="Datum kept as time"):
        recording = read(write_csv(tmp_path, text))
    assert recording.origin.time["Datum"][-1] == ""
    assert np.isnan(recording.data[:, -1]).all()


@pytest.mark.parametrize("times", [[0, 1, 3, 7, 15], [0.0, 0.1, 0.25, 0.3, 0.45]])
def test_uneven_seconds_give_no_rate(tmp_path, times):
    rows = "".join(f"{t},{i},{i * i}\n" for i, t in enumerate(times))
    with pytest.warns(SourcesepWarning, match="time kept as time"):
        assert read(write_csv(tmp_path, "time,a,b\n" + rows)).sfreq == 1


def test_numbers_that_do_not_rise_are_no_time(tmp_path):
    with pytest.warns(SourcesepWarning) as caught:
        recording = read(write_csv(tmp_path, "t,index,b\n1,5,3\n2,4,2\n1,9,7\n"))
    assert recording.names == ("t", "index", "b")
    assert [str(w.message) for w in caught] == [
        "a.csv: t, index called like times, but they do not rise from row to row: separated "
        "like any other column; leave them out with --columns"
    ]


def test_time_that_is_chosen_is_separated(tmp_path):
    recording = read(write_csv(tmp_path, "time,a,b\n1,5,3\n2,4,2\n3,9,7\n"), columns="time,b")
    assert recording.names == ("time", "b")
    assert recording.origin.time == {}


def test_date_and_time_are_both_kept(tmp_path):
    path = write_csv(tmp_path, "date,time,a,b\n1.2.20,08:00,1,2\n1.2.20,09:00,3,5\n")
    with pytest.warns(SourcesepWarning, match=r"a\.csv: date, time kept as time") as caught:
        recording = read(path)
    assert len(caught) == 1
    assert recording.origin.time == {"date": ("1.2.20", "1.2.20"), "time": ("08:00", "09:00")}


# Missing values


@pytest.mark.parametrize("gap", ["", "NA", "nan", "?", " - ", "null"])
def test_missing_values_are_nan(tmp_path, gap):
    recording = read(write_csv(tmp_path, f"a,b\n1,2\n{gap},4\n5,{gap}\n7,9\n"))
    expected = [[1, np.nan, 5, 7], [2, 4, np.nan, 9]]
    np.testing.assert_array_equal(recording.data, expected)
    assert recording.summary.missing.tolist() == [1, 1]


def test_short_gaps_are_filled_by_straight_lines(tmp_path):
    cells = ["", "1", "", "", "4", "", "", "", "8", "9", ""]
    path = write_csv(tmp_path, "a,b\n" + "".join(f"{c},{i * i}\n" for i, c in enumerate(cells)))
    with pytest.warns(SourcesepWarning) as caught:
        recording = read(path, interpolate=2)
    assert [str(w.message) for w in caught] == [
        "a.csv: 2 values in gaps of up to 2 rows filled by straight lines: a (2); 5 values are "
        "still missing"
    ]
    nan = np.nan
    np.testing.assert_allclose(recording.data[0], [nan, 1, 2, 3, 4, nan, nan, nan, 8, 9, nan])
    with pytest.warns(SourcesepWarning, match=r"5 values .* up to 3 rows .*: a \(5\); 2 values"):
        recording = read(path, interpolate=3)
    np.testing.assert_allclose(recording.data[0], [nan, *range(1, 10), nan])


@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
def test_gaps_of_all_kinds_of_table(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    array = np.arange(12.0).reshape(6, 2) ** 2
    array[2, 0] = np.nan
    path = tmp_path / f"a.{suffix}"
    frame = pandas.DataFrame(array, columns=["col0", "col1"])
    if suffix == "npy":
        np.save(path, array)
    else:
        getattr(frame, f"to_{suffix}")(path, index=False)
    np.testing.assert_array_equal(read(path).data, array.T)
    with pytest.warns(SourcesepWarning, match="1 values in gaps of up to 1 rows"):
        assert read(path, interpolate=1).data[0, 2] == (array[1, 0] + array[3, 0]) / 2


@pytest.mark.parametrize("interpolate", [0, -1, 1.5, "3", True])
def test_interpolate_is_a_number_of_rows(tmp_path, interpolate):
    with pytest.raises(SettingsError, match=r"interpolate=.*: must be a number of rows, 1 or"):
        read(write_csv(tmp_path, "a,b\n1,2\n3,5\n"), interpolate=interpolate)


def test_numbers_that_turn_out_to_be_text(tmp_path, monkeypatch):
    """Codes look like numbers until a later chunk; the first ones are kept as written."""
    monkeypatch.setattr(_csv, "ROWS_AT_ONCE", 4)
    codes = [*(f"00{i}" for i in range(9)), "x9", "7_0"]
    text = "a,b,code\n" + "".join(f"{i},{i * i},{code}\n" for i, code in enumerate(codes))
    path = write_csv(tmp_path, text)
    recording = read(path, columns="a,b")
    assert list(recording.columns["code"]) == codes
    assert recording.columns["a"].dtype == np.int64
    assert np.array_equal(recording.data, [np.arange(11), np.arange(11) ** 2])
    with pytest.raises(InputError, match=r"column=code holds text \(row 10: 'x9'\)"):
        read(path)


def test_a_column_of_whole_numbers_and_others(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "ROWS_AT_ONCE", 2)
    recording = read(write_csv(tmp_path, "a,b\n1,9007199254740993\n2,5\n3,.5\n,1\n"))
    np.testing.assert_array_equal(recording.data[0], [1, 2, 3, np.nan])
    assert recording.data[1, 0] == float(9007199254740993)
    assert recording.columns["b"].dtype == np.float64


# Refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b,c\n1,2,x\n3,4,y\n",
            r"column=c holds text \(row 1: 'x'\): only numbers can be separated; put a number "
            r"there or nothing, or choose the columns of numbers with --columns a,b$",
        ),
        ("a,b\n1,2\n3,1_000\n", r"column=b holds text \(row 2: '1_000'\)"),
        (
            "a;b\n1,5;2\n2,5;3\n",
            r"column=a holds text \(row 1: '1,5'\): a decimal comma is not read as a number; "
            "write numbers with a point, as in 1.5",
        ),
        ("a;b\n1;-1.000,25\n2;3\n", "decimal comma"),
        ('a,b\n"1,309.5",1\n2,3\n', "'1,309.5'.*write plain numbers, without marks"),
        ("a,b\n12.5%,1\n2,3\n", "write plain numbers, without marks"),
        ("a,b\n-$12.5,1\n2,3\n", "write plain numbers, without marks"),
        ("a,b\n1.2.2020,1\n2,3\n", "only numbers can be separated"),
        ("a,b\n1,\n3,NA\n5,?\n", r"column=b has no value at all: choose the other columns"),
        (
            "date,a,b\n2020-01-01,1,2\n2020-01-03,2,5\n2020-01-02,3,4\n",
            r"column=date: row 3 \(2020-01-02\) does not come after row 2 \(2020-01-03\): sort "
            "the rows by time, one row a time",
        ),
        (
            "date,a,b\n2020-01-01,1,2\n2020-01-02,2,5\nTotal,3,7\n",
            r"column=date: row 3 \('Total'\) has no date as the others do: take the row out",
        ),
        ("Datum,a,b\n1.1.2020,1,2\n2.1.2020,2,5\nSumme,3,7\n", r"column=Datum: row 3 \('Summe'\)"),
        ("Report\na,b\n1,2\n2,3\n", "line 2 has 2 values.*take out what stands above the names"),
        ("Report,\na,b\n1,2\n", r"row 1: 'a'\).*do their names stand in the first line\?"),
        (
            "when,a,b\n2020-01,1,2\n2020-02,2,5\n2020-02,3,4\n",
            r"column=when: row 3 \(2020-02\) does not come after row 2",
        ),
        ("a\n1\n2\n", r"1 column of numbers \(a\): at least two are needed.*comma, semicolon or"),
        ("a b\n1 2\n3 4\n", r"column=a b holds text"),
        (
            "a,b\n1,2\n3,4,5\n",
            "line 3 has 3 values, the first row has 2: every row needs the same",
        ),
        ("a,b\n1,2\n\n3\n", "line 4 has 1 values, the first row has 2"),
        ("a,a\n1,2\n3,4\n", "column=a is there twice: give each column a name of its own"),
        ("a,b\n", "no rows: a table needs a row for each sample"),
        ("\n\n", "no rows"),
        ("a,b\n1,2\n", "n_channels=2, n_times=1: at least one channel and two samples"),
        ("a,b\n1,2\n3,inf\n", "NaN or infinite samples in channel b"),
        ("a,b\n1,2\n1,2\n", "every channel is constant"),
        ('a,b\n"1,2\n3,4\n', "unexpected end of data; save the table as CSV anew"),
        ("a,b\n1,\0\n3,4\n", "holds binary data, not text"),
        (b"a,b\n1,\xff\n3,4\n", r"not UTF-8 text \(byte 6\); save the table as CSV in UTF-8"),
        (b"\xff\xfea\0,\0b\0", "not UTF-8 text"),
        ("a,b\n" + "1" * 200_000 + ",2\n", "field larger than field limit"),
    ],
)
def test_refusals_are_one_clear_line(tmp_path, text, message):
    path = write_csv(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith((f"input={path}: ", "a.csv: "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("suffix", ["csv", "npy", "parquet"])
def test_junk_is_refused(tmp_path, suffix, seed):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(np.random.default_rng(seed).bytes(2000))
    with pytest.raises(InputError, match=r"not UTF-8|not a readable|binary") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("x,q", "columns=q: no such column; the file has x, y, label"),
        (["x", "x"], "columns=x,x: names a column twice"),
        ("", "columns='': names at least two columns, of x, y, label"),
        ([], r"columns=\[\]: names at least two columns"),
    ],
)
def test_columns_that_are_not_there(tmp_path, columns, message):
    path = write_csv(tmp_path, "x,y,label\n1,2,a\n3,5,b\n")
    with pytest.raises(SettingsError, match=message):
        read(path, columns=columns)


def test_chosen_text_and_a_single_choice_are_refused(tmp_path):
    path = write_csv(tmp_path, "x,y,label\n1,2,a\n3,5,b\n")
    with pytest.raises(InputError, match="column=label holds text"):
        read(path, columns="x,label")
    with pytest.raises(InputError, match=r"1 column of numbers \(x\)"):
        read(path, columns="x")


# NPY


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint64, bool, ">f8"])
def test_npy_is_read(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    recording = read(tmp_path / "a.npy")
    assert np.array_equal(recording.data, array.T.astype(np.float64))
    assert recording.names == ("col0", "col1", "col2")


def test_structured_npy_has_its_fields_as_columns(tmp_path):
    array = np.zeros(3, dtype=[("day", "M8[D]"), ("x", "f8"), ("y", "i4"), ("label", "U3")])
    array["day"] = np.array("2020-01-01", "M8[D]") + np.arange(3)
    array["x"], array["y"], array["label"] = [1, 3, 2], [5, 4, 9], ["a", "b", "c"]
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match="column=label holds text"):
        read(tmp_path / "a.npy")
    with pytest.warns(SourcesepWarning, match="day kept as time"):
        recording = read(tmp_path / "a.npy", columns="x,y")
    assert np.array_equal(recording.data, [[1, 3, 2], [5, 4, 9]])
    assert recording.origin.time == {"day": ("2020-01-01", "2020-01-02", "2020-01-03")}
    assert list(recording.columns["label"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(9.0), r"shape=\(9,\): a table has two axes, \(rows, columns\)"),
        (np.zeros((3, 3, 3)), r"shape=\(3, 3, 3\): a table has two axes"),
        (np.zeros((2, 500)), r"shape=\(2, 500\): more columns than rows;.*save the transpose"),
        (np.arange(9.0)[:, None], r"1 column of numbers \(col0\)"),
        (np.ones((9, 2), complex), "column=col0: type complex128 cannot be separated"),
        (
            np.array([[1, 2], [3, None]]),
            "not a readable .npy file of numbers .*without Python obj",
        ),
        (np.array([[1, np.nan], [2, np.nan]]), "column=col1 has no value at all"),
        (np.zeros((0, 2)), "more columns than rows|no rows"),
    ],
)
def test_npy_that_is_no_table(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("rows", [10**6, 10**15])
def test_npy_whose_header_lies(tmp_path, rows):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((50, 2)))
    content = path.read_bytes()
    head = content[10:128].replace(b"(50, 2), }", f"({rows}, 2), }}".encode())[:117] + b"\n"
    path.write_bytes(content[:10] + head + content[128:])
    with pytest.raises(InputError, match=r"not a readable \.npy file"):
        read(path)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (2**40, 2), }", "not a readable"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 2), }", "mmap length"),
        ("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776, 2), }", "no values"),
        ("{'descr': '|V0', 'fortran_order': False, 'shape': (9, 2), }", "no values"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (9, ", "not a readable"),
        (
            "{'descr': '<U4', 'fortran_order': False, 'shape': (9, 2), }",
            "holds text that is no valid Unicode",
        ),
    ],
)
def test_npy_headers_that_lie(tmp_path, head, message):
    padded = head.encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded
    (tmp_path / "a.npy").write_bytes(content + b"\xff\xfe\x01\x7f" * 72)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


def test_an_archive_named_npy(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros((5, 2)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"is an \.npz archive: save one array with numpy.save"):
        read(tmp_path / "a.npy")


# Parquet


def test_parquet_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "x": [1.5, 2.5, 0.5],
            "n": [3, 1, 2],
            "label": ["a", None, "c"],
            "gappy": pandas.array([1, None, 3], dtype="Int64"),
        },
        index=pandas.date_range("2020-01-01", periods=3, name="when"),
    )
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.warns(SourcesepWarning, match="when kept as time"):
        recording = read(tmp_path / "a.parquet", columns="x,n")
    assert np.array_equal(recording.data, [[1.5, 2.5, 0.5], [3, 1, 2]])
    assert list(recording.columns) == ["when", "x", "n", "label", "gappy"]
    assert recording.columns["n"].dtype == np.int64
    assert list(recording.columns["label"]) == ["a", "", "c"]
    assert np.isnan(recording.columns["gappy"][1])
    assert [cell[:10] for cell in recording.origin.time["when"]] == [
        "2020-01-01",
        "2020-01-02",
        "2020-01-03",
    ]


def test_parquet_that_promises_more_than_it_can_hold(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"a": np.zeros(2**21), "b": np.ones(2**21)}).to_parquet(path)
    monkeypatch.setattr(_parquet, "MOST_AT_EASE", 2**20)
    monkeypatch.setattr(pandas, "read_parquet", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(InputError, match=r"2097152 rows of 2 columns in \d+ bytes: far more"):
        read(path)


@pytest.mark.parametrize("absent", ["pandas", "pyarrow"])
def test_parquet_without_its_extra(tmp_path, monkeypatch, absent):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == absent:
            raise ImportError(f"No module named '{absent}'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match=r"pip install 'sourcesep\[tables\]'"):
        read(tmp_path / "a.parquet")


# Writing


def test_loadings_have_a_row_for_each_input_column(fake, folder, tmp_path):
    recording = read(write_csv(tmp_path, '"=a, ""b""",c\n1,2\n3,5\n4,4\n'))
    separation = fake(recording, 2)
    table.write(separation, folder)
    rows = rows_of(folder / "loadings.csv")
    assert rows[0] == ["column", "IVAE000", "IVAE001"]
    assert [row[0] for row in rows[1:]] == ['=a, "b"', "c"]
    assert np.array_equal(np.array([row[1:] for row in rows[1:]], float), separation.mixing)


def test_no_loadings_without_a_mixing_matrix(fake, folder, tmp_path):
    separation = fake(read(write_csv(tmp_path, "a,b\n1,2\n3,5\n4,4\n")), 2)
    separation.mixing = None
    assert table.write(separation, folder)["files"] == ["sources.csv", "prior.csv"]
    assert {p.name for p in folder.iterdir()} == {"sources.csv", "prior.csv"}


def test_the_prior_has_a_row_for_each_component_and_label(fake, folder, tmp_path):
    separation = fake(read(write_csv(tmp_path, "a,b\n1,2\n3,5\n4,4\n")), 2)
    facts = table.write(separation, folder)
    assert rows_of(folder / "prior.csv") == [
        ["component", "label", "mean", "variance"],
        ["IVAE000", "a", "0.0", "0.5"],
        ["IVAE000", "b", "2.0", "2.5"],
        ["IVAE001", "a", "1.0", "1.5"],
        ["IVAE001", "b", "3.0", "3.5"],
    ]
    assert set(facts["units"]) == {"fit", *facts["files"]}


def test_chunks_of_rows_join(fake, folder, monkeypatch):
    monkeypatch.setattr(table, "ROWS_AT_ONCE", 7)
    data = np.random.default_rng(0).standard_normal((2, 50))
    origin = table.TableOrigin({"t": tuple(map(str, range(50)))})
    recording = Recording(data, 1.0, ("a", "b"), ("", ""), "table", origin=origin)
    separation = fake(recording, 2)
    table.write(separation, folder)
    rows = rows_of(folder / "sources.csv")[1:]
    assert [row[0] for row in rows] == [str(i) for i in range(50)]
    assert np.array_equal(np.array([r[1:] for r in rows], float).T, separation.sources)
