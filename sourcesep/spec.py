r"""The grammar of SPEC: how a user says where the auxiliary variable u comes from.

Terms are joined by ``+``, and a sample's label is then the combination of its terms'
labels (only combinations that occur get one):

``segments[:SECONDS[,SECONDS...]]``
    Stretches of equal length; several lengths are several scales. Coarser segments are
    unions of the finest: a length that is no whole multiple of the finest becomes the
    nearest one, with a warning. Without SECONDS: those of `default_spec`.
``adaptive``
    Stretches between changes of log power.
``annotations[:REGEX]``
    The descriptions of the events, or of those in which REGEX is found. Samples without
    one are a label more, ``(none)``; where events overlap, a label is their descriptions
    together.
``column:NAME[,NAME...]``
    Columns of a table. Text, truth values and whole numbers of few values give a label
    each value; other numbers are covariates, and quantile bins of them are the labels.
``year:NAME[,YEARS]``
    The calendar year of a column of dates (ISO 8601, 31.12.1990, or years as numbers); with
    YEARS, stretches of so many, as in ``year:date,10`` for decades.
``file:PATH``
    A .npy array, or a .csv with a row a sample (with or without a header), or a .csv with
    the columns onset, duration (both in seconds) and label. Whole numbers are labels,
    and -1 leaves a sample out.
``recording``, ``folder``
    Which of several recordings a sample is from, or which folder that one lies in.

In a name or a path, a ``+`` that stands before the name of a term is written ``\+``, as in
``file:a\+folder/u.npy``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sourcesep.exceptions import SettingsError
from sourcesep.recording import Kind

__all__ = ["TERMS", "Term", "canonical", "default_spec", "number", "parse", "resolve"]

MIN_SAMPLES = 8
"""The fewest samples that a default segment has, where the recording allows it."""


@dataclass(frozen=True)
class Term:
    """One term of a SPEC: its name, and its arguments as they are written."""

    name: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = ",".join(self.arguments)
        if self.name != "annotations":  # a regex says so itself
            text = _PLUS.sub(r"\\\g<0>", text)
        return f"{self.name}:{text}" if text else self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that it names."""
        named = {"column": self.arguments, "year": self.arguments[:1]}
        return named.get(self.name, ())

    @property
    def seconds(self) -> tuple[float, ...]:
        """The arguments as numbers."""
        return tuple(float(a) for a in self.arguments)


def parse(spec: str) -> tuple[Term, ...]:
    """Read a SPEC.

    Parameters
    ----------
    spec : str
        Terms joined by ``+``, as this module's head describes them.

    Returns
    -------
    tuple of Term
        In the order given; the seconds of segments sorted, finest first.

    Raises
    ------
    SettingsError
        If the SPEC is empty, or a term is unknown, given twice, or has wrong arguments.
    """
    if not spec.strip():
        raise SettingsError(f"aux={spec!r}: is empty; known are {', '.join(TERMS)}")
    terms: list[Term] = []
    for text in _split(spec):
        name, colon, rest = (part.strip() for part in text.partition(":"))
        if name not in TERMS:
            close = difflib.get_close_matches(name, TERMS, n=1)
            cure = f"did you mean {close[0]!r}? Known" if close else "known"
            raise SettingsError(
                f"aux={spec!r}: unknown term {name!r}; {cure} are {', '.join(TERMS)}"
            )
        if any(term.name == name for term in terms):
            raise SettingsError(f"aux={spec!r}: {name!r} is given twice; once is enough")
        if colon and not rest:
            raise SettingsError(f"aux={spec!r}: nothing follows {name + ':'!r}; {_USAGE[name]}")
        try:
            terms.append(Term(name, TERMS[name](rest)))
        except ValueError as error:
            raise SettingsError(f"aux={spec!r}: {error}; {_USAGE[name]}") from None
    return tuple(terms)


def canonical(terms: tuple[Term, ...]) -> str:
    """Write terms as the SPEC that `parse` reads them from."""
    return "+".join(map(str, terms))


def resolve(spec: str | None, kind: Kind, n_times: int, sfreq: float) -> tuple[Term, ...]:
    """Read a SPEC for a recording; None and plain ``segments`` are what `default_spec` says."""
    default = parse(default_spec(kind, n_times, sfreq))
    if spec is None:
        return default
    return tuple(default[0] if term == Term("segments") else term for term in parse(spec))


def default_spec(kind: Kind, n_times: int, sfreq: float) -> str:
    """Return the SPEC for a recording when none is given.

    Segments of .02 s for audio; .5, 2 and 8 s for EEG; a fortieth of the rows for tables
    and arrays. A segment has at least `MIN_SAMPLES` samples and every scale at least two
    segments, where the recording is long enough; scales that are not are left out.

    Parameters
    ----------
    kind : {"audio", "eeg", "table", "array"}
        What the recording is.
    n_times : int
        Number of samples.
    sfreq : float
        Samples a second.
    """
    usual = {"audio": 0.02, "eeg": 0.5}.get(kind, n_times // 40 / sfreq)
    longest = max(1, n_times // 2) / sfreq
    finest = min(max(usual, MIN_SAMPLES / sfreq), longest)
    multiples = (1, 4, 16) if kind == "eeg" else (1,)
    scales = [finest * multiple for multiple in multiples if finest * multiple <= longest]
    return "segments:" + ",".join(map(number, scales))


def number(value: float) -> str:
    """Write a number as short as it can be read back: 2, .5, 1e-07."""
    text = repr(float(value)).removesuffix(".0").replace("e+", "e")
    return text[1:] if text.startswith("0.") else text


def _split(spec: str) -> Iterator[str]:
    """Split at each ``+``; in free text (a regex, a path) only at one before a term."""
    for text in _JOINT.split(spec.strip()):
        if text.partition(":")[0].strip() in ("annotations", "column", "file", "year"):
            yield text
        else:
            yield from text.split("+")


def _seconds(rest: str) -> tuple[str, ...]:
    if not rest:
        return ()
    found = []
    for text in (" ".join(part.split()) for part in rest.split(",")):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"seconds={text} must be a number above 0")
        if value in found:
            raise ValueError(f"seconds={text} is given twice")
        found.append(value)
    return tuple(number(value) for value in sorted(found))


def _nothing(rest: str) -> tuple[str, ...]:
    if rest:
        raise ValueError(f"{rest!r} follows a term that takes no argument")
    return ()


def _regex(rest: str) -> tuple[str, ...]:
    try:
        re.compile(rest)
    except re.error as error:
        raise ValueError(f"regex={rest!r} cannot be read ({error})") from None
    return (rest,) if rest else ()


def _names(rest: str) -> tuple[str, ...]:
    names = tuple(_unescaped(name.strip()) for name in rest.split(","))
    if not all(names):
        raise ValueError("a column's name is missing")
    if len(set(names)) < len(names):
        raise ValueError(f"a column is given twice in {rest!r}")
    return names


def _year(rest: str) -> tuple[str, ...]:
    name, comma, span = (part.strip() for part in rest.rpartition(","))
    if not comma:
        name, span = span, "1"
    if not name:
        raise ValueError("the column of dates is missing")
    if not (span.isascii() and span.isdigit() and int(span) > 0):
        raise ValueError(f"years={span} must be a whole number above 0")
    name = _unescaped(name)
    return (name, str(int(span))) if int(span) > 1 else (name,)


def _path(rest: str) -> tuple[str, ...]:
    if not rest:
        raise ValueError("the file's path is missing")
    return (_unescaped(rest),)


def _unescaped(text: str) -> str:
    """The name or path that is meant where a ``+`` before a term joins nothing."""
    return _PLUS.sub(lambda plus: plus[0].removeprefix("\\"), text)


TERMS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "segments": _seconds,
    "adaptive": _nothing,
    "annotations": _regex,
    "column": _names,
    "year": _year,
    "folder": _nothing,
    "file": _path,
    "recording": _nothing,
}
"""Each term, and what reads its arguments (raising ValueError where they cannot be)."""

_USAGE = {
    "segments": "write segments:SECONDS or segments:SECONDS,SECONDS, as in segments:.5,2,8",
    "adaptive": "write adaptive",
    "annotations": "write annotations or annotations:REGEX",
    "column": "write column:NAME or column:NAME,NAME",
    "year": "write year:NAME or year:NAME,YEARS, as in year:date,10",
    "folder": "write folder",
    "file": "write file:PATH",
    "recording": "write recording",
}

_BEFORE_A_TERM = rf"\+\s*(?=(?:{'|'.join(TERMS)})\s*(?::|\\*\+|$))"
_JOINT = re.compile(rf"\s*(?<!\\){_BEFORE_A_TERM}")
_PLUS = re.compile(rf"\\*{_BEFORE_A_TERM}")
