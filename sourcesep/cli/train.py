"""``sourcesep train``."""

from __future__ import annotations

import sys
from typing import Any

import click

from sourcesep.cli.talk import FAILED, fail, noted
from sourcesep.exceptions import SettingsError, SourcesepError

__all__ = ["train"]


@click.command()
@click.argument("folder", metavar="CLEAN_FOLDER")
@click.option(
    "--kind",
    type=click.Choice(["prior"]),
    default="prior",
    show_default=True,
    help="What is trained: a prior of sources.",
)
@click.option(
    "--aux",
    metavar="SPEC",
    default="folder",
    show_default=True,
    help="Where labels come from: folder (CLEAN_FOLDER/LABEL/...), column:NAME (of the one .csv"
    " there, beside the column file), annotations[:REGEX] (a .csv beside each recording: onset,"
    " duration, label).",
)
@click.option("--save-model", metavar="FILE", required=True, help="What to write (.safetensors).")
@click.option(
    "--quality",
    type=click.Choice(["fast", "normal", "best"]),
    default="normal",
    show_default=True,
    help="How long to train.",
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Time budget.")
@click.option(
    "-d",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)
@click.option(
    "--seed",
    "random_state",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of every random choice.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def train(folder: str, kind: str, quiet: bool, **settings: Any) -> None:
    """Train a prior of sources on a folder of clean recordings with labels.

    For separate --prior. One source a recording, one channel, one rate; at least two labels, 20 s
    of each. A training that is killed is taken up by the same command.
    """
    from sourcesep.prior_training import train_prior

    try:
        with noted(folder, quiet=quiet):
            prior = train_prior(folder, progress=not quiet, **settings)
    except SourcesepError as error:
        fail(error)
        sys.exit(2 if isinstance(error, SettingsError) else FAILED)
    if not quiet:
        elbo = prior.card["elbo"]
        click.echo(
            f"{settings['save_model']}: {', '.join(prior.labels)}; held-out ELBO "
            f"{elbo['with_u']:.3f} nats a cell with u, {elbo['without_u']:.3f} without; labels "
            f"found in {elbo['labels_found']:.0%} of the windows"
        )
