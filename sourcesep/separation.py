"""`separate`: from a file, array or MNE object to its sources."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sourcesep import auxiliary, reuse
from sourcesep.auxiliary import Auxiliary
from sourcesep.checks import whole
from sourcesep.clipping import Restored
from sourcesep.contracts import contract_of
from sourcesep.exceptions import InputError, SettingsError, SourcesepWarning
from sourcesep.ivae.model import Array
from sourcesep.messages import counted, first_few
from sourcesep.output import sha256
from sourcesep.reading import adapter_for, kind_of, read
from sourcesep.recording import Recording, from_array
from sourcesep.result import Separation
from sourcesep.samples import Samples

if TYPE_CHECKING:
    from sourcesep.estimator import IVAE
    from sourcesep.ivae.stft.source_prior import SourcePrior

__all__ = ["as_recording", "separate"]

EEG_STARTS = ("segments",)
"""Brain sources differ in when they are active; this start was measured to be the best."""

UNLIKE = (
    "the recording sounds unlike what the prior was trained on: the prior has chosen the start "
    "only, and the rest was done without it"
)


def separate(
    source: str | Path | Recording | tuple[ArrayLike, float] | Any,
    *,
    n_components: int | None = None,
    mixing: str = "auto",
    aux: str | ArrayLike | Auxiliary | None = None,
    prior: str | Path | SourcePrior | None = None,
    labels: str | Sequence[str] | None = None,
    resample: bool = False,
    model: str | Path | IVAE | None = None,
    refit: bool = False,
    columns: str | Sequence[str] | None = None,
    interpolate: int | None = None,
    kernel_size: int | None = None,
    quality: str = "normal",
    device: str = "auto",
    random_state: int = 0,
) -> Separation:
    """Separate a recording into its sources.

    Parameters
    ----------
    source : str, pathlib.Path, Recording, mne.io.BaseRaw or (array, float)
        A file, a recording, or an array of shape (n_channels, n_times) with its rate. An array
        is separated as `IVAE` would do it, whatever its rate: neither rooms nor more sources
        than channels are looked for. Give sound as
        ``Recording(array, sfreq, names, units, "audio")``, with a name and a unit (or ``""``)
        for each channel.
    n_components : int, optional
        Number of sources. By default the numerical rank; for tables the number with the
        best held-out ELBO.
    mixing : str
        Family of the decoder: ``"linear"``, ``"post-nonlinear"``, ``"convolutive"``,
        ``"underdetermined"``, ``"factor"``, ``"nonlinear"`` or ``"amortised"`` (see `IVAE`).
        What ``"auto"`` chooses among depends on the kind of recording: linear for EEG, linear
        and factor for tables, the first four for audio, and for arrays what `IVAE` does.
    aux : str, array-like or Auxiliary, optional
        Where u comes from: ``segments[:SECONDS[,SECONDS...]]``, ``adaptive``,
        ``annotations[:REGEX]``, ``column:NAME[,NAME]``, ``year:NAME[,YEARS]``,
        ``file:PATH``, joined by ``+``; or labels or covariates themselves. By default
        segments of a length that suits the kind of recording.
    prior : str, pathlib.Path or SourcePrior, optional
        What sources sound like, learned from other recordings by `train_prior`. It is for
        rooms: mixing is ``"convolutive"`` then.
    labels : str or sequence of str, optional
        The prior's label of each source; by default they are found out.
    resample : bool
        Whether a recording whose rate differs from the prior's is resampled to it; the sources
        then have that rate too.
    model : str, pathlib.Path or IVAE, optional
        Use this fitted model instead of fitting one. The recording must have the same channels,
        units and rate; of a table, the model's columns are used and others left out. Components
        that reach beyond the range of the model's fit are named in a warning and in
        result.json, except for linear models, which hold everywhere. Settings that only a fit
        has a use for (`kernel_size`, `quality`, `device`, `random_state`) are refused.
    refit : bool
        Whether to fit the model's map again, from where it is, to this recording. Every
        component keeps its index (see `IVAE.refit`).
    columns : str or sequence of str, optional
        Of a table, the columns to separate; by default all that are neither times nor named
        in `aux`, or those of the model.
    interpolate : int, optional
        Of a table, fill gaps of up to this many rows by straight lines first. Values that are
        still missing need a family that allows for them: factor or amortised.
    kernel_size : int, optional
        Taps of the mixing, for families that have memory (see `IVAE`).
    quality : {"fast", "normal", "best"}
        How much time a fit may take for how good a result.
    device : str
        "auto", "cpu", "cuda" or "mps", for families that are trained.
    random_state : int
        Seed of every random choice.

    Returns
    -------
    Separation
        Sources, images, residual, model and verdict.

    Raises
    ------
    InputError
        If the source cannot be read or separated.
    SettingsError
        If a setting is unknown, or not possible for this recording.

    Examples
    --------
    >>> import sourcesep
    >>> voices = [sourcesep.simulate.speech(3, random_state=s) for s in (1, 2)]
    >>> mixture = sourcesep.simulate.instantaneous(voices, sfreq=16000)
    >>> separation = sourcesep.separate((mixture.data, 16000))
    >>> separation.sources.shape
    (2, 48000)
    >>> separation.verdict.label
    'trusted'
    """
    from sourcesep.source_priors import guided_by, prepared

    begin = time.perf_counter()
    whole(0, random_state=random_state)
    if isinstance(aux, str):
        auxiliary.parse(aux)  # a wrong SPEC is refused before anything is read
    asked = {
        "n_components": n_components,
        "mixing": mixing,
        "kernel_size": kernel_size,
        "quality": quality,
        "device": device,
        "random_state": int(random_state),
    }
    reuse.check(model, refit, asked | {"prior": prior, "labels": labels, "resample": resample})
    trained, source_labels = guided_by(prior, labels, mixing, n_components, model)
    fitted = None if model is None else reuse.given(model, asked)
    known = None if fitted is None else reuse.columns_of(fitted)
    with _noting() as notes:
        recording = prepared(
            as_recording(source, columns, interpolate, aux, known), trained, resample
        )
        heard = _restored(recording)
        x, u = _fit_data(heard or recording, aux)
        candidates: dict[str, Any] = {}
        if fitted is not None:
            used = reuse.use(fitted, recording, x, u, refit=refit)
        else:
            of_fit = asked | {"source_prior": trained, "source_labels": source_labels}
            used, candidates = _fit(recording, x, u, of_fit)
    settings = asked | {
        "aux": used.u.spec,
        "prior": _named(prior, "SourcePrior"),
        "prior_sha256": _digest(prior),
        "labels": _listed(labels),
        "resample": resample,
        "model": _named(model, "IVAE"),
        "refit": refit,
        "model_sha256": _digest(model),
        "columns": _listed(columns),
        "interpolate": interpolate,
    }
    return Separation(
        recording,
        used.ivae,
        used.u,
        settings=settings,
        elbo=used.elbo,
        candidates=candidates,
        warnings=notes,
        seconds=time.perf_counter() - begin,
        out_of_range=used.out_of_range,
        heard=heard,
    )


def _restored(recording: Recording) -> Recording | None:
    """Return a sound as it was before samples were clipped; None where none were."""
    if recording.kind != "audio":
        return None
    counts = recording.clipping.restorable.tolist()
    if not any(counts):
        return None
    named = first_few(counted(recording.names, counts))
    warnings.warn(
        f"{sum(counts)} clipped samples are restored before sources are found, in {named}; what "
        "clipping took away is in the residual",
        SourcesepWarning,
        stacklevel=3,
    )
    restored: Samples = Restored(recording.data, recording.clipping.rails, recording.sfreq)
    return replace(recording, data=restored[:] if recording.in_memory else restored)


def _fit(
    recording: Recording, x: Array, u: Auxiliary, settings: dict[str, Any]
) -> tuple[reuse.Use, dict[str, Any]]:
    """Fit a model to the samples x of a recording, with the defaults of its kind.

    `settings` are parameters of `IVAE`. Returns the fit, and the scores of everything that
    was chosen among.
    """
    from sourcesep.estimator import IVAE
    from sourcesep.ivae.matrices.starts import STARTS
    from sourcesep.selection import accepts_missing, families_of, mixing_of

    mixing = settings["mixing"]
    if mixing == "auto" and settings["source_prior"] is not None:
        mixing = "convolutive"
    elif mixing == "auto" and recording.kind != "array":  # whose auto is that of `IVAE`
        mixing = mixing_of(recording.kind)
    families_of(mixing)  # refuses what is none
    among = (mixing,) if isinstance(mixing, str) else mixing
    if not accepts_missing(mixing):
        recording.check_missing(f"mixing={settings['mixing']!r} {reuse.NO_GAPS}")
    candidates: dict[str, Any] = {}
    n_components = settings["n_components"]
    if n_components is None and settings["source_labels"]:
        n_components = len(settings["source_labels"])
    elif n_components is None and recording.kind == "table":
        n_components, candidates["n_components"] = _number_of_factors(
            recording, x, u, among, settings["random_state"]
        )
    of_kind = {
        "mixing": mixing,
        "n_components": n_components,
        "sfreq": recording.sfreq,
        "standardise": recording.kind in ("table", "array"),
        "starts": EEG_STARTS if recording.kind == "eeg" else tuple(STARTS),
    }
    ivae = IVAE(**settings | of_kind).fit(x.T, u=u)
    ivae.contract_ = contract_of(recording)
    guidance = ivae.model_.findings.get("source_prior")
    if guidance is not None and not guidance["like_the_training"]:
        warnings.warn(UNLIKE, SourcesepWarning, stacklevel=3)
    elbo = (ivae.history_["reconstruction"][-1], ivae.history_["kl"][-1])
    return reuse.Use(ivae, u, elbo, None), candidates | ivae.scores_


def _number_of_factors(
    recording: Recording, x: Array, u: Auxiliary, among: Sequence[str], seed: int
) -> tuple[int, dict[str, float]]:
    """Choose how many factors a table has by held-out likelihood; also return the scores."""
    from sourcesep.n_components import choose_n_components
    from sourcesep.selection import FAMILIES

    simplest = "factor" if recording.summary.missing.any() else "linear"
    names = {"linear", "factor"} & set(among) or {simplest}
    families = [FAMILIES[name] for name in sorted(names, reverse=True)]
    rng = np.random.default_rng(seed)
    return choose_n_components(x, u, rng, families=families)


def _named(given: Any, class_name: str) -> str | None:
    """What result.json calls a model or prior: its file, or the class of an object."""
    return str(given) if isinstance(given, str | Path) else given and class_name


def _digest(given: Any) -> str | None:
    """SHA-256 of the file that a model or prior was given by; None for an object."""
    return sha256(Path(given)) if isinstance(given, str | Path) else None


def _listed(names: Any) -> Any:
    """Names as result.json has them: a list, or text as it was given."""
    return list(names) if isinstance(names, list | tuple) else names


def as_recording(
    source: Any,
    columns: str | Sequence[str] | None = None,
    interpolate: int | None = None,
    aux: Any = None,
    known: Sequence[str] | None = None,
) -> Recording:
    """Return what `separate` was given as a Recording.

    `known` are the columns that a table's model was fitted on.
    """
    given = {"columns": columns, "interpolate": interpolate}
    options: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    if isinstance(source, str | Path):
        if kind_of(Path(source)) == "table":
            terms = auxiliary.parse(aux) if isinstance(aux, str) else ()
            options["beside"] = [name for term in terms for name in term.columns]
            options["known"] = known
        return read(source, **options)
    for name, value in options.items():
        raise SettingsError(f"{name}={value!r}: only files of tables take it; leave it out")
    if isinstance(source, Recording):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        return from_array(*source)
    if hasattr(source, "info") and hasattr(source, "first_samp"):
        recording: Recording = adapter_for("eeg").from_raw(source)
        return recording
    raise InputError(
        f"source of type {type(source).__name__}: give a path, a Recording, an MNE Raw, or "
        "(array of shape (channels, times), sfreq)"
    )


def _fit_data(recording: Recording, aux: Any) -> tuple[Array, Auxiliary]:
    """x and u of the samples to fit on: of a long recording only stretches, end to end."""
    if isinstance(aux, Auxiliary):
        u = aux
    elif aux is not None and not isinstance(aux, str):
        u = auxiliary.from_array(aux, recording.n_times)
    elif auxiliary.is_in_time(aux):
        u = auxiliary.build_many(aux, [recording.part(span) for span in recording.stretches])
    else:
        u = auxiliary.build(aux, recording)
    if not recording.in_memory and u.n_times == recording.n_times:
        u = u.take(np.concatenate([np.arange(s.start, s.stop) for s in recording.stretches]))
    return recording.excerpt(), u


@contextmanager
def _noting() -> Iterator[list[str]]:
    """Collect the texts of sourcesep's warnings; pass all warnings on at the end, each once."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SourcesepWarning)
        try:
            yield notes
        finally:
            ours = (str(w.message) for w in caught if issubclass(w.category, SourcesepWarning))
            notes += dict.fromkeys(ours)
    for w in {(w.category, str(w.message)): w for w in caught}.values():
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
