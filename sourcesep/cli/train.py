"""``sourcesep train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sourcesep.cli.separate import separate
from sourcesep.cli.talk import FAILED, fail, in_lines, listed, model_file, named, printable, talk
from sourcesep.exceptions import InputError, SettingsError, SourcesepError

__all__ = ["train"]

BOTH = ("quality", "device", "random_state", "overwrite", "quiet")
MODEL = ("n_components", "mixing", "columns", "kernel_size", "n_jobs", "dask")
"""Options that are the very ones of ``sourcesep separate``: of both kinds, and of models only."""
PRIOR = ("seconds",)


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, callback=named)
@click.option(
    "--save-model",
    metavar="FILE",
    required=True,
    callback=model_file,
    help="Where it is written (.safetensors).",
)
@click.option(
    "--kind",
    type=click.Choice(["model", "prior"]),
    default="model",
    help="One model of several recordings, or a prior of sources.",
)
@click.option(
    "--aux",
    metavar="SPEC",
    help="Model: auxiliary variable u, of recording, folder, segments[:SECONDS[,SECONDS...]],"
    " adaptive, annotations[:REGEX], column:NAME[,NAME], joined by +.  [default:"
    " recording+segments]  Prior: where labels come from, folder (INPUT/LABEL/...), column:NAME"
    " (of the one .csv there, beside the column file) or annotations[:REGEX] (a .csv beside"
    " each recording: onset, duration, label).  [default: folder]",
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="Prior: time budget of training."
)
@click.pass_context
def train(
    context: click.Context,
    /,
    inputs: tuple[str, ...],
    save_model: str,
    kind: str,
    aux: str | None,
    overwrite: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Learn from several recordings what separate then takes as a FILE.

    A model: the INPUTs are recordings by the same sensors of the same sources. Component k
    is the same source in each, and in other recordings of that scene:

    sourcesep separate NEW.wav --model FILE [--refit]

    A prior: INPUT is one folder of clean recordings, one source, one channel and one rate each,
    with at least two labels and 20 s of each. It tells separate what the sources of a
    room sound like. A training that is killed is taken up by the same command.

    sourcesep separate ROOM.wav --prior FILE [--labels a,b]
    """
    from sourcesep.output import check_model_output

    others = {"model": PRIOR, "prior": MODEL}[kind]
    for option in context.command.params:
        name = option.name or ""
        if name in others and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[-1]}: is no option for --kind {kind}")
    given = {name: value for name, value in settings.items() if name not in others}
    given |= {} if aux is None else {"aux": aux}
    failed: list[str] = []

    def as_they_were(text: object) -> str:
        """The text with names of INPUTs as they were given."""
        said = str(text)
        for name in inputs:
            said = said.replace(str(Path(name).absolute()), name)
        return said

    def left_out(name: str, error: SourcesepError) -> None:
        failed.append(as_they_were(name))
        fail(as_they_were(error), failed[-1])

    given["on_failure"] = left_out
    with in_lines("train", quiet=quiet, worded=as_they_were):
        check_model_output(Path(save_model), overwrite)
        try:
            if kind == "model":
                lines = _model(inputs, save_model, given, failed)
            else:
                is_watched = not quiet and sys.stderr is not None
                lines = _prior(inputs, save_model, given | {"progress": is_watched})
        except MemoryError as error:
            raise InputError("out of memory; train on fewer or shorter recordings") from error
    if not quiet:
        found, *doubts = lines
        click.echo(printable(found))
        for doubt in doubts:
            talk(doubt)
    if failed:
        listed(f"{len(failed)} recording{'s' * (len(failed) > 1)} left out", failed)
        sys.exit(FAILED)


def _model(
    inputs: tuple[str, ...], save_model: str, settings: dict[str, Any], failed: list[str]
) -> list[str]:
    """Fit one model; what to say of it."""
    from sourcesep.joint import train
    from sourcesep.persistence import save

    sources = [str(Path(name).absolute()) for name in inputs]
    ivae = train(sources, **settings)
    save(ivae, save_model)
    n, verdict = ivae.model_.n_components, ivae.verdict_
    found = (
        f"{n} component{'s' * (n > 1)} of {len(inputs) - len(failed)} recordings, {verdict.label}"
    )
    doubt = f"{save_model}: {verdict.label}: {verdict.sentence}"
    return [f"{save_model}: {found}"] + [doubt] * (verdict.label != "trusted")


def _prior(inputs: tuple[str, ...], save_model: str, settings: dict[str, Any]) -> list[str]:
    """Train a prior of sources; what to say of it."""
    from sourcesep.prior_training import train_prior

    if len(inputs) > 1:
        raise SettingsError(f"{len(inputs)} INPUTs: a prior is trained on one folder; give that")
    prior = train_prior(inputs[0], save_model=save_model, **settings)
    elbo = prior.card["elbo"]
    return [
        f"{save_model}: {', '.join(prior.labels)}; held-out ELBO {elbo['with_u']:.3f} nats a cell "
        f"with u, {elbo['without_u']:.3f} without; labels found in {elbo['labels_found']:.0%} of "
        "the windows"
    ]


train.params += [option for option in separate.params if option.name in BOTH + MODEL]
