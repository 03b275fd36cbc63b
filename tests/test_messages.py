"""What messages have in common."""

import os

import pytest

from sourcesep.messages import first_few, in_brief


@pytest.mark.parametrize(
    ("names", "said"),
    [("", ""), ("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more")],
)
def test_names_are_listed_or_counted(names, said):
    assert first_few(list(names), 3) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(2, os.strerror(2), "a.wav"), "No such file or directory"),
        (OSError("no\n  more"), "no more"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_an_error_is_one_short_line(error, said):
    assert in_brief(error) == said
