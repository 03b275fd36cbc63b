"""The command line: words in, the public API called, lines out. No logic of its own."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from sourcesep._version import __version__
from sourcesep.exceptions import SettingsError, SourcesepError, SourcesepWarning

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


def _fail(error: BaseException, path: object = "") -> None:
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
    type=click.Choice(["auto", "linear", "post-nonlinear", "nonlinear"]),
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
@click.option("-f", "--overwrite", is_flag=True, help="Replace earlier results.")
@click.option("--json", "as_json", is_flag=True, help="Print each result.json, one a line.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say how every choice was made.")
def separate(
    inputs: tuple[str, ...],
    output: str,
    save_model: str | None,
    bit_depth: str | None,
    exclude: str | None,
    overwrite: bool,
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
    from sourcesep.output import check_model_output, check_output, folders_for
    from sourcesep.separation import separate as run

    excluded = _exclude(exclude)
    if save_model and len(inputs) > 1:
        raise click.UsageError(
            "--save-model: takes one INPUT; give the others in runs of their own"
        )
    if save_model and not save_model.endswith(".safetensors"):
        raise click.UsageError(f"--save-model={save_model}: must end in .safetensors")
    try:
        if settings["aux"] is not None:
            auxiliary.parse(settings["aux"])
        folders = folders_for(inputs, Path(output))
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    failed = 0
    no_bar = None if len(folders) > 1 and not quiet else True
    for path, folder in tqdm(folders.items(), disable=no_bar, leave=False):
        try:
            with _noted(path, quiet=quiet):
                check_output(folder, overwrite)
                if save_model:
                    check_model_output(Path(save_model), overwrite)
                separation = run(path, **settings)
                result = separation.save(
                    folder, overwrite=overwrite, bit_depth=bit_depth, exclude=excluded
                )
                if save_model:
                    separation.save_model(save_model)
        except SourcesepError as error:
            failed += 1
            _fail(error, path)
            continue
        except MemoryError:
            failed += 1
            _fail(MemoryError("out of memory; cut the recording into parts"), path)
            continue
        if as_json:
            click.echo(json.dumps(result, allow_nan=False, sort_keys=True))
        elif not quiet:
            count = f"{separation.n_components} source{'s' * (separation.n_components > 1)}"
            click.echo(_printable(f"{folder}: {count}, {separation.verdict.label}"))
        if not quiet and separation.verdict.label != "trusted":
            _talk(f"{path}: {separation.verdict.label}: {separation.verdict.sentence}")
        if verbose:
            _talk(f"{path}: {result['reason']}; u = {result['settings']['aux']}")
            for choice, scores in result["candidates"].items():
                for name, score in scores.items():
                    _talk(f"{path}: {choice} {name}: {score:.4f} nats a sample, held out")
    if failed:
        if len(folders) > 1:
            _talk(f"error: {failed} of {len(folders)} inputs failed")
        sys.exit(FAILED)


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
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--by", type=click.Choice(["prior", "maps"]), default="prior", help="What is compared."
)
@click.option("--min-corr", type=float, default=0.8, show_default=True, help="Of one source.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a row for each component.")
def match(models: tuple[str, ...], by: str, min_corr: float, as_json: bool) -> None:
    """Say which components are one source in several recordings.

    MODEL is a file of ComponentAnalysis.save. To match by prior it needs conditions, as
    with aux="segments:.5,2,8+annotations".
    """
    from sourcesep.component_analysis import read_components
    from sourcesep.matching import match_components

    try:
        matching = match_components([read_components(path) for path in models], by, min_corr)
    except SourcesepError as error:
        _fail(error)
        sys.exit(2 if isinstance(error, SettingsError) else FAILED)
    for line in [json.dumps(matching.table())] if as_json else matching.lines(models):
        click.echo(_printable(line))


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
