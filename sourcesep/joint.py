"""`train`: one model of several recordings, whose component k is the same source in each."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sourcesep import auxiliary
from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import one_of
from sourcesep.componentwise import componentwise
from sourcesep.contracts import check_alike
from sourcesep.exceptions import InputError, SettingsError, SourcesepError, SourcesepWarning
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.moments import Moments
from sourcesep.ivae.settings import Settings
from sourcesep.lending import Shared, Task, lend
from sourcesep.messages import first_few
from sourcesep.recording import Recording
from sourcesep.selection import MIXINGS
from sourcesep.separation import separate
from sourcesep.workers import in_order

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE

__all__ = ["train"]

MOST_TOGETHER = 2**22
"""The most values, of all recordings together, on which a model is fitted and judged: as many as
for one long file, 48 s of stereo at 44.1 kHz. If there are more, each lends stretches."""
MOST_LENT = 64
"""The most recordings that lend stretches; they are evenly spread over those given."""
MOST_MOMENTS = 2**28
"""The most values of covariances that are held in memory: 2 GiB."""


def train(
    sources: Sequence[str | Path | Recording | Any],
    *,
    n_components: int | None = None,
    mixing: str = "auto",
    aux: str = "recording+segments",
    columns: str | Sequence[str] | None = None,
    kernel_size: int | None = None,
    quality: str = "normal",
    device: str = "auto",
    random_state: int = 0,
    n_jobs: int = 1,
    dask: str | None = None,
    on_failure: Callable[[str, SourcesepError], None] | None = None,
) -> IVAE:
    """Fit one model to several recordings of one scene: one map, and a prior for each.

    The recordings must be by the same sensors, at the same places, of the same sources.
    Component k of the model is then the same source in each of them, and in any other
    recording of that scene that the model is used on.

    If the recordings are too long or too many to be held together, the model is fitted to
    stretches of them and judged on these. If that gives a matrix found from segments, the
    matrix is fitted again to *all* segments of all recordings. Their covariances are computed
    in `n_jobs` processes or on a `dask` cluster, and diagonalised here. Prior and verdict stay
    those of the stretches.

    Parameters
    ----------
    sources : sequence of str, pathlib.Path, Recording, mne.io.BaseRaw or (array, float)
        Two or more, as `separate` takes them, of the same channels, units and rate.
    n_components : int, optional
        Number of sources; as `separate` chooses by default.
    mixing : str
        Family of the decoder, see `separate`.
    aux : str
        Where u comes from, see `separate`. ``recording`` tells recordings apart; so do
        segments, which lie in one recording each.
    columns : str or sequence of str, optional
        Of tables, the columns to separate.
    kernel_size : int, optional
        Taps of the mixing, for families that have memory.
    quality : {"fast", "normal", "best"}
        How much time a fit may take for how good a result.
    device : str
        "auto", "cpu", "cuda" or "mps", for families that are trained.
    random_state : int
        Seed of every random choice.
    n_jobs : int
        Processes in which recordings are read and summed up.
    dask : str, optional
        Address of a Dask scheduler that does this instead; its workers must see the files.
        The result is the same to the bit.
    on_failure : callable, optional
        Called with the name of a recording that cannot be used and the error; the recording is
        then left out, and the channels, units and rate that most recordings have count as
        right. By default the error is raised.

    Returns
    -------
    IVAE
        Fitted; `sourcesep.save` writes it, ``separate(..., model=...)`` uses it.

    Raises
    ------
    InputError
        If a recording cannot be read, or differs from the first in channels, units or
        rate: its name and what differs are said. With `on_failure`, if fewer than two are
        left.
    SettingsError
        If a setting is not possible, by itself or for these recordings.

    Examples
    --------
    >>> import sourcesep
    >>> scene = sourcesep.simulate.scenes(2, 3, n_layers=1, random_state=1)
    >>> ivae = sourcesep.train([(r.observations.T, 1.0) for r in scene])
    >>> [round(sourcesep.metrics.mcc(r.sources, ivae.transform(r.observations)), 2) for r in scene]
    [1.0, 1.0]
    """
    spec = _spec(sources, aux)
    one_of(MIXINGS, mixing=mixing)
    Settings(n_components, kernel_size=kernel_size, quality=quality, device=device)
    most = MOST_TOGETHER // min(len(sources), MOST_LENT)
    lent = np.linspace(0, len(sources) - 1, min(len(sources), MOST_LENT)).round().astype(int)
    tasks = [
        Task(number, source, most if number in lent else 0, spec)
        for number, source in enumerate(sources)
    ]
    read = partial(_tried, columns=columns, with_moments=mixing in ("auto", LinearModel.family))
    tried = _that_fit(in_order(read, tasks, n_jobs=n_jobs, dask=dask))
    shares = list(
        _raising(tried) if on_failure is None else _usable(list(tried), sources, on_failure)
    )
    for note in _notes(shares):
        warnings.warn(note, SourcesepWarning, stacklevel=2)
    together, u = _laid_end_to_end(shares, aux)
    separation = separate(
        together,
        n_components=n_components,
        mixing=mixing,
        aux=u,
        kernel_size=kernel_size,
        quality=quality,
        device=device,
        random_state=random_state,
    )
    ivae = separation.ivae
    moments = [share.moments for share in shares if share.moments is not None]
    if not all(share.is_whole for share in shares) and len(moments) == len(shares):
        ivae = ivae.pooled(Moments.joined(moments), together.data[:].T, u=u)
    if together.kind == "eeg":  # as `Separation.verdict` says it
        ivae.verdict_ = componentwise(ivae.verdict_)
    return ivae


def _spec(sources: Sequence[Any], aux: str) -> str | None:
    """Check what is asked for before anything is read; return the SPEC within one recording."""
    if isinstance(sources, str | Path) or len(sources) < 2:
        given = sources if isinstance(sources, str | Path) else ", ".join(map(str, sources))
        raise SettingsError(
            f"sources={given or 'none'}: at least two recordings are needed; for one use separate "
            "with save_model=FILE, and for a folder of clean sources train a prior (--kind prior)"
        )
    paths = [Path(s) for s in sources if isinstance(s, str | Path)]
    path, count = Counter(paths).most_common(1)[0] if paths else (None, 1)
    if count > 1:
        raise SettingsError(f"sources={path}: is given {count} times; once is enough")
    terms = auxiliary.parse(aux)
    if any(term.name == "file" for term in terms):
        raise SettingsError(
            f"aux={aux!r}: a file has the rows of one recording; use annotations or column"
        )
    within = tuple(term for term in terms if term.name not in ("recording", "folder"))
    return auxiliary.canonical(within) if within else None


def _tried(task: Task, **how: Any) -> Shared | SourcesepError:
    """What a recording gives to the fit, or why it cannot be used."""
    try:
        return lend(task, **how)
    except (InputError, SettingsError) as error:
        return error


def _that_fit(tried: Iterator[Shared | SourcesepError]) -> Iterator[Shared | SourcesepError]:
    """Pass recordings on; refuse them once their covariances would not fit in memory."""
    size = 0
    for share in tried:
        if isinstance(share, Shared) and share.moments is not None:
            size += share.moments.size
            if size > MOST_MOMENTS:
                raise InputError(
                    f"{share.name}: with it there are more segments than can be held, "
                    f"{size * 8 / 2**30:.1f} GiB of covariances; choose longer segments, as in "
                    "aux='recording+segments:10'"
                )
        yield share


def _raising(tried: Iterator[Shared | SourcesepError]) -> Iterator[Shared]:
    """Pass on recordings that go together; raise the error of the first that does not."""
    first: Shared | None = None
    for share in tried:
        if isinstance(share, SourcesepError):
            raise share
        first = first or share
        check_alike(first.contract, share.contract, where=share.name, other=first.name)
        yield share


def _usable(
    tried: Sequence[Shared | SourcesepError],
    sources: Sequence[Any],
    on_failure: Callable[[str, SourcesepError], None],
) -> Iterator[Shared]:
    """Pass on recordings that go together; tell `on_failure` why the others do not."""
    read = [share for share in tried if isinstance(share, Shared)]
    if not read:
        raise next(error for error in tried if isinstance(error, SourcesepError))
    usual = Counter(repr(share.contract) for share in read).most_common(1)[0][0]
    first = next(share for share in read if repr(share.contract) == usual)
    kept = 0
    for number, (share, source) in enumerate(zip(tried, sources, strict=True)):
        try:
            if isinstance(share, SourcesepError):
                raise share
            check_alike(first.contract, share.contract, where=share.name, other=first.name)
        except (InputError, SettingsError) as error:
            named = isinstance(source, str | Path)
            on_failure(str(source) if named else f"recording {number}", error)
        else:
            kept += bool(share.parts)
            yield share
    if kept < 2:
        raise InputError(
            f"{kept} of {len(tried)} recordings can be fitted together: at least two are needed; "
            "repair the others, or leave them out"
        )


def _notes(shares: Sequence[Shared]) -> Iterator[str]:
    """Yield each thing that was handled on the way once, after the names it applies to."""
    for note in dict.fromkeys(note for share in shares for note in share.notes):
        names = [share.name for share in shares if note in share.notes]
        yield f"{first_few(names, 3)}: {note}"


def _laid_end_to_end(shares: Sequence[Shared], aux: str) -> tuple[Recording, Auxiliary]:
    """Lay the stretches that were lent end to end, as one recording, and build its u."""
    parts = [part for share in shares for part in share.parts]
    u = auxiliary.build_many(aux, parts)
    names = set.intersection(*(set(part.columns) for part in parts))
    together = dataclasses.replace(
        parts[0],
        data=np.concatenate([part.data[:] for part in parts], axis=1),
        events=(),
        columns={n: np.concatenate([part.columns[n] for part in parts]) for n in sorted(names)},
        path=None,
    )
    return together, u
