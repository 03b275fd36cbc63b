"""What the command line says, and in which words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sourcesep.exceptions import SourcesepWarning

__all__ = ["FAILED", "about", "fail", "noted", "printable", "talk"]

FAILED = 1
"""Exit code where an input failed."""


def talk(line: str) -> None:
    """Print a line to stderr."""
    click.echo(printable(line), err=True)


def printable(line: str) -> str:
    """The line with control characters, which names of files may hold, spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@contextmanager
def noted(where: object, *, quiet: bool) -> Iterator[None]:
    """Say every warning of sourcesep's in one line on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SourcesepWarning)
        try:
            yield
        finally:
            for warning in caught:
                if not quiet:
                    talk(f"warning: {about(where, warning.message)}")


def about(path: object, text: object) -> str:
    """The text in one line, beginning with the path unless that is in it already."""
    line = " ".join(str(text).split())
    return line if str(Path(str(path)).name) in line else f"{path}: {line}"


def fail(error: object, path: object = "") -> None:
    """Say in one line what went wrong, and with which file."""
    talk(f"error: {about(path, error)}")
