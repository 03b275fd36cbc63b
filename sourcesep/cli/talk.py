"""What the command line says, and in which words."""

from __future__ import annotations

import errno
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from sourcesep.exceptions import SettingsError, SourcesepError, SourcesepWarning

__all__ = ["FAILED", "about", "fail", "in_lines", "listed", "model_file", "named", "printable"]
__all__ += ["spoken", "talk", "tidily"]

FAILED, MISUSED = 1, 2
"""Exit codes where an input failed, and where what is asked for cannot be."""
SIGNALLED = 128
"""Added to a signal's number."""
ARGUMENTS = {"sources": "INPUT", "analyses": "MODEL"}
"""Settings of functions that are no options here."""
QUOTE = "'"
"""Of Python; a shell needs none around a word."""
NO_OPTIONS = ("kind", "output", "seconds")
"""What messages say of something else too: of a recording, a result folder, and segments."""


def named(_: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuse a name that is empty, as one from a variable that is not set, or no Unicode."""
    if "" in (value if isinstance(value, tuple) else (value,)):
        here = " (this one is .)" if option.metavar == "DIR" else ""
        what = "folder" if option.metavar == "DIR" else "file"
        raise click.BadParameter(f"is empty; name a {what}{here}")
    try:
        str(value or "").encode(sys.getfilesystemencoding())  # libraries in C write no others
    except UnicodeEncodeError:
        raise click.BadParameter(f"{value!a} is not valid Unicode; choose another") from None
    return value


def model_file(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Refuse a name that no model file can have."""
    if named(context, option, value) and not str(value).endswith(".safetensors"):
        raise click.UsageError(f"{option.opts[-1]}={value}: must end in .safetensors")
    return value


def talk(line: str) -> None:
    """Print a line to stderr."""
    click.echo(printable(line), err=True)


def printable(line: str) -> str:
    """The line with control characters, which names of files may hold, spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@contextmanager
def tidily() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: nothing half-written stays, and one line says so.

    One line, too, where what is printed can go nowhere.

    The exit codes are those that a shell gives: 130, and 143.
    """

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # tidying up is not disturbed
        raise SystemExit(SIGNALLED + number)

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if is_main else None
    try:
        yield
    except OSError as error:  # of a file it has been said which; this is of no file
        if error.errno == errno.EPIPE or error.filename is not None:
            raise
        fail(f"what is printed cannot be written ({error.strerror})")
        raise SystemExit(FAILED) from error
    except KeyboardInterrupt:
        talk("Aborted!")
        raise SystemExit(SIGNALLED + signal.SIGINT) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def in_lines(
    where: object = "", *, quiet: bool = False, worded: Callable[[object], str] = str
) -> Iterator[None]:
    """Say in one line on stderr every warning of sourcesep's, as soon as it is given, and errors.

    An error ends the command: with 2 if a setting is wrong, as usage errors do, else with 1.
    """

    def say(message: Warning | str, *_: Any, **__: Any) -> None:
        if not quiet:
            talk(f"warning: {about(where, message)}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SourcesepWarning)
        warnings.showwarning = say
        try:
            yield
        except SourcesepError as error:
            fail(worded(error))
            raise SystemExit(MISUSED if isinstance(error, SettingsError) else FAILED) from error


def spoken(text: object) -> str:
    """The text with every setting as the command that runs calls it.

    ``n_components=3`` is ``--n-components=3``, ``by='maps'`` is ``--by=maps``, ``refit=True``
    is ``--refit``, and ``labels=None`` is ``without --labels``.
    """
    context = click.get_current_context(silent=True)
    parameters = [] if context is None else context.command.params
    words = ARGUMENTS | {
        option.name: max(option.opts, key=len)
        for option in parameters
        if isinstance(option, click.Option) and option.name not in NO_OPTIONS
    }

    def said(match: re.Match[str]) -> str:
        name, value = match.groups()
        if (word := words.get(name)) is None:
            return match[0]
        given = f"{word}={(value or '').strip(QUOTE)}"
        return {"True": word, "None": f"without {word}"}.get(value, given)

    return re.sub(r"(?<![\w./=-])([a-z_]+)=(True\b|None\b|'[\w-]+')?", said, str(text))


def about(path: object, text: object) -> str:
    """The text in one line, beginning with the path unless that is in it already."""
    line, name = " ".join(str(text).split()), Path(str(path)).name
    if name and line.startswith(f"{name}: "):
        line = f"{path}{line.removeprefix(name)}"
    if not name or name not in line:
        return f"{path}: {spoken(line)}" if name else spoken(line)
    return name.join(map(spoken, line.split(name)))  # which may look like a setting itself


def fail(error: object, path: object = "") -> None:
    """Say in one line what went wrong, and with which file."""
    talk(f"error: {about(path, error)}")


def listed(what: str, paths: Iterable[object]) -> None:
    """Say once more, at the end, what went wrong with which files."""
    talk(f"error: {what}:")
    for path in paths:
        talk(f"  {path}")
