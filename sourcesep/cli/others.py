"""All commands but ``separate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sourcesep.cli.talk import in_lines, named, printable, talk

__all__ = ["demo", "evaluate", "info", "match", "simulate"]


@click.command()
@click.option(
    "-r",
    "--reference",
    "references",
    multiple=True,
    required=True,
    metavar="FILE",
    callback=named,
    help="A true source; once for each.",
)
@click.option(
    "-e",
    "--estimate",
    "estimates",
    multiple=True,
    required=True,
    metavar="FILE|DIR",
    callback=named,
    help="An estimated source, or a result folder; once for each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(references: tuple[str, ...], estimates: tuple[str, ...], as_json: bool) -> None:
    """Score estimated sources against the true ones.

    Each reference is matched to one estimate. Printed are SI-SDR and SDR in dB (mean over
    channels) and the absolute correlation.
    """
    from sourcesep.evaluation import evaluate_files

    with in_lines(quiet=True):
        rows = evaluate_files(references, estimates)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
        return
    click.echo(f"{'SI-SDR':>8} {'SDR':>8} {'corr':>6}  reference <- estimate")
    for row in rows:
        click.echo(
            f"{row.si_sdr:8.2f} {row.sdr:8.2f} {row.correlation:6.4f}  "
            f"{row.reference} <- {row.estimate}"
        )


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    callback=named,
    default="simulated",
    help="Folder that gets mixture.wav and the true images.",
)
@click.option(
    "--kind",
    type=click.Choice(["instantaneous", "saturated", "room"]),
    default="instantaneous",
    help="How the sources are mixed.",
)
@click.option(
    "-k",
    "--n-sources",
    type=click.IntRange(2, 16),
    help="Number of simulated talkers.  [default: 2]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 3600),
    help="Length of simulated talkers.  [default: 8]",
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    callback=named,
    help="Mix this recording instead of a simulated talker; once for each.",
)
@click.option(
    "--rt60",
    type=click.FloatRange(0.05, 2),
    help="Reverberation time of the room, seconds.  [default: .3]",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed.")
@click.option("-f", "--overwrite", is_flag=True, help="Replace an earlier simulation.")
def simulate(sources: tuple[str, ...], output: str, overwrite: bool, **settings: Any) -> None:
    """Make a mixture whose sources are known."""
    from sourcesep.evaluation import simulate_files

    with in_lines("simulate"):
        files = simulate_files(Path(output), sources, overwrite=overwrite, **settings)
    for file in files:
        click.echo(str(file))


@click.command()
@click.argument("path", metavar="MODEL|RESULT", callback=named)
def info(path: str) -> None:
    """Say what a model file or a result folder holds, as JSON."""
    from sourcesep.evaluation import describe

    with in_lines():
        click.echo(json.dumps(describe(Path(path)), indent=2, sort_keys=True))


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, callback=named)
@click.option(
    "--by", type=click.Choice(["prior", "maps"]), default="prior", help="What is compared."
)
@click.option(
    "--min-corr",
    type=float,
    help="Of one source.  [default: .8; models by prior: what chance does not reach]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a row for each component.")
def match(models: tuple[str, ...], by: str, min_corr: float | None, as_json: bool) -> None:
    """Say which components are one source in several recordings.

    MODEL is a file of --save-model, or of ComponentAnalysis.save. To match by prior it needs
    labels that mean the same in all, as with --aux column:NAME or
    aux="segments:.5,2,8+annotations".
    """
    from sourcesep.matching import match_components, read_fits

    with in_lines("match"):
        matching = match_components(read_fits(models), by, min_corr, names=models)
    for line in [json.dumps(matching.table())] if as_json else matching.lines(models):
        click.echo(printable(line))


@click.command()
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    callback=named,
    default="demo_output",
    help="Folder that gets the mixtures and their sources.",
)
def demo(output: str) -> None:
    """Separate three simulated mixtures, and print each gain beside FastICA's."""
    from sourcesep.demo import run

    click.echo("two simulated talkers, two channels, 8 s; SI-SDR gain over the mixture in dB")
    click.echo(f"{'mixture':<14} {'sourcesep':>9} {'FastICA':>8}  {'seconds':>7}  verdict")
    with in_lines("demo"):
        for row in run(Path(output)):
            click.echo(
                f"{row.name:<14} {row.ours:9.1f} {row.fastica:8.1f}  "
                f"{row.seconds:7.1f}  {row.verdict}"
            )
    talk(f"listen to {output}/instantaneous/source00.wav and its neighbours")
