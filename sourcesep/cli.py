"""The command line: words in, the public API called, lines out. No logic of its own."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sourcesep._version import __version__
from sourcesep.exceptions import SettingsError, SourcesepError, SourcesepWarning

if TYPE_CHECKING:
    from sourcesep.batch import Outcome

__all__ = ["main"]

FAILED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sourcesep")
def main() -> None:
    """Un-mix recordings into their sources, and say how far to trust the result.

    For mixtures recorded by several sensors: microphones, electrodes, columns of a table.
    Not for vocals or drums by name from a song: for those use a supervised separator.
    """


def _talk(line: str) -> None:
    click.echo(_printable(line), err=True)


def _printable(line: str) -> str:
    """The line with control characters, which names of files may hold, spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


@contextmanager
def _noted(where: object, *, quiet: bool) -> Iterator[None]:
    """Say every warning of sourcesep's in one line on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SourcesepWarning)
        try:
            yield
        finally:
            for warning in caught:
                if not quiet:
                    _talk(f"warning: {_about(where, warning.message)}")


def _about(path: object, text: object) -> str:
    """The text in one line, beginning with the path unless that is in it already."""
    line = " ".join(str(text).split())
    return line if str(Path(str(path)).name) in line else f"{path}: {line}"


def _fail(error: object, path: object = "") -> None:
    _talk(f"error: {_about(path, error)}")


def _exclude(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.UsageError(
            f"--exclude={text}: must be component numbers joined by commas, e.g. 0,3"
        ) from None


@main.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    default="separated",
    show_default=True,
    help="Folder that gets a folder for each input.",
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
    help="Auxiliary variable u: segments[:SECONDS[,SECONDS...]],"
    " adaptive, annotations[:REGEX], column:NAME[,NAME], file:PATH, joined by +.  "
    "[default: segments that suit the kind of input]",
)
@click.option("--model", metavar="FILE", help="Use this fitted model instead of fitting one.")
@click.option("--save-model", metavar="FILE", help="Write the fitted model (.safetensors).")
@click.option(
    "--bit-depth",
    type=click.Choice(["16", "24", "float"]),
    help="Of the written audio.  [default: the input's]",
)
@click.option(
    "--exclude", metavar="LIST", help="EEG: components to remove, e.g. 0,3; adds cleaned_raw.fif."
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
    help="Inputs that are worked on side by side.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Work on a Dask cluster instead, e.g. tcp://scheduler:8786; its workers must see the"
    " same files.",
)
@click.option(
    "--shard",
    metavar="I/N",
    default="1/1",
    show_default=True,
    help="Do share I of N of the inputs, for arrays of jobs.",
)
@click.option(
    "--resume", is_flag=True, help="Skip inputs whose result is there from the same settings."
)
@click.option("-f", "--overwrite", is_flag=True, help="Replace earlier results.")
@click.option("--report", is_flag=True, help="Write report.html too, to look at and listen to.")
@click.option("--json", "as_json", is_flag=True, help="Print each result.json, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say how every choice was made.")
def separate(
    inputs: tuple[str, ...],
    output: str,
    save_model: str | None,
    bit_depth: str | None,
    exclude: str | None,
    n_jobs: int,
    dask: str | None,
    shard: str,
    resume: bool,
    overwrite: bool,
    report: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    r"""Separate each INPUT into its sources.

    \b
    Audio  .wav .flac .ogg .mp3 .aiff ...   -> source00.wav ..., residual.wav
    EEG    .fif .edf .bdf .set .vhdr        -> sources_raw.fif, component_maps.png
    Table  .csv .npy .parquet               -> sources.csv, loadings.csv

    Every result has a verdict (trusted, doubtful, not identifiable) in result.json. Audio
    sources and residual add up to the input. Not for vocals or drums by name from a song:
    for those use a supervised separator.
    """
    from tqdm import tqdm

    from sourcesep import auxiliary
    from sourcesep.batch import Job, separate_files, share
    from sourcesep.output import folders_for

    if save_model and len(inputs) > 1:
        raise click.UsageError(
            "--save-model: takes one INPUT; give the others in runs of their own"
        )
    if save_model and not save_model.endswith(".safetensors"):
        raise click.UsageError(f"--save-model={save_model}: must end in .safetensors")
    saving = {
        "overwrite": overwrite,
        "bit_depth": bit_depth,
        "exclude": _exclude(exclude),
        "report": report,
    }
    try:
        if settings["aux"] is not None:
            auxiliary.parse(settings["aux"])
        folders = list(folders_for(inputs, Path(output)).items())
        model_path = None if save_model is None else Path(save_model)
        tasks = [
            Job(path, folder, settings, saving, model_path, resume)
            for path, folder in share(folders, shard)
        ]
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    failed = []
    bar = tqdm(total=len(tasks), disable=None if len(tasks) > 1 and not quiet else True)
    try:
        for outcome in separate_files(tasks, n_jobs=n_jobs, dask=dask):
            bar.update()
            if not quiet:
                for warning in outcome.warnings:
                    _talk(f"warning: {_about(outcome.path, warning)}")
            if outcome.error is not None:
                failed.append(outcome.path)
                _fail(outcome.error, outcome.path)
            else:
                _report(outcome, as_json=as_json, quiet=quiet, verbose=verbose)
    except SourcesepError as error:
        _fail(error)
        sys.exit(FAILED)
    finally:
        bar.close()
    if failed:
        if len(tasks) > 1:
            _talk(f"error: {len(failed)} of {len(tasks)} inputs failed:")
            for path in failed:
                _talk(f"  {path}")
        sys.exit(FAILED)


def _report(outcome: Outcome, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what a separation has found."""
    result = outcome.result or {}
    if as_json:
        click.echo(json.dumps(result, allow_nan=False, sort_keys=True))
    elif not quiet:
        n = result["n_components"]
        line = f"{outcome.folder}: {n} source{'s' * (n > 1)}, {result['verdict']}"
        click.echo(_printable(line + ", was there already" * outcome.resumed))
    if not quiet and result["verdict"] != "trusted":
        _talk(f"{outcome.path}: {result['verdict']}: {result['sentence']}")
    if verbose:
        _talk(f"{outcome.path}: {result['reason']}; u = {result['settings']['aux']}")
        for choice, scores in result["candidates"].items():
            for name, score in scores.items():
                _talk(f"{outcome.path}: {choice} {name}: {score:.4f} nats a sample, held out")


@main.command()
@click.option(
    "-r",
    "--reference",
    "references",
    multiple=True,
    required=True,
    metavar="FILE",
    help="A true source; once for each.",
)
@click.option(
    "-e",
    "--estimate",
    "estimates",
    multiple=True,
    required=True,
    metavar="FILE|DIR",
    help="An estimated source, or a result folder; once for each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(references: tuple[str, ...], estimates: tuple[str, ...], as_json: bool) -> None:
    """Score estimated sources against the true ones.

    Each reference is matched to one estimate. Printed are SI-SDR and SDR in dB (mean over
    channels) and the absolute correlation.
    """
    from sourcesep.evaluation import evaluate_files

    try:
        with _noted("evaluate", quiet=True):
            rows = evaluate_files(references, estimates)
    except SourcesepError as error:
        _fail(error)
        sys.exit(FAILED)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
        return
    click.echo(f"{'SI-SDR':>8} {'SDR':>8} {'corr':>6}  reference <- estimate")
    for row in rows:
        click.echo(
            f"{row.si_sdr:8.2f} {row.sdr:8.2f} {row.correlation:6.4f}  "
            f"{row.reference} <- {row.estimate}"
        )


@main.command()
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    default="simulated",
    show_default=True,
    help="Folder that gets mixture.wav and the true images.",
)
@click.option(
    "--kind",
    type=click.Choice(["instantaneous", "saturated", "room"]),
    default="instantaneous",
    show_default=True,
    help="How the sources are mixed.",
)
@click.option(
    "-k",
    "--n-sources",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    help="Number of simulated talkers.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 3600),
    default=8.0,
    show_default=True,
    help="Length of simulated talkers.",
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    help="Mix this recording instead of a simulated talker; once for each.",
)
@click.option(
    "--rt60",
    type=click.FloatRange(0.05, 2),
    default=0.3,
    show_default=True,
    help="Reverberation time of the room, seconds.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed.")
@click.option("-f", "--overwrite", is_flag=True, help="Replace an earlier simulation.")
def simulate(sources: tuple[str, ...], output: str, overwrite: bool, **settings: Any) -> None:
    """Make a mixture whose sources are known."""
    from sourcesep.evaluation import simulate_files

    try:
        with _noted("simulate", quiet=False):
            files = simulate_files(Path(output), sources, overwrite=overwrite, **settings)
    except SourcesepError as error:
        _fail(error)
        sys.exit(FAILED)
    for file in files:
        click.echo(str(file))


@main.command()
@click.argument("path", metavar="MODEL|RESULT", type=click.Path())
def info(path: str) -> None:
    """Say what a model file or a result folder holds, as JSON."""
    from sourcesep.evaluation import describe

    try:
        click.echo(json.dumps(describe(Path(path)), indent=2, sort_keys=True))
    except SourcesepError as error:
        _fail(error)
        sys.exit(FAILED)


@main.command()
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    default="demo_output",
    show_default=True,
    help="Folder that gets the mixtures and their sources.",
)
def demo(output: str) -> None:
    """Separate three simulated mixtures, and print each gain beside FastICA's."""
    from sourcesep.demo import run

    click.echo("two simulated talkers, two channels, 8 s; SI-SDR gain over the mixture in dB")
    click.echo(f"{'mixture':<14} {'sourcesep':>9} {'FastICA':>8}  {'seconds':>7}  verdict")
    try:
        with _noted("demo", quiet=False):
            for row in run(Path(output)):
                click.echo(
                    f"{row.name:<14} {row.ours:9.1f} {row.fastica:8.1f}  "
                    f"{row.seconds:7.1f}  {row.verdict}"
                )
    except SourcesepError as error:
        _fail(error)
        sys.exit(FAILED)
    _talk(f"listen to {output}/instantaneous/source00.wav and its neighbours")
