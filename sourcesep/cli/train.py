"""``sourcesep train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sourcesep.cli.talk import FAILED, fail, noted, printable, talk
from sourcesep.exceptions import SettingsError, SourcesepError

__all__ = ["train"]


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
    "-k",
    "--n-components",
    type=click.IntRange(1),
    help="Number of sources.  [default: the rank; tables: by held-out ELBO]",
)
@click.option(
    "--mixing",
    type=click.Choice(
        [
            "auto",
            "linear",
            "post-nonlinear",
            "convolutive",
            "underdetermined",
            "nonlinear",
            "amortised",
        ]
    ),
    default="auto",
    show_default=True,
    help="Family of the mixing.",
)
@click.option(
    "--aux",
    metavar="SPEC",
    default="recording+segments",
    show_default=True,
    help="Auxiliary variable u: recording, folder, segments[:SECONDS[,SECONDS...]], adaptive,"
    " annotations[:REGEX], column:NAME[,NAME], joined by +.",
)
@click.option("--columns", metavar="LIST", help="Tables: columns to separate, e.g. a,b,c.")
@click.option(
    "--kernel-size",
    type=click.IntRange(1),
    help="Taps of the mixing, for families with memory.  [default: the family's own]",
)
@click.option(
    "--quality",
    type=click.Choice(["fast", "normal", "best"]),
    default="normal",
    show_default=True,
    help="How much time a fit may take for how good a result.",
)
@click.option(
    "-d",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where families that are trained are trained.",
)
@click.option(
    "--seed",
    "random_state",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of every random choice.",
)
@click.option(
    "-j",
    "--jobs",
    "n_jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Inputs that are read and summed up side by side.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Do that on a Dask cluster instead, e.g. tcp://scheduler:8786; its workers must see the"
    " same files.",
)
@click.option("-f", "--overwrite", is_flag=True, help="Replace an earlier model.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
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
    if not quiet:
        n, verdict = ivae.model_.n_components, ivae.verdict_
        line = f"{path}: {n} component{'s' * (n > 1)} of {len(inputs)} recordings, {verdict.label}"
        click.echo(printable(line))
        if verdict.label != "trusted":
            talk(f"{path}: {verdict.label}: {verdict.sentence}")
