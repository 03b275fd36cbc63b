"""Write ``cli.md`` and ``api.md``: what the commands and the docstrings say, as Markdown.

    python docs/generate.py [--check]

``--check`` writes nothing, and exits with 1 where a page is not what would be written.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import sourcesep
from sourcesep import exceptions
from sourcesep.cli import main as commands

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Written by `python docs/generate.py`. Change the {what}, not this page. -->\n"
WIDTH = 100


def cli_page() -> str:
    """Return the page of all commands."""
    top = click.Context(commands, info_name="sourcesep", **commands.context_settings)
    parts = [
        "# The command line",
        NOTE.format(what="commands in `sourcesep/cli`"),
        _paragraphs(commands.help),
        "Results are printed on stdout, all else on stderr. The exit code is 0 when all is done,\n"
        "1 when an input failed (the others are done all the same), 2 when the command is wrong,\n"
        "130 after Ctrl-C and 143 after SIGTERM: what is whole by then stays, and nothing else.",
        "`sourcesep --version` prints the version; `-h` after any command, what it takes.",
    ]
    for name, command in sorted(commands.commands.items()):
        context = click.Context(command, info_name=name, parent=top)
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## sourcesep {name}", f"    sourcesep {name} {usage}"]
        parts.append(_paragraphs(command.help))
        records = [p.get_help_record(context) for p in command.get_params(context)]
        rows = [record for record in records if record and record[1] and "--help" not in record[0]]
        if rows:
            cells = [f"| {_code(option)} | {_cell(text)} |" for option, text in rows]
            parts.append("\n".join(["| option | what it does |", "|---|---|", *cells]))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _paragraphs(text: str | None) -> str:
    """Return a command's help; what click is told not to wrap is indented, as code is."""
    blocks = inspect.cleandoc(text or "").replace("\\b\n", "\b\n").split("\n\n")
    return "\n\n".join(
        "    " + block.removeprefix("\b\n").replace("\n", "\n    ")
        if block.startswith("\b\n")
        else block
        for block in blocks
    )


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def api_page() -> str:
    """Return the page of all public names."""
    parts = [
        "# Python",
        NOTE.format(what="docstrings"),
        "What `import sourcesep` offers. Arrays of a recording are (channels, times), those of\n"
        "the estimator (samples, channels).",
    ]
    modules = []
    for name in sorted(sourcesep.__all__, key=str.lower):
        thing = getattr(sourcesep, name)
        if isinstance(thing, ModuleType):
            modules.append((name, thing))
        elif callable(thing):
            parts += entry(f"sourcesep.{name}", thing)
    for name, module in modules:
        parts += [f"## sourcesep.{name}", inspect.getdoc(module) or ""]
        for inner in sorted(module.__all__, key=str.lower):
            member = getattr(module, inner)
            if inspect.isclass(member) or inspect.isroutine(member):
                parts += entry(f"sourcesep.{name}.{inner}", member, level=3)
    parts += ["## sourcesep.exceptions", inspect.getdoc(exceptions) or ""]
    rows = [
        f"| `{name}` | {', '.join(b.__name__ for b in getattr(exceptions, name).__bases__)} "
        f"| {inspect.getdoc(getattr(exceptions, name))} |"
        for name in exceptions.__all__
    ]
    parts.append("\n".join(["| name | is a | raised for |", "|---|---|---|", *rows]))
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def entry(name: str, thing: Any, level: int = 2) -> list[str]:
    """Return a function's or class's part of the page, and those of a class's own methods."""
    parts = [f"{'#' * level} {name}", "```text\n" + _signature(name, thing) + "\n```"]
    parts += rendered(inspect.getdoc(thing) or "")
    if not inspect.isclass(thing):
        return parts
    for key, member in sorted(_members(thing)):
        if isinstance(member, property):
            parts.append(f"**{key}**: {' '.join((inspect.getdoc(member) or '').split())}")
        else:
            function = member.__func__ if isinstance(member, classmethod) else member
            parts.append(f"**{key}**")
            parts.append("```text\n" + _signature(key, function) + "\n```")
            parts += rendered(inspect.getdoc(function) or "")
    return parts


def _members(thing: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class offers: its own methods, and those of sourcesep's that it is made of."""
    seen = set()
    for base in thing.__mro__:
        if not base.__module__.startswith("sourcesep"):
            continue
        for key, member in vars(base).items():
            offered = isinstance(member, property | classmethod) or inspect.isfunction(member)
            if not key.startswith("_") and offered and key not in seen:
                seen.add(key)
                yield key, member


def _signature(name: str, thing: Any) -> str:
    """Return a call as one writes it: names and defaults, no types, wrapped."""
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for key, parameter in inspect.signature(thing).parameters.items()
        if key not in ("self", "cls")
    ]
    line = f"{name}{inspect.Signature(parameters)}"
    if len(line) <= WIDTH:
        return line
    head, _, inside = line.partition("(")
    words = re.split(r", (?=[\w*]+(?:=|,|\)|$))", inside.removesuffix(")"))
    lines, current = [], f"{head}("
    indent = " " * len(current)
    for k, word in enumerate(words):
        piece = word + (", " if k < len(words) - 1 else ")")
        if len(current) + len(piece) > WIDTH:
            lines.append(current.rstrip())
            current = indent
        current += piece
    return "\n".join([*lines, current])


def rendered(doc: str) -> list[str]:
    """Return a numpydoc docstring as pieces of Markdown."""
    found = re.split(r"^(\w[\w ]*)\n-{3,}\n", doc, flags=re.MULTILINE)
    parts = [_prose(found[0])]
    for title, body in zip(found[1::2], found[2::2], strict=True):
        if title in ("Parameters", "Attributes", "Returns", "Yields", "Raises"):
            parts += [f"*{title}*", "\n".join(_items(body))]
        elif title == "See Also":
            parts += [f"*{title}*", re.sub(r"^(\S+) : ", r"- `\1`: ", body.strip(), flags=re.M)]
        elif title == "Examples":
            parts += [f"*{title}*", "```pycon\n" + body.strip() + "\n```"]
        else:
            parts += [f"*{title}*", _prose(body)]
    return parts


def _prose(text: str) -> str:
    """Return text with Markdown's backticks."""
    return re.sub(r"``([^`]+)``", r"`\1`", text).strip()


def _items(body: str) -> Iterator[str]:
    """Yield a line of a list for each entry, what stands below its head beside it."""
    for block in re.split(r"\n(?=\S)", body.strip("\n")):
        head, _, text = block.partition("\n")
        name, colon, kind = head.partition(" : ")
        said = f"**{name}**" + (f" ({_prose(kind)})" if colon else "")
        text = _prose(" ".join(text.split()))
        yield f"- {said}" + (f": {text}" if text else "")


PAGES = {"cli.md": cli_page, "api.md": api_page}


def main() -> None:
    """Write the pages, or compare them with what is there."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    old = []
    for name, page in PAGES.items():
        path, text = HERE / name, page()
        if check and (not path.is_file() or path.read_text("utf-8") != text):
            old.append(name)
        elif not check:
            path.write_text(text, "utf-8")
    if old:
        sys.exit(f"not up to date: {', '.join(old)}; run python docs/generate.py")


if __name__ == "__main__":
    main()
