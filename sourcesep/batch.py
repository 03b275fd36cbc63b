"""Many recordings, each separated and written on its own: side by side, resumed, in shares."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sourcesep import auxiliary
from sourcesep._version import __version__
from sourcesep.cluster import connected, expect_workers
from sourcesep.exceptions import SettingsError, SourcesepError, SourcesepWarning
from sourcesep.messages import in_brief
from sourcesep.output import (
    RESULT,
    check_model_output,
    check_output,
    check_resumable,
    read_result,
    recover,
    sha256,
)
from sourcesep.reading import kind_of
from sourcesep.recording import Kind
from sourcesep.workers import as_done

__all__ = ["Job", "Outcome", "separate_file", "separate_files", "share"]

Item = TypeVar("Item")

DIED = (
    "the process that worked on it died, perhaps for want of memory; run it alone, with fewer "
    "jobs, or cut the recording into parts"
)
ELSEWHERE = (
    "a Dask worker cannot do it ({reason}); it needs this machine's version of sourcesep, and the "
    "same files"
)


@dataclass(frozen=True)
class Job:
    """One recording, and where its result goes.

    Parameters
    ----------
    path : Path
        What is read.
    folder : Path
        What is written.
    settings : dict
        For `sourcesep.separate`.
    saving : dict
        For `Separation.save`.
    save_model : Path, optional
        Where the fitted model goes too.
    resume : bool
        Whether a result that these settings have written already is kept.
    base : Path, optional
        Folder from which relative paths in settings are seen; that of the process by default.
    """

    path: Path
    folder: Path
    settings: Mapping[str, Any]
    saving: Mapping[str, Any]
    save_model: Path | None = None
    resume: bool = False
    base: Path | None = None

    def seen(self) -> dict[str, Any]:
        """Return the settings with paths that are right in any working directory."""
        settings = dict(self.settings)
        if self.base is None:
            return settings
        for name in ("model", "prior"):
            if settings.get(name) is not None:
                settings[name] = str(self.base / settings[name])
        if settings.get("aux") is not None:
            terms = (
                replace(term, arguments=(str(self.base / term.arguments[0]),))
                if term.name == "file"
                else term
                for term in auxiliary.parse(settings["aux"])
            )
            settings["aux"] = auxiliary.canonical(tuple(terms))
        return settings


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Parameters
    ----------
    path, folder : Path
        Of the job.
    result : dict, optional
        What result.json holds; None if the job failed.
    error : str, optional
        Why it failed.
    warnings : tuple of str
        What was handled on the way.
    resumed : bool
        Whether the result was there already.
    """

    path: Path
    folder: Path
    result: dict[str, Any] | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    resumed: bool = False


def share(items: Sequence[Item], part: str) -> list[Item]:
    """Return share I of N of the items, as ``part`` = ``"I/N"`` says, counted from 1.

    Every Nth, so that neighbours, which are often alike in length, are spread over all.

    Raises
    ------
    SettingsError
        If part is not of that form.
    """
    number, _, of = part.partition("/")
    valid = number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)
    if not valid:
        raise SettingsError(f"shard={part}: must be I/N, for example 1/4 to 4/4")
    return list(items[int(number) - 1 :: int(of)])


def separate_file(job: Job) -> Outcome:
    """Separate one recording and write the result; whatever fails is said in the outcome."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SourcesepWarning)
        try:
            recover(job.folder)
            result = _earlier(job)
            outcome = _kept(job, result) or _made(job, again=result is not None)
        except SourcesepError as error:
            # or another process was faster
            outcome = _kept(job, _earlier(job)) or Outcome(job.path, job.folder, error=str(error))
        except Exception as error:  # one that nobody thought of must not stop the others
            outcome = Outcome(job.path, job.folder, error=_unforeseen(error))
    return replace(outcome, warnings=tuple(str(w.message) for w in caught))


def _made(job: Job, *, again: bool) -> Outcome:
    """Do a job, `again` if its own result may be replaced; SourcesepError if it is refused."""
    from sourcesep.result import check_options
    from sourcesep.separation import separate

    # a run that was killed before it wrote the model is done again
    saving = dict(job.saving) | ({"overwrite": True} if again else {})
    if job.resume and not saving["overwrite"]:
        check_resumable(job.folder)
    check_output(job.folder, saving["overwrite"])
    if job.save_model is not None:
        check_model_output(job.save_model, job.saving["overwrite"])
    if (kind := kind_of(job.path)) is not None:
        check_options(kind, saving.get("bit_depth"), saving.get("exclude", ()))
    separation = separate(job.path, **job.seen())
    of = separation.recording
    as_given = {name: job.settings.get(name) for name in ("model", "prior")}
    spec = _spec(job.settings.get("aux"), of.kind, of.n_times, of.sfreq)
    separation.settings |= as_given | {"aux": spec}
    result = separation.save(job.folder, **saving)
    if job.save_model is not None:
        separation.save_model(job.save_model)
    return Outcome(job.path, job.folder, result)


def _kept(job: Job, result: dict[str, Any] | None) -> Outcome | None:
    """The outcome of a job that was done before, if nothing that it writes is missing."""
    if result is None or not (job.save_model is None or job.save_model.exists()):
        return None
    return Outcome(job.path, job.folder, result, resumed=True)


def _unforeseen(error: Exception) -> str:
    """Say in one line what went wrong where no adapter and no model has expected it."""
    text = in_brief(error)
    told_by_torch = isinstance(error, RuntimeError) and "alloc" in text
    if isinstance(error, MemoryError) or told_by_torch:
        return (
            "out of memory; run fewer at once (-j), ask for fewer components (-k) or less quality "
            "(--quality fast), or cut the recording into parts"
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return f"unforeseen {type(error).__name__} ({where}): {text}; please report it as a bug"


def _earlier(job: Job) -> dict[str, Any] | None:
    """The result in the job's folder, if doing the job again would write the same."""
    if not job.resume:
        return None
    try:
        result = read_result(job.folder / RESULT)
        about, output = result["input"], result["output"]
        same = (
            result["versions"]["sourcesep"] == __version__
            and result["settings"] == _resolved(job, about)
            and output["options"] == _written_with(job.saving)
            and all((job.folder / name).exists() for name in output["files"])
            and about["sha256"] == sha256(job.path)
        )
    except (ValueError, KeyError, TypeError, OSError):
        return None  # no result, or none of ours: it is made anew, and that says what is wrong
    return result if same else None


def _resolved(job: Job, about: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as result.json would state them for a recording like this."""
    seen = job.seen()
    return {
        **job.settings,
        "aux": _spec(job.settings["aux"], about["kind"], about["n_times"], about["sfreq"]),
        **{
            f"{name}_sha256": None if seen[name] is None else sha256(Path(seen[name]))
            for name in ("model", "prior")
        },
    }


def _spec(aux: str | None, kind: Kind, n_times: int, sfreq: float) -> str:
    """The SPEC as it is resolved for a recording like this."""
    return auxiliary.canonical(auxiliary.resolve(aux, kind, n_times, sfreq))


def _written_with(saving: Mapping[str, Any]) -> dict[str, Any]:
    """Options of writing that were asked for, as result.json states them."""
    asked = {k: v for k, v in saving.items() if k != "overwrite" and v}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asked.items()}


def separate_files(
    jobs: Sequence[Job], *, n_jobs: int = 1, dask: str | None = None
) -> Iterator[Outcome]:
    """Do many jobs; one that fails does not stop the others.

    Parameters
    ----------
    jobs : sequence of Job
        What to do. One after the other in this order; side by side, the largest first.
    n_jobs : int
        Processes, each with one thread.
    dask : str, optional
        Address of a Dask scheduler, such as ``tcp://scheduler:8786``; its workers must see
        the same files, and do all the work.

    Yields
    ------
    Outcome
        As each is done.

    Raises
    ------
    MissingDependencyError
        If Dask is asked for and not installed.
    SettingsError
        If the scheduler cannot be reached, or no process be started.
    InputError
        If the scheduler is lost; what is done by then is written.
    """
    if dask is not None:
        yield from _on_cluster(_largest_first(jobs), dask)
    elif n_jobs == 1 or len(jobs) < 2:
        yield from map(separate_file, jobs)
    else:
        yield from _side_by_side(_largest_first(jobs), min(n_jobs, len(jobs)))


def _largest_first(jobs: Sequence[Job]) -> list[Job]:
    """The longest begin first, so that none is left to run alone at the end."""

    def size(job: Job) -> int:
        try:
            return job.path.stat().st_size
        except OSError:
            return 0

    return sorted(jobs, key=size, reverse=True)


def _side_by_side(jobs: list[Job], n_jobs: int) -> Iterator[Outcome]:
    died = []
    for job, outcome in _in_processes(jobs, n_jobs):
        if outcome is None:
            died.append(job)
        else:
            yield outcome
    # perhaps others had taken the memory; and what was written by then is not made again
    for job, outcome in _in_processes(died, 1, resume=True):
        yield outcome or Outcome(job.path, job.folder, error=DIED)


def _in_processes(
    jobs: list[Job], n_jobs: int, resume: bool = False
) -> Iterator[tuple[Job, Outcome | None]]:
    sent = [replace(_absolute(job), resume=job.resume or resume) for job in jobs]
    for number, outcome in as_done(separate_file, sent, n_jobs=n_jobs):
        job = jobs[number]
        yield job, outcome and _returned(outcome, job)


def _on_cluster(jobs: list[Job], address: str) -> Iterator[Outcome]:
    with connected(address, "go on from what is done with resume=True") as client:
        from distributed import KilledWorker, as_completed

        # what is read and written is the files' own: two jobs that look alike are still two;
        # a worker may die when it has written a result and before it could say so
        retried = [replace(_absolute(j), resume=j.resume or not j.folder.exists()) for j in jobs]
        tasks = client.map(separate_file, retried, pure=False)
        back = dict(zip(tasks, jobs, strict=True))
        expect_workers(client, address)
        for task in as_completed(tasks, loop=client.loop):
            job = back[task]
            failure = task.exception()
            if failure is None:
                yield _returned(task.result(), job)
            else:
                died = isinstance(failure, KilledWorker)
                reason = f"{type(failure).__name__}: {in_brief(failure)}"
                error = DIED if died else ELSEWHERE.format(reason=reason)
                yield Outcome(job.path, job.folder, error=error)


def _absolute(job: Job) -> Job:
    """The job with paths that mean the same wherever a worker was started."""

    def full(path: Path) -> Path:
        return Path(os.path.abspath(path))  # noqa: PTH100, links stay

    model = job.save_model
    return replace(
        job,
        base=Path.cwd(),
        path=full(job.path),
        folder=full(job.folder),
        save_model=None if model is None else full(model),
    )


def _returned(outcome: Outcome, job: Job) -> Outcome:
    """The outcome with the paths that the job was given, not those that a worker saw."""
    resumed = outcome.resumed and job.resume
    return replace(outcome, path=job.path, folder=job.folder, resumed=resumed)
