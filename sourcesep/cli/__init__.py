"""The command line: words in, the public API called, lines out. No logic of its own."""

from __future__ import annotations

from typing import Any

import click

from sourcesep._version import __version__
from sourcesep.cli.others import demo, evaluate, info, match, simulate
from sourcesep.cli.separate import separate
from sourcesep.cli.talk import tidily
from sourcesep.cli.train import train

__all__ = ["main"]


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


class _Commands(click.Group):
    """Commands that tidy up when they are told to end, or cannot print."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with tidily():  # --help and --version are printed here
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with tidily():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="sourcesep")
def main() -> None:
    """Un-mix recordings into their sources, and say how far to trust the result.

    For mixtures recorded by several sensors: microphones, electrodes, columns of a table.
    Not for vocals or drums by name from a song: for those use a supervised separator.
    """


for command in (separate, train, evaluate, match, simulate, info, demo):
    main.add_command(command)
