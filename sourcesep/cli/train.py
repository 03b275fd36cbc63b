"""``sourcesep train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sourcesep.cli.separate import separate
from sourcesep.cli.talk import FAILED, fail, noted, printable, talk
from sourcesep.exceptions import SettingsError, SourcesepError

__all__ = ["train"]

AS_IN_SEPARATE = (
    *("n_components", "mixing", "columns", "kernel_size", "quality", "device", "random_state"),
    *("n_jobs", "dask", "overwrite", "quiet"),
)
"""Options that are the very ones of ``sourcesep separate``."""


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--save-model", metavar="FILE", required=True, help="Where the model goes (.safetensors)."
)
@click.option(
    "--kind",
    type=click.Choice(["model"]),
    default="model",
    show_default=True,
    help="What is trained: one model of several recordings.",
)
@click.option(
    "--aux",
    metavar="SPEC",
    default="recording+segments",
    show_default=True,
    help="Auxiliary variable u: recording, folder, segments[:SECONDS[,SECONDS...]], adaptive,"
    " annotations[:REGEX], column:NAME[,NAME], joined by +.",
)
def train(
    inputs: tuple[str, ...],
    save_model: str,
    kind: str,
    overwrite: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Fit one model to several recordings of one scene.

    The INPUTs are recordings by the same sensors of the same sources. Component k of the
    model is the same source in each, and in other recordings of that scene:

    sourcesep separate NEW.wav --model FILE [--refit]
    """
    from sourcesep.joint import train as fit
    from sourcesep.output import check_model_output
    from sourcesep.persistence import save

    try:
        path = Path(save_model)
        check_model_output(path, overwrite)
        with noted("train", quiet=quiet):
            ivae = fit([str(Path(name).absolute()) for name in inputs], **settings)
        save(ivae, path)
    except SourcesepError as error:
        fail(error)
        sys.exit(2 if isinstance(error, SettingsError) else FAILED)
    except MemoryError:
        fail("out of memory; train on fewer or shorter recordings")
        sys.exit(FAILED)
    if not quiet:
        n, verdict = ivae.model_.n_components, ivae.verdict_
        line = f"{path}: {n} component{'s' * (n > 1)} of {len(inputs)} recordings, {verdict.label}"
        click.echo(printable(line))
        if verdict.label != "trusted":
            talk(f"{path}: {verdict.label}: {verdict.sentence}")


train.params += [option for option in separate.params if option.name in AS_IN_SEPARATE]
