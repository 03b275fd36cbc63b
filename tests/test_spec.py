"""The grammar of SPEC: what is read, what is written back, and what is refused."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sourcesep.exceptions import SettingsError
from sourcesep.factors import FACTORS
from sourcesep.spec import TERMS, Term, canonical, default_spec, number, parse
from sourcesep.windows import segments

positive = st.floats(1e-9, 1e18)
word = st.text("abcXYZ_. 019", min_size=1).map(str.strip).filter(bool)
argument = {
    "segments": st.lists(positive, unique=True).map(lambda s: ",".join(map(repr, s))),
    "adaptive": st.just(""),
    "annotations": st.sampled_from(["", "stim", "a+", "sleep|wake", r"\d+:x", "x +y", "[+]z"]),
    "column": st.lists(word, min_size=1, max_size=3, unique=True).map(",".join),
    "year": word.flatmap(lambda name: st.sampled_from([name, f"{name},10"])),
    "file": st.sampled_from(["u.csv", "some dir/u+v.npy", "C:\\x.npy"]),
    "folder": st.just(""),
    "recording": st.just(""),
}


@st.composite
def specs(draw):
    names = draw(st.lists(st.sampled_from(sorted(TERMS)), min_size=1, unique=True))
    arguments = [draw(argument[name]).replace("e+", "e") for name in names]
    return names, [f"{n}:{a}" if a else n for n, a in zip(names, arguments, strict=True)]


@settings(max_examples=150, deadline=None)
@given(specs(), st.sampled_from(["+", " + "]))
def test_what_is_written_is_read_back(spec, joint):
    names, texts = spec
    terms = parse(joint.join(texts))
    assert [term.name for term in terms] == names
    assert parse(canonical(terms)) == terms
    assert canonical(parse(canonical(terms))) == canonical(terms)


@given(st.lists(st.sampled_from(["+", "\\", " ", "a", ":", *TERMS])).map("".join))
@example("+segments+segments+")
def test_any_path_is_read_back(path):
    term = Term("file", (f"/{path}/u.npy",))
    assert parse(canonical((term, Term("adaptive")))) == (term, Term("adaptive"))


@given(positive)
def test_numbers_are_read_back_exactly(value):
    assert float(number(value)) == value
    assert "+" not in number(value)


def test_every_term_of_the_grammar_has_its_meaning():
    assert set(TERMS) == set(FACTORS)


@pytest.mark.parametrize(
    ("spec", "terms", "written"),
    [
        ("segments", (Term("segments"),), "segments"),
        ("segments: 8, 0.5,2.0", (Term("segments", (".5", "2", "8")),), "segments:.5,2,8"),
        (
            " column: a , b +folder",
            (Term("column", ("a", "b")), Term("folder")),
            "column:a,b+folder",
        ),
        (
            "annotations:a.+b|c++segments:1",
            (Term("annotations", ("a.+b|c+",)), Term("segments", ("1",))),
            "annotations:a.+b|c++segments:1",
        ),
        (
            "year: my date , 010+segments:1",
            (Term("year", ("my date", "10")), Term("segments", ("1",))),
            "year:my date,10+segments:1",
        ),
        ("year:a+b,1", (Term("year", ("a+b",)),), "year:a+b"),
        ("annotations:x+foldered", (Term("annotations", ("x+foldered",)),), None),
        (
            "file:a+b,c:d.csv+adaptive",
            (Term("file", ("a+b,c:d.csv",)), Term("adaptive")),
            "file:a+b,c:d.csv+adaptive",
        ),
        (
            r"file:a\+column:x/u.npy+column:b,p\+folder",
            (Term("file", ("a+column:x/u.npy",)), Term("column", ("b", "p+folder"))),
            None,
        ),
        (
            r"annotations:x\+folder+segments:1",
            (Term("annotations", (r"x\+folder",)), Term("segments", ("1",))),
            None,
        ),
    ],
)
def test_specs_are_read_as_meant(spec, terms, written):
    assert parse(spec) == terms
    assert canonical(terms) == (written or spec)


KNOWN = "segments, adaptive, annotations, column, year, folder, file, recording"
USAGE = "write segments:SECONDS or segments:SECONDS,SECONDS, as in segments:.5,2,8"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", f"aux='': is empty; known are {KNOWN}"),
        ("  ", f"aux='  ': is empty; known are {KNOWN}"),
        (
            "segmants:2",
            "aux='segmants:2': unknown term 'segmants'; did you mean 'segments'? "
            f"Known are {KNOWN}",
        ),
        ("xyz", f"aux='xyz': unknown term 'xyz'; known are {KNOWN}"),
        (
            "folder+segmnts:2",
            "aux='folder+segmnts:2': unknown term 'segmnts'; did you mean 'segments'? "
            f"Known are {KNOWN}",
        ),
        ("folder+", f"aux='folder+': unknown term ''; known are {KNOWN}"),
        ("segments:", f"aux='segments:': nothing follows 'segments:'; {USAGE}"),
        ("segments:0", f"aux='segments:0': seconds=0 must be a number above 0; {USAGE}"),
        ("segments:-1", f"aux='segments:-1': seconds=-1 must be a number above 0; {USAGE}"),
        ("segments:nan", f"aux='segments:nan': seconds=nan must be a number above 0; {USAGE}"),
        ("segments:inf", f"aux='segments:inf': seconds=inf must be a number above 0; {USAGE}"),
        ("segments:2,x", f"aux='segments:2,x': seconds=x must be a number above 0; {USAGE}"),
        ("segments:2,", f"aux='segments:2,': seconds= must be a number above 0; {USAGE}"),
        ("segments:1,1.0", f"aux='segments:1,1.0': seconds=1.0 is given twice; {USAGE}"),
        ("folder+folder", "aux='folder+folder': 'folder' is given twice; once is enough"),
        (
            "adaptive:3",
            "aux='adaptive:3': '3' follows a term that takes no argument; write adaptive",
        ),
        (
            "annotations:(",
            "aux='annotations:(': regex='(' cannot be read (missing ), unterminated subpattern "
            "at position 0); write annotations or annotations:REGEX",
        ),
        (
            "column",
            "aux='column': a column's name is missing; write column:NAME or column:NAME,NAME",
        ),
        (
            "column:a,,b",
            "aux='column:a,,b': a column's name is missing; write column:NAME or column:NAME,NAME",
        ),
        (
            "column:a,a",
            "aux='column:a,a': a column is given twice in 'a,a'; "
            "write column:NAME or column:NAME,NAME",
        ),
        (
            "year",
            "aux='year': the column of dates is missing; write year:NAME or year:NAME,YEARS, "
            "as in year:date,10",
        ),
        (
            "year:a,b",
            "aux='year:a,b': years=b must be a whole number above 0; write year:NAME or "
            "year:NAME,YEARS, as in year:date,10",
        ),
        ("file", "aux='file': the file's path is missing; write file:PATH"),
    ],
)
def test_specs_that_cannot_be_are_refused(spec, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        parse(spec)


@pytest.mark.parametrize(
    ("kind", "n_times", "sfreq", "wanted"),
    [
        ("audio", 480_000, 48_000, "segments:.02"),
        ("audio", 44_100, 44_100, "segments:.02"),
        ("audio", 10_000, 11_025, "segments:.02"),
        ("eeg", 180 * 256, 256, "segments:.5,2,8"),
        ("eeg", 10 * 256, 256, "segments:.5,2"),
        ("eeg", 600 * 4, 4, "segments:2,8,32"),
        ("table", 4000, 1, "segments:100"),
        ("table", 100, 1, "segments:8"),
        ("array", 10, 1, "segments:5"),
        ("array", 2, 1, "segments:1"),
    ],
)
def test_defaults_are_as_documented(kind, n_times, sfreq, wanted):
    assert default_spec(kind, n_times, sfreq) == wanted


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["audio", "eeg", "table", "array"]),
    st.integers(2, 100_000),
    st.one_of(st.just(1.0), st.floats(0.1, 192_000)),
)
def test_defaults_have_segments_enough_and_samples_enough(kind, n_times, sfreq):
    (term,) = parse(default_spec(kind, n_times, sfreq))
    for seconds in term.seconds:
        labels = segments(n_times, round(seconds * sfreq))
        assert labels.max() >= 1
        if n_times >= 16:
            assert round(seconds * sfreq) >= 8


PIECES = st.sampled_from([*TERMS, "segment", "+", ":", ",", ".5", "2", "0", "nan", "(", "x", " "])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.lists(PIECES, max_size=8).map("".join))
def test_any_text_is_a_spec_or_refused_in_one_line(text):
    try:
        terms = parse(text)
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
        assert str(error).startswith("aux=")  # noqa: PT017
        return
    assert parse(canonical(terms)) == terms


def test_a_message_about_seconds_is_one_line():
    with pytest.raises(SettingsError, match=r"seconds=\.2 adaptive must be a number above 0"):
        parse("segments:.1,.2\nadaptive")
