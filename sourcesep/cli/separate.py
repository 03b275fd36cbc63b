"""``sourcesep separate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sourcesep.cli.talk import (
    FAILED,
    about,
    fail,
    in_lines,
    listed,
    model_file,
    named,
    printable,
    spoken,
    talk,
)
from sourcesep.exceptions import SettingsError

if TYPE_CHECKING:
    from sourcesep.batch import Job, Outcome

__all__ = ["separate"]


MIXINGS = (
    *("auto", "linear", "post-nonlinear", "underdetermined", "convolutive", "factor"),
    *("nonlinear", "amortised"),
)
"""Those of `selection`, which loads too much for ``--help``."""
ARTEFACTS = ("eog", "ecg", "muscle")
NATS = "nats a sample"
MEASURES = {
    "convolutive": "compactness of the responses",
    "underdetermined": "share of the sound where one source is alone",
}
"""What candidates within families on the short-time Fourier transform are compared by."""


def _exclude(text: str | None) -> tuple[int | str, ...]:
    try:
        parts = text.split(",") if text else ()
        return tuple(part if part in ARTEFACTS else int(part) for part in parts)
    except ValueError:
        raise click.UsageError(
            f"--exclude={text}: must be component numbers or {', '.join(ARTEFACTS)}, joined by "
            "commas: 0,3 or eog,ecg"
        ) from None


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, callback=named)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    callback=named,
    default="separated",
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
    type=click.Choice(MIXINGS),
    default="auto",
    help="Family of the mixing.",
)
@click.option(
    "--aux",
    metavar="SPEC",
    help="Auxiliary variable u: segments[:SECONDS[,SECONDS...]],"
    " adaptive, annotations[:REGEX], column:NAME[,NAME], year:NAME[,YEARS], file:PATH,"
    " joined by +.  "
    "[default: segments that suit the kind of input]",
)
@click.option(
    "--prior",
    metavar="FILE",
    callback=named,
    help="Rooms: what sources sound like (sourcesep train --kind prior).",
)
@click.option("--labels", metavar="LIST", help="Which of the prior's labels the sources are: a,b.")
@click.option("--resample", is_flag=True, help="Bring the input to the prior's rate.")
@click.option(
    "--model",
    metavar="FILE",
    callback=named,
    help="Use this fitted model instead of fitting one. With it go --aux, --columns,"
    " --interpolate and --refit; settings of a fit are refused.",
)
@click.option(
    "--refit", is_flag=True, help="Go on from --model to fit this input, components as they are."
)
@click.option(
    "--save-model",
    metavar="FILE",
    callback=model_file,
    help="Write the fitted model (.safetensors).",
)
@click.option(
    "--bit-depth",
    type=click.Choice(["16", "24", "float"]),
    help="Of the written audio.  [default: the input's]",
)
@click.option(
    "--exclude",
    metavar="LIST",
    help="EEG: components to remove, e.g. 0,3, or eog,ecg,muscle to find them; adds"
    " cleaned_raw.fif.",
)
@click.option(
    "--columns",
    metavar="LIST",
    help="Tables: columns to separate, e.g. a,b,c.  [default: all numbers, or the model's]",
)
@click.option(
    "--interpolate",
    metavar="ROWS",
    type=click.IntRange(1),
    help="Tables: fill gaps of up to so many rows by straight lines.",
)
@click.option(
    "--kernel-size",
    type=click.IntRange(1),
    help="Taps of the mixing, for families with memory.  [default: the family's own]",
)
@click.option(
    "--quality",
    type=click.Choice(["fast", "normal", "best"]),
    default="normal",
    help="How much time a fit may take for how good a result.",
)
@click.option(
    "-d",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="Where families that are trained are trained.",
)
@click.option(
    "--seed",
    "random_state",
    type=click.IntRange(0),
    default=0,
    help="Seed of every random choice.",
)
@click.option(
    "-j",
    "--jobs",
    "n_jobs",
    type=click.IntRange(1),
    default=1,
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
    """Separate each INPUT into its sources.

    \b
    Audio  .wav .flac .ogg .mp3 .aiff ...   -> source00.wav ..., residual.wav
    EEG    .fif .edf .bdf .set .vhdr        -> sources_raw.fif, component_maps.png
    Table  .csv .npy .parquet               -> sources.csv, loadings.csv, prior.csv

    Every result has a verdict (trusted, doubtful, not identifiable) in result.json. Audio
    sources and residual add up to the input. Not for vocals or drums by name from a song:
    for those use a supervised separator.
    """  # noqa: D301, click wants the character itself
    from tqdm import tqdm

    from sourcesep.batch import separate_files

    saving = {
        "overwrite": overwrite,
        "bit_depth": bit_depth,
        "exclude": _exclude(exclude),
        "report": report,
    }
    jobs = _jobs(inputs, Path(output), save_model, shard, settings, saving, resume)
    if not quiet:
        _foretell(jobs)
    failed = []
    is_watched = len(jobs) > 1 and not quiet and sys.stderr is not None  # it may be closed
    with (
        in_lines(quiet=quiet),
        tqdm(total=len(jobs), disable=None if is_watched else True) as bar,
    ):
        for outcome in separate_files(jobs, n_jobs=n_jobs, dask=dask):
            bar.update()
            for warning in outcome.warnings if not quiet else ():
                talk(f"warning: {about(outcome.path, warning)}")
            if outcome.error is not None:
                failed.append(outcome.path)
                fail(outcome.error, outcome.path)
            else:
                _report(outcome, as_json=as_json, quiet=quiet, verbose=verbose)
    if failed:
        if len(jobs) > 1:
            listed(f"{len(failed)} of {len(jobs)} inputs failed", failed)
        sys.exit(FAILED)


def _jobs(
    inputs: tuple[str, ...],
    output: Path,
    save_model: str | None,
    shard: str,
    settings: dict[str, Any],
    saving: dict[str, Any],
    resume: bool,
) -> list[Job]:
    """What there is to do; what cannot be asked for is refused before anything is read."""
    from sourcesep import auxiliary, reuse
    from sourcesep.batch import Job, share
    from sourcesep.output import folders_for

    if save_model and len(inputs) > 1:
        raise click.UsageError(
            "--save-model: takes one INPUT; give the others in runs of their own"
        )
    model_path = None if save_model is None else Path(save_model)
    try:
        if settings["aux"] is not None:
            auxiliary.parse(settings["aux"])
        reuse.check(settings["model"], settings["refit"], settings)
        folders = list(folders_for(inputs, output).items())
        return [
            Job(path, folder, settings, saving, model_path, resume)
            for path, folder in share(folders, shard)
        ]
    except SettingsError as error:
        raise click.UsageError(spoken(error)) from error


def _foretell(jobs: list[Job]) -> None:
    """Say what long fits will take; a model that is given, or a prior, takes something else."""
    from sourcesep.forecast import forecast

    for job in jobs:
        if job.settings["model"] is None and job.settings["prior"] is None:
            expected = forecast(job.path, job.settings["mixing"])
            if expected is not None:
                talk(f"{job.path}: {expected}")


def _report(outcome: Outcome, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say what a separation has found."""
    result = outcome.result or {}
    if as_json:
        click.echo(json.dumps(result, allow_nan=False, sort_keys=True))
    elif not quiet:
        n = result["n_components"]
        line = f"{outcome.folder}: {n} source{'s' * (n > 1)}, {result['verdict']}"
        click.echo(printable(line + ", was there already" * outcome.resumed))
    if not quiet and result["verdict"] != "trusted":
        talk(f"{outcome.path}: {result['verdict']}: {result['sentence']}")
    if not quiet and "cleaned_raw.fif" in result["output"]["files"]:
        talk(f"{outcome.path}: cleaned_raw.fif is {_without(result['output'])}")
    settings, reason = result["settings"], spoken(result["reason"])
    is_as_asked = settings["model"] or settings["mixing"] in ("auto", result["family"])
    if not (is_as_asked or quiet or verbose):
        talk(f"{outcome.path}: {reason}")
    if verbose:
        talk(f"{outcome.path}: {reason}; u = {settings['aux']}")
        for line in _scores(result):
            talk(f"{outcome.path}: {line}")


def _scores(result: dict[str, Any]) -> Iterator[str]:
    """Yield the score of every candidate, in words."""
    for choice, scores in result["candidates"].items():
        measure = MEASURES.get(choice, NATS)
        if choice == "convolutive" and result["settings"]["prior"] is not None:
            measure = "nats a cell and source"
        for name, score in scores.items():
            yield f"{choice} {name}: {score:.4f} {measure}"


def _without(output: dict[str, Any]) -> str:
    """Which components were removed, and for what."""
    if not output["exclude"]:
        return "the recording as it was: no component was removed"
    found = output.get("found", {})
    named = []
    for k in output["exclude"]:
        kinds = [kind for kind in found if k in found[kind]["components"]]
        named.append(f"{k} ({', '.join(kinds)})" if kinds else str(k))
    return f"without component{'s' * (len(named) > 1)} {', '.join(named)}"
